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
