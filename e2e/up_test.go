package e2e

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	// readyTime bounds a start: half a second, more on a busy machine, and 10 s of grace for a predecessor.
	readyTime = 60 * time.Second
	// drainTime bounds a drain: requests in progress, groups, one flush and the engines.
	drainTime = 30 * time.Second
	// pollStep is how often what another process does is looked at, at first; the longer it takes the more seldom, at least every
	// pollMost: to look costs those who are waited for, by a tenth of the time at most.
	pollStep = 20 * time.Millisecond
	pollMost = time.Second
)

// up is one `polyphony up` after the other on one data directory and on the same addresses.
type up struct {
	t      *testing.T
	data   string
	flags  []string
	env    []string // settings
	log    *os.File
	at     map[string]string // addresses by the words of the ready line
	cmd    *exec.Cmd
	engine int // process id of the ClickHouse child, once it is known
	exited chan struct{}
}

// startUp starts `polyphony up` on a directory of its own and waits until it is ready. When the test ends it must
// drain in good order. Its log is kept when the test fails.
func startUp(t *testing.T, flags ...string) *up {
	t.Helper()
	u := newUp(t, flags...)
	u.start()
	return u
}

// newUp prepares what startUp starts.
func newUp(t *testing.T, flags ...string) *up {
	t.Helper()
	u := &up{t: t, data: t.TempDir(), flags: flags, log: keptLog(t), at: map[string]string{}}
	t.Cleanup(u.stop)
	return u
}

// keptLog is a file that outlives a failed test.
func keptLog(t *testing.T) *os.File {
	t.Helper()
	name := strings.ReplaceAll(t.Name(), "/", "-")
	file, err := os.CreateTemp("", "polyphony-e2e-"+name+"-*.log")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		defer file.Close()
		if !t.Failed() {
			_ = os.Remove(file.Name())
			return
		}
		text, _ := os.ReadFile(file.Name())
		lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
		t.Logf("the log is %s; it ends with\n%s", file.Name(), bytes.Join(lines[max(0, len(lines)-20):], []byte("\n")))
	})
	return file
}

// start starts the process and waits until it is ready.
func (u *up) start() {
	u.t.Helper()
	ready := u.launch()
	select {
	case line, ok := <-ready:
		if !ok {
			<-u.exited
			u.t.Fatalf("up ended before it was ready: %v", u.cmd.ProcessState)
		}
		for _, word := range strings.Fields(line)[1:] {
			name, addr, _ := strings.Cut(word, "=")
			u.at[name] = addr
		}
	case <-time.After(readyTime):
		u.t.Fatalf("not ready after %v", readyTime)
	}
	for _, name := range []string{"http", "nats", "clickhouse", "clickhouse-http"} {
		if u.at[name] == "" {
			u.t.Fatalf("the ready line lacks %s: %v", name, u.at)
		}
	}
	u.awaitEngine()
}

// launch starts the process. The ready line comes through the channel, which closes when standard output does.
func (u *up) launch() <-chan string {
	u.t.Helper()
	args := []string{"up", "--data", u.data}
	for _, name := range []string{"http", "nats", "clickhouse", "clickhouse-http"} {
		addr := u.at[name]
		if addr == "" {
			addr = "127.0.0.1:0"
		}
		args = append(args, "--"+name, addr)
	}
	u.cmd = program("polyphony", append(args, u.flags...)...)
	u.cmd.Env = append(u.cmd.Env, u.env...)
	u.cmd.Stderr = u.log
	out, err := u.cmd.StdoutPipe()
	if err != nil {
		u.t.Fatal(err)
	}
	if err := u.cmd.Start(); err != nil {
		u.t.Fatal(err)
	}
	ready, exited, cmd := make(chan string, 1), make(chan struct{}), u.cmd
	u.exited, u.engine = exited, 0
	go func() {
		defer close(exited)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			fmt.Fprintln(u.log, "stdout:", lines.Text())
			if strings.HasPrefix(lines.Text(), "ready ") {
				ready <- lines.Text()
			}
		}
		close(ready)
		_ = cmd.Wait()
	}()
	return ready
}

