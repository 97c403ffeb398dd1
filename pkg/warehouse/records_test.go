package warehouse

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"polyphony/pkg/social"
)

func TestStatementsAreFacts(t *testing.T) {
	w := start(t)
	r := newRand(51)
	post, author := key(r), key(r)
	edit := social.Statement{Key: key(r), Source: "x", Kind: social.Edit, ObjectKey: post, ObjectAuthor: author, Time: epoch.Add(time.Minute),
		RecordedTime: epoch, RulesVersion: "v1", Sealed: []byte("sealed")}
	gone := social.Statement{Key: key(r), Source: "x", Kind: social.Delete, ObjectAuthor: author, Time: epoch.AddDate(-10, 0, 0), RecordedTime: epoch}
	otherWords := edit
	otherWords.Sealed = []byte("other words")
	later := edit
	later.RecordedTime = epoch.Add(time.Hour)

	read := func() []string {
		return query(t, w, `SELECT toString((kind, object_key = unhex(?), object_author_key = unhex(?), rules_version, recorded_time))
			FROM statements FINAL ORDER BY kind`, post.String(), author.String())
	}
	put := func(list ...social.Statement) {
		t.Helper()
		if err := w.InsertStatements(t.Context(), list); err != nil {
			t.Fatal(err)
		}
	}
	put(edit, gone)
	want := []string{
		"('edit',1,1,'v1','2026-05-25 14:00:00.000')",
		"('delete',0,1,'','2026-05-25 14:00:00.000')",
	}
	same(t, "statements", want, read())
	put(later, gone, edit)
	same(t, "repeated", want, read())
	same(t, "originals", []string{"x sealed"}, query(t, w, "SELECT source || ' ' || sealed FROM originals FINAL WHERE event_key = unhex(?)", edit.Key.String()))
	put(otherWords)
	first := read()
	put(edit)
	same(t, "two edits of one time, either order", first, read())
	put()
}

// TestStatementsOfOneIdentity writes statements that differ in one part of their content, at one instant: one of them
// stands, the same in any order of arrival, and the original beside it is its own.
func TestStatementsOfOneIdentity(t *testing.T) {
	w := start(t)
	r := newRand(53)
	base := social.Statement{Key: key(r), Source: "x", Kind: social.Edit, ObjectKey: key(r), ObjectAuthor: key(r), Time: epoch,
		RecordedTime: epoch, RulesVersion: "v1", Sealed: []byte("sealed words")}
	other := func(change func(*social.Statement)) social.Statement {
		s := base
		change(&s)
		return s
	}
	f := func(what string, list ...social.Statement) {
		t.Helper()
		var first []string
		for range 2 {
			exec(t, w, "TRUNCATE TABLE statements")
			exec(t, w, "TRUNCATE TABLE originals")
			for _, s := range list {
				if err := w.InsertStatements(t.Context(), []social.Statement{s}); err != nil {
					t.Fatal(err)
				}
			}
			got := query(t, w, `SELECT toString((hex(s.object_author_key), s.rules_version, o.sealed))
				FROM statements AS s FINAL LEFT JOIN originals AS o FINAL ON o.event_key = s.statement_key`)
			if len(got) != 1 {
				t.Errorf("%s: %d rows, want 1: %q", what, len(got), got)
			}
			if first == nil {
				first = got
			}
			same(t, what+", either order", first, got)
			if !strings.Contains(got[0], "'v1','sealed words") && !strings.Contains(got[0], "'v2','sealed words") && !strings.Contains(got[0], "'others','sealed others") {
				t.Errorf("%s: the original of another edit: %s", what, got[0])
			}
			slices.Reverse(list)
		}
	}
	f("author", base, other(func(s *social.Statement) { s.ObjectAuthor = key(r) }))
	f("no author", base, other(func(s *social.Statement) { s.ObjectAuthor = social.Key{} }))
	f("rules", base, other(func(s *social.Statement) { s.RulesVersion = "v2" }))
	f("original", base, other(func(s *social.Statement) { s.Sealed = []byte("sealed words, elsewhere") }))
	others := other(func(s *social.Statement) { s.RulesVersion, s.Sealed = "others", []byte("sealed others") })
	f("text", base, others)
	for _, later := range []time.Duration{time.Second, -time.Second} {
		others.RecordedTime = epoch.Add(later)
		f("text, recorded "+later.String()+" later", base, others)
	}
}

