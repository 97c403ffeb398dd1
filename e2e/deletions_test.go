package e2e

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// TestDeletions: forty deletions among six hundred replies, each edited before, in any order: what is deleted is on no view once the deletion
// is read, and nothing brings it back: not the same posts again, with other words or at other times, no merge and no
// restart. Its words are gone from the tables.
func TestDeletions(t *testing.T) {
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
