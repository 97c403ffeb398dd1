package warehouse

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"polyphony/pkg/social"
)

// everything is a fingerprint of what readers see of each mention.
const everything = `SELECT toString(tuple(*)) FROM mentions ORDER BY division, territory, time, event_key`

func TestRepeatsChangeNothing(t *testing.T) {
	w := start(t)
	r := rand.New(rand.NewPCG(1, 1))
	facts := history(r, 400)
	insert(t, w, facts...)
	mentions, hours := query(t, w, everything), readMetrics(t, w, "node_metrics_1h")
	if len(mentions) != len(facts) {
		t.Fatalf("%d mentions inserted, %d seen", len(facts), len(mentions))
	}
	same(t, "hours", counted(facts, hourOf), hours)

	check := func(when string) {
		t.Helper()
		same(t, "mentions "+when, mentions, query(t, w, everything))
		same(t, "hours "+when, hours, readMetrics(t, w, "node_metrics_1h"))
	}
	r.Shuffle(len(facts), func(i, j int) { facts[i], facts[j] = facts[j], facts[i] })
	insert(t, w, facts...)
	check("after a repeat in another order")
	insert(t, w, append(slices.Clone(facts[:100]), facts[50:150]...)...)
	check("after a repeat with repeats")
	sealAll(t, w)
	check("sealed")
	insert(t, w, facts[:200]...)
	check("after a repeat into sealed hours")
	later := slices.Clone(facts[:50])
	for i := range later {
		later[i].RecordedTime = later[i].RecordedTime.Add(time.Hour)
	}
	insert(t, w, later...)
	check("after the same was recorded again later")
	exec(t, w, "OPTIMIZE TABLE mentions_store FINAL")
	exec(t, w, "OPTIMIZE TABLE touches FINAL")
	check("merged")
	sealAll(t, w)
	check("sealed again")
}

// TestHighestVersionHolds writes the words of a post as they were, as edited twice, and its deletion, in every order,
// one by one and together.
func TestHighestVersionHolds(t *testing.T) {
	w := start(t)
	r := rand.New(rand.NewPCG(2, 2))
	base := history(r, 1)[0]
	base.Kind, base.ByCompany = social.Post, false
	states := make([]social.Mention, 4)
	for i := range states {
		states[i] = base
		states[i].Text = []string{"as written", "edited", "edited again", "never seen"}[i]
		var revision time.Time
		if i > 0 {
			revision = base.Time.Add(time.Duration(i) * time.Minute)
		}
		states[i].Version = social.OwnVersion(revision, base.Time, 1<<40-1-uint64(i))
	}
	states[3].Version, states[3].Retracted = social.Deleted(), true

	type history struct {
		order    []social.Mention
		together bool
	}
	var histories []history
	for subset := 1; subset < 1<<len(states); subset++ {
		var list []social.Mention
		for i := range states {
			if subset&(1<<i) != 0 {
				list = append(list, states[i])
			}
		}
		permutations(list, func(order []social.Mention) {
			for _, together := range []bool{true, false} {
				k := key(r)
				own := slices.Clone(order)
				for i := range own {
					own[i].EventKey = k
				}
				histories = append(histories, history{own, together})
			}
		})
	}
	for step := range states { // all histories side by side, one step of each in every insert
		var batch []social.Mention
		for _, h := range histories {
			switch {
			case h.together && step == 0:
				batch = append(batch, h.order...)
			case !h.together && step < len(h.order):
				batch = append(batch, h.order[step])
			}
		}
		insert(t, w, batch...)
	}
	for _, h := range histories {
		last := slices.MaxFunc(h.order, func(a, b social.Mention) int { return strings.Compare(a.Version.String(), b.Version.String()) })
		want := []string{}
		if !last.Retracted {
			want = []string{last.Text}
		}
		got := query(t, w, "SELECT text FROM mentions WHERE event_key = ?", last.EventKey.String())
		if !slices.Equal(want, got) {
			t.Errorf("together %v, order %q: got %q, want %q", h.together, texts(h.order), got, want)
		}
	}
	before := query(t, w, everything)
	exec(t, w, "OPTIMIZE TABLE mentions_store FINAL")
	same(t, "after a merge", before, query(t, w, everything))
	if got := query(t, w, "SELECT text FROM mentions_store WHERE is_deleted AND text != ''"); len(got) > 0 {
		t.Errorf("deleted words are still stored: %q", got)
	}
}

