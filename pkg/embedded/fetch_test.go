package embedded_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const enginePackage = "@chdb/lib-linux-x64-gnu"

// TestFetch runs deploy/embedded/fetch.sh against a registry on this machine. Whatever goes wrong, it ends with one
// line that names the remedy.
func TestFetch(t *testing.T) {
	if _, err := exec.LookPath("npm"); err != nil {
		t.Skip("npm is missing here, so nothing could have been fetched")
	}
	whole := archive(t, "package/libchdb.so")
	f := func(name string, b fetchBundle, ok bool, want string) {
		t.Run(name, func(t *testing.T) {
			b.t = t
			got, err := b.run()
			lines := strings.Split(strings.TrimSpace(got), "\n")
			last := lines[len(lines)-1]
			if !strings.Contains(last, want) {
				t.Errorf("the last of these lines does not hold %q:\n%s", want, got)
			}
			if (err == nil) != ok {
				t.Errorf("exit: %v", err)
			}
		})
	}
	f("good", fetchBundle{archive: whole, wanted: whole}, true, "ClickHouse is in deploy/embedded/node_modules/"+enginePackage+"/libchdb.so")
	f("tampered", fetchBundle{archive: archive(t, "package/libchdb.so", "package/more"), wanted: whole}, false, "does not match package-lock.json (broken, or not what was pinned): run 'npm cache clean --force'")
	f("cut off", fetchBundle{archive: whole[:len(whole)/2], wanted: whole}, false, "does not match package-lock.json (broken, or not what was pinned): run")
	f("without the library", fetchBundle{archive: archive(t, "package/else"), wanted: archive(t, "package/else")}, false, "the package came without")
	f("lock and package disagree", fetchBundle{archive: whole, wanted: whole, version: "26.8.1"}, false, "disagree: run 'npm install --package-lock-only'")
	f("offline", fetchBundle{wanted: whole}, false, "registry cannot be reached (ECONNREFUSED): check the network")
	f("no npm", fetchBundle{archive: whole, wanted: whole, without: "npm"}, false, "npm is missing: install Node.js with npm")
	f("no npm but a server", fetchBundle{wanted: whole, without: "npm", bin: "/opt/clickhouse"}, true, "using /opt/clickhouse")
	f("another platform", fetchBundle{archive: whole, wanted: whole, uname: "Darwin-arm64"}, false, "linux-x64 only: install 'clickhouse' on PATH, or set POLYPHONY_CLICKHOUSE_BIN")
	f("another platform with a server", fetchBundle{uname: "Darwin-arm64", wanted: whole, bin: "/opt/clickhouse"}, true, "using /opt/clickhouse")
}

// TestFetchOnce: what is here is not fetched again, unless the lock file pins something else.
func TestFetchOnce(t *testing.T) {
	if _, err := exec.LookPath("npm"); err != nil {
		t.Skip("npm is missing here, so nothing could have been fetched")
	}
	first := archive(t, "package/libchdb.so")
	b := fetchBundle{t: t, archive: first, wanted: first}
	if got, err := b.run(); err != nil || !strings.Contains(got, "fetching ClickHouse 26.7.3-stable.1") {
		t.Fatalf("%s, %v", got, err)
	}
	if got, err := b.run(); err != nil || got != "" {
		t.Errorf("the second time: %s, %v", got, err)
	}
	b.archive = archive(t, "package/libchdb.so", "package/more")
	b.wanted = b.archive
	if got, err := b.run(); err != nil || !strings.Contains(got, "fetching") {
		t.Errorf("with another lock file: %s, %v", got, err)
	}
	if err := os.Remove(filepath.Join(b.dir, "node_modules", enginePackage, "libchdb.so")); err != nil {
		t.Fatal(err)
	}
	if got, err := b.run(); err != nil || !strings.Contains(got, "fetching") {
		t.Errorf("without the library: %s, %v", got, err)
	}
}

// TestLockFile: hashes for everything, download addresses for nothing.
func TestLockFile(t *testing.T) {
	text, err := os.ReadFile("../../deploy/embedded/package-lock.json")
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(text, []byte("://")) || bytes.Contains(text, []byte(`"resolved"`)) {
		t.Error("package-lock.json holds a download address")
	}
	var lock struct {
		Packages map[string]struct{ Version, Integrity string }
	}
	if err := json.Unmarshal(text, &lock); err != nil {
		t.Fatal(err)
	}
	if len(lock.Packages) != 2 {
		t.Errorf("%d packages are pinned, want the engine and nothing else", len(lock.Packages)-1)
	}
	if got := lock.Packages["node_modules/"+enginePackage]; !strings.HasPrefix(got.Integrity, "sha512-") || got.Version == "" {
		t.Errorf("the engine is pinned as %+v", got)
	}
}

