package e2e

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestDeletions: forty deletions among six hundred replies, each edited before, in any order: what is deleted is on no view once the deletion
// is read, and nothing brings it back: not the same posts again, with other words or at other times, no merge and no
// restart. Its words are gone from the tables.
func TestDeletions(t *testing.T) {
	t.Parallel()
	const posts, deletions = 600, 40
	u := startUp(t)
	r := rand.New(rand.NewPCG(3, 3))
	start := time.Now().UTC().Truncate(time.Hour).Add(-24 * time.Hour)
	at := func(i int) time.Time { return start.Add(time.Duration(i) * time.Minute) }
	post := func(i int, when time.Time, words string) string {
		return fmt.Sprintf(`{"id":"gone-%d","source":"reddit","kind":"reply","time":%q,"text":"Velurex %s","author":{"id":"writer-%d","country":"DE"},"in_reply_to":{"id":"elsewhere"}}`,
			i, when.Format(time.RFC3339), words, i%50)
	}
	gone := map[int]bool{}
	for len(gone) < deletions {
		gone[r.IntN(posts)] = true
	}
	words := func(i int) string {
		if gone[i] {
			return "withdrawn words"
		}
		return "words that stay"
	}
	var lines []string
	for i := range posts {
		lines = append(lines, post(i, at(i), words(i)))
	}
	for i := range gone {
		lines = append(lines, fmt.Sprintf(`{"source":"reddit","kind":"edit","time":%q,"object":{"id":"gone-%d"},"text":"Velurex withdrawn words, edited"}`, at(i).Add(time.Minute).Format(time.RFC3339), i))
		lines = append(lines, fmt.Sprintf(`{"source":"reddit","kind":"delete","time":%q,"object":{"id":"gone-%d"}}`, at(i).Add(time.Hour).Format(time.RFC3339), i))
	}
	r.Shuffle(len(lines), func(i, j int) { lines[i], lines[j] = lines[j], lines[i] })
	send := func(lines []string) {
		t.Helper()
		u.post([]byte(strings.Join(lines, "\n")), "application/x-ndjson", nil)
		u.settle()
	}
	check := func(when string) {
		t.Helper()
		f := func(query string, want int) {
			t.Helper()
			if got := rows[struct{ N int }](u, query)[0].N; got != want {
				t.Errorf("%s: %d, want %d: %s", when, got, want, query)
			}
		}
		f("SELECT count() AS N FROM mentions WHERE text LIKE '%withdrawn%'", 0)
		f("SELECT count() AS N FROM mentions", posts-deletions)
		f("SELECT count() AS N FROM selves FINAL WHERE text LIKE '%withdrawn%'", 0)
		for _, view := range []string{"node_metrics_1m", "node_metrics_1h", "node_metrics_1d"} {
			f("SELECT sum(mentions) AS N FROM "+view, posts-deletions)
		}
		f(fmt.Sprintf("SELECT sum(mentions) AS N FROM node_window(from = '%s', to = '%s')", start.Format(time.DateTime), start.Add(72*time.Hour).Format(time.DateTime)), posts-deletions)
	}
	for piece := range 4 {
		send(lines[piece*len(lines)/4 : (piece+1)*len(lines)/4])
	}
	check("after all was told")
	send(lines)
	check("after all was told again")
	var again []string
	for i := range gone {
		again = append(again, post(i, at(i).Add(-3*time.Hour), words(i)), post(i, at(i).Add(time.Hour), words(i)+" and more"))
	}
	send(again)
	check("after the deleted came again with other times and words")
	u.drain()
	u.start()
	send(append(again, lines...))
	check("after a restart")
	for _, table := range []string{"mentions_store", "selves", "heads", "locations", "touches"} {
		u.sql("OPTIMIZE TABLE " + table + " FINAL")
	}
	check("after merges")
	for _, table := range []string{"mentions_store", "selves"} {
		if got := rows[struct{ N int }](u, "SELECT count() AS N FROM "+table+" WHERE text LIKE '%withdrawn%'")[0].N; got != 0 {
			t.Errorf("%d rows of %s still have the words of deleted posts", got, table)
		}
	}
}