// TestDeletesOfTwoAuthors: without an object, the author is what a deletion is about.
func TestDeletesOfTwoAuthors(t *testing.T) {
	w := start(t)
	r := newRand(54)
	var list []social.Statement
	for range 3 {
		list = append(list, social.Statement{Key: key(r), Source: "x", Kind: social.Delete, ObjectAuthor: key(r), Time: epoch, RecordedTime: epoch})
	}
	if err := w.InsertStatements(t.Context(), append(list, list...)); err != nil {
		t.Fatal(err)
	}
	same(t, "deletions", []string{"3"}, query(t, w, "SELECT toString(count()) FROM statements FINAL"))
}

// TestOriginalOfTheStandingCopy: of several originals of one event the one of the copy that stands as first written holds, in
// any order: of the earliest time, of those of the best words, of those by content, and of equal ones the first record.
func TestOriginalOfTheStandingCopy(t *testing.T) {
	w := start(t)
	of := func(minute int, words uint64, sealed string, recorded int) social.Original {
		at := epoch.Add(time.Duration(minute) * time.Minute)
		return social.Original{EventKey: social.Key{1}, Version: social.OwnVersion(time.Time{}, at, words).Words(), Source: "x",
			RecordedTime: epoch.Add(time.Duration(recorded) * time.Hour), Sealed: []byte(sealed)}
	}
	list := []social.Original{of(1, 5, "later", 0), of(0, 4, "other words", 1), of(0, 5, "content", 5), of(0, 5, "content", 2), of(0, 5, "content", 3)}
	r := newRand(86)
	for range 8 {
		exec(t, w, "TRUNCATE TABLE originals")
		r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		for i := range list {
			if err := w.InsertOriginals(t.Context(), list[i:i+1]); err != nil {
				t.Fatal(err)
			}
		}
		got, err := w.Originals(t.Context(), []social.Key{{1}})
		if err != nil {
			t.Fatal(err)
		}
		want := of(0, 5, "content", 2)
		same(t, "original", social.Original{EventKey: want.EventKey, Version: want.Version, Sealed: want.Sealed}, got[social.Key{1}])
		same(t, "recorded", []string{want.RecordedTime.Format(time.DateTime)}, query(t, w, "SELECT toString(toDateTime(recorded_time, 'UTC')) FROM originals FINAL"))
	}
}

func TestRejects(t *testing.T) {
	w := start(t)
	var rejects []Reject
	for i := range 130 { // more months than one INSERT may touch
		rejects = append(rejects, Reject{ID: fmt.Sprintf("m-%d", i), Sequence: uint64(i), Position: 1, Stage: "ingest", Code: "invalid_json", Source: "x",
			Detail: fmt.Sprintf("line %d", i), RulesVersion: "v1", Origin: "RAW:7:3", Size: uint32(i), Time: time.Now().AddDate(0, 0, -i/2)})
	}
	for range 2 {
		if err := w.InsertRejects(t.Context(), rejects); err != nil {
			t.Fatal(err)
		}
		slices.Reverse(rejects)
		for i := range rejects { // published again, so in other messages
			rejects[i].Sequence++
		}
	}
	same(t, "rejects", []string{"(130,8385,130,130,'ingest','v1','RAW:7:3')"},
		query(t, w, "SELECT toString((count(), sum(size), sum(position), uniq(detail), any(stage), any(rules_version), any(origin))) FROM rejects"))
}