// fetchBundle is a copy of deploy/embedded whose lock file wants one archive, and a registry that delivers another.
type fetchBundle struct {
	t       *testing.T
	archive []byte // nil: no registry answers
	wanted  []byte
	version string // in package.json, if not the real one
	without string // a program that is not on PATH
	uname   string // "SYSTEM-MACHINE", if not the real one
	bin     string // POLYPHONY_CLICKHOUSE_BIN
	dir     string
}

func (b *fetchBundle) run() (output string, err error) {
	b.t.Helper()
	const source = "../../deploy/embedded"
	if b.dir == "" {
		b.dir = b.t.TempDir()
	}
	for _, file := range []string{"package.json", "package-lock.json", ".npmrc", "fetch.sh"} {
		text, err := os.ReadFile(filepath.Join(source, file))
		if err != nil {
			b.t.Fatal(err)
		}
		switch {
		case file == "package-lock.json":
			text = regexp.MustCompile(`sha512-[^"]*`).ReplaceAll(text, []byte(integrity(b.wanted)))
		case file == "package.json" && b.version != "":
			text = regexp.MustCompile(`26\.7\.3-stable\.1`).ReplaceAll(text, []byte(b.version))
		}
		if err := os.WriteFile(filepath.Join(b.dir, file), text, 0o755); err != nil {
			b.t.Fatal(err)
		}
	}
	registry := "http://127.0.0.1:1"
	if b.archive != nil {
		registry = serveRegistry(b.t, b.archive)
	}
	cmd := exec.Command("/bin/sh", filepath.Join(b.dir, "fetch.sh"))
	cmd.Env = []string{
		"PATH=" + b.path(), "HOME=" + b.t.TempDir(),
		"npm_config_registry=" + registry, "npm_config_cache=" + b.t.TempDir(), "npm_config_fetch_retries=0",
		"POLYPHONY_CLICKHOUSE_BIN=" + b.bin,
	}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// path is a directory with the programs that fetch.sh may use.
func (b *fetchBundle) path() string {
	dir := b.t.TempDir()
	for _, name := range []string{"sh", "node", "npm", "dirname", "uname", "sha256sum", "cat", "sed", "head", "cut", "du", "mktemp", "rm", "sleep"} {
		path, err := exec.LookPath(name)
		if err != nil {
			b.t.Fatal(err)
		}
		if name == b.without {
			continue
		}
		if err := os.Symlink(path, filepath.Join(dir, name)); err != nil {
			b.t.Fatal(err)
		}
	}
	if system, machine, ok := strings.Cut(b.uname, "-"); ok {
		script := fmt.Sprintf("#!/bin/sh\ncase $1 in -s) echo %s ;; *) echo %s ;; esac\n", system, machine)
		os.Remove(filepath.Join(dir, "uname"))
		writeFile(b.t, filepath.Join(dir, "uname"), script)
		if err := os.Chmod(filepath.Join(dir, "uname"), 0o755); err != nil {
			b.t.Fatal(err)
		}
	}
	return dir
}

// serveRegistry is a package registry with one version of one package.
func serveRegistry(t *testing.T, archive []byte) (url string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, ".tgz") {
			w.Write(archive)
			return
		}
		const version = "26.7.3-stable.1"
		json.NewEncoder(w).Encode(map[string]any{
			"name":      enginePackage,
			"dist-tags": map[string]string{"latest": version},
			"versions": map[string]any{version: map[string]any{
				"name": enginePackage, "version": version,
				"dist": map[string]string{"tarball": "http://" + r.Host + "/engine.tgz", "integrity": integrity(archive)},
			}},
		})
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// archive is a package archive with the given files.
func archive(t *testing.T, files ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	zip := gzip.NewWriter(&b)
	pack := tar.NewWriter(zip)
	add := func(name, text string) {
		if err := pack.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text))}); err != nil {
			t.Fatal(err)
		}
		if _, err := pack.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	add("package/package.json", `{"name":"`+enginePackage+`","version":"26.7.3-stable.1"}`)
	for _, file := range files {
		add(file, strings.Repeat("engine", 1000))
	}
	if err := pack.Close(); err != nil {
		t.Fatal(err)
	}
	if err := zip.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func integrity(archive []byte) string {
	sum := sha512.Sum512(archive)
	return "sha512-" + base64.StdEncoding.EncodeToString(sum[:])
}
