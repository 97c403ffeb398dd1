package aggregate

import (
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"polyphony/pkg/bus"
	"polyphony/pkg/embedded/enginetest"
	"polyphony/pkg/social"
	"polyphony/pkg/topology"
	"polyphony/pkg/wire"
)

// lives lets one aggregator after the other read a stream until all of it is acknowledged, and counts how many died.
func lives(t *testing.T, b *bus.Bus, ag *Aggregator, c topology.Consumer, handle bus.Handler) (deaths int) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	go func() {
		for ctx.Err() == nil {
			if p, err := b.Progress(ctx, c); err == nil && p.Floor == p.Last {
				stop()
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	died := errors.New("died")
	for ctx.Err() == nil {
		f := &flush{Aggregator: ag}
		err := b.Consume(ctx, c, bus.Limit{Bytes: 1 << 20, Messages: 50, Wait: 20 * time.Millisecond}, func(ctx context.Context, batch []bus.Delivery) (err error) {
			defer func() {
				if recover() != nil {
					err = died
				}
			}()
			return f.guarded(handle)(ctx, batch)
		})
		if errors.Is(err, died) {
			deaths++
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		t.Fatalf("not at the end after %d deaths", deaths)
	}
	return deaths
}

// eventsOf are the events that a message is about.
func eventsOf(t *testing.T, d *bus.Delivery) (events []social.Key) {
	t.Helper()
	mentions, err := []social.Mention{}, error(nil)
	var originals []social.Original
	var references []social.Reference
	switch streamOf(d) {
	case topology.Mentions.Name:
		mentions, err = wire.DecodeBatch(nil, d.Data)
	case topology.Facts.Name:
		originals, err = wire.DecodeOriginals(nil, d.Data)
	default:
		var lines []byte
		if lines, err = decodeFrame(d); err == nil {
			references, err = wire.DecodeReferences(nil, lines)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	for i := range mentions {
		events = append(events, mentions[i].EventKey)
	}
	for i := range originals {
		events = append(events, originals[i].EventKey)
	}
	for i := range references {
		events = append(events, references[i].Mention.EventKey)
	}
	return events
}

// TestOnlyWhatKillsIsCondemned: of what an aggregator reads, what kills it becomes a reject with its bytes after a few deaths, and
// that alone; everything beside it and behind it is handled.
func TestOnlyWhatKillsIsCondemned(t *testing.T) {
	const killer, messages = 33, 30
	f := func(c topology.Consumer, of func(events ...byte) bus.Message) {
		t.Helper()
		b := startBus(t, 64<<20)
		ag := New(b, nil, enginetest.Log(t), prometheus.NewRegistry())
		var want []social.Key
		for i := range byte(messages) {
			events := []byte{3*i + 1, 3*i + 2, 3*i + 3}
			for _, e := range events {
				if e != killer {
					want = append(want, keyOf(e))
				}
			}
			if err := b.Publish(t.Context(), []bus.Message{of(events...)}); err != nil {
				t.Fatal(err)
			}
		}
		handled := map[social.Key]bool{}
		deaths := lives(t, b, ag, c, func(_ context.Context, batch []bus.Delivery) error {
			var events []social.Key
			for i := range batch {
				events = append(events, eventsOf(t, &batch[i])...)
			}
			if slices.Contains(events, keyOf(killer)) {
				panic("it kills")
			}
			for _, e := range events {
				handled[e] = true
			}
			return nil
		})
		if most := bus.SuspectAfter + 4 + 2*bus.CondemnedAfter; deaths < 2*bus.CondemnedAfter || deaths > most { // 30 messages, parts of 4, then one and its lines
			t.Errorf("%s: %d deaths, want at most %d", c.Stream.Name, deaths, most)
		}
		for _, e := range want {
			if !handled[e] {
				t.Errorf("%s: %s was not handled", c.Stream.Name, e)
			}
		}
		var condemned []wire.Reject
		for _, d := range readAll(t, b, topology.AggregateRejects) {
			frame, err := decodeFrame(&d)
			if err != nil {
				t.Fatal(err)
			}
			for r, err := range wire.DecodeRejects(frame) {
				if err != nil {
					t.Fatal(err)
				}
				condemned = append(condemned, r)
			}
		}
		if len(condemned) != 1 || condemned[0].Code != "unprocessable" || condemned[0].Origin == nil || condemned[0].Origin.Stream != c.Stream.Name {
			t.Fatalf("%s: rejects %+v", c.Stream.Name, condemned)
		}
		replayed := &bus.Delivery{Message: bus.Message{Subject: condemned[0].Origin.Subject, Header: condemned[0].Origin.Header, Data: condemned[0].Bytes}}
		if got := eventsOf(t, replayed); !slices.Equal(got, []social.Key{keyOf(killer)}) {
			t.Errorf("%s: the reject holds %v", c.Stream.Name, got)
		}
	}
	f(topology.AggregateMentions, func(events ...byte) bus.Message {
		batch := wire.BeginBatch(nil)
		for _, e := range events {
			m := row(e, "heart", 1, 0)
			m.Source, m.Kind = "reddit", social.Post
			batch = wire.AppendMention(batch, "/polyphony/acme", &m)
		}
		return bus.Message{Subject: topology.MentionSubject("heart", "north"), Data: wire.EndBatch(batch)}
	})
	f(topology.AggregateFacts, func(events ...byte) bus.Message {
		m := originalOf(events[0])
		for _, e := range events[1:] {
			m.Data = append(m.Data, originalOf(e).Data...)
		}
		return m
	})
	f(topology.AggregateThreads, func(events ...byte) bus.Message {
		var lines []byte
		for _, e := range events {
			lines = wire.AppendReference(lines, &social.Reference{Targets: []social.Key{keyOf(200)}, Until: recordedAt(e).Add(time.Hour),
				Mention: social.Mention{EventKey: keyOf(e), Time: hour, RecordedTime: recordedAt(e), Source: "reddit", Kind: social.Reply}})
		}
		return framed(topology.ReferencesSubject, lines)
	})
}

// TestNobodyIsCondemnedForWaiting: however often an aggregator dies while it waits for an engine, what it has in hand is kept, and
// done when the engine is there.
func TestNobodyIsCondemnedForWaiting(t *testing.T) {
	b := startBus(t, 64<<20)
	ag := New(b, nil, enginetest.Log(t), prometheus.NewRegistry())
	if err := b.Publish(t.Context(), []bus.Message{mentionOf(1)}); err != nil {
		t.Fatal(err)
	}
	tries := 0
	deaths := lives(t, b, ag, topology.AggregateMentions, func(ctx context.Context, batch []bus.Delivery) error {
		if tries++; tries > bus.SuspectAfter+2*bus.CondemnedAfter+5 {
			return nil
		}
		attempts := 0
		return ag.insist(ctx, "storing", func(context.Context) error {
			if attempts++; attempts > 1 {
				panic("killed while it waits")
			}
			return io.ErrUnexpectedEOF // the connection is gone
		})
	})
	if deaths < bus.SuspectAfter+2*bus.CondemnedAfter {
		t.Errorf("%d deaths show nothing", deaths)
	}
	if p, err := b.Progress(t.Context(), topology.AggregateRejects); err != nil || p.Last != 0 {
		t.Errorf("%d rejects: %v", p.Last, err)
	}
}

// readAll reads what a stream holds.
func readAll(t *testing.T, b *bus.Bus, c topology.Consumer) (all []bus.Delivery) {
	t.Helper()
	err := b.Read(t.Context(), c.Stream, nil, time.Time{}, func(d *bus.Delivery) error {
		all = append(all, *d)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