func texts(list []social.Mention) (texts []string) {
	for _, m := range list {
		texts = append(texts, m.Text)
	}
	return texts
}

func permutations[T any](list []T, do func([]T)) {
	var from func(i int)
	from = func(i int) {
		if i == len(list) {
			do(slices.Clone(list))
			return
		}
		for j := i; j < len(list); j++ {
			list[i], list[j] = list[j], list[i]
			from(i + 1)
			list[i], list[j] = list[j], list[i]
		}
	}
	from(0)
}

func TestEarliestRecordOfEqualsHolds(t *testing.T) {
	w := start(t)
	m := history(rand.New(rand.NewPCG(3, 3)), 1)[0]
	early, late := m, m
	early.RecordedTime = m.RecordedTime.Add(-time.Minute)
	for range 2 {
		insert(t, w, late)
		insert(t, w, early)
		insert(t, w, late, early)
		got := query(t, w, "SELECT toString(recorded_time) FROM mentions")
		same(t, "recorded time", []string{milliseconds(early.RecordedTime)}, got)
	}
}

// TestOwnStandsBeforeThread has an event be a mention by itself and through its thread, in every order: the one neither
// overwrites nor takes back the other, and what is left when an edit or other words take its own words away is its thread.
func TestOwnStandsBeforeThread(t *testing.T) {
	w := start(t)
	r := rand.New(rand.NewPCG(4, 4))
	base := history(r, 1)[0]
	base.Via = social.ViaText
	states := make([]social.Mention, 6)
	for i := range states {
		states[i] = base
		states[i].Version = social.OwnVersion(time.Time{}, base.Time, 7)
	}
	joins := func(revision time.Time, words uint64) (v social.Version) {
		v, _ = social.OwnVersion(revision, base.Time, words).Words().Next()
		return v
	}
	edited := base.Time.Add(time.Minute)
	const own, thread, left, moved, again, other = 0, 1, 2, 3, 4, 5
	states[thread].Via, states[thread].Version = social.ViaThread, joins(time.Time{}, 7)
	states[left].Retracted, states[left].Version = true, joins(time.Time{}, 7)
	states[moved].Retracted, states[moved].Version = true, social.Floor(edited, base.Time)
	states[again].Via, states[again].Version = social.ViaThread, joins(edited, 1)
	states[other].Via, states[other].Version = social.ViaThread, joins(time.Time{}, 8)
	f := func(want string, of ...int) {
		t.Helper()
		var list []social.Mention
		for _, i := range of {
			list = append(list, states[i])
		}
		permutations(list, func(order []social.Mention) {
			k := key(r)
			for i := range order {
				order[i].EventKey = k
				insert(t, w, order[i])
			}
			if got := strings.Join(query(t, w, "SELECT via FROM mentions WHERE event_key = ?", k.String()), " "); got != want {
				t.Errorf("%v in the order %v: got %q, want %q", of, texts(order), got, want)
			}
		})
	}
	f("text", own, thread)
	f("text", own, left)
	f("text", own, thread, left)
	f("", thread, left)
	f("", own, moved)
	f("thread", own, moved, again)
	f("thread", own, thread, left, again)
	f("thread", own, thread, other)
}

// TestRedatedIsGone takes back a mention because its event happened earlier: nothing brings it back at the later time.
func TestRedatedIsGone(t *testing.T) {
	w := start(t)
	late := history(rand.New(rand.NewPCG(4, 5)), 1)[0]
	gone := late
	gone.Retracted, gone.Version = true, social.Floor(time.Time{}, late.Time.Add(-time.Hour))
	edited := late
	edited.Version = social.OwnVersion(late.Time.Add(time.Hour), late.Time, 1)
	insert(t, w, gone)
	insert(t, w, late)
	insert(t, w, edited)
	same(t, "what is left", []string{}, query(t, w, "SELECT via FROM mentions"))
}

