package aggregate

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"polyphony/pkg/bus"
	"polyphony/pkg/embedded/enginetest"
	"polyphony/pkg/social"
	"polyphony/pkg/topology"
	"polyphony/pkg/warehouse"
	"polyphony/pkg/wire"
)

func startBus(t *testing.T, storage int64) *bus.Bus {
	t.Helper()
	return openBus(t, enginetest.NATS(t).URL(), storage)
}

func openBus(t *testing.T, url string, storage int64) *bus.Bus {
	t.Helper()
	b, err := bus.Open(bus.Config{URL: url, Name: "test", Storage: storage}, enginetest.Log(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	if err := b.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	return b
}

func openStore(t *testing.T, addr string) *warehouse.Warehouse {
	t.Helper()
	store, err := warehouse.Open(warehouse.Config{Addr: addr})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	return store
}

var limit = bus.Limit{Bytes: 1 << 20, Messages: 10, Wait: time.Millisecond}

// What enrichers publish of an event.

func mentionOf(event byte) bus.Message {
	m := row(event, "heart", 1, 0)
	m.Source, m.Kind = "reddit", social.Post
	return bus.Message{Subject: topology.MentionSubject("heart", "north"), Data: wire.EndBatch(wire.AppendMention(wire.BeginBatch(nil), "/polyphony/acme", &m))}
}

func originalOf(event byte) bus.Message {
	return bus.Message{Subject: topology.OriginalsSubject, Data: wire.AppendOriginal(nil, &social.Original{
		EventKey: keyOf(event), Version: said(1).Words(), Source: "reddit", RecordedTime: recordedAt(event), Sealed: make([]byte, 100)})}
}

func referenceOf(event, target byte) bus.Message {
	return framed(topology.ReferencesSubject, wire.AppendReference(nil, &social.Reference{Kept: true, Targets: []social.Key{keyOf(target)},
		Until: recordedAt(event).Add(time.Hour), Mention: social.Mention{EventKey: keyOf(event), Time: hour, RecordedTime: recordedAt(event)}}))
}

func framed(subject string, lines []byte) bus.Message {
	return bus.Message{Subject: subject, Data: wire.EncodeOne(lines), Header: bus.Header{topology.HeaderSize: {strconv.Itoa(len(lines))}}}
}

// TestStoppedBeforeItIsStored: what an aggregator has in hand when it is stopped, and could not store because ClickHouse was away, is not
// acknowledged: the next one gets it.
func TestStoppedBeforeItIsStored(t *testing.T) {
	b := startBus(t, 64<<20)
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody.Close()
	store := openStore(t, nobody.Addr().String())
	ag := New(b, store, enginetest.Log(t), prometheus.NewRegistry())
	ag.waiting.Delete(preparing)
	flush := &flush{Aggregator: ag}
	f := func(consumer topology.Consumer, message bus.Message, store bus.Handler) {
		t.Helper()
		if err := b.Publish(t.Context(), []bus.Message{message}); err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- b.Consume(ctx, consumer, limit, store) }()
		for deadline := time.Now().Add(20 * time.Second); ag.Ready() == nil; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: nobody waits for ClickHouse", message.Subject)
			}
		}
		stop()
		if err := <-ended; err != nil {
			t.Fatalf("%s: %v", message.Subject, err)
		}
		ag.waiting.Clear()
		next, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		again := false
		if err := b.Consume(next, consumer, limit, func(_ context.Context, batch []bus.Delivery) error {
			again = batch[0].Subject == message.Subject && batch[0].Deliveries == 2
			cancel()
			return nil
		}); err != nil || !again {
			t.Fatalf("%s: it did not come again (%v)", message.Subject, err)
		}
	}
	f(topology.AggregateMentions, mentionOf(1), flush.mentions)
	f(topology.AggregateFacts, originalOf(1), flush.facts)
	f(topology.AggregateThreads, framed(topology.StatementsSubject, wire.AppendStatement(nil, &social.Statement{Key: keyOf(2), Source: "reddit",
		Kind: social.Delete, ObjectKey: keyOf(1), Time: hour, RecordedTime: hour})), flush.threads)
	f(topology.AggregateRejects, framed(topology.RejectSubject("ingest", "invalid_json"),
		wire.AppendReject(nil, &wire.Reject{Code: social.InvalidJSON, RecordedTime: hour, Bytes: []byte("{")})), flush.rejects)
}

