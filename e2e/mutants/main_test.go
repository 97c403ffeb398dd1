package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestFaultsCanBeMade: every fault still applies to the code, and the tests that are to notice it are there. Whether they do is
// what `make mutants` shows.
func TestFaultsCanBeMade(t *testing.T) {
	const root = "../.."
	mutants, err := read(".")
	if err != nil {
		t.Fatal(err)
	}
	command := regexp.MustCompile(`go test -count=1 -run "?([A-Za-z|]+)"? \./(\S+)$`)
	for _, m := range mutants {
		if err := m.patch(root, "--dry-run"); err != nil {
			t.Error(err)
		}
		named := command.FindStringSubmatch(m.test)
		if named == nil {
			t.Errorf("%s: killed by %q, want: go test -count=1 -run TESTS ./PACKAGE", m.name, m.test)
			continue
		}
		files, err := filepath.Glob(filepath.Join(root, named[2], "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		var all strings.Builder
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			all.Write(text)
		}
		for test := range strings.SplitSeq(named[1], "|") {
			if !strings.Contains(all.String(), "func "+test+"(t *testing.T)") {
				t.Errorf("%s: there is no %s in %s", m.name, test, named[2])
			}
		}
	}
}
