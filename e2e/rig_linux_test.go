package e2e

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"polyphony/pkg/embedded"
)

// rig is the processes of the whole system, each behind proxies where it uses an engine, and what is done to them.
type rig struct {
	*up       // asks the engines, past all proxies
	seed      uint64
	programs  string // the directory of the programs with seams
	nodes     string
	actors    []*actor
	began     time.Time
	log       *os.File
	streams   map[string]int64 // sizes of those that are not small
	done      map[string]int   // harm, by kind
	refused   atomic.Int64     // requests
	scheduled []due
	pace      time.Duration     // of each who tells
	gentle    bool              // no more plans for processes that start
	poison    map[string]string // by program, what its processes die of
	armed     string            // a file that has ClickHouse end at its next commit, and goes with that
	committed string            // what it is armed with
}

// due is what is to be done later.
type due struct {
	at time.Time
	do func()
}

// actor is one process after the other in one role.
type actor struct {
	name    string // such as "enricher 2"
	program string
	start   func() error
	pid     func() int
	exited  func() bool
	code    func() int // of its exit
	proxies []*proxy
	addr    string        // where it answers HTTP, "" for an engine
	seams   string        // file of the seams that it came to
	held    bool          // paused by the rig
	starts  int           // so far
	stopped time.Duration // how long it is left alone when it stops itself
}

func (a *actor) kill() { _ = syscall.Kill(a.pid(), syscall.SIGKILL) }
func (a *actor) stop() { _ = syscall.Kill(a.pid(), syscall.SIGSTOP) }
func (a *actor) goOn() { _ = syscall.Kill(a.pid(), syscall.SIGCONT) }

func (a *actor) paused() bool {
	_, _, state := readStat(fmt.Sprintf("/proc/%d/stat", a.pid()))
	return state == "T"
}

// newRig prepares everything, two of each service, and starts nothing.
func newRig(t *testing.T, seed uint64) *rig {
	t.Helper()
	programs, err := programsWithSeams()
	if err != nil {
		t.Fatal(err)
	}
	rig := &rig{seed: seed, programs: programs, nodes: companyWith(t, historyCompany, ""), pace: tellerPace, done: map[string]int{}, log: keptLog(t),
		streams: map[string]int64{"MENTIONS": 8 << 30, "FACTS": 2 << 20, "THREADS": 1 << 20, "REJECTS": 2 << 20}}
	rig.up = &up{t: t, data: t.TempDir(), at: map[string]string{}}
	if err := os.WriteFile(filepath.Join(rig.data, "author.key"), []byte("an invented secret of the tests"), 0o600); err != nil {
		t.Fatal(err)
	}
	rig.actors = append(rig.actors, rig.nats(), rig.clickhouse())
	for range 2 {
		for _, program := range []string{"ingester", "enricher", "aggregator"} {
			rig.actors = append(rig.actors, rig.service(program))
		}
	}
	return rig
}

// start starts everybody.
func (rig *rig) start() {
	rig.t.Helper()
	rig.began = time.Now()
	for i, a := range rig.actors {
		if err := a.start(); err != nil {
			rig.t.Fatal(err)
		}
		if i == 0 {
			rig.makeStreams()
		}
	}
}

// makeStreams makes room for all mentions: the copy of a subscriber is compared in the end. The other streams are small, so
// that they come to be full and are purged, unless a test sizes them otherwise.
func (rig *rig) makeStreams() {
	rig.t.Helper()
	rig.await("NATS to make a stream", func() error {
		conn, err := nats.Connect("nats://" + rig.at["nats"])
		if err != nil {
			return err
		}
		defer conn.Close()
		js, err := jetstream.New(conn)
		if err != nil {
			return err
		}
		subjects := map[string]string{"MENTIONS": "social.mentions.*.*", "RAW": "social.raw.*", "FACTS": "social.facts.*", "THREADS": "social.threads.*", "REJECTS": "social.rejects.*.*"}
		for name, size := range rig.streams {
			if _, err := js.CreateStream(rig.t.Context(), jetstream.StreamConfig{Name: name, Subjects: []string{subjects[name]},
				Discard: jetstream.DiscardNew, MaxBytes: size, Duplicates: 2 * time.Minute, AllowDirect: true}); err != nil {
				return err
			}
		}
		return nil
	})
}

