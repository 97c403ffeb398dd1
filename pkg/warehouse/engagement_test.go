package warehouse

import (
	"fmt"
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
	unsettled, err := w.Unsettled(t.Context(), events)
	if err != nil {
		t.Fatal(err)
	}
	want := []social.Key{later.EventKey, together.EventKey, apart.EventKey, silent.EventKey, deleted.EventKey}
	same(t, "to be looked at", social.Distinct(want), social.Distinct(append(unsettled.Contested, unsettled.Counted...)))
	shown, err := w.Shown(t.Context(), []GainPlace{{plain.Node, epoch.UnixMilli(), plain.EventKey, TotalGain}, {plain.Node, epoch.UnixMilli(), deleted.EventKey, TotalGain}})
	if err != nil {
		t.Fatal(err)
	}
	same(t, "shown", map[GainPlace]Gain{{plain.Node, epoch.UnixMilli(), plain.EventKey, TotalGain}: {Reactions: 5}}, shown)
}

// TestStandingIsKnownSince: where an event was a mention says since when it is known, whatever took its place there or took it
// back, and whatever was merged.
func TestStandingIsKnownSince(t *testing.T) {
	w := start(t)
	m := history(newRand(85), 1)[0]
	recorded := func(hours int, words uint64) social.Mention {
		c := m
		c.RecordedTime, c.Version = epoch.Add(time.Duration(hours)*time.Hour), social.OwnVersion(time.Time{}, m.Time, words)
		return c
	}
	gone := recorded(1, 9)
	gone.Retracted = true
	all := []social.Mention{recorded(5, 7), recorded(3, 6), recorded(8, 8), gone}
	known := func() {
		t.Helper()
		standing, err := w.Standing(t.Context(), []social.Key{m.EventKey})
		if err != nil {
			t.Fatal(err)
		}
		same(t, "standing", []time.Time{epoch.Add(3 * time.Hour)}, []time.Time{standing[0].RecordedTime})
		same(t, "taken back", true, standing[0].Retracted)
	}
	for _, c := range all {
		insert(t, w, c)
		exec(t, w, "OPTIMIZE TABLE locations FINAL")
	}
	known()
	exec(t, w, "TRUNCATE TABLE locations")
	insert(t, w, all...)
	known()
}

// TestSelvesHoldTheFirstRecord: of those that say the same the one stands that was recorded first, whatever was merged.
func TestSelvesHoldTheFirstRecord(t *testing.T) {
	w := start(t)
	m := history(newRand(86), 1)[0]
	for _, hours := range []int{5, 3, 8} {
		m.RecordedTime, m.RulesVersion = epoch.Add(time.Duration(hours)*time.Hour), fmt.Sprint(hours)
		if err := w.InsertSelves(t.Context(), []social.Reference{{Mention: m, Kept: true}}, Waiting); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		selves, err := w.Selves(t.Context(), []social.Key{m.EventKey})
		if err != nil || len(selves) != 1 {
			t.Fatal(len(selves), err)
		}
		same(t, "rules", "3", selves[0].Mention.RulesVersion)
		same(t, "version", m.Version, selves[0].Mention.Version)
		exec(t, w, "OPTIMIZE TABLE selves FINAL")
	}
}

// TestTouchGains: whoever finds gains decided and repeats their touches makes their sealed hours stale again.
func TestTouchGains(t *testing.T) {
	w := start(t)
	place := GainPlace{social.Node{Division: "oncology", Territory: "dach"}, epoch.UnixMilli(), social.Key{1}, TotalGain}
	decided := DecidedGain{GainPlace: place, Gain: Gain{Shares: 1}}
	decided.Version = decided.After(0)
	if err := w.InsertGains(t.Context(), []DecidedGain{decided}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if n := sealAll(t, w); n != 1 {
			t.Errorf("%d hours were stale", n)
		}
		if err := w.TouchGains(t.Context(), []GainPlace{place}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestReferencesOfManyYears: a batch of them goes in by pieces, as mentions do.
func TestReferencesOfManyYears(t *testing.T) {
	w := start(t)
	r := newRand(73)
	var references []social.Reference
	for i := range 150 {
		at := epoch.AddDate(0, -i, 0)
		references = append(references, social.Reference{Kept: true, Targets: []social.Key{key(r)}, Until: at,
			Mention: social.Mention{EventKey: key(r), Time: at, RecordedTime: at, Version: social.OwnVersion(time.Time{}, at, 1)}})
	}
	if err := w.InsertEdges(t.Context(), references); err != nil {
		t.Fatal(err)
	}
	if err := w.InsertSelves(t.Context(), references, Before); err != nil {
		t.Fatal(err)
	}
	same(t, "stored", []string{"(300,150)"}, query(t, w, "SELECT toString(((SELECT count() FROM edges), (SELECT count() FROM selves FINAL)))"))
}

// TestEdgesOfManyTellings: whatever is merged, an event waits as long as it ever was to, and is known since it first was.
func TestEdgesOfManyTellings(t *testing.T) {
	w := start(t)
	for _, hours := range []int{5, 2, 9} {
		at := epoch.Add(time.Duration(hours) * time.Hour)
		err := w.InsertEdges(t.Context(), []social.Reference{{Kept: true, Targets: []social.Key{{2}}, Until: at.Add(time.Hour),
			Mention: social.Mention{EventKey: social.Key{1}, Time: epoch, RecordedTime: at}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		to, _, err := w.Edges(t.Context(), []social.Key{{1}})
		if err != nil {
			t.Fatal(err)
		}
		same(t, "edges", []Edge{{Event: social.Key{1}, Target: social.Key{2}, Until: epoch.Add(10 * time.Hour), Recorded: epoch.Add(2 * time.Hour), Kept: true}}, to)
		exec(t, w, "OPTIMIZE TABLE edges FINAL")
	}
}

// TestSelvesContest: an event is contested when its mentions and what it would be by itself say different things.
func TestSelvesContest(t *testing.T) {
	w := start(t)
	m := history(newRand(83), 1)[0]
	m.Version = social.OwnVersion(time.Time{}, m.Time, 7)
	insert(t, w, m)
	f := func(what string, self social.Version, want bool) {
		t.Helper()
		waits := m
		waits.Version = self
		err := w.InsertSelves(t.Context(), []social.Reference{{Mention: waits, Kept: true}}, Waiting)
		if err != nil {
			t.Fatal(err)
		}
		unsettled, err := w.Unsettled(t.Context(), []social.Key{m.EventKey})
		if err != nil {
			t.Fatal(err)
		}
		same(t, what, []bool{want}, []bool{len(unsettled.Contested) == 1})
	}
	f("the same words, other totals", m.Version.Carrying(5), false)
	f("other words", social.OwnVersion(time.Time{}, m.Time, 8), true)
}
