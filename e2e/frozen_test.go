package e2e

import (
	"encoding/json"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// TestFrozenClickHouse: while ClickHouse stands still, events are accepted as ever and public mentions flow; when it
// goes on, the counts are exact.
func TestFrozenClickHouse(t *testing.T) {
	t.Parallel()
	events := 50_000
	if testing.Short() {
		events = 10_000
	}
	g := generate(t, 9, events)
	pieces := g.pieces(t, 250)
	u := startUp(t)
	heard := subscribe(t, u.at["nats"], "social.mentions.*.*")

	// Some before it freezes, so that it freezes while it works.
	warm := len(pieces) / 4
	if err := newSender(u.at["http"], len(pieces)).send(t.Context(), pieces[:warm]); err != nil {
		t.Fatal(err)
	}
	engine := u.engine
	if err := syscall.Kill(engine, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer syscall.Kill(engine, syscall.SIGCONT)

	s := newSender(u.at["http"], len(pieces))
	if err := s.send(t.Context(), pieces[warm:]); err != nil {
		t.Fatal(err)
	}
	if s.slowest > 2*time.Second {
		t.Errorf("with ClickHouse frozen an answer took %v", s.slowest)
	}
	u.await("all mentions to be published", func() error {
		if n := len(heard.posts()); n != g.mentions() {
			return fmt.Errorf("%d of %d", n, g.mentions())
		}
		return nil
	})
	if _, _, state := readStat(fmt.Sprintf("/proc/%d/stat", engine)); state != "T" {
		t.Fatalf("ClickHouse was in state %q, not stopped", state)
	}

	if err := syscall.Kill(engine, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	u.mustEqual(g.truth)
	if n := len(heard.posts()); n != g.mentions() {
		t.Errorf("%d mentions published, want %d", n, g.mentions())
	}
}

// listener keeps what came on a subject.
type listener struct {
	t        *testing.T
	mu       sync.Mutex
	messages []*nats.Msg
}

// subscribe listens as any NATS client may, without JetStream.
func subscribe(t *testing.T, addr, subject string) *listener {
	t.Helper()
	conn, err := nats.Connect("nats://" + addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	l := &listener{t: t}
	if _, err := conn.Subscribe(subject, func(m *nats.Msg) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.messages = append(l.messages, m)
	}); err != nil {
		t.Fatal(err)
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *listener) all() []*nats.Msg {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.messages[:len(l.messages):len(l.messages)]
}

// posts are the mentions that count as such, each event once in each node: what a subscriber makes of delivery at
// least once.
func (l *listener) posts() map[string]bool {
	l.t.Helper()
	ids := map[string]bool{}
	for _, m := range l.all() {
		var batch []struct {
			ID   string
			Data struct {
				Kind      string
				ByCompany bool `json:"by_company"`
			}
		}
		if err := json.Unmarshal(m.Data, &batch); err != nil {
			l.t.Fatal(err)
		}
		for _, e := range batch {
			if (e.Data.Kind == "post" || e.Data.Kind == "reply") && !e.Data.ByCompany {
				ids[e.ID] = true
			}
		}
	}
	return ids
}

// TestKilledClickHouse: ClickHouse dies under load; it is started again on the same ports, and the counts are exact.
func TestKilledClickHouse(t *testing.T) {
	g := generate(t, 11, 30_000)
	pieces := g.pieces(t, 250)
	u := startUp(t)
	for i := range 3 {
		if err := newSender(u.at["http"], len(pieces)).send(t.Context(), pieces[i*len(pieces)/3:(i+1)*len(pieces)/3]); err != nil {
			t.Fatal(err)
		}
		u.killEngine()
	}
	u.mustEqual(g.truth)
}