// smallStreams is the size of all streams together, the least that services take.
const smallStreams = 40 << 20

// programsWithSeams is the directory of the services built with the tag faults.
var programsWithSeams = sync.OnceValues(func() (string, error) {
	dir := filepath.Join(bin, "faults")
	build := exec.Command("go", "build", "-tags", "faults", "-o", dir+"/", "./services/ingester", "./services/enricher", "./services/aggregator")
	build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the programs with seams: %w\n%s", err, out)
	}
	return dir, nil
})

// process is a child whose end is noticed.
type process struct {
	cmd    *exec.Cmd
	exited chan struct{}
}

func startProcess(cmd *exec.Cmd) (*process, error) {
	endWithTest(cmd)
	p := &process{cmd: cmd, exited: make(chan struct{})}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(p.exited)
		_ = cmd.Wait()
	}()
	return p, nil
}

func (p *process) gone() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// actorOf is an actor whose processes command makes.
func (rig *rig) actorOf(name, program string, command func() *exec.Cmd) *actor {
	a := &actor{name: name, program: program}
	var p *process
	a.start = func() (err error) {
		p, err = startProcess(command())
		return err
	}
	a.pid = func() int { return p.cmd.Process.Pid }
	a.exited = func() bool { return p.gone() }
	a.code = func() int { return p.cmd.ProcessState.ExitCode() }
	rig.t.Cleanup(func() {
		if p != nil && !p.gone() {
			_ = p.cmd.Process.Kill()
			<-p.exited
		}
	})
	return a
}

// nats is a process that is not slowed by the race detector, as the services are none.
func (rig *rig) nats() *actor {
	rig.at["nats"] = freeAddr(rig.t)
	dir := filepath.Join(rig.data, "nats")
	return rig.actorOf("nats", "nats", func() *exec.Cmd {
		cmd := program("nats", "-dir", dir, "-addr", rig.at["nats"])
		cmd.Stdout, cmd.Stderr = rig.log, rig.log
		return cmd
	})
}

func (rig *rig) clickhouse() *actor {
	t := rig.t
	rig.at["clickhouse"], rig.at["clickhouse-http"] = freeAddr(t), freeAddr(t)
	var engine *embedded.ClickHouse
	shim := filepath.Join(t.TempDir(), "commit.so")
	if out, err := exec.Command("cc", "-shared", "-fPIC", "-o", shim, "testdata/commit.c", "-ldl").CombinedOutput(); err != nil {
		t.Fatalf("building what kills ClickHouse as it commits (a C compiler is needed): %v\n%s", err, out)
	}
	rig.armed = filepath.Join(t.TempDir(), "commit")
	a := &actor{name: "clickhouse", program: "clickhouse"}
	a.start = func() error {
		_ = os.Remove(rig.armed)
		started, err := embedded.StartClickHouse(context.Background(), embedded.ClickHouseConfig{Dir: filepath.Join(rig.data, "clickhouse"),
			Env:  []string{"COMMIT_KILL=" + rig.armed, "LD_PRELOAD=" + shim},
			Addr: rig.at["clickhouse"], HTTPAddr: rig.at["clickhouse-http"], Log: slog.New(slog.NewTextHandler(rig.log, nil))})
		if err == nil {
			engine = started
		}
		return err
	}
	a.pid = func() int { return engine.PID() }
	a.exited = func() bool {
		select {
		case <-engine.Done():
			return true
		default:
			return false
		}
	}
	t.Cleanup(func() {
		if engine != nil {
			_ = engine.Close(context.Background())
		}
	})
	return a
}

