package aggregate

import (
	"context"
	"testing"
	"testing/fstest"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"polyphony/pkg/embedded/enginetest"
	"polyphony/pkg/nodes"
	"polyphony/pkg/topology"
)

// TestRulesAreFollowed: an aggregator stores what came in force also after a version that nobody can read, and after the bucket was
// removed and made anew.
func TestRulesAreFollowed(t *testing.T) {
	engine, store := enginetest.NATS(t), openStore(t, enginetest.ClickHouse(t).Addr())
	if err := store.Migrate(t.Context(), func(string) {}); err != nil {
		t.Fatal(err)
	}
	b := openBus(t, engine.URL(), 64<<20)
	ag := New(b, store, enginetest.Log(t), prometheus.NewRegistry())
	ctx, stop := context.WithCancel(t.Context())
	following := make(chan error, 1)
	go func() { following <- ag.followRules(ctx) }()
	defer func() {
		stop()
		if err := <-following; err != nil {
			t.Error(err)
		}
	}()
	inForce := func(term string, archive []byte) {
		t.Helper()
		rules, err := nodes.Load(fstest.MapFS{
			"company.yaml":           {Data: []byte("company: acme\n")},
			"territories/north.yaml": {Data: []byte("territory: north\ncountries: [SE]\ntimezone: Europe/Stockholm\n")},
			"divisions/heart.yaml":   {Data: []byte("division: heart\nlisten: " + term + "\n")},
		})
		if err != nil {
			t.Fatal(err)
		}
		if archive == nil {
			archive = rules.Archive()
		}
		if err := b.Put(t.Context(), topology.RulesBucket, topology.RulesKey(rules.Version()), archive); err != nil {
			t.Fatal(err)
		}
		if err := b.Put(t.Context(), topology.RulesBucket, topology.RulesCurrent, []byte(rules.Version())); err != nil {
			t.Fatal(err)
		}
		readable := string(archive) == string(rules.Archive())
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
			known, err := store.KnownRules(t.Context())
			if waits := ag.Ready(); err == nil && (readable && known[rules.Version()] || !readable && waits != nil) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("rules of %s: %v, %v, waiting for: %v", term, known, err, ag.Ready())
			}
		}
	}
	ag.waiting.Delete(preparing)
	inForce("cordia", nil)
	inForce("velurex", []byte("what somebody else wrote"))
	inForce("alphavir", nil)

	conn, err := nats.Connect(engine.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	if err := js.DeleteKeyValue(t.Context(), topology.RulesBucket); err != nil {
		t.Fatal(err)
	}
	inForce("betavir", nil)
	inForce("gammavir", nil)
}
