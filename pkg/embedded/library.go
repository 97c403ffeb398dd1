package embedded

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

const (
	libraryInCheckout = "deploy/embedded/node_modules/@chdb/lib-linux-x64-gnu/libchdb.so"
	// oldestServer is the oldest release of a `clickhouse` binary that Polyphony's tables and queries are tried with.
	oldestServer = "26.7"
)

// engine is what the child is to run: a `clickhouse` binary or the library.
type engine struct {
	mode    string // runLibrary or runServer
	path    string
	version string // of the binary; the library tells its own when it is loaded
}

// findEngine takes bin if it is set, else a `clickhouse` on PATH that is new enough, else the library of this checkout.
func findEngine(bin string, log *slog.Logger) (engine, error) {
	if bin != "" {
		return namedServer(bin)
	}
	if path, err := exec.LookPath("clickhouse"); err == nil {
		if found, err := namedServer(path); err == nil {
			return found, nil
		} else {
			log.Info("not using the clickhouse on PATH", "reason", err)
		}
	}
	if !libraryPlatform {
		return engine{}, fmt.Errorf("the bundled ClickHouse exists for linux-x64 only: install `clickhouse` %s or later on PATH, or set POLYPHONY_CLICKHOUSE_BIN to its path", oldestServer)
	}
	for _, path := range libraryPaths() {
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return engine{mode: runLibrary, path: path}, nil
		}
	}
	return engine{}, errors.New("the ClickHouse library is missing: run `make engine` in the checkout, or set POLYPHONY_CLICKHOUSE_BIN to a clickhouse binary")
}

// libraryPaths lists where the library may be: beside this program, in the checkout that bin/ belongs to, and, for
// tests and `go run`, in the checkout around the working directory. Only a checkout of Polyphony counts there: code is
// loaded from it.
func libraryPaths() []string {
	var paths []string
	if self, err := os.Executable(); err == nil {
		dir := filepath.Dir(self)
		paths = append(paths, filepath.Join(dir, "libchdb.so"), filepath.Join(filepath.Dir(dir), libraryInCheckout))
	}
	dir, err := os.Getwd()
	for up := ""; err == nil && dir != up; dir, up = filepath.Dir(dir), dir {
		if mod, err := os.ReadFile(filepath.Join(dir, "go.mod")); err == nil && strings.HasPrefix(string(mod), "module polyphony\n") {
			paths = append(paths, filepath.Join(dir, libraryInCheckout))
		}
	}
	return paths
}

func namedServer(bin string) (engine, error) {
	path, err := exec.LookPath(bin)
	if err != nil {
		return engine{}, fmt.Errorf("cannot run %s: %w; set POLYPHONY_CLICKHOUSE_BIN to a clickhouse binary, or leave it empty to use the library of `make engine`", bin, cause(err))
	}
	version, err := serverVersion(path)
	if err != nil {
		return engine{}, err
	}
	if newer(oldestServer, version) {
		return engine{}, fmt.Errorf("%s is ClickHouse %s, and Polyphony needs %s or later: install a newer one, or use the library of `make engine`", path, version, oldestServer)
	}
	return engine{mode: runServer, path: path, version: version}, nil
}

// serverVersion asks a clickhouse binary for its version, such as 26.7.2.1.
func serverVersion(bin string) (string, error) {
	out, err := exec.Command(bin, "server", "--version").Output()
	if err != nil {
		return "", fmt.Errorf("%s does not tell its version (%w); is it ClickHouse?", bin, err)
	}
	for _, word := range bytes.Fields(out) {
		if major, _, ok := bytes.Cut(word, []byte(".")); ok && len(major) > 0 && major[0] >= '0' && major[0] <= '9' {
			return strings.TrimRight(string(word), ".,"), nil
		}
	}
	return "", fmt.Errorf("%s does not tell its version; is it ClickHouse?", bin)
}

// newer compares the first two parts, year and month; patches of a release read each other's data.
func newer(a, b string) bool {
	am, an := release(a)
	bm, bn := release(b)
	return am > bm || am == bm && an > bn
}

func release(version string) (year, month int) {
	parts := append(strings.Split(version, "."), "", "")
	year, _ = strconv.Atoi(parts[0])
	month, _ = strconv.Atoi(parts[1])
	return year, month
}
