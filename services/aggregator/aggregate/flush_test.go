package aggregate

import (
	"context"
	"net"
	"strconv"
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

// TestStoppedBeforeItIsStored: what an aggregator has in hand when it is stopped, and could not store because ClickHouse was away, is not
// acknowledged: the next one gets it.
func TestStoppedBeforeItIsStored(t *testing.T) {
	b, err := bus.Open(bus.Config{URL: enginetest.NATS(t).URL(), Name: "test", Storage: 64 << 20}, enginetest.Log(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	if err := b.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody.Close()
	store, err := warehouse.Open(warehouse.Config{Addr: nobody.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	ag := New(b, store, enginetest.Log(t), prometheus.NewRegistry())
	ag.waiting.Delete(preparing)
	flush := &flush{Aggregator: ag}
	limit := bus.Limit{Bytes: 1 << 20, Messages: 10, Wait: time.Millisecond}
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
			t.Errorf("%s: it did not come again (%v)", message.Subject, err)
		}
	}
	framed := func(subject string, lines []byte) bus.Message {
		return bus.Message{Subject: subject, Data: wire.EncodeOne(lines), Header: bus.Header{topology.HeaderSize: {strconv.Itoa(len(lines))}}}
	}
	mention := row(1, "heart", 1, 0)
	mention.Source, mention.Kind = "reddit", social.Post
	f(topology.AggregateMentions, bus.Message{Subject: topology.MentionSubject("heart", "north"),
		Data: wire.EndBatch(wire.AppendMention(wire.BeginBatch(nil), "/polyphony/acme", &mention))}, flush.mentions)
	f(topology.AggregateFacts, bus.Message{Subject: topology.OriginalsSubject,
		Data: wire.AppendOriginal(nil, &social.Original{EventKey: keyOf(1), Source: "reddit", RecordedTime: hour, Sealed: make([]byte, 100)})}, flush.facts)
	f(topology.AggregateThreads, framed(topology.StatementsSubject, wire.AppendStatement(nil, &social.Statement{Key: keyOf(2), Source: "reddit",
		Kind: social.Delete, ObjectKey: keyOf(1), Time: hour, RecordedTime: hour})), flush.threads)
	f(topology.AggregateRejects, framed(topology.RejectSubject("ingest", "invalid_json"),
		wire.AppendReject(nil, &wire.Reject{Code: social.InvalidJSON, RecordedTime: hour, Bytes: []byte("{")})), flush.rejects)
}