// TestDeletionByAnyAuthor: what one of its copies says an author wrote goes with all they wrote, whatever other copies say and
// in whatever order all is heard, and nothing else goes.
func TestDeletionByAnyAuthor(t *testing.T) {
	t.Parallel()
	u := startUp(t)
	at := time.Now().UTC().Truncate(time.Hour).Add(-24 * time.Hour)
	written := func(kind, id, author string, minute int, says string) string {
		return fmt.Sprintf(`{"id":%q,"kind":%q,"time":%q,%s%s`, id, kind, at.Add(time.Duration(minute)*time.Minute).Format(time.RFC3339), says, author)
	}
	const post, reply = `"text":"Velurex"`, `"text":"thanks","in_reply_to":{"id":"p"}`
	const who, other, nobody = `,"author":{"id":"who","country":"DE"}`, `,"author":{"id":"other","country":"DE"}`, `,"place":{"country":"DE"}`
	leaves := fmt.Sprintf(`{"kind":"delete","time":%q,"object":{"author_id":"who"}`, at.Add(time.Hour).Format(time.RFC3339))
	cases := []struct {
		name  string
		facts [4]string
		want  int
	}{
		{"copies", [4]string{written("post", "p", who, 0, post), written("post", "p", nobody, 0, post), written("post", "p", other, 0, post), leaves}, 0},
		{"later", [4]string{written("post", "p", who, 90, post), written("post", "p", nobody, 90, post), written("post", "p", other, 0, post), leaves}, 1},
		{"replies", [4]string{written("post", "p", other, 0, post), written("reply", "r", who, 0, reply),
			written("reply", "r", other, 0, reply), leaves}, 1},
		{"others", [4]string{written("post", "p", other, 0, post), written("post", "p", nobody, 0, post), written("post", "p", other, 5, post), leaves}, 1},
	}
	type telling struct {
		source string
		steps  [4][]string
		want   int
	}
	var tellings []telling
	for _, c := range cases {
		permutations([]int{0, 1, 2, 3}, func(order []int) {
			apart := telling{source: fmt.Sprintf("%s%d%d%d%d", c.name, order[0], order[1], order[2], order[3]), want: c.want}
			together := telling{source: apart.source + "together", want: c.want}
			for step, fact := range order {
				apart.steps[step] = []string{c.facts[fact] + fmt.Sprintf(`,"source":%q}`, apart.source)}
				part := 1 // the copies in one request, the deletion in one before or after it
				if fact == 3 {
					part = step
				}
				together.steps[part] = append(together.steps[part], c.facts[fact]+fmt.Sprintf(`,"source":%q}`, together.source))
			}
			tellings = append(tellings, apart, together)
		})
	}
	for step := range 4 {
		var lines []string
		for _, told := range tellings {
			lines = append(lines, told.steps[step]...)
		}
		u.post([]byte(strings.Join(lines, "\n")), "application/x-ndjson", nil)
		u.settle()
		for _, table := range []string{"locations", "mentions_store", "selves"} {
			u.sql("OPTIMIZE TABLE " + table + " FINAL")
		}
	}
	u.sql("SELECT throwIf(count() > 0) FROM selves FINAL WHERE source LIKE 'replies%' AND NOT is_deleted")
	stands := map[string]int{}
	for _, r := range rows[struct {
		Source string
		N      int
	}](u, "SELECT source AS Source, count() AS N FROM mentions GROUP BY source") {
		stands[r.Source] = r.N
	}
	for _, told := range tellings {
		if stands[told.source] != told.want {
			t.Errorf("%s: %d mentions, want %d", told.source, stands[told.source], told.want)
		}
	}
}