// TestHeadsTakeBack: what is known to stand in the place of a mention when it is stored, no reader ever sees that mention, however
// often it is sent.
func TestHeadsTakeBack(t *testing.T) {
	w := start(t)
	r := newRand(56)
	base := history(r, 1)[0]
	base.Version = social.OwnVersion(time.Time{}, base.Time, 5)
	store := func(what string, m social.Mention, want string) {
		t.Helper()
		for range 2 {
			insert(t, w, m)
			same(t, what, []string{want}, query(t, w, "SELECT toString(count()) FROM mentions WHERE event_key = ?", m.EventKey.String()))
		}
	}
	f := func(what string, head social.Version, want string) {
		t.Helper()
		m := base
		m.EventKey = key(r)
		if err := w.PutHeads(t.Context(), map[social.Key]social.Version{m.EventKey: head}); err != nil {
			t.Fatal(err)
		}
		store(what, m, want)
	}
	version := social.OwnVersion
	f("a mark", social.Mark(), "1")
	f("itself", base.Version, "1")
	f("other words that lose", version(time.Time{}, base.Time, 4), "1")
	f("other words that win", version(time.Time{}, base.Time, 6), "0")
	f("a later time", version(time.Time{}, base.Time.Add(time.Hour), 6), "1")
	f("an earlier time", version(time.Time{}, base.Time.Add(-time.Hour), 4), "0")
	f("an edit", version(base.Time.Add(time.Minute), base.Time, 4), "0")
	f("a deletion", social.Deleted(), "0")
	byAuthor := func(what string, until time.Time, want string) {
		t.Helper()
		m := base
		m.EventKey, m.AuthorKey = key(r), key(r)
		if err := w.PutAuthorHeads(t.Context(), map[social.Key]time.Time{m.AuthorKey: until}); err != nil {
			t.Fatal(err)
		}
		store(what, m, want)
	}
	byAuthor("a deletion of what its author wrote before", base.Time.Add(-time.Millisecond), "1")
	byAuthor("a deletion of what its author wrote until then", base.Time, "0")
}

// TestInsertSpansYears needs more partitions than ClickHouse takes in one INSERT.
func TestInsertSpansYears(t *testing.T) {
	w := start(t)
	facts := history(rand.New(rand.NewPCG(5, 5)), 240)
	for i := range facts {
		facts[i].Time = epoch.AddDate(0, -i%120, 0)
	}
	insert(t, w, facts...)
	insert(t, w, facts...)
	same(t, "hours", counted(facts, hourOf), readMetrics(t, w, "node_metrics_1h"))
	sealAll(t, w)
	same(t, "sealed hours", counted(facts, hourOf), readMetrics(t, w, "node_metrics_1h"))
	same(t, "locations", []string{"240"}, query(t, w, "SELECT toString(count()) FROM locations FINAL"))
	largest := query(t, w, "SELECT toString(uniqExact(partition)) FROM system.parts WHERE active AND table = 'mentions_store' AND database = currentDatabase()")
	same(t, "months", []string{"120"}, largest)
}

func TestNothingInsertsNothing(t *testing.T) {
	w := start(t)
	insert(t, w)
	same(t, "touches", []string{"0"}, query(t, w, "SELECT toString(count()) FROM touches"))
}

func TestSplitRows(t *testing.T) {
	f := func(months, perMonth, wantPieces int) {
		t.Helper()
		rows := []row{}
		for m := range months {
			at := time.Date(2000, time.Month(1+m), 15, 0, 0, 0, 0, time.UTC).UnixMilli()
			for range perMonth {
				rows = append(rows, row{ms: at, index: int32(len(rows))})
			}
		}
		seen := map[int32]bool{}
		pieces := splitRows(rows)
		for _, piece := range pieces {
			in := map[int]bool{}
			for _, r := range piece {
				seen[r.index] = true
				in[month(r.ms)] = true
			}
			if len(in) > maxPartitions || len(piece) > maxRows {
				t.Errorf("a piece has %d rows of %d months", len(piece), len(in))
			}
		}
		if len(pieces) != wantPieces || len(seen) != len(rows) {
			t.Errorf("%d rows of %d months: %d pieces with %d rows, want %d pieces", len(rows), months, len(pieces), len(seen), wantPieces)
		}
	}
	f(0, 0, 0)
	f(1, 3, 1)
	f(1, maxRows+1, 2)
	f(50, 1, 1)
	f(51, 2, 2)
	f(120, 2, 3)
}

