package warehouse

import (
	"testing"
	"time"

	"polyphony/pkg/social"
)

// TestTotalsInMetrics: what mentions carry and what was decided about totals is in every view, sealed or not, and a
// change makes sealed hours stale. Equal totals of several copies count once, the greatest of unequal ones.
func TestTotalsInMetrics(t *testing.T) {
	w := start(t)
	r := newRand(71)
	node := social.Node{Division: "oncology", Territory: "dach"}
	post := func(at time.Time, kind social.Kind, c *social.Counters) social.Mention {
		m := social.Mention{Node: node, EventKey: key(r), AuthorKey: key(r), Source: "x", Kind: kind, Time: at, RecordedTime: at, Via: social.ViaText, Counters: c}
		m.Version = social.OwnVersion(time.Time{}, at, 1)
		return m
	}
	views := []string{"node_metrics_1m", "node_metrics_1h", "node_metrics_1d", "node_window(from = '2026-05-01 00:00:00', to = '2026-06-01 00:00:00')",
		"node_metrics_1h_of(division = '%', territory = '%', from = '2026-05-01 00:00:00', to = '2026-06-01 00:00:00')"}
	f := func(what, want string) {
		t.Helper()
		for range 2 {
			for _, view := range views {
				same(t, what+" in "+view, []string{want}, query(t, w, "SELECT toString((sum(mentions), sum(shares), sum(reactions), sum(views))) FROM "+view))
			}
			sealAll(t, w)
		}
	}
	told := post(epoch, social.Post, &social.Counters{Likes: 3, Shares: 2, Replies: 9, Views: social.Unreported, ObservedAt: epoch})
	share := post(epoch.Add(time.Hour), social.Share, nil)
	insert(t, w, told, share)
	f("carried", "(1,3,3,0)")
	insert(t, w, told)
	f("repeated", "(1,3,3,0)")

	decide := func(before GainVersion, part GainPart, at time.Time, event social.Key, g Gain, gone bool) GainVersion {
		t.Helper()
		decided := DecidedGain{GainPlace: GainPlace{node, at.UnixMilli(), event, part}, Gain: g, Gone: gone}
		decided.Version = decided.After(before)
		if err := w.InsertGains(t.Context(), []DecidedGain{decided}); err != nil {
			t.Fatal(err)
		}
		return decided.Version
	}
	first := decide(0, TotalGain, epoch.Add(2*time.Hour), told.EventKey, Gain{Shares: -1, Reactions: 4}, false)
	decide(0, SingleGain, share.Time, share.EventKey, Gain{Shares: -1}, false)
	f("decided", "(1,1,7,0)")
	second := decide(first, TotalGain, epoch.Add(2*time.Hour), told.EventKey, Gain{Shares: -3, Reactions: -4, Views: 9}, false)
	decide(0, TotalGain, epoch.Add(2*time.Hour), told.EventKey, Gain{Views: 1000}, false)
	f("fallen, and an older decision again", "(1,-1,-1,9)")
	decide(second, TotalGain, epoch.Add(2*time.Hour), told.EventKey, Gain{}, true)
	for _, table := range []string{"gains", "mentions_store", "locations"} {
		exec(t, w, "OPTIMIZE TABLE "+table+" FINAL")
	}
	f("taken back", "(1,2,3,0)")
}

// TestTotalsThatNeedALook: totals of another time than their post's, and copies with several, are found by whoever
// resolves the event, and have it looked at, however the copies arrive and whatever is merged in between. What is known to
// be deleted shows nothing.
func TestTotalsThatNeedALook(t *testing.T) {
	w := start(t)
	r := newRand(72)
	mention := func(likes int64, at time.Time) social.Mention {
		m := social.Mention{Node: social.Node{Division: "oncology", Territory: "dach"}, EventKey: key(r), AuthorKey: key(r), Source: "x", Kind: social.Post,
			Time: epoch, RecordedTime: epoch, Via: social.ViaText}
		m.Version = social.OwnVersion(time.Time{}, epoch, 1)
		m.Counters = &social.Counters{Likes: likes, Replies: social.Unreported, Shares: social.Unreported, Views: social.Unreported, ObservedAt: at}
		return m
	}
	copied := func(m social.Mention, likes int64) social.Mention {
		c := *m.Counters
		c.Likes = likes
		m.Counters = &c
		return m
	}
	later, plain, deleted := mention(1, epoch.Add(time.Second)), mention(5, epoch), mention(4, epoch)
	together, apart, silent := mention(2, epoch), mention(6, epoch), mention(7, epoch)
	untold := silent
	untold.Counters = nil
	if err := w.PutHeads(t.Context(), map[social.Key]social.Version{deleted.EventKey: social.Deleted()}); err != nil {
		t.Fatal(err)
	}
	insert(t, w, later, plain, together, copied(together, 3), deleted, apart, untold)
	insert(t, w, copied(apart, 9), plain, silent)
	exec(t, w, "OPTIMIZE TABLE locations FINAL")
	insert(t, w, apart)

	events := []social.Key{later.EventKey, plain.EventKey, together.EventKey, apart.EventKey, silent.EventKey, deleted.EventKey}
	told, err := w.Observations(t.Context(), events)
	if err != nil {
		t.Fatal(err)
	}
	standing, err := w.Standing(t.Context(), events)
	if err != nil {
		t.Fatal(err)
	}
	likes := map[social.Key]int64{}
	for event, list := range told {
		likes[event] += list[0].Likes
	}
	for _, m := range standing {
		if m.Counters != nil {
			likes[m.EventKey] += m.Counters.Likes
		}
	}
	same(t, "likes", map[social.Key]int64{later.EventKey: 1, plain.EventKey: 5, together.EventKey: 3, apart.EventKey: 9, silent.EventKey: 7, deleted.EventKey: 4}, likes)
	contested, _, err := w.Unsettled(t.Context(), events)
	if err != nil {
		t.Fatal(err)
	}
	want := []social.Key{later.EventKey, together.EventKey, apart.EventKey, silent.EventKey, deleted.EventKey}
	same(t, "to be looked at", unique(want), unique(contested))
	shown, err := w.Shown(t.Context(), []GainPlace{{plain.Node, epoch.UnixMilli(), plain.EventKey, TotalGain}, {plain.Node, epoch.UnixMilli(), deleted.EventKey, TotalGain}})
	if err != nil {
		t.Fatal(err)
	}
	same(t, "shown", map[GainPlace]Gain{{plain.Node, epoch.UnixMilli(), plain.EventKey, TotalGain}: {Reactions: 5}}, shown)
}
