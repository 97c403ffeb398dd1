package nodes

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "write what is found as what is wanted")

// TestFaults loads each directory in testdata/faults and compares its faults with the file "want" of the archive. The
// comment of an archive says what is wrong; company.yaml and territories that it lacks are the usual ones, unless the
// comment begins with "bare".
func TestFaults(t *testing.T) {
	scenarios, err := filepath.Glob("testdata/faults/*.txtar")
	if err != nil || len(scenarios) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, name := range scenarios {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			fsys := fstest.MapFS{}
			if !strings.HasPrefix(string(archive.Comment), "bare") {
				fsys = directory(usual)
			}
			want, at := "", -1
			for i, f := range archive.Files {
				if f.Name == "want" {
					want, at = string(f.Data), i
				} else {
					fsys[f.Name] = &fstest.MapFile{Data: f.Data}
				}
			}
			var faults Faults
			if _, err := Load(fsys); !errors.As(err, &faults) {
				t.Fatalf("want faults, got %v", err)
			}
			got := faults.Error() + "\n"
			if *update {
				if at < 0 {
					archive.Files = append(archive.Files, txtar.File{Name: "want"})
					at = len(archive.Files) - 1
				}
				archive.Files[at].Data = []byte(got)
				if err := os.WriteFile(name, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(strings.Split(want, "\n"), strings.Split(got, "\n")); diff != "" {
				t.Error(diff)
			}
		})
	}
}
