package aggregate

import (
	"context"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"polyphony/pkg/bus"
	"polyphony/pkg/embedded/enginetest"
	"polyphony/pkg/topology"
)

func TestMain(m *testing.M) { enginetest.Main(m) }

// TestWatermarkKnowsAllThatChangesMetrics: what was published and not stored holds a mark back, whichever way it takes.
func TestWatermarkKnowsAllThatChangesMetrics(t *testing.T) {
	engine := enginetest.NATS(t)
	b, err := bus.Open(bus.Config{URL: engine.URL(), Name: "test", Storage: 64 << 20}, enginetest.Log(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	if err := b.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	ag := New(b, nil, enginetest.Log(t), prometheus.NewRegistry())
	progress := func() (watermark, sequences) {
		t.Helper()
		now, err := ag.progress(t.Context())
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
