package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"polyphony/pkg/embedded"
)

// TestFaults: two of each service, NATS and ClickHouse, each a process of its own, are killed and paused, by chance and at
// every seam, and their connections are cut, stalled and half closed, while histories are told; in the end everything that
// was accepted is counted as the histories say. POLYPHONY_TEST_FAULTS is how long it goes on, _SEED what happens.
//
//	make faults DURATION=1h SEED=1
func TestFaults(t *testing.T) {
	text := os.Getenv("POLYPHONY_TEST_FAULTS")
	if text == "" {
		t.Skip("runs by `make faults`")
	}
	lasts, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	seed := setting(t, "SEED", 1)
	rig := newRig(t, uint64(seed))
	rig.awaitReady()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var all []told
	var telling sync.WaitGroup
	telling.Go(func() { all = rig.tellHistories(ctx, rand.New(rand.NewPCG(uint64(seed), 1))) })
	rig.harm(lasts)
	stop()
	rig.heal()
	telling.Wait()
	rig.settle()
	t.Logf("seed %d: %d histories, %d requests answered otherwise than 202\n%s", seed, len(all), rig.refused, rig.summary())
	copyFile := filepath.Join(t.TempDir(), "copy")
	rig.copied("--file", copyFile)
	rig.mustShow(all, copyFile)
}

// rig is the processes of the whole system, and what is done to them.
type rig struct {
	*up       // asks the engines, past all proxies
	r         *rand.Rand
	programs  string // the directory of the programs with seams
	nodes     string
	actors    []*actor
	began     time.Time
	done      map[string]int // harm, by kind
	refused   int
	log       *os.File
	scheduled []deed
	gentle    bool              // no more plans for processes that start
	atCommit  func(when string) // has ClickHouse killed before or after the next commit of a part
}

// actor is one process after the other in one role.
type actor struct {
	name    string // such as "enricher 2"
	program string
	start   func() error
	signal  func(syscall.Signal) error
	exited  func() bool
	paused  func() bool
	proxies []*proxy
	addr    string // where it answers HTTP
	seams   string // file of the seams that it came to
	held    bool   // paused by the rig
}

// deed is what is to be done later.
type deed struct {
	at time.Time
	do func()
}

func newRig(t *testing.T, seed uint64) *rig {
	t.Helper()
	rig := &rig{r: rand.New(rand.NewPCG(seed, 0)), programs: programsWithSeams(t), nodes: companyWith(t, historyCompany, ""), done: map[string]int{}, log: keptLog(t)}
	rig.up = &up{t: t, data: t.TempDir(), at: map[string]string{}}
	if err := os.WriteFile(filepath.Join(rig.data, "author.key"), []byte("an invented secret of the tests"), 0o600); err != nil {
		t.Fatal(err)
	}
	rig.actors = append(rig.actors, rig.nats(), rig.clickhouse())
	for i := range 2 {
		for _, program := range []string{"ingester", "enricher", "aggregator"} {
			rig.actors = append(rig.actors, rig.service(program, i))
		}
	}
	rig.began = time.Now()
	for _, a := range rig.actors {
		if err := a.start(); err != nil {
			t.Fatal(err)
		}
	}
	return rig
}

// programsWithSeams builds the services with the tag faults.
func programsWithSeams(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	build := exec.Command("go", "build", "-tags", "faults", "-o", dir+"/", "./services/ingester", "./services/enricher", "./services/aggregator")
	build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the programs with seams: %v\n%s", err, out)
	}
	return dir
}

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
	a.signal = func(s syscall.Signal) error { return p.cmd.Process.Signal(s) }
	a.exited = func() bool { return p.gone() }
	a.paused = func() bool {
		_, _, state := readStat(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
		return state == "T"
	}
	rig.t.Cleanup(func() {
		if p != nil && !p.gone() {
			_ = p.cmd.Process.Kill()
			<-p.exited
		}
	})
	return a
}

// nats is this test's program again: see runNATSIfAsked.
func (rig *rig) nats() *actor {
	rig.at["nats"] = freeAddr(rig.t)
	dir := filepath.Join(rig.data, "nats")
	return rig.actorOf("nats", "nats", func() *exec.Cmd {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(environment(), "E2E_NATS_DIR="+dir, "E2E_NATS_ADDR="+rig.at["nats"])
		cmd.Stdout, cmd.Stderr = rig.log, rig.log
		return cmd
	})
}