// service is an actor behind proxies, with a plan for each of its processes.
func (rig *rig) service(program string) *actor {
	t := rig.t
	addr, seamLog := freeAddr(t), filepath.Join(t.TempDir(), "seams")
	toNATS := newProxy(t, rig.at["nats"])
	settings := []string{"POLYPHONY_HTTP_ADDR=" + addr, "POLYPHONY_NATS_URL=nats://" + toNATS.addr(), "POLYPHONY_LOG_LEVEL=warn", "SEAM_LOG=" + seamLog,
		fmt.Sprint("POLYPHONY_STREAM_BYTES=", smallStreams)}
	proxies := []*proxy{toNATS}
	switch program {
	case "ingester":
		settings = append(settings, "POLYPHONY_NODES_DIR="+rig.nodes)
	case "enricher":
		settings = append(settings, "POLYPHONY_AUTHOR_KEY_FILE="+filepath.Join(rig.data, "author.key"))
	case "aggregator":
		toClickHouse := newProxy(t, rig.at["clickhouse"])
		settings = append(settings, "POLYPHONY_CLICKHOUSE_ADDR="+toClickHouse.addr())
		proxies = append(proxies, toClickHouse)
	}
	log, index := keptLog(t), len(rig.actors)
	var a *actor
	a = rig.actorOf(fmt.Sprintf("%s %d", program, len(rig.of(program))+1), program, func() *exec.Cmd {
		cmd := exec.Command(filepath.Join(rig.programs, program))
		if strings.HasPrefix(rig.poison[program], "exhaust") {
			cmd = exec.Command("/bin/sh", "-c", fmt.Sprintf("ulimit -v %d; exec %q", scarce, cmd.Path))
		}
		cmd.Dir, cmd.Env = root, append(environment(), settings...)
		if !rig.gentle && a.starts%8 != 7 { // one of eight is left to chance
			text, lasts := plan(rig.seed, index, a.starts, seams[program], rig.reached(program, "fired "))
			cmd.Env, a.stopped = append(cmd.Env, "SEAM_PLAN="+text), lasts
		}
		if poison := rig.poison[program]; poison != "" {
			cmd.Env = append(cmd.Env, "SEAM_POISON="+poison)
		}
		a.starts++
		cmd.Stdout, cmd.Stderr = log, log
		return cmd
	})
	a.proxies, a.addr, a.seams = proxies, addr, seamLog
	return a
}

func (rig *rig) of(program string) (list []*actor) {
	for _, a := range rig.actors {
		if a.program == program {
			list = append(list, a)
		}
	}
	return list
}

// programsOf names the program of each actor.
func (rig *rig) programsOf() (programs []string) {
	for _, a := range rig.actors {
		programs = append(programs, a.program)
	}
	return programs
}

// readyWait is how long services may take to say that they are ready: what waits for room in a stream says so until others have
// worked off what is in it.
const readyWait = 10 * time.Minute

func (rig *rig) awaitReady() {
	rig.t.Helper()
	rig.awaitReadyFor(readyWait)
}

func (rig *rig) awaitReadyFor(atMost time.Duration) {
	rig.t.Helper()
	for _, a := range rig.actors {
		if a.addr == "" {
			continue
		}
		awaitFor(rig.t, atMost, a.name+" to be ready", func() error {
			response, err := http.Get("http://" + a.addr + "/readyz")
			if err != nil {
				return err
			}
			defer response.Body.Close()
			if response.StatusCode != http.StatusOK {
				return errors.New(response.Status)
			}
			return nil
		})
	}
}

// tend starts what ended, goes on with what stopped itself, and does what is due.
func (rig *rig) tend() {
	rig.t.Helper()
	now := time.Now()
	var later []due
	for _, d := range rig.scheduled {
		if d.at.After(now) {
			later = append(later, d)
		} else {
			d.do()
		}
	}
	rig.scheduled = later
	for _, a := range rig.actors {
		switch {
		case a.exited():
			if a.program == "clickhouse" {
				rig.noteCommit(a)
			}
			if err := a.start(); err != nil {
				rig.t.Fatalf("starting %s again: %v", a.name, err)
			}
			a.held = false
		case !a.held && a.paused():
			rig.note("stop at a seam", a, fmt.Sprint("for ", a.stopped))
			rig.holdFor(a, a.stopped)
		}
	}
}