// kill ends the process as a power switch would, this very moment, and waits until its engine is gone too.
func (u *up) kill() {
	u.t.Helper()
	if err := u.cmd.Process.Kill(); err != nil {
		u.t.Fatal(err)
	}
	<-u.exited
	u.await("the engine to end with its parent", func() error {
		if u.engine != 0 && alive(u.engine) {
			return errors.New("it lives")
		}
		return nil
	})
}

// drain asks the process to end; it must do so with exit code 0 and in time.
func (u *up) drain() {
	u.t.Helper()
	if err := u.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		u.t.Fatal(err)
	}
	select {
	case <-u.exited:
	case <-time.After(drainTime):
		_ = u.cmd.Process.Signal(syscall.SIGQUIT) // it ends with its stacks in the log
		<-u.exited
		u.t.Fatalf("not drained after %v", drainTime)
	}
	if code := u.cmd.ProcessState.ExitCode(); code != 0 {
		u.t.Fatalf("exit code %d after a drain", code)
	}
}

// stop is the end of every test.
func (u *up) stop() {
	if u.cmd == nil || u.cmd.Process == nil {
		return
	}
	select {
	case <-u.exited:
		return
	default:
	}
	if u.t.Failed() {
		u.kill()
		return
	}
	u.drain()
}

// awaitEngine waits for a ClickHouse child that is not the one known.
func (u *up) awaitEngine() {
	u.t.Helper()
	u.await("a ClickHouse child", func() error {
		for _, pid := range childrenOf(u.cmd.Process.Pid) {
			comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
			if pid != u.engine && strings.HasPrefix(string(comm), "polyphony-click") { // 15 letters is all that the kernel keeps
				u.engine = pid
				return nil
			}
		}
		return errNone
	})
}

// killEngine kills the ClickHouse child alone, and waits until its successor answers.
func (u *up) killEngine() {
	u.t.Helper()
	if err := syscall.Kill(u.engine, syscall.SIGKILL); err != nil {
		u.t.Fatal(err)
	}
	u.awaitEngine()
	u.await("ClickHouse to answer again", func() error {
		_, err := ask(u.t.Context(), u.at["clickhouse-http"], "SELECT 1")
		return err
	})
}

func childrenOf(parent int) (pids []int) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		if pid, ppid, _ := readStat(path); ppid == parent {
			pids = append(pids, pid)
		}
	}
	return pids
}

func alive(pid int) bool {
	_, _, state := readStat(fmt.Sprintf("/proc/%d/stat", pid))
	return state != "" && state != "Z"
}

// readStat reads a line like "12 (a name) S 1 ...": pid, name, state, parent.
func readStat(path string) (pid, ppid int, state string) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, 0, ""
	}
	head, tail, _ := strings.Cut(string(text), " (")
	fields := strings.Fields(tail[strings.LastIndex(tail, ")")+1:])
	pid, _ = strconv.Atoi(head)
	ppid, _ = strconv.Atoi(fields[1])
	return pid, ppid, fields[0]
}

// await polls until check is content, for at most a minute: a dead reader's messages take ten seconds to come again.
func (u *up) await(what string, check func() error) {
	u.t.Helper()
	await(u.t, what, check)
}

// errNone says that what is waited for is not there yet.
var errNone = errors.New("not yet")

func await(t *testing.T, what string, check func() error) {
	t.Helper()
	awaitFor(t, time.Minute, what, check)
}

func awaitFor(t *testing.T, atMost time.Duration, what string, check func() error) {
	t.Helper()
	began := time.Now()
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Since(began) > atMost {
			t.Fatalf("waiting for %s: %v", what, err)
		}
		time.Sleep(min(max(pollStep, time.Since(began)/10), pollMost))
	}
}

// get asks the HTTP address and gives the status and the body.
func (u *up) get(path string) (int, string) {
	u.t.Helper()
	response, err := http.Get("http://" + u.at["http"] + path)
	if err != nil {
		u.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		u.t.Fatal(err)
	}
	return response.StatusCode, string(body)
}
