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
func lives(t *testing.T, b *bus.Bus, ag *Aggregator, c topology.Consumer, handle func(*flush, context.Context, []bus.Delivery) error) (deaths int) {
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
			return f.guarded(func(ctx context.Context, batch []bus.Delivery) error { return handle(f, ctx, batch) })(ctx, batch)
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
	const messages = 30
	f := func(c topology.Consumer, of func(events ...byte) bus.Message, killers ...byte) {
		t.Helper()
		b := startBus(t, 64<<20)
		ag := New(b, nil, enginetest.Log(t), prometheus.NewRegistry())
		var want []social.Key
		for i := range byte(messages) {
			events := []byte{3*i + 1, 3*i + 2, 3*i + 3}
			for _, e := range events {
				if !slices.Contains(killers, e) {
					want = append(want, keyOf(e))
				}
			}
			if err := b.Publish(t.Context(), []bus.Message{of(events...)}); err != nil {
				t.Fatal(err)
			}
		}
		handled := map[social.Key]bool{}
		deaths := lives(t, b, ag, c, func(_ *flush, _ context.Context, batch []bus.Delivery) error {
			var events []social.Key
			for i := range batch {
				events = append(events, eventsOf(t, &batch[i])...)
			}
			for _, killer := range killers {
				if slices.Contains(events, keyOf(killer)) {
					panic("it kills")
				}
			}
			for _, e := range events {
				handled[e] = true
			}
			return nil
		})
		// Until it is suspect, in parts of 4, then alone, then its line; more than one killer need not come in one batch.
		if most := (bus.SuspectAfter + 3 + 2*bus.CondemnedAfter) * len(killers); deaths < 2*bus.CondemnedAfter*len(killers) || deaths > most {
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
		var given []social.Key
		for _, r := range condemned {
			if r.Code != "unprocessable" || r.Origin == nil || r.Origin.Stream != c.Stream.Name || r.Origin.Line == 0 {
				t.Fatalf("%s: reject %+v", c.Stream.Name, r)
			}
			replayed := bus.Message{Subject: r.Origin.Subject, Header: r.Origin.Header, Data: r.Bytes}
			if c.Stream.Name == topology.Threads.Name {
				replayed = framed(r.Origin.Subject, append(r.Bytes, '\n'))
			}
			given = append(given, eventsOf(t, &bus.Delivery{Message: replayed})...)
		}
		var deadly []social.Key
		for _, killer := range killers {
			deadly = append(deadly, keyOf(killer))
		}
		slices.SortFunc(given, social.Key.Compare)
		slices.SortFunc(deadly, social.Key.Compare)
		if !slices.Equal(given, deadly) {
			t.Errorf("%s: the rejects hold %v, want %v", c.Stream.Name, given, deadly)
		}
	}
	mentions := func(events ...byte) bus.Message {
		batch := wire.BeginBatch(nil)
		for _, e := range events {
			m := row(e, "heart", 1, 0)
			m.Source, m.Kind = "reddit", social.Post
			batch = wire.AppendMention(batch, "/polyphony/acme", &m)
		}
		return bus.Message{Subject: topology.MentionSubject("heart", "north"), Data: wire.EndBatch(batch)}
	}
	f(topology.AggregateMentions, mentions, 33)
	f(topology.AggregateMentions, mentions, 2, 88) // one in the first part, one in the last
	f(topology.AggregateFacts, func(events ...byte) bus.Message {
		m := originalOf(events[0])
		for _, e := range events[1:] {
			m.Data = append(m.Data, originalOf(e).Data...)
		}
		return m
	}, 33)
	f(topology.AggregateThreads, func(events ...byte) bus.Message {
		var lines []byte
		for _, e := range events {
			lines = wire.AppendReference(lines, &social.Reference{Targets: []social.Key{keyOf(200)}, Until: recordedAt(e).Add(time.Hour),
				Mention: social.Mention{EventKey: keyOf(e), Time: hour, RecordedTime: recordedAt(e), Source: "reddit", Kind: social.Reply}})
		}
		return framed(topology.ReferencesSubject, lines)
	}, 33)
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
	deaths := lives(t, b, ag, topology.AggregateMentions, func(f *flush, ctx context.Context, _ []bus.Delivery) error {
		if tries++; tries > bus.SuspectAfter+2*bus.CondemnedAfter+5 {
			return nil
		}
		attempts := 0
		return f.insist(ctx, "storing", func(context.Context) error {
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
