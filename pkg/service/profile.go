package service

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/pprof"
)

// startProfile writes a CPU profile to cpu.pprof in dir until stop; an earlier one there is overwritten. With no dir it
// does nothing. A kill leaves an empty file: the profile is written at the end.
func startProfile(dir string) (stop func(), err error) {
	if dir == "" {
		return func() {}, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, profileError(err)
	}
	file, err := os.Create(filepath.Join(dir, "cpu.pprof"))
	if err != nil {
		return nil, profileError(err)
	}
	if err := pprof.StartCPUProfile(file); err != nil {
		return nil, errors.Join(profileError(err), file.Close())
	}
	return func() {
		pprof.StopCPUProfile()
		_ = file.Close() // nobody's work depends on a profile
	}, nil
}

func profileError(err error) error {
	return &UsageError{fmt.Errorf("POLYPHONY_PROFILE_DIR: %w", err)}
}
