package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestCommandLine runs the scripts in testdata: what each command takes, prints and exits with.
func TestCommandLine(t *testing.T) {
	nodes, err := filepath.Abs(filepath.Join(root, "deploy/nodes"))
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			e.Setenv("NODES", nodes)
			e.Setenv("PATH", bin+string(filepath.ListSeparator)+os.Getenv("PATH"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "lines": lines, "jsonline": jsonLine,
		},
	})
}

// exits runs a program that must end with this exit code: exits CODE PROGRAM ARGS...
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARGS...")
	}
	code := 0
	err := ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}

// lines counts those of standard output: lines N.
func lines(ts *testscript.TestScript, neg bool, args []string) {
	if got := strings.Count(ts.ReadFile("stdout"), "\n"); strconv.Itoa(got) != args[0] || neg {
		ts.Fatalf("%d lines, want %s", got, args[0])
	}
}

// jsonLine looks into one line of standard output: jsonline N PATH=VALUE..., where * is any value but none or an empty
// one, and - none.
func jsonLine(ts *testscript.TestScript, neg bool, args []string) {
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	all := strings.Split(ts.ReadFile("stdout"), "\n")
	if neg || n > len(all) {
		ts.Fatalf("line %d of %d", n, len(all))
	}
	var line any
	ts.Check(json.Unmarshal([]byte(all[n-1]), &line))
	for _, arg := range args[1:] {
		path, want, _ := strings.Cut(arg, "=")
		got, ok := "-", false
		if value := dig(line, strings.Split(path, ".")); value != nil {
			got, ok = fmt.Sprint(value), value != ""
		}
		if got != want && !(want == "*" && ok) {
			ts.Fatalf("line %d: %s is %q, want %q\n%s", n, path, got, want, all[n-1])
		}
	}
}

// dig follows keys and indices into decoded JSON; nil is where they lead nowhere.
func dig(value any, path []string) any {
	for _, step := range path {
		switch inner := value.(type) {
		case map[string]any:
			value = inner[step]
		case []any:
			if i, err := strconv.Atoi(step); err != nil || i >= len(inner) {
				return nil
			} else {
				value = inner[i]
			}
		default:
			return nil
		}
	}
	return value
}

// TestSend: files are sent in order and answered in sum; bad lines are shown with their place.
func TestSend(t *testing.T) {
	u := startUp(t)
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	f := func(stdin, wantOut, wantErr string, files ...string) {
		t.Helper()
		cmd := program("polyphony", append([]string{"send", "--http", u.at["http"]}, files...)...)
		cmd.Stdin = strings.NewReader(stdin)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil || string(out) != wantOut || stderr.String() != wantErr {
			t.Errorf("%v: %v, %q, %q\nwant %q, %q", files, err, out, stderr.String(), wantOut, wantErr)
		}
	}
	good := func(id string) string {
		return fmt.Sprintf(`{"id":"%s","source":"forum","kind":"post","time":"%s","text":"Aerilan","author":{"id":"a"}}`, id, time.Now().UTC().Format(time.RFC3339))
	}
	empty, blank := file("empty", ""), file("blank", "\n\n\n")
	two := file("two", good("1")+"\n"+good("2")) // without a last newline
	mixed := file("mixed", good("3")+"\n\nno JSON\n"+good("4")+"\n")
	f("", "accepted 0, rejected 0\n", "", empty)
	f("", "accepted 0, rejected 0\n", "", blank)
	f("", "accepted 2, rejected 0\n", "", two)
	f("", "accepted 4, rejected 1\n", mixed+":3: invalid_json: want a JSON object\n", two, mixed, empty)
	huge := file("huge", good("6")+"\n"+strings.Repeat("x", 17<<20)+"\n"+good("7")+"\n{}\n")
	f("", "accepted 2, rejected 2\n", huge+":2: too_large: event over 1 MiB; not sent\n"+huge+":4: missing_field: source\n", huge)
	f(good("5")+"\n", "accepted 1, rejected 0\n", "", "-")
}

// TestInterrupted: Ctrl-C ends what works for long, at once and with a word.
func TestInterrupted(t *testing.T) {
	// A socket that accepts connections and never answers.
	deaf, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	events := filepath.Join(t.TempDir(), "events.ndjson")
	polyphony(t, "generate", "--events", "100", "--out", events)

	f := func(begun func() error, want string, args ...string) {
		t.Helper()
		cmd := program("polyphony", args...)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer time.AfterFunc(drainTime, func() { _ = cmd.Process.Kill() }).Stop()
		await(t, strings.Join(args, " ")+" to begin", begun)
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		_ = cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(stderr.String(), want) {
			t.Errorf("%v: exit code %d, %s\nwant 1, %s", args, code, &stderr, want)
		}
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("%v took %v to end", args, took)
		}
	}
	out := filepath.Join(t.TempDir(), "slow.ndjson")
	f(func() error {
		if info, err := os.Stat(out); err != nil || info.Size() == 0 {
			return errNone
		}
		return nil
	}, "stopped after", "generate", "--events", "100000", "--rate", "1000", "--out", out)
	f(func() error {
		conn, err := deaf.Accept()
		if err == nil {
			defer conn.Close()
		}
		return err
	}, "accepted", "send", "--http", deaf.Addr().String(), events)

	// Whole lines were written.
	text, err := os.ReadFile(out)
	if err != nil || !strings.HasSuffix(string(text), "\n") {
		t.Errorf("%v, the file ends with %.20q", err, text[max(0, len(text)-20):])
	}
}

// TestPortInUse: whichever of the four ports is taken, up says so in one line that names the address and the flag.
func TestPortInUse(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	f := func(flag string, also ...string) {
		t.Helper()
		args := []string{"up", "--data", t.TempDir()}
		for _, name := range []string{"http", "nats", "clickhouse", "clickhouse-http"} {
			addr := "127.0.0.1:0"
			if name == flag || slices.Contains(also, name) {
				addr = taken.Addr().String()
			}
			args = append(args, "--"+name, addr)
		}
		cmd := program("polyphony", args...)
		cmd.Env = append(cmd.Env, "POLYPHONY_LOG_LEVEL=error")
		var stderr strings.Builder
		cmd.Stderr = &stderr
		defer time.AfterFunc(readyTime, func() { _ = cmd.Process.Signal(syscall.SIGTERM) }).Stop()
		out, _ := cmd.Output()
		said := stderr.String()
		if code := cmd.ProcessState.ExitCode(); code != 1 || len(out) > 0 || strings.Count(said, "\n") != 1 ||
			!strings.HasPrefix(said, "polyphony: ") || !strings.Contains(said, taken.Addr().String()) || !regexp.MustCompile("--"+flag+`\b[^-]`).MatchString(said) {
			t.Errorf("--%s: exit code %d, %q, %q", flag, code, out, said)
		}
	}
	f("http")
	f("nats")
	f("clickhouse")
	f("clickhouse-http")
	f("nats", "clickhouse", "clickhouse-http") // the first to mend is enough to say
}