// TestFreshness: of one epoch the latest claim holds, in any order, and none of an epoch before.
func TestFreshness(t *testing.T) {
	w := start(t)
	f := func(claimEpoch uint32, minutes int, want string) {
		t.Helper()
		claim := Freshness{Epoch: claimEpoch, CompleteUntil: epoch.Add(time.Duration(minutes) * time.Minute), Sequence: uint64(minutes), Positions: []byte(want)}
		if err := w.PutFreshness(t.Context(), "MENTIONS", claim); err != nil {
			t.Fatal(err)
		}
		same(t, "freshness", []string{want}, query(t, w, "SELECT toString(toMinute(complete_until)) || ' ' || toString(sequence) FROM freshness"))
		held, err := w.Freshness(t.Context(), "MENTIONS")
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprintf("%d %d", held.CompleteUntil.Minute(), held.Sequence); got != want || string(held.Positions) != want {
			t.Errorf("%s with %s holds, want %s", got, held.Positions, want)
		}
	}
	if held, err := w.Freshness(t.Context(), "MENTIONS"); err != nil || held.CompleteUntil.Unix() != 0 || held.Epoch != 0 {
		t.Errorf("before any claim: %+v, %v", held, err)
	}
	f(0, 1, "1 1")
	f(0, 3, "3 3")
	f(0, 2, "3 3")
	f(1, 2, "2 2")
	f(0, 4, "2 2")
	f(1, 5, "5 5")
}

// TestWordsVanishByThemselves waits for ClickHouse's own merges: nobody runs OPTIMIZE.
func TestWordsVanishByThemselves(t *testing.T) {
	w := start(t)
	for _, table := range []string{"mentions_store", "statements", "selves", "originals"} {
		exec(t, w, "ALTER TABLE "+table+" MODIFY SETTING merge_with_ttl_timeout = 1")
	}
	old := history(newRand(53), 5)
	for i := range old {
		old[i].Time, old[i].Text = time.Now().UTC().Add(-3*time.Hour), "words"
	}
	insert(t, w, old...)
	if err := w.InsertOriginals(t.Context(), []social.Original{{EventKey: social.Key{1}, Source: "x", RecordedTime: old[0].Time, Sealed: []byte("who")}}); err != nil {
		t.Fatal(err)
	}
	if err := w.SetRetention(t.Context(), Retention{Text: 2 * time.Hour, Mentions: 9600 * time.Hour}); err != nil {
		t.Fatal(err)
	}
	fresh := history(newRand(54), 5)
	for i := range fresh {
		fresh[i].Time, fresh[i].Text = time.Now().UTC(), "words"
	}
	insert(t, w, fresh...)
	deadline := time.Now().Add(time.Minute)
	for {
		left := query(t, w, "SELECT toString(countIf(text != '' AND time < now() - 7200) + (SELECT count() FROM originals)) FROM mentions_store")
		if slices.Equal(left, []string{"0"}) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%v rows have words or people long after their time", left)
		}
		time.Sleep(100 * time.Millisecond)
	}
	same(t, "words of today", []string{"5"}, query(t, w, "SELECT toString(countIf(text != '')) FROM mentions"))
}

