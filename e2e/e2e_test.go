// Package e2e tests the whole system from outside: the real programs as processes, events in over HTTP, metrics out
// over SQL, mentions out over NATS. What must come out is known from `polyphony generate --truth` or from the test
// itself, never from the pipeline's own code.
//
//	go test -count=1 -timeout 300s ./e2e            # -short for fewer events
package e2e

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"polyphony/pkg/embedded"
	// What the programs are made of: without them the result of a test would be taken for good after they changed.
	_ "polyphony/services/aggregator/aggregate"
	_ "polyphony/services/enricher/enrich"
	_ "polyphony/services/ingester/ingest"
)

// root is where the programs run: `polyphony` finds the engine and the example company there, as in a checkout.
const root = ".."

// bin is the directory of the programs under test.
var bin string

func TestMain(m *testing.M) {
	embedded.RunChildIfAsked()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "polyphony-e2e-bin-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	build := exec.Command("go", "build", "-o", dir+"/", "./services/ingester", "./services/enricher", "./services/aggregator", "./services/polyphony",
		"./deploy/examples/subscriber", "./e2e/nats")
	build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building the programs: %v\n%s", err, out)
		return 1
	}
	bin = dir
	code := m.Run()
	http.DefaultClient.CloseIdleConnections()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, "goroutines left behind:", err)
			code = 1
		}
	}
	return code
}

// program is a command line of one of the programs, with no setting of ours in its environment.
func program(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(bin, name), args...)
	cmd.Dir, cmd.Env = root, environment()
	endWithTest(cmd)
	return cmd
}

// environment is that of the test without settings that would change the programs' behaviour; a ClickHouse binary to
// test with stays named.
func environment() []string {
	var kept []string
	for _, entry := range os.Environ() {
		if !isSetting(entry) {
			kept = append(kept, entry)
		}
	}
	return kept
}

// polyphony runs a command that must succeed and gives its standard output.
func polyphony(t *testing.T, args ...string) string {
	t.Helper()
	cmd := program("polyphony", args...)
	out, err := cmd.Output()
	if err != nil {
		stderr := ""
		if exit, ok := err.(*exec.ExitError); ok {
			stderr = string(exit.Stderr)
		}
		t.Fatalf("polyphony %v: %v\n%s%s", args, err, out, stderr)
	}
	return string(out)
}