func (rig *rig) clickhouse() *actor {
	t := rig.t
	rig.at["clickhouse"], rig.at["clickhouse-http"] = freeAddr(t), freeAddr(t)
	var engine *embedded.ClickHouse
	shim, armed := filepath.Join(t.TempDir(), "commit.so"), filepath.Join(t.TempDir(), "commit")
	if out, err := exec.Command("cc", "-shared", "-fPIC", "-o", shim, "testdata/commit.c", "-ldl").CombinedOutput(); err != nil {
		t.Fatalf("building what kills ClickHouse as it commits: %v\n%s", err, out)
	}
	t.Setenv("COMMIT_KILL", armed)
	rig.atCommit = func(when string) {
		rig.note("kill clickhouse " + when + " a commit")
		if err := os.WriteFile(armed, []byte(when), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	a := &actor{name: "clickhouse", program: "clickhouse"}
	a.start = func() error {
		_ = os.Remove(armed)
		t.Setenv("LD_PRELOAD", shim)
		defer t.Setenv("LD_PRELOAD", "")
		started, err := embedded.StartClickHouse(context.Background(), embedded.ClickHouseConfig{Dir: filepath.Join(rig.data, "clickhouse"),
			Addr: rig.at["clickhouse"], HTTPAddr: rig.at["clickhouse-http"], Log: slog.New(slog.NewTextHandler(rig.log, nil))})
		if err == nil {
			engine = started
		}
		return err
	}
	a.signal = func(s syscall.Signal) error { return syscall.Kill(engine.PID(), s) }
	a.exited = func() bool {
		select {
		case <-engine.Done():
			return true
		default:
			return false
		}
	}
	a.paused = func() bool {
		_, _, state := readStat(fmt.Sprintf("/proc/%d/stat", engine.PID()))
		return state == "T"
	}
	t.Cleanup(func() {
		if engine != nil {
			_ = engine.Close(context.Background())
		}
	})
	return a
}

// service is an actor behind proxies, with a plan for each of its processes.
func (rig *rig) service(program string, n int) *actor {
	t := rig.t
	addr, seams := freeAddr(t), filepath.Join(t.TempDir(), "seams")
	toNATS := newProxy(t, rig.at["nats"])
	settings := []string{"POLYPHONY_HTTP_ADDR=" + addr, "POLYPHONY_NATS_URL=nats://" + toNATS.addr(), "POLYPHONY_LOG_LEVEL=warn", "SEAM_LOG=" + seams}
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
	log := keptLog(t)
	var a *actor
	a = rig.actorOf(fmt.Sprintf("%s %d", program, n+1), program, func() *exec.Cmd {
		cmd := exec.Command(filepath.Join(rig.programs, program))
		cmd.Dir, cmd.Env = root, append(environment(), settings...)
		if plan := rig.plan(a); plan != "" {
			cmd.Env = append(cmd.Env, "SEAM_PLAN="+plan)
		}
		cmd.Stdout, cmd.Stderr = log, log
		return cmd
	})
	a.proxies, a.addr, a.seams = proxies, addr, seams
	return a
}

// plan is where the next process of an actor is to end, for two of three: at one of the seams that its like came to.
func (rig *rig) plan(a *actor) string {
	if rig.gentle || rig.r.IntN(3) == 0 {
		return ""
	}
	var seams []string
	for name := range rig.reached(a.program, "reached ") {
		seams = append(seams, name)
	}
	if len(seams) == 0 {
		return ""
	}
	slices.Sort(seams)
	how := []string{"kill", "kill", "kill", "stop"}[rig.r.IntN(4)]
	return fmt.Sprintf("%s,%d,%s", seams[rig.r.IntN(len(seams))], 1+rig.r.IntN(1<<rig.r.IntN(5)), how)
}

// reached counts the seams that actors of a program came to, or that fired.
func (rig *rig) reached(program, what string) map[string]int {
	names := map[string]int{}
	for _, a := range rig.actors {
		if a.program != program || a.seams == "" {
			continue
		}
		text, _ := os.ReadFile(a.seams)
		for line := range strings.Lines(string(text)) {
			if name, ok := strings.CutPrefix(strings.TrimSpace(line), what); ok {
				names[name]++
			}
		}
	}
	return names
}

func (rig *rig) awaitReady() {
	rig.t.Helper()
	for _, a := range rig.actors {
		if a.addr == "" {
			continue
		}
		rig.await(a.name+" to be ready", func() error {
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

// longPause is longer than every time-out on the way: what a paused process was about to do was done by others meanwhile.
const longPause = 14 * time.Second

// harm does one thing after the other for a while. Whatever ends is started again.
func (rig *rig) harm(lasts time.Duration) {
	end := time.Now().Add(lasts)
	next := time.Now()
	for tick := time.NewTicker(pollStep); time.Now().Before(end); <-tick.C {
		rig.tend()
		if time.Now().Before(next) {
			continue
		}
		next = time.Now().Add(time.Duration(50+rig.r.IntN(400)) * time.Millisecond)
		a := rig.actors[rig.r.IntN(len(rig.actors))]
		if a.held || a.exited() {
			continue
		}
		switch k := rig.r.IntN(10); {
		case k < 3 && a.program == "clickhouse":
			rig.atCommit([]string{"before", "after"}[rig.r.IntN(2)])
		case k < 4:
			rig.note("kill " + a.name)
			_ = a.signal(syscall.SIGKILL)
		case k < 6:
			rig.pause(a)
		case len(a.proxies) > 0:
			rig.spoil(a, a.proxies[rig.r.IntN(len(a.proxies))])
		}
	}
}

// tend starts what ended, goes on with what stopped itself, and does what is due.
func (rig *rig) tend() {
	rig.t.Helper()
	now := time.Now()
	var later []deed
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
			if err := a.start(); err != nil {
				rig.t.Fatalf("starting %s again: %v", a.name, err)
			}
			a.held = false
		case !a.held && a.paused():
			rig.note("stopped at a seam: " + a.name)
			rig.holdFor(a, rig.pauseTime())
		}
	}
}

func (rig *rig) pauseTime() time.Duration {
	if rig.r.IntN(4) == 0 {
		return longPause
	}
	return time.Duration(100+rig.r.IntN(3000)) * time.Millisecond
}

func (rig *rig) pause(a *actor) {
	lasts := rig.pauseTime()
	if a.addr == "" { // nothing goes on without an engine
		lasts = min(lasts, 6*time.Second)
	}
	rig.note(fmt.Sprintf("pause %s for %v", a.name, lasts))
	_ = a.signal(syscall.SIGSTOP)
	rig.holdFor(a, lasts)
}

func (rig *rig) holdFor(a *actor, lasts time.Duration) {
	a.held = true
	rig.scheduled = append(rig.scheduled, deed{time.Now().Add(lasts), func() {
		_ = a.signal(syscall.SIGCONT)
		a.held = false
	}})
}

func (rig *rig) spoil(a *actor, p *proxy) {
	switch rig.r.IntN(3) {
	case 0:
		rig.note("cut " + a.name)
		p.cut()
	case 1:
		rig.note("half close " + a.name)
		p.halfClose()
	default:
		lasts := rig.pauseTime()
		rig.note(fmt.Sprintf("stall %s for %v", a.name, lasts))
		p.stall()
		rig.scheduled = append(rig.scheduled, deed{time.Now().Add(lasts), p.flow})
	}
}

func (rig *rig) note(what string) {
	words := strings.Fields(what)
	kind := strings.Join(words[:2], " ")
	if strings.HasSuffix(what, "a commit") {
		kind = what
	}
	if words[0] == "stopped" || words[0] == "half" {
		kind = words[0] + " " + words[len(words)-2]
	}
	rig.done[kind]++
	fmt.Fprintf(rig.log, "rig: %v %s\n", time.Since(rig.began).Round(time.Millisecond), what)
}

// heal lets everything run and waits until it does.
func (rig *rig) heal() {
	rig.t.Helper()
	rig.gentle = true
	for _, d := range rig.scheduled {
		d.do()
	}
	rig.scheduled = nil
	for _, a := range rig.actors {
		if a.program != "nats" && a.program != "clickhouse" { // without the plans that were not carried out yet
			_ = a.signal(syscall.SIGKILL)
		}
		for !a.exited() && a.program != "nats" && a.program != "clickhouse" {
			time.Sleep(pollStep)
		}
	}
	rig.tend()
	rig.awaitReady()
}

// tellHistories sends histories until ctx ends, each piece until it is accepted by one of the ingesters.
func (rig *rig) tellHistories(ctx context.Context, r *rand.Rand) (all []told) {
	const atOnce = 40
	client := &http.Client{Timeout: 15 * time.Second}
	defer client.CloseIdleConnections()
	around := time.Now().UTC().Truncate(time.Hour).Add(-48 * time.Hour)
	for ctx.Err() == nil {
		round := len(all)
		for range atOnce {
			h := inventHistory(r, around)
			all = append(all, h.tell(r, fmt.Sprintf("h%d", len(all)), pieces))
		}
		for piece := range pieces {
			var body bytes.Buffer
			for _, told := range all[round:] {
				for _, line := range told.pieces[piece] {
					body.WriteString(line + "\n")
				}
			}
			for part := range chunks(body.String(), 8<<10) {
				rig.insist(client, r, []byte(part))
			}
		}
	}
	return all
}

// insist sends lines until one of the ingesters accepts them. Whatever else is answered, they may be stored or not.
func (rig *rig) insist(client *http.Client, r *rand.Rand, lines []byte) {
	for {
		a := rig.ingesters()[r.IntN(2)]
		response, err := client.Post("http://"+a.addr+"/v1/events", "application/x-ndjson", bytes.NewReader(lines))
		if err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusAccepted {
				return
			}
		}
		rig.refused++
		time.Sleep(pollStep)
	}
}

func (rig *rig) ingesters() (list []*actor) {
	for _, a := range rig.actors {
		if a.program == "ingester" {
			list = append(list, a)
		}
	}
	return list
}

// summary counts what was done, and at which seams.
func (rig *rig) summary() string {
	var b strings.Builder
	for _, kind := range slices.Sorted(maps.Keys(rig.done)) {
		fmt.Fprintf(&b, "%6d %s\n", rig.done[kind], kind)
	}
	for _, program := range []string{"ingester", "enricher", "aggregator"} {
		reached, fired := rig.reached(program, "reached "), rig.reached(program, "fired ")
		for _, name := range slices.Sorted(maps.Keys(reached)) {
			fmt.Fprintf(&b, "%6d %s: %s\n", fired[name], program, name)
		}
	}
	return b.String()
}