// killAtCommit has ClickHouse end right before or right after it commits the next part.
func (rig *rig) killAtCommit(what string) {
	rig.committed = what
	if err := os.WriteFile(rig.armed, []byte(strings.Fields(what)[1]), 0o600); err != nil {
		rig.t.Fatal(err)
	}
}

// noteCommit notes that it did so.
func (rig *rig) noteCommit(a *actor) {
	if _, err := os.Stat(rig.armed); rig.committed != "" && errors.Is(err, os.ErrNotExist) {
		rig.note(rig.committed, a, "")
	}
	rig.committed = ""
}

// holdFor leaves a stopped process alone for a while.
func (rig *rig) holdFor(a *actor, lasts time.Duration) {
	a.held = true
	rig.later(lasts, func() {
		a.goOn()
		a.held = false
	})
}

func (rig *rig) later(after time.Duration, do func()) {
	rig.scheduled = append(rig.scheduled, due{time.Now().Add(after), do})
}

// note counts what is done and writes it down.
func (rig *rig) note(what string, a *actor, more string) {
	rig.done[what+" "+a.program]++
	fmt.Fprintf(rig.log, "rig: %v %s %s %s\n", time.Since(rig.began).Round(time.Millisecond), what, a.name, more)
}

// heal lets everything run, without plans that were not carried out yet, and waits until it does.
func (rig *rig) heal() {
	rig.t.Helper()
	rig.gentle = true
	for _, d := range rig.scheduled {
		d.do()
	}
	rig.scheduled = nil
	_ = os.Remove(rig.armed)
	for _, a := range rig.actors {
		if a.addr == "" {
			continue
		}
		a.kill()
		for !a.exited() {
			time.Sleep(pollStep)
		}
	}
	rig.tend()
	rig.awaitReady()
}

// reached counts the seams that actors of a program came to, or that fired.
func (rig *rig) reached(program, what string) map[string]int {
	names := map[string]int{}
	for _, a := range rig.of(program) {
		text, _ := os.ReadFile(a.seams)
		for line := range strings.Lines(string(text)) {
			if name, ok := strings.CutPrefix(strings.TrimSpace(line), what); ok {
				names[name]++
			}
		}
	}
	return names
}

// summary counts what was done, and at which seams of how many processes that came to them.
func (rig *rig) summary() string {
	var b strings.Builder
	for _, kind := range slices.Sorted(maps.Keys(rig.done)) {
		fmt.Fprintf(&b, "%6d %s\n", rig.done[kind], kind)
	}
	for program, list := range seams {
		fired, reached := rig.reached(program, "fired "), rig.reached(program, "reached ")
		for _, name := range list {
			fmt.Fprintf(&b, "%6d of %4d %s: %s\n", fired[name], reached[name], program, name)
		}
	}
	return b.String()
}

// mustLackNothing: whatever died, no aggregator ever took anything for lost.
func (rig *rig) mustLackNothing() {
	rig.t.Helper()
	text, err := os.ReadFile(rig.log.Name())
	if err != nil {
		rig.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, "something that was acknowledged is lost") {
			rig.t.Error(line)
		}
	}
}

// mustKnowItsSeams: nobody came to a seam that is not planned with, and after a long time everybody fell at every one.
func (rig *rig) mustKnowItsSeams(all bool) {
	rig.t.Helper()
	for program, list := range seams {
		for name := range rig.reached(program, "reached ") {
			if !slices.Contains(list, name) {
				rig.t.Errorf("the %s came to the seam %q, which is not among those planned with", program, name)
			}
		}
		fired := rig.reached(program, "fired ")
		for _, name := range list {
			if all && fired[name] == 0 {
				rig.t.Errorf("no %s fell at the seam %q", program, name)
			}
		}
	}
}