// TestWithdrawnInPublic: what subscribers hold of deleted posts is nothing, in whatever order posts, edits that move them to
// another node, what they refer to and deletions are told, one by one and all at once, with two aggregators; and of a post
// that is known to be deleted no edit is published.
func TestWithdrawnInPublic(t *testing.T) {
	t.Parallel()
	const posts = 300
	u := startUp(t)
	startService(t, "aggregator", "POLYPHONY_NATS_URL=nats://"+u.at["nats"], "POLYPHONY_CLICKHOUSE_ADDR="+u.at["clickhouse"]).awaitReady()
	public := subscribe(t, u.at["nats"], "social.mentions.>")
	u.sql("SYSTEM STOP MERGES mentions_store") // words of the deleted stay where they were
	at := time.Now().UTC().Truncate(time.Hour).Add(-24 * time.Hour)
	told := func(minute int, format string, args ...any) string {
		return fmt.Sprintf(`{"time":%q,`, at.Add(time.Duration(minute)*time.Minute).Format(time.RFC3339)) + fmt.Sprintf(format, args...)
	}
	facts := func(id string) [4]string {
		return [4]string{
			told(0, `"id":%q,"kind":"reply","text":"Velurex withdrawn","author":{"id":"a","country":"DE"},"in_reply_to":{"id":"thread"}`, id),
			told(5, `"kind":"edit","object":{"id":%q},"text":"Velurex withdrawn, edited","place":{"country":"FR"}`, id),
			told(9, `"kind":"delete","object":{"id":%q}`, id),
			told(-9, `"id":"thread","kind":"post","text":"Aerilan","author":{"id":"b","country":"DE"}`),
		}
	}
	var steps [4][]string
	late := map[string]bool{} // sources whose post is deleted before it is edited
	permutations([]int{0, 1, 2, 3}, func(order []int) {
		source := fmt.Sprintf("apart%d%d%d%d", order[0], order[1], order[2], order[3])
		late[source] = slices.Index(order, 2) < slices.Index(order, 1)
		for step, fact := range order {
			steps[step] = append(steps[step], facts("gone")[fact]+fmt.Sprintf(`,"source":%q}`, source))
		}
	})
	for _, lines := range steps {
		u.post([]byte(strings.Join(lines, "\n")), "application/x-ndjson", nil)
		u.settle()
	}
	for fact := range 3 {
		var lines []string
		for i := range posts {
			lines = append(lines, facts(fmt.Sprintf("gone-%d", i))[fact]+`,"source":"once"}`)
			if i == 0 && fact == 1 {
				lines = append(lines, facts("")[3]+`,"source":"once"}`)
			}
		}
		u.post([]byte(strings.Join(lines, "\n")), "application/x-ndjson", nil)
	}
	u.settle()
	u.copyMustEqual(public)
	for _, e := range readBatches(t, public.all()) {
		var data struct{ Source, Text string }
		if err := json.Unmarshal(e.Data(), &data); err != nil {
			t.Fatal(err)
		}
		if late[data.Source] && strings.Contains(data.Text, "edited") {
			t.Errorf("%s: an edit of a deleted post was published", data.Source)
		}
	}
	if got := rows[struct{ N int }](u, "SELECT count() AS N FROM mentions")[0].N; got != len(late)+1 {
		t.Errorf("%d mentions, want the %d posts that were answered", got, len(late)+1)
	}
}

// copyMustEqual: what a subscriber keeps of all messages is what the table has. It keeps of one event in one node the
// highest version, and of two equal ones the retraction.
func (u *up) copyMustEqual(public *listener) {
	u.t.Helper()
	type mention struct {
		Division, Territory, Event_key, Version, Text string
		gone                                          bool
	}
	held := map[[3]string]mention{}
	for _, e := range readBatches(u.t, public.all()) {
		m := mention{gone: e.Type() == "polyphony.retraction.v1"}
		if err := json.Unmarshal(e.Data(), &m); err != nil {
			u.t.Fatal(err)
		}
		key := [3]string{m.Division, m.Territory, m.Event_key}
		if was, ok := held[key]; !ok || m.Version > was.Version || m.Version == was.Version && m.gone {
			held[key] = m
		}
	}
	want := map[[3]string]string{}
	for _, row := range rows[mention](u, "SELECT division AS Division, territory AS Territory, event_key AS Event_key, text AS Text FROM mentions") {
		want[[3]string{row.Division, row.Territory, row.Event_key}] = row.Text
	}
	got := map[[3]string]string{}
	for key, m := range held {
		if !m.gone {
			got[key] = m.Text
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		u.t.Errorf("(-table +subscriber)\n%s", diff)
	}
}

// permutations calls f with every order of a list, which it changes in place.
func permutations(list []int, f func([]int)) {
	var from func(i int)
	from = func(i int) {
		if i == len(list) {
			f(list)
		}
		for j := i; j < len(list); j++ {
			list[i], list[j] = list[j], list[i]
			from(i + 1)
			list[i], list[j] = list[j], list[i]
		}
	}
	from(0)
}
