package embedded

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const (
	libraryFile = "libchdb.so"
	libraryPath = "deploy/embedded/node_modules/@chdb/lib-linux-x64-gnu/" + libraryFile
)

// engine is what the child is to run: a `clickhouse` binary or the library.
type engine struct {
	mode string // runLibrary or runServer
	path string
}

// findEngine takes bin if it is set, else a `clickhouse` on PATH, else the library of this checkout.
func findEngine(bin string) (engine, error) {
	if bin != "" {
		path, err := exec.LookPath(bin)
		if err != nil {
			return engine{}, fmt.Errorf("POLYPHONY_CLICKHOUSE_BIN names %s, which cannot be run: %w", bin, cause(err))
		}
		return engine{runServer, path}, nil
	}
	if path, err := exec.LookPath("clickhouse"); err == nil {
		return engine{runServer, path}, nil
	}
	if !libraryPlatform {
		return engine{}, errors.New("the bundled ClickHouse exists for linux-x64 only: install `clickhouse` on PATH, or set POLYPHONY_CLICKHOUSE_BIN to its path")
	}
	for _, dir := range libraryDirs() {
		path := filepath.Join(dir.path, dir.file)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return engine{runLibrary, path}, nil
		}
	}
	return engine{}, errors.New("the ClickHouse library is missing: run `make engine` in the checkout, or set POLYPHONY_CLICKHOUSE_BIN to a clickhouse binary")
}

type place struct{ path, file string }

// libraryDirs lists where the library may be: beside this program, in the checkout that bin/ belongs to, and, for
// tests and `go run`, in the checkout around the working directory. Only a checkout of Polyphony counts there: code is
// loaded from it.
func libraryDirs() []place {
	var places []place
	if self, err := os.Executable(); err == nil {
		dir := filepath.Dir(self)
		places = append(places, place{dir, libraryFile}, place{filepath.Dir(dir), libraryPath})
	}
	dir, err := os.Getwd()
	for err == nil {
		if mod, err := os.ReadFile(filepath.Join(dir, "go.mod")); err == nil {
			if strings.HasPrefix(string(mod), "module polyphony\n") {
				places = append(places, place{dir, libraryPath})
			}
			break
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			break
		}
		dir = parent
	}
	return places
}
