package aggregate

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"polyphony/pkg/bus"
	"polyphony/pkg/embedded/enginetest"
	"polyphony/pkg/topology"
)

func TestMain(m *testing.M) { enginetest.Main(m) }

// TestNothingUnreadIsClaimed: while there are always a hundred mentions that were published and not stored, claims are made all the same,
// and no mention that was published before the time of a claim is still unread then.
func TestNothingUnreadIsClaimed(t *testing.T) {
	b, store := startBus(t, 64<<20), openStore(t, enginetest.ClickHouse(t).Addr())
	if err := store.Migrate(t.Context(), func(string) {}); err != nil {
		t.Fatal(err)
	}
	ag := New(b, store, enginetest.Log(t), prometheus.NewRegistry())
	ctx, stop := context.WithTimeout(t.Context(), 5*time.Minute)
	defer stop()
	following := make(chan error, 1)
	go func() { following <- ag.followFreshness(ctx) }()
	const behind, wanted = 100, 3
	for range behind {
		if err := b.Publish(ctx, []bus.Message{mentionOf(1)}); err != nil {
			t.Fatal(err)
		}
	}
	claims := map[time.Time]bool{}
	err := b.Consume(ctx, topology.AggregateMentions, bus.Limit{Messages: 1}, func(ctx context.Context, _ []bus.Delivery) error {
		if err := b.Publish(ctx, []bus.Message{mentionOf(1)}); err != nil {
			return err
		}
		claimed, err := store.Freshness(ctx, topology.Mentions.Name)
		if err != nil {
			return err
		}
		read, err := b.Progress(ctx, topology.AggregateMentions)
		if err != nil {
			return err
		}
		if claimed.CompleteUntil.After(read.Until) {
			t.Errorf("claimed until %s, the mention of %s is unread", claimed.CompleteUntil, read.Until)
			stop()
		}
		if claims[claimed.CompleteUntil] = true; len(claims) > wanted { // the first says that there is none
			stop()
		}
		return nil
	})
	stop()
	if err := errors.Join(err, <-following); err != nil && !errors.Is(err, context.Canceled) || len(claims) <= wanted && !t.Failed() {
		t.Errorf("%d claims: %v", len(claims)-1, err)
	}
}

// TestClaimsOfOthers: an aggregator that hears late from ClickHouse what others claim meanwhile takes nothing for lost.
func TestClaimsOfOthers(t *testing.T) {
	addr := enginetest.ClickHouse(t).Addr()
	b, store := startBus(t, 64<<20), openStore(t, addr)
	if err := store.Migrate(t.Context(), func(string) {}); err != nil {
		t.Fatal(err)
	}
	ag := New(b, openStore(t, late(t, addr)), enginetest.Log(t), prometheus.NewRegistry())
	other := New(b, store, enginetest.Log(t), prometheus.NewRegistry())
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	claiming := make(chan error, 1)
	claims := 0
	go func() {
		claiming <- b.Consume(ctx, topology.AggregateMentions, bus.Limit{Messages: 1}, func(ctx context.Context, batch []bus.Delivery) error {
			if err := batch[0].Done(ctx); err != nil {
				return err
			}
			now, err := readProgress(ctx, b)
			if err == nil {
				err = other.claim(ctx, now.mark(0), now)
			}
			if err == nil {
				claims++
				err = b.Publish(ctx, []bus.Message{mentionOf(1)})
			}
			return err
		})
	}()
	if err := b.Publish(ctx, []bus.Message{mentionOf(1)}); err != nil {
		t.Fatal(err)
	}
	const looks = 5
	for range looks {
		if held, _, err := ag.checkClaims(ctx); err != nil || held.lost {
			t.Fatalf("taken for lost: %v (%v)", held.lost, err)
		}
	}
	stop()
	if err := <-claiming; err != nil || claims < looks {
		t.Errorf("%d claims meanwhile: %v", claims, err)
	}
}

// late is an address of a server whose answers take longer than a claim does.
func late(t *testing.T, addr string) string {
	t.Helper()
	return relay(t, addr, func([]byte) bool { return true }, func([]byte) bool { time.Sleep(300 * time.Millisecond); return true })
}

// relay is an address that stands before a server. asks and answers see what passes either way, and hang up when they say no.
func relay(t *testing.T, addr string, asks, answers func([]byte) bool) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var relays sync.WaitGroup
	t.Cleanup(func() { l.Close(); relays.Wait() })
	pass := func(from, to net.Conn, may func([]byte) bool) {
		defer to.Close()
		piece := make([]byte, 64<<10)
		for {
			n, err := from.Read(piece)
			if err != nil || !may(piece[:n]) {
				return
			}
			if _, err := to.Write(piece[:n]); err != nil {
				return
			}
		}
	}
	relays.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", addr)
			if err != nil {
				client.Close()
				continue
			}
			relays.Go(func() { pass(client, server, asks) })
			relays.Go(func() { pass(server, client, answers) })
		}
	})
	return l.Addr().String()
}

// TestWatermarkKnowsAllThatChangesMetrics: what was published and not stored holds a mark back, whichever way it takes.
func TestWatermarkKnowsAllThatChangesMetrics(t *testing.T) {
	engine := enginetest.NATS(t)
	b := openBus(t, engine.URL(), 64<<20)
	progress := func() (watermark, sequences) {
		t.Helper()
		now, err := readProgress(t.Context(), b)
		if err != nil {
			t.Fatal(err)
		}
		return now.mark(0), now.floor()
	}
	f := func(subject string, consumer topology.Consumer) {
		t.Helper()
		before, _ := progress()
		if err := b.Publish(t.Context(), []bus.Message{{Subject: subject, Data: []byte("news")}}); err != nil {
			t.Fatal(err)
		}
		after, floor := progress()
		if !before.reached(floor) || after.reached(floor) {
			t.Errorf("%s: a message that nobody read: reached before it %v, after it %v", subject, before.reached(floor), after.reached(floor))
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- b.Consume(ctx, consumer, bus.Limit{Bytes: 1 << 20, Messages: 1, Wait: time.Millisecond},
				func(context.Context, []bus.Delivery) error { return nil })
		}()
		for deadline := time.Now().Add(10 * time.Second); !after.reached(floor); _, floor = progress() {
			if time.Now().After(deadline) {
				t.Fatalf("%s: not reached after it was read", subject)
			}
		}
		stop()
		if err := <-ended; err != nil && ctx.Err() == nil {
			t.Error(err)
		}
	}
	f(topology.MentionSubject("d", "t"), topology.AggregateMentions)
	f(topology.OriginalsSubject, topology.AggregateFacts)
	f(topology.StatementsSubject, topology.AggregateThreads)
	f(topology.ReferencesSubject, topology.AggregateThreads)
}
