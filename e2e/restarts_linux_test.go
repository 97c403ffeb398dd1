package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"polyphony/pkg/embedded/enginetest"
	"polyphony/pkg/topology"
)

// TestRollingRestarts: every process of every service is asked to end and started again, one after the other, twice, while events
// are sent. Each ends in time and with exit code 0; nothing is lost; and nothing is repeated, not even in the public stream, where
// it would be harmless: who is asked to end finishes what it has in hand.
func TestRollingRestarts(t *testing.T) {
	t.Parallel()
	rig := newRig(t, 1)
	rig.gentle = true
	rig.streams = map[string]int64{"MENTIONS": 1 << 30, "RAW": 1 << 30, "FACTS": 1 << 30, "THREADS": 1 << 30} // nobody waits for room
	rig.start()
	rig.awaitReady()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	sent := 0
	var telling sync.WaitGroup
	telling.Go(func() { sent = rig.tellPosts(ctx) })
	restarts := 0
	for range 2 {
		for _, program := range []string{"ingester", "enricher", "aggregator"} {
			for _, a := range rig.of(program) {
				rig.restart(a)
				restarts++
			}
		}
	}
	stop()
	telling.Wait()
	settleAt(t, rig.at["nats"], time.Minute)
	js, err := jetstream.New(natsAt(t, "nats://"+rig.at["nats"]))
	if err != nil {
		t.Fatal(err)
	}
	messages, repeats := repeated(t, js)
	t.Logf("%d restarts, %d events, %d messages of the public stream", restarts, sent, messages)
	if len(repeats) > 0 {
		t.Errorf("%d events of the public stream are repeated, such as %v", len(repeats), repeats[:min(3, len(repeats))])
	}
	if got := strings.TrimSpace(string(rig.sql("SELECT sum(mentions) FROM node_metrics_1h FORMAT TSV"))); got != strconv.Itoa(sent) {
		t.Errorf("%s mentions are counted, want %d", got, sent)
	}
}

// tellPosts sends posts, each another, until ctx ends, and counts them.
func (rig *rig) tellPosts(ctx context.Context) (sent int) {
	const atOnce = 20
	client := &http.Client{Timeout: 15 * time.Second}
	defer client.CloseIdleConnections()
	r := rand.New(rand.NewPCG(1, 1))
	at := time.Now().UTC().Truncate(time.Hour).Add(-5 * time.Hour)
	pace := time.NewTicker(10 * time.Millisecond) // 2,000 a second
	defer pace.Stop()
	for ; ctx.Err() == nil; <-pace.C {
		var body bytes.Buffer
		for range atOnce {
			fmt.Fprintf(&body, `{"id":"%d","source":"forum","kind":"post","time":%q,"text":"Alphavir","author":{"id":"a","country":"DE"}}`+"\n", sent, at.Format(time.RFC3339))
			sent++
		}
		rig.insist(client, r, body.Bytes())
	}
	return sent
}

// restart asks an actor to end, which it must do in good order, and starts it again.
func (rig *rig) restart(a *actor) {
	rig.t.Helper()
	_ = syscall.Kill(a.pid(), syscall.SIGTERM)
	awaitFor(rig.t, drainTime, a.name+" to end", func() error {
		if !a.exited() {
			return errNone
		}
		return nil
	})
	if code := a.code(); code != 0 {
		rig.t.Errorf("%s ended with exit code %d", a.name, code)
	}
	rig.tend()
	rig.awaitReady()
}

// repeated lists the CloudEvents that the public stream holds more than once, and counts its messages.
func repeated(t *testing.T, js jetstream.JetStream) (messages int, repeats []string) {
	t.Helper()
	seen := map[string]bool{}
	readStream(t, js, topology.Mentions.Name, func(m jetstream.Msg) {
		messages++
		var events []struct{ ID, Source string }
		if err := json.Unmarshal(m.Data(), &events); err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			id := e.Source + " " + e.ID
			if seen[id] {
				repeats = append(repeats, id)
			}
			seen[id] = true
		}
	})
	return messages, repeats
}

// TestSignals: the first SIGTERM lets a request in progress end, for a bounded time; a second one ends the process at once.
func TestSignals(t *testing.T) {
	t.Parallel()
	server := enginetest.NATS(t)
	f := func(signals int, atLeast, atMost time.Duration) {
		t.Helper()
		s := startService(t, "ingester", "POLYPHONY_NATS_URL="+server.URL(), "POLYPHONY_NODES_DIR=deploy/nodes")
		s.awaitReady()
		conn, err := net.Dial("tcp", s.addr) // a sender that never ends its body
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\nContent-Length: 1000\r\nExpect: 100-continue\r\n\r\n")
		if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || !strings.Contains(line, "100") {
			t.Fatalf("answered %q: %v", line, err)
		}
		began := time.Now()
		s.asked = true
		for range signals {
			if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			await(t, "it to say that it drains", func() error {
				if _, err := net.DialTimeout("tcp", s.addr, time.Second); err == nil {
					return errNone
				}
				return nil
			})
		}
		select {
		case <-s.exited:
		case <-time.After(drainTime):
			t.Fatalf("%d signals: it goes on", signals)
		}
		if took := time.Since(began); took < atLeast || took > atMost {
			t.Errorf("%d signals: it ended after %v, want %v to %v", signals, took, atLeast, atMost)
		}
		if code := s.cmd.ProcessState.ExitCode(); strings.Contains(s.cmd.ProcessState.String(), "signal: terminated") != (signals > 1) || signals == 1 && code != 0 {
			t.Errorf("%d signals: %v", signals, s.cmd.ProcessState)
		}
	}
	f(1, 9*time.Second, 20*time.Second)
	f(2, 0, 5*time.Second)
}
