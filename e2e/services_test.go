package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"polyphony/pkg/embedded"
	"polyphony/pkg/embedded/enginetest"
)

// TestSeparateServices: the three services as processes of their own, several of each, give the same exact counts, also
// when some of them are killed.
func TestSeparateServices(t *testing.T) {
	t.Parallel()
	events := 60_000
	if testing.Short() {
		events = 10_000
	}
	g := generate(t, 10, events)
	natsServer := enginetest.NATS(t)
	clickhouse, clickhouseHTTP := enginetest.LastingClickHouse(t)
	secret := filepath.Join(t.TempDir(), "author.key")
	if err := os.WriteFile(secret, []byte("an invented secret of the tests\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	common := []string{"POLYPHONY_NATS_URL=" + natsServer.URL(), "POLYPHONY_LOG_LEVEL=warn"}
	enricher := func() *service {
		return startService(t, "enricher", append(common, "POLYPHONY_AUTHOR_KEY_FILE="+secret)...)
	}
	aggregator := func() *service {
		return startService(t, "aggregator", append(common, "POLYPHONY_CLICKHOUSE_ADDR="+clickhouse)...)
	}
	// All at once: they wait for each other, and the two aggregators agree on who makes the tables.
	all := []*service{enricher(), enricher(), aggregator(), aggregator(), startService(t, "ingester", append(common, "POLYPHONY_NODES_DIR=deploy/nodes")...)}
	for _, s := range all {
		s.awaitReady()
	}
	pieces := g.pieces(t, 250)
	s := newSender(all[4].addr, len(pieces)/10)
	sent := make(chan error, 1)
	go func() { sent <- s.send(t.Context(), pieces) }()
	for done := range s.answered {
		switch done {
		case len(pieces) / 4:
			all[0].kill()
			enricher().awaitReady()
		case len(pieces) / 2:
			all[2].kill()
			aggregator().awaitReady()
		}
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	settleAt(t, natsServer.Addr(), time.Minute)
	if diff := cmp.Diff(g.truth, countedAt(t, clickhouseHTTP)); diff != "" {
		t.Fatalf("node_metrics_1h (-truth +got)\n%.3000s", diff)
	}
}

// TestServicesBeforeEngines: services that start first are alive, say what they wait for, and go on when it is there.
func TestServicesBeforeEngines(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "author.key")
	if err := os.WriteFile(secret, []byte("an invented secret of the tests\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	natsAddr, addr, httpAddr := freeAddr(t), freeAddr(t), freeAddr(t)
	nats := "POLYPHONY_NATS_URL=nats://" + natsAddr
	in := startService(t, "ingester", nats, "POLYPHONY_NODES_DIR=deploy/nodes")
	en := startService(t, "enricher", nats, "POLYPHONY_AUTHOR_KEY_FILE="+secret)
	ag := startService(t, "aggregator", nats, "POLYPHONY_CLICKHOUSE_ADDR="+addr)
	says := func(s *service, path string, code int, want string) {
		t.Helper()
		await(t, s.name+" to say "+want, func() error {
			response, err := http.Get("http://" + s.addr + path)
			if err != nil {
				return err
			}
			defer response.Body.Close()
			text, err := io.ReadAll(response.Body)
			if err != nil || response.StatusCode != code || !strings.Contains(string(text), want) {
				return fmt.Errorf("%s, %s, %v", response.Status, text, err)
			}
			return nil
		})
	}
	for _, s := range []*service{in, en, ag} {
		says(s, "/healthz", http.StatusOK, "ok")
		says(s, "/readyz", http.StatusServiceUnavailable, "nats at nats://"+natsAddr)
	}
	n, err := embedded.StartNATS(embedded.NATSConfig{Dir: t.TempDir(), Addr: natsAddr, Log: enginetest.Log(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	in.awaitReady()
	en.awaitReady()
	says(ag, "/readyz", http.StatusServiceUnavailable, "no ClickHouse answers at "+addr)
	c, err := embedded.StartClickHouse(t.Context(), embedded.ClickHouseConfig{Dir: t.TempDir(), Addr: addr, HTTPAddr: httpAddr, Log: enginetest.Log(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	ag.awaitReady()
}

// service is a running ingester, enricher or aggregator.
type service struct {
	t      *testing.T
	name   string
	addr   string
	cmd    *exec.Cmd
	exited chan struct{}
	asked  bool // to end, by the test
}

// startService starts a program with settings. When the test ends it must drain in good order.
func startService(t *testing.T, name string, settings ...string) *service {
	t.Helper()
	s := &service{t: t, name: name, addr: freeAddr(t), cmd: program(name), exited: make(chan struct{})}
	s.cmd.Env = append(append(s.cmd.Env, "POLYPHONY_HTTP_ADDR="+s.addr), settings...)
	log := keptLog(t)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(s.exited)
		_ = s.cmd.Wait()
	}()
	t.Cleanup(s.stop)
	return s
}

// lastPort is the last that freeAddr gave.
var lastPort atomic.Int64

// freeAddr is an address that nobody listens on at present, and that no other test here was given: who it is for may listen later.
func freeAddr(t *testing.T) string {
	t.Helper()
	lastPort.CompareAndSwap(0, 10_000+rand.Int64N(10_000)) // below those that connections get, and apart from another run beside this one
	for {
		l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", lastPort.Add(1)))
		if err == nil {
			defer l.Close()
			return l.Addr().String()
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			t.Fatal(err)
		}
	}
}

func (s *service) awaitReady() {
	s.t.Helper()
	await(s.t, s.name+" to be ready", func() error {
		response, err := http.Get("http://" + s.addr + "/readyz")
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("%s", response.Status)
		}
		return nil
	})
}

func (s *service) kill() {
	s.t.Helper()
	if err := s.cmd.Process.Kill(); err != nil {
		s.t.Fatal(err)
	}
	<-s.exited
}

// stop drains the service unless it was killed.
func (s *service) stop() {
	select {
	case <-s.exited:
		if s.cmd.ProcessState.ExitCode() != -1 && !s.asked { // no signal
			s.t.Errorf("%s ended by itself: %v", s.name, s.cmd.ProcessState)
		}
		return
	default:
	}
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.exited:
		if code := s.cmd.ProcessState.ExitCode(); code != 0 {
			s.t.Errorf("%s: exit code %d after a drain", s.name, code)
		}
	case <-time.After(drainTime):
		s.t.Errorf("%s did not drain within %v", s.name, drainTime)
		_ = s.cmd.Process.Signal(syscall.SIGQUIT) // it ends with its stacks in the log
		<-s.exited
	}
}

// TestServiceSettings: a service that was told nonsense says so at once, names the setting, and never its value.
func TestServiceSettings(t *testing.T) {
	f := func(name string, settings []string, wantCode int, want string) {
		t.Helper()
		cmd := program(name)
		cmd.Env = append(cmd.Env, settings...)
		defer time.AfterFunc(readyTime, func() { _ = cmd.Process.Kill() }).Stop() // instead of waiting for what it was told of
		out, _ := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != wantCode || !strings.Contains(string(out), want) {
			t.Errorf("%s %v: exit code %d, %s\nwant %d, %s", name, settings, got, out, wantCode, want)
		}
		if strings.Contains(string(out), "hush") {
			t.Errorf("%s %v tells a value: %s", name, settings, out)
		}
	}
	secret := filepath.Join(t.TempDir(), "short.key")
	if err := os.WriteFile(secret, []byte("hush"), 0o600); err != nil {
		t.Fatal(err)
	}
	f("ingester", []string{"POLYPHONY_HTTP_ADR=hush"}, 2, "POLYPHONY_HTTP_ADR: no such setting, did you mean POLYPHONY_HTTP_ADDR?")
	f("enricher", []string{"POLYPHONY_TOKENS_FILE=hush"}, 2, "POLYPHONY_TOKENS_FILE: no such setting")
	f("aggregator", []string{"POLYPHONY_X=hush", "POLYPHONY_LOG_LEVEL=hush"}, 2, "POLYPHONY_X")
	f("aggregator", []string{"POLYPHONY_X=hush", "POLYPHONY_LOG_LEVEL=hush"}, 2, "POLYPHONY_LOG_LEVEL: want debug, info, warn or error")
	f("enricher", []string{"POLYPHONY_WORKERS=hush"}, 2, "POLYPHONY_WORKERS: want a whole number")
	f("enricher", nil, 2, "POLYPHONY_AUTHOR_KEY_FILE is not set")
	f("enricher", []string{"POLYPHONY_AUTHOR_KEY_FILE=" + secret}, 2, "at least 16")
	f("enricher", []string{"POLYPHONY_AUTHOR_KEY_FILE=/nowhere/author.key"}, 2, "POLYPHONY_AUTHOR_KEY_FILE")
	f("ingester", []string{"POLYPHONY_HTTP_ADDR=0.0.0.0:0"}, 2, "POLYPHONY_TOKENS_FILE")
	f("ingester", []string{"POLYPHONY_HTTP_ADDR=:0"}, 2, "not loopback")
	f("ingester", []string{"POLYPHONY_HTTP_ADDR=hush"}, 2, "POLYPHONY_HTTP_ADDR: want HOST:PORT")
	f("enricher", []string{"POLYPHONY_HTTP_ADDR=127.0.0.1:hush"}, 2, "POLYPHONY_HTTP_ADDR: want HOST:PORT")
	f("ingester", []string{"POLYPHONY_TOKENS_FILE=/nowhere/tokens"}, 2, "/nowhere/tokens")
	f("ingester", []string{"POLYPHONY_NODES_DIR=/nowhere"}, 1, "/nowhere")
	f("ingester", []string{"POLYPHONY_NATS_URL=nats://"}, 2, "POLYPHONY_NATS_URL: want nats://HOST:PORT")
	f("ingester", []string{"POLYPHONY_NATS_URL=nats://127.0.0.1:4222,nats://hush:x"}, 2, "POLYPHONY_NATS_URL: want nats://HOST:PORT")
	f("aggregator", []string{"POLYPHONY_CLICKHOUSE_ADDR=hush"}, 2, "POLYPHONY_CLICKHOUSE_ADDR: want HOST:PORT")
	f("aggregator", []string{"POLYPHONY_CLICKHOUSE_PASSWORD_FILE=/nowhere/password"}, 2, "POLYPHONY_CLICKHOUSE_PASSWORD_FILE")
}

// TestServiceHelp: each service lists its settings with their defaults, and takes no arguments.
func TestServiceHelp(t *testing.T) {
	for name, settings := range map[string][]string{
		"ingester":   {"POLYPHONY_HTTP_ADDR", "POLYPHONY_NATS_URL", "POLYPHONY_NODES_DIR", "POLYPHONY_TOKENS_FILE", "127.0.0.1:8080"},
		"enricher":   {"POLYPHONY_HTTP_ADDR", "POLYPHONY_NATS_URL", "POLYPHONY_AUTHOR_KEY_FILE", "nats://127.0.0.1:4222"},
		"aggregator": {"POLYPHONY_HTTP_ADDR", "POLYPHONY_NATS_URL", "POLYPHONY_CLICKHOUSE_ADDR", "127.0.0.1:9000"},
	} {
		out, err := program(name, "--help").Output()
		if err != nil {
			t.Fatal(err)
		}
		for _, setting := range settings {
			if !strings.Contains(string(out), setting) {
				t.Errorf("%s --help lacks %s:\n%s", name, setting, out)
			}
		}
		cmd := program(name, "--http", "127.0.0.1:0")
		if out, _ := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != 2 {
			t.Errorf("%s --http: exit code %d, %s", name, cmd.ProcessState.ExitCode(), out)
		}
	}
}
