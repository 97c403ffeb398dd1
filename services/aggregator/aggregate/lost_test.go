package aggregate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"polyphony/pkg/bus"
	"polyphony/pkg/embedded"
	"polyphony/pkg/embedded/enginetest"
	"polyphony/pkg/topology"
	"polyphony/pkg/warehouse"
)

// TestLost: what is missing of what a claim rested on is noticed, and nothing that goes its ordinary way is taken for it.
func TestLost(t *testing.T) {
	at := func(minute int) time.Time { return time.Date(2026, 5, 25, 14, minute, 0, 0, time.UTC) }
	// The claim: complete until minute 5, 100 of 110 messages of MENTIONS read.
	positions, err := json.Marshal(map[string]position{"MENTIONS": {Created: at(0), Floor: 100, Last: 110, LastAt: at(4)}})
	if err != nil {
		t.Fatal(err)
	}
	claim := warehouse.Freshness{Epoch: 1, CompleteUntil: at(5), Positions: positions}
	bare := warehouse.Freshness{Epoch: 1, CompleteUntil: at(5)}
	noted := Complete{Epoch: 1, Until: at(5)}
	fine := bus.Progress{Created: at(0), First: 1, Floor: 120, Last: 150}
	var stands time.Time // when message 110 was stored, zero when it is gone
	f := func(what string, stored warehouse.Freshness, noted Complete, now bus.Progress, tidied uint64, want string) {
		t.Helper()
		got := ""
		if err := errors.Join(lost(stored, noted, positionsOf(stored, progress{"MENTIONS": now}), progress{"MENTIONS": now},
			map[string]uint64{"MENTIONS": tidied}, map[string]time.Time{"MENTIONS": stands})...); err != nil {
			got = err.Error()
		}
		if want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	with := func(change func(*bus.Progress)) bus.Progress {
		now := fine
		change(&now)
		return now
	}
	f("work goes on", claim, noted, fine, 0, "")
	f("the note of a claim is not written yet", claim, Complete{Epoch: 1, Until: at(4)}, fine, 0, "")
	f("no claim was ever noted", claim, Complete{}, fine, 0, "")
	f("an epoch that just began", bare, Complete{Epoch: 0, Until: at(9)}, fine, 0, "")
	f("nothing was claimed yet", warehouse.Freshness{}, Complete{}, with(func(p *bus.Progress) { p.First = 101 }), 101, "")
	f("everything read and tidied", claim, noted, with(func(p *bus.Progress) { p.First, p.Floor = 151, 150 }), 151, "")
	f("tidied up to the claim", claim, noted, with(func(p *bus.Progress) { p.First = 101 }), 0, "")
	f("a durable that was set back", claim, noted, with(func(p *bus.Progress) { p.Floor = 3 }), 0, "")

	f("ClickHouse says less than was claimed", claim, Complete{Epoch: 1, Until: at(6)}, fine, 0, "ClickHouse is older than it was")
	f("ClickHouse knows no such epoch", claim, Complete{Epoch: 2, Until: at(3)}, fine, 0, "ClickHouse is older than it was")
	f("ClickHouse knows nothing", warehouse.Freshness{CompleteUntil: time.Unix(0, 0)}, Complete{Until: at(5)}, fine, 0, "ClickHouse is older than it was")
	f("another stream of that name", claim, noted, with(func(p *bus.Progress) { p.Created = at(7) }), 0, "stream MENTIONS was deleted and made anew")
	f("a stream that ends before what was read", claim, noted, with(func(p *bus.Progress) { p.Floor, p.Last = 90, 105 }), 0, "stream MENTIONS is older than it was")
	f("a purge beyond what was read", claim, noted, with(func(p *bus.Progress) { p.First, p.Floor = 151, 150 }), 0, "messages 101 to 150 of stream MENTIONS were removed")
	f("a purge beyond what was tidied", claim, noted, with(func(p *bus.Progress) { p.First, p.Floor = 151, 150 }), 130, "messages 101 to 150 of stream MENTIONS were removed")
	f("a purge before anything was claimed", warehouse.Freshness{}, Complete{}, with(func(p *bus.Progress) { p.First, p.Floor = 151, 150 }), 0, "messages 1 to 150 of stream MENTIONS were removed")
	stands = at(4)
	f("the last message is what it was", claim, noted, fine, 0, "")
	stands = at(6)
	f("a stream that lost its end and grew since", claim, noted, fine, 0, "stream MENTIONS is older than it was: message 110 is another")
	stands = time.Time{}
	f("messages removed from between others", claim, noted, with(func(p *bus.Progress) { p.Removed = 2 }), 0, "2 messages were removed from within stream MENTIONS")
}

// TestStreamThatGrewAgain: a NATS that comes back without its last messages is found out also when it has more of them by then than it
// had, and when nothing shows it any more, until an epoch begins.
func TestStreamThatGrewAgain(t *testing.T) {
	store := openStore(t, enginetest.ClickHouse(t).Addr())
	if err := store.Migrate(t.Context(), func(string) {}); err != nil {
		t.Fatal(err)
	}
	dir, older := filepath.Join(t.TempDir(), "nats"), filepath.Join(t.TempDir(), "older")
	during := func(do func(*bus.Bus, *Aggregator)) {
		t.Helper()
		n, err := embedded.StartNATS(embedded.NATSConfig{Dir: dir, Addr: "127.0.0.1:0", Log: enginetest.Log(t)})
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		b, err := bus.Open(bus.Config{URL: n.URL(), Name: "test", Storage: 64 << 20}, enginetest.Log(t))
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		if err := b.Prepare(t.Context()); err != nil {
			t.Fatal(err)
		}
		do(b, New(b, store, enginetest.Log(t), prometheus.NewRegistry()))
	}
	publish := func(b *bus.Bus, n int) {
		t.Helper()
		for range n {
			if err := b.Publish(t.Context(), []bus.Message{mentionOf(1)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	mustBeLost := func(ag *Aggregator, want bool) {
		t.Helper()
		held, _, err := ag.checkClaims(t.Context())
		if err != nil || held.lost != want {
			t.Errorf("lost: %v, want %v (%v)", held.lost, want, err)
		}
	}
	during(func(b *bus.Bus, _ *Aggregator) { publish(b, 1) })
	if err := os.CopyFS(older, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	during(func(b *bus.Bus, ag *Aggregator) {
		publish(b, 2)
		now, err := readProgress(t.Context(), b)
		if err == nil {
			err = ag.claim(t.Context(), now.mark(0), now)
		}
		if err != nil {
			t.Fatal(err)
		}
		mustBeLost(ag, false)
		publish(b, 1)
		mustBeLost(ag, false)
	})
	if err := errors.Join(os.RemoveAll(dir), os.CopyFS(dir, os.DirFS(older))); err != nil {
		t.Fatal(err)
	}
	during(func(b *bus.Bus, ag *Aggregator) {
		publish(b, 5)
		mustBeLost(ag, true)
		mustBeLost(ag, true)
		now, err := readProgress(t.Context(), b)
		if err == nil {
			err = ag.claim(t.Context(), now.mark(0), now) // as if it were forgotten: from here on the streams show nothing
		}
		if err != nil {
			t.Fatal(err)
		}
		mustBeLost(ag, true)
		if err := ag.claim(t.Context(), now.mark(1), now); err != nil {
			t.Fatal(err)
		}
		mustBeLost(ag, false)
	})
}

// TestClaimAfterAnOutage: a claim that ClickHouse could not take is not made to one that came back without what it had.
func TestClaimAfterAnOutage(t *testing.T) {
	engine := enginetest.ClickHouse(t)
	b, store := startBus(t, 64<<20), openStore(t, engine.Addr())
	if err := store.Migrate(t.Context(), func(string) {}); err != nil {
		t.Fatal(err)
	}
	var refuses atomic.Bool
	refused := make(chan struct{}, 100)
	asks := func(piece []byte) bool {
		if !refuses.Load() || !bytes.Contains(piece, []byte("INSERT INTO freshness_store")) {
			return true
		}
		refused <- struct{}{}
		return false
	}
	ag := New(b, openStore(t, relay(t, engine.Addr(), asks, func([]byte) bool { return true })), enginetest.Log(t), prometheus.NewRegistry())
	ctx, stop := context.WithCancel(t.Context())
	following := make(chan error, 1)
	go func() { following <- ag.followFreshness(ctx) }()
	defer func() {
		stop()
		if err := <-following; err != nil {
			t.Error(err)
		}
	}()
	claimed := func() time.Time {
		t.Helper()
		f, err := store.Freshness(t.Context(), topology.Mentions.Name)
		if err != nil {
			t.Fatal(err)
		}
		return f.CompleteUntil
	}
	publish := func() {
		t.Helper()
		if err := b.Publish(t.Context(), []bus.Message{mentionOf(1)}); err != nil {
			t.Fatal(err)
		}
		reading, stop := context.WithCancel(t.Context())
		defer stop()
		if err := b.Consume(reading, topology.AggregateMentions, limit, func(context.Context, []bus.Delivery) error { stop(); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	publish()
	for deadline := time.Now().Add(time.Minute); claimed().Unix() == 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nothing was claimed")
		}
	}
	refuses.Store(true)
	publish()
	select {
	case <-refused:
	case <-time.After(time.Minute):
		t.Fatal("nobody would store a claim")
	}
	response, err := http.Post("http://"+engine.HTTPAddr()+"/?database=polyphony", "text/plain", strings.NewReader("TRUNCATE TABLE freshness_store"))
	if err != nil {
		t.Fatal(err)
	}
	if response.Body.Close(); response.StatusCode != http.StatusOK {
		t.Fatal(response.Status)
	}
	time.Sleep(2 * freshnessPeriod) // what was begun before is refused as well
	http.DefaultClient.CloseIdleConnections()
	refuses.Store(false)
	for range 30 { // in which a wrong claim would come
		if got := claimed(); got.Unix() != 0 {
			t.Fatalf("claimed until %v by a ClickHouse that lost its claims", got)
		}
		time.Sleep(100 * time.Millisecond)
	}
	other := New(b, store, enginetest.Log(t), prometheus.NewRegistry())
	if held, _, err := other.checkClaims(t.Context()); err != nil || !held.lost {
		t.Errorf("not taken for lost: %v", err)
	}
}