func TestRowsAreSortedAsTheTableIs(t *testing.T) {
	w := start(t)
	facts := history(rand.New(rand.NewPCG(6, 6)), 300)
	for i := range facts {
		facts[i].Time = epoch.Add(time.Duration(i%3) * time.Millisecond)
	}
	insert(t, w, facts...)
	rows, _ := sortRows(facts)
	keys := make([]string, len(rows))
	for i, r := range rows {
		keys[i] = facts[r.index].EventKey.String()
	}
	same(t, "order", query(t, w, `SELECT lower(hex(event_key)) FROM mentions_store ORDER BY division, territory, time, event_key`), keys)
}

// TestOrderOfWrites takes one table after the other away: what comes later must not be there without what comes first.
// A location may point to nothing, and a fact may lack its touch until the repeat; a touch without its fact would let
// an hour be sealed without it.
func TestOrderOfWrites(t *testing.T) {
	w := start(t)
	facts := history(newRand(7), 20)
	f := func(missing, want string) {
		t.Helper()
		exec(t, w, "RENAME TABLE "+missing+" TO away")
		if err := w.InsertMentions(t.Context(), facts); err == nil || !Retry(err) {
			t.Errorf("without %s: %v", missing, err)
		}
		exec(t, w, "RENAME TABLE away TO "+missing)
		same(t, "locations, facts and touches when "+missing+" fails", []string{want}, query(t, w, `SELECT toString((
			(SELECT count() > 0 FROM locations), (SELECT count() > 0 FROM mentions_store), (SELECT count() > 0 FROM touches)))`))
	}
	f("locations", "(0,0,0)")
	f("mentions_store", "(1,0,0)")
	f("touches", "(1,1,0)")
	insert(t, w, facts...)
	same(t, "after the repeat", counted(facts, hourOf), readMetrics(t, w, "node_metrics_1h"))
}

// TestTimesThatTheTablesCannotHold are refused before anything is written; at both ends, hours and minutes are right.
func TestTimesThatTheTablesCannotHold(t *testing.T) {
	w := start(t)
	r := newRand(55)
	first, last := time.UnixMilli(0).UTC(), time.Date(2106, 2, 6, 23, 59, 59, 999e6, time.UTC)
	for _, at := range []time.Time{first.Add(-time.Millisecond), last.Add(time.Millisecond), time.Date(2150, 1, 1, 0, 0, 0, 0, time.UTC), {}} {
		for _, set := range []func(*social.Mention){
			func(m *social.Mention) { m.Time = at },
			func(m *social.Mention) { m.RecordedTime = at },
		} {
			facts := history(r, 2)
			set(&facts[1])
			err := w.InsertMentions(t.Context(), facts)
			if err == nil || !strings.Contains(err.Error(), "mention 2 of 2") || Retry(err) {
				t.Errorf("%v: %v, Retry = %v", at, err, Retry(err))
			}
		}
	}
	same(t, "rows", []string{"0"}, query(t, w, "SELECT toString(count()) FROM mentions_store"))
	same(t, "touches", []string{"0"}, query(t, w, "SELECT toString(count()) FROM touches"))

	facts := history(r, 2)
	facts[0].Time, facts[1].Time = first, last
	for i := range facts {
		facts[i].Kind, facts[i].ByCompany = social.Post, false
	}
	insert(t, w, facts...)
	want := counted(facts, hourOf)
	same(t, "computed", want, readMetrics(t, w, "node_metrics_1h"))
	sealAll(t, w)
	same(t, "sealed", want, readMetrics(t, w, "node_metrics_1h"))
	same(t, "minutes", []string{"1970-01-01 00:00:00", "2106-02-06 23:59:00"}, query(t, w, "SELECT toString(bucket) FROM node_metrics_1m ORDER BY bucket"))
	same(t, "days", []string{"1970-01-01", "2106-02-06"}, query(t, w, "SELECT toString(day) FROM node_metrics_1d ORDER BY bucket"))
}
