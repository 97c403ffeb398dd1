package warehouse

import (
	"testing"
	"time"

	"polyphony/pkg/social"
)

// TestNotes: whatever more is known of an event is found by whoever asks for it among others, and only that, although each
// shares the noted half of its key with one of which nothing is known; also when parts are merged.
func TestNotes(t *testing.T) {
	w := start(t)
	r := newRand(84)
	mentions := history(r, 8)
	for i := range mentions {
		m := &mentions[i]
		m.Version = social.OwnVersion(time.Time{}, m.Time, 7)
		m.Counters = nil
		if i%2 == 1 {
			copy(m.EventKey[:8], mentions[i-1].EventKey[:8])
		}
	}
	var events []social.Key
	for i := range mentions {
		events = append(events, mentions[i].EventKey)
	}
	insert(t, w, mentions...)
	awaited, edited, told := events[0], mentions[2], events[4]

	f := func(what string, store error, want Unsettled) {
		t.Helper()
		if store != nil {
			t.Fatal(store)
		}
		for range 2 {
			got, err := w.Unsettled(t.Context(), events)
			if err != nil {
				t.Fatal(err)
			}
			same(t, what, want, got)
			exec(t, w, "OPTIMIZE TABLE notes FINAL")
		}
	}
	f("nothing known", nil, Unsettled{})
	reply := social.Mention{EventKey: key(r), Time: epoch, RecordedTime: epoch}
	f("a reply that waits", w.InsertEdges(t.Context(), []social.Reference{{Kept: true, Targets: []social.Key{awaited}, Until: epoch.Add(time.Hour), Mention: reply}}),
		Unsettled{Awaited: []social.Key{awaited}})
	edited.Version = social.OwnVersion(time.Time{}, edited.Time, 8)
	f("other words of its own", w.InsertSelves(t.Context(), []social.Reference{{Kept: true, Mention: edited}}, Waiting),
		Unsettled{Awaited: []social.Key{awaited}, Contested: []social.Key{edited.EventKey}})
	f("totals", w.InsertCounters(t.Context(), []Observation{{EventKey: told, Counters: social.Counters{Likes: 1, ObservedAt: epoch}}}),
		Unsettled{Awaited: []social.Key{awaited}, Contested: []social.Key{edited.EventKey}, Counted: []social.Key{told}})
}