// TestFactsWaitForTheirMentions: what is to be resolved when a fact is stored follows from the mentions that were published before
// it: until those are stored, nobody is done with it.
func TestFactsWaitForTheirMentions(t *testing.T) {
	b, store := startBus(t, 64<<20), openStore(t, enginetest.ClickHouse(t).Addr())
	if err := store.Migrate(t.Context(), func(string) {}); err != nil {
		t.Fatal(err)
	}
	ag := New(b, store, enginetest.Log(t), prometheus.NewRegistry())
	flush := &flush{Aggregator: ag}
	// read hands messages of a consumer to store until it was done with one, or a while is over.
	read := func(consumer topology.Consumer, store bus.Handler, while time.Duration) (done bool) {
		t.Helper()
		ctx, stop := context.WithTimeout(t.Context(), while)
		defer stop()
		if err := b.Consume(ctx, consumer, limit, func(ctx context.Context, batch []bus.Delivery) error {
			err := store(ctx, batch)
			if err == nil {
				done = true
				stop()
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return done
	}
	f := func(consumer topology.Consumer, mention, fact bus.Message, handle bus.Handler) {
		t.Helper()
		if err := b.Publish(t.Context(), []bus.Message{mention, fact}); err != nil {
			t.Fatal(err)
		}
		if read(consumer, handle, time.Second) {
			t.Fatalf("%s: done before its mention was stored", fact.Subject)
		}
		if !read(topology.AggregateMentions, flush.mentions, time.Minute) || !read(consumer, handle, time.Minute) {
			t.Fatalf("%s: not done after its mention was stored", fact.Subject)
		}
	}
	f(topology.AggregateFacts, mentionOf(1), originalOf(1), flush.facts)
	f(topology.AggregateThreads, mentionOf(2), referenceOf(2, 9), flush.threads)
}

// TestPublishedBeforeStored: what is decided about threads and edits reaches subscribers first: ClickHouse knows nothing that no
// subscriber will be told.
func TestPublishedBeforeStored(t *testing.T) {
	b, store := startBus(t, 1<<20), openStore(t, enginetest.ClickHouse(t).Addr())
	if err := store.Migrate(t.Context(), func(string) {}); err != nil {
		t.Fatal(err)
	}
	filler := bus.Message{Subject: topology.MentionSubject("heart", "north"), Data: make([]byte, 1000)}
	var err error
	for err == nil {
		err = b.Publish(t.Context(), []bus.Message{filler})
	}
	if !errors.Is(err, bus.ErrFull) {
		t.Fatal(err)
	}
	ag := New(b, store, enginetest.Log(t), prometheus.NewRegistry())
	origin := "/polyphony/acme"
	ag.origin.Store(&origin)
	decided := row(1, "heart", 1, 1)
	decided.Source, decided.Kind = "reddit", social.Post
	if err := (&resolver{Aggregator: ag}).put(t.Context(), []social.Mention{decided}); !errors.Is(err, bus.ErrFull) {
		t.Errorf("put into a full stream: %v", err)
	}
	if located, err := store.Located(t.Context(), []social.Key{keyOf(1)}); err != nil || len(located) > 0 {
		t.Errorf("stored all the same: %v, %v", located, err)
	}
}

// TestForeignMessages: what nobody of ours wrote becomes a reject with its bytes, however deep it is nested, and nothing of it is logged.
func TestForeignMessages(t *testing.T) {
	b, store := startBus(t, 64<<20), openStore(t, enginetest.ClickHouse(t).Addr())
	if err := store.Migrate(t.Context(), func(string) {}); err != nil {
		t.Fatal(err)
	}
	var logged bytes.Buffer
	f := &flush{Aggregator: New(b, store, slog.New(slog.NewTextHandler(&logged, nil)), prometheus.NewRegistry())}
	batch := []bus.Delivery{
		{Sequence: 1, Message: bus.Message{Subject: topology.MentionSubject("heart", "north"), Data: []byte("jane.roe@mail.example")}},
		{Sequence: 2, Message: bus.Message{Subject: topology.MentionSubject("heart", "north"),
			Data: []byte(`{"type":"polyphony.mention.v1","data":{"version":-1,"text":"jane.roe@mail.example"}}`)}},
		{Sequence: 3, Message: bus.Message{Subject: topology.MentionSubject("heart", "north"), Data: bytes.Repeat([]byte("["), 900_000)}},
	}
	if err := f.mentions(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, b, topology.AggregateRejects); len(got) != len(batch) {
		t.Errorf("%d rejects", len(got))
	}
	if got := logged.String(); strings.Contains(got, "jane") || strings.Count(got, "cannot be read") != len(batch) {
		t.Errorf("logged\n%s", got)
	}
}
