package service

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestProfile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	stop, err := startProfile(dir)
	if err != nil {
		t.Fatal(err)
	}
	stop()
	// A CPU profile is compressed with gzip.
	if profile, err := os.ReadFile(filepath.Join(dir, "cpu.pprof")); err != nil || len(profile) < 2 || profile[0] != 0x1f || profile[1] != 0x8b {
		t.Errorf("no profile: %v, %d bytes", err, len(profile))
	}

	if stop, err = startProfile(""); err != nil {
		t.Fatal(err)
	}
	stop()

	file := filepath.Join(dir, "cpu.pprof")
	var usage *UsageError
	if _, err := startProfile(file); !errors.As(err, &usage) {
		t.Errorf("a file as directory: %v, want a usage error", err)
	}
}