// TestRetentionWaitsForStaleHours: facts stay until what is made of them holds without them; words do not wait.
func TestRetentionWaitsForStaleHours(t *testing.T) {
	w := start(t)
	const day = 24 * time.Hour
	inForce := func(want Retention) {
		t.Helper()
		got, _, err := w.retention(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		same(t, "retention in force", want, got)
		ttl := query(t, w, "SELECT create_table_query FROM system.tables WHERE database = currentDatabase() AND name = 'mentions_store'")[0]
		if removes := strings.Contains(ttl, "TTL toDateTime(addMonths("); removes != (want.Mentions > 0) {
			t.Errorf("mentions go: %v, want retention %v: %s", removes, want.Mentions, ttl)
		}
	}
	set := func(r Retention, stale bool) {
		t.Helper()
		if err := w.SetRetention(t.Context(), r); err != nil && !errors.Is(err, ErrStale) || (err != nil) != stale {
			t.Fatalf("SetRetention: %v, want stale hours: %v", err, stale)
		}
	}
	old := history(newRand(55), 5)
	for i := range old {
		old[i].Time = time.Now().UTC().Add(-500 * day).Truncate(time.Millisecond)
	}
	insert(t, w, old...)
	set(Retention{Text: 90 * day, Mentions: 400 * day, Metrics: 1800 * day}, true)
	inForce(Retention{Text: 90 * day, Metrics: 1800 * day})
	sealAll(t, w)
	set(Retention{Text: 90 * day, Mentions: 400 * day, Metrics: 1800 * day}, false)
	inForce(Retention{Text: 90 * day, Mentions: 400 * day, Metrics: 1800 * day})
	for i := range old {
		old[i].Time = old[i].Time.Add(150 * day)
	}
	insert(t, w, old...)
	set(Retention{Text: 80 * day, Mentions: 300 * day}, true)
	inForce(Retention{Text: 80 * day, Mentions: 400 * day})
	same(t, "hours", counted(old, hourOf), readMetrics(t, w, "(SELECT * FROM node_metrics_1h WHERE bucket > now() - INTERVAL 400 DAY)"))
}

// TestMonthsGoAsOne: a part whose rows expire one by one is made anew for each.
func TestMonthsGoAsOne(t *testing.T) {
	w := start(t)
	const day = 24 * time.Hour
	if err := w.SetRetention(t.Context(), Retention{Text: 90 * day, Mentions: 400 * day}); err != nil {
		t.Fatal(err)
	}
	facts := history(newRand(56), 60)
	for i := range facts {
		facts[i].Time = time.Now().UTC().AddDate(0, 0, -i)
	}
	insert(t, w, facts...)
	var selves []social.Reference
	for i := range facts {
		selves = append(selves, social.Reference{Mention: facts[i], Kept: i%2 == 0, Until: facts[i].RecordedTime.Add(day), Targets: []social.Key{{1}}})
	}
	if err := w.InsertSelves(t.Context(), selves, Waiting); err != nil {
		t.Fatal(err)
	}
	if err := w.InsertEdges(t.Context(), selves); err != nil {
		t.Fatal(err)
	}
	same(t, "parts by table, and those that expire bit by bit", []string{"edges 0", "locations 0", "mentions_store 0", "selves 0"},
		query(t, w, `SELECT table || ' ' || toString(countIf(delete_ttl_info_min != delete_ttl_info_max)) FROM system.parts
			WHERE database = currentDatabase() AND active AND rows > 0 AND table IN ('mentions_store', 'locations', 'selves', 'edges')
			GROUP BY table HAVING max(delete_ttl_info_max) > 0 ORDER BY table`))
}

func TestRetention(t *testing.T) {
	w := start(t)
	facts := history(newRand(52), 90)
	for i := range facts {
		facts[i].Time = time.Now().UTC().AddDate(0, 0, -i*10)
		facts[i].Text = "words"
	}
	insert(t, w, facts...)
	sealAll(t, w)
	set := func(r Retention) {
		t.Helper()
		if err := w.SetRetention(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	const day = 24 * time.Hour
	set(Retention{Text: 90 * day, Mentions: 400 * day, Metrics: 1800 * day})
	set(Retention{Text: 90 * day, Mentions: 400 * day, Metrics: 1800 * day})
	exec(t, w, "OPTIMIZE TABLE mentions_store FINAL")
	oldest, words := query(t, w, "SELECT toString(max(dateDiff('day', time, now())) BETWEEN 400 AND 440) FROM mentions"),
		query(t, w, "SELECT toString(max(dateDiff('day', time, now()))) FROM mentions WHERE text != ''")
	same(t, "oldest mention", []string{"1"}, oldest)
	same(t, "oldest words", []string{"80"}, words)

	set(Retention{})
	insert(t, w, facts...)
	exec(t, w, "OPTIMIZE TABLE mentions_store FINAL")
	same(t, "kept for ever", []string{"90"}, query(t, w, "SELECT toString(countIf(text != '')) FROM mentions_store FINAL"))
}
