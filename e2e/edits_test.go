package e2e

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"polyphony/pkg/social"
	"polyphony/pkg/topology"
	"polyphony/pkg/wire"
)

// TestEditThatNobodyCanRead: an edit that was sealed with another secret changes nothing, is put on record, and holds up
// nobody: those told in the same breath and later are applied.
func TestEditThatNobodyCanRead(t *testing.T) {
	t.Parallel()
	u := startUp(t)
	at := time.Now().UTC().Truncate(time.Hour).Add(-24 * time.Hour)
	event := func(format string, args ...any) { u.post(fmt.Appendf(nil, format, args...), "application/json", nil) }
	for _, id := range []string{"first", "second"} {
		event(`{"id":%q,"source":"reddit","kind":"post","time":%q,"text":"Velurex as written","author":{"id":"a","country":"DE"}}`, id, at.Format(time.RFC3339))
	}
	u.settle()
	texts := func() []string {
		var list []string
		for _, r := range rows[struct{ Text string }](u, "SELECT text AS Text FROM mentions ORDER BY text") {
			list = append(list, r.Text)
		}
		return list
	}
	first := rows[struct{ Key, Rules string }](u, "SELECT event_key AS Key, rules_version AS Rules FROM mentions LIMIT 1")[0]
	key, err := social.ParseKey(first.Key)
	if err != nil {
		t.Fatal(err)
	}
	u.publishStatement(social.Statement{Key: social.Key{1}, Source: "reddit", Kind: social.Edit, ObjectKey: key, Time: at.Add(time.Hour), RecordedTime: at.Add(time.Hour),
		RulesVersion: first.Rules, Sealed: make([]byte, 100)})
	u.settle()
	if got := texts(); fmt.Sprint(got) != "[Velurex as written Velurex as written]" {
		t.Errorf("after an edit that nobody can read: %q", got)
	}
	for _, id := range []string{"first", "second"} {
		event(`{"source":"reddit","kind":"edit","time":%q,"object":{"id":%q},"text":"Velurex as edited"}`, at.Add(2*time.Hour).Format(time.RFC3339), id)
	}
	u.settle()
	if got := texts(); fmt.Sprint(got) != "[Velurex as edited Velurex as edited]" {
		t.Errorf("after edits that can be read: %q", got)
	}
	if got := rows[struct{ N int }](u, "SELECT count() AS N FROM rejects WHERE code = 'unroutable_edit' AND stage = 'aggregate'")[0].N; got != 1 {
		t.Errorf("%d rejects", got)
	}
}

// TestEditAndEarlierCopyAtOnce: an edit and a copy of its post with an earlier time, heard at once by two aggregators, end
// as the edited words at the earlier time, however the two meet.
func TestEditAndEarlierCopyAtOnce(t *testing.T) {
	t.Parallel()
	const posts = 200
	u := startUp(t)
	startService(t, "aggregator", "POLYPHONY_NATS_URL=nats://"+u.at["nats"], "POLYPHONY_CLICKHOUSE_ADDR="+u.at["clickhouse"]).awaitReady()
	late := time.Now().UTC().Truncate(time.Hour).Add(-24 * time.Hour)
	early := late.Add(-3 * time.Hour)
	written := func(i int, at time.Time) string {
		return fmt.Sprintf(`{"id":"p%d","source":"reddit","kind":"post","time":%q,"text":"Velurex %d as written","author":{"id":"a","country":"DE"}}`,
			i, at.Format(time.RFC3339), i)
	}
	var lines []string
	for i := range posts {
		lines = append(lines, written(i, late))
	}
	u.post([]byte(strings.Join(lines, "\n")), "application/x-ndjson", nil)
	u.settle()
	for i := range posts {
		u.post(fmt.Appendf(nil, `{"source":"reddit","kind":"edit","time":%q,"object":{"id":"p%d"},"text":"Velurex %d as edited"}`,
			late.Add(time.Hour).Format(time.RFC3339), i, i), "application/json", nil)
		u.post([]byte(written(i, early)), "application/json", nil)
	}
	u.settle()
	type mention struct {
		Text string
		At   int64
	}
	var want []mention
	for i := range posts {
		want = append(want, mention{fmt.Sprintf("Velurex %d as edited", i), early.Unix()})
	}
	got := rows[mention](u, "SELECT text AS Text, toInt64(toUnixTimestamp(time)) AS At FROM mentions ORDER BY toUInt32(splitByChar(' ', text)[2])")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("mentions (-want +got):\n%s", diff)
	}
}

// TestEditLeavesOut: what an edit leaves out stays as it was in the copy of the post that stands, all of it: title, tags, links,
// and names that its mention does not show; in whatever order copies and edit are heard.
func TestEditLeavesOut(t *testing.T) {
	t.Parallel()
	u := startUp(t)
	at := time.Now().UTC().Truncate(time.Hour).Add(-24 * time.Hour)
	post := func(minute int, what string) string {
		return fmt.Sprintf(`{"id":"p","kind":"post","time":%q,"author":{"id":"a","country":"DE"},%s`, at.Add(time.Duration(minute)*time.Minute).Format(time.RFC3339), what)
	}
	toFrance := fmt.Sprintf(`{"kind":"edit","time":%q,"object":{"id":"p"},"place":{"country":"FR"}`, at.Add(time.Hour).Format(time.RFC3339))
	cases := []struct {
		name  string
		facts [3]string
		want  string
	}{
		{"title", [3]string{post(0, `"text":"Velurex aaa"`), post(1, `"text":"Velurex bbb","title":"News"`), toFrance}, "dermatology: Velurex aaa"},
		{"titled", [3]string{post(0, `"text":"Velurex aaa","title":"News"`), post(1, `"text":"Velurex bbb"`), toFrance}, "dermatology: News Velurex aaa"},
		{"tags", [3]string{post(0, `"text":"Velurex","hashtags":["aerilan"]`), post(1, `"text":"Velurex"`), toFrance}, "dermatology: Velurex, respiratory: Velurex"},
		{"untagged", [3]string{post(0, `"text":"Velurex"`), post(1, `"text":"Velurex","hashtags":["aerilan"]`), toFrance}, "dermatology: Velurex"},
		{"handle", [3]string{post(0, `"text":"danke @velurex"`), post(1, `"text":"Velurex later"`), toFrance}, "dermatology: danke [handle]"},
	}
	orders := [][3]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}}
	for step := range 3 {
		var lines []string
		for _, c := range cases {
			for i, order := range orders {
				lines = append(lines, c.facts[order[step]]+fmt.Sprintf(`,"source":"%s%d"}`, c.name, i))
			}
		}
		u.post([]byte(strings.Join(lines, "\n")), "application/x-ndjson", nil)
		u.settle()
	}
	got := map[string]string{}
	for _, r := range rows[struct{ Source, Said string }](u, `SELECT source AS Source, arrayStringConcat(arraySort(groupArray(
			concat(division, if(territory = 'france', '', ' in ' || territory), ': ', replaceAll(text, '\n', ' ')))), ', ') AS Said FROM mentions GROUP BY source`) {
		got[r.Source] = r.Said
	}
	for _, c := range cases {
		for i, order := range orders {
			if said := got[fmt.Sprintf("%s%d", c.name, i)]; said != c.want {
				t.Errorf("%s in the order %v: %q, want %q", c.name, order, said, c.want)
			}
		}
	}
}

// TestRetoldPostKeepsItsThread: a post is known since it was first recorded. That it is told again, with an earlier time or
// other words, after the wait of those who replied to it is over, takes no reply out of its thread.
func TestRetoldPostKeepsItsThread(t *testing.T) {
	t.Parallel()
	const wait = time.Second
	u := startUp(t, "--nodes", companyWith(t, historyCompany, fmt.Sprintf("thread_wait: %s\n", wait)))
	at := time.Now().UTC().Truncate(time.Hour).Add(-24 * time.Hour)
	event := func(kind, id, text string, at time.Time, more string) {
		u.post(fmt.Appendf(nil, `{"id":%q,"source":"reddit","kind":%q,"time":%q,"text":%q,"author":{"id":"a","country":"DE"}%s}`,
			id, kind, at.Format(time.RFC3339), text, more), "application/json", nil)
	}
	for id, thanks := range map[string]string{"earlier": "many thanks for one", "other": "many thanks for two"} {
		event("post", id, "alphavir as told first", at, "")
		event("reply", "to-"+id, thanks, at, fmt.Sprintf(`,"in_reply_to":{"id":%q}`, id))
	}
	u.settle()
	replied := time.Now()
	await(t, "the wait of the replies to be over", func() error {
		if time.Since(replied) < wait {
			return fmt.Errorf("it is not")
		}
		return nil
	})
	event("post", "earlier", "alphavir as told first", at.Add(-time.Hour), "")
	for i := range 8 { // of other words a hash decides
		event("post", "other", fmt.Sprintf("alphavir as told %d", i), at, "")
	}
	u.settle()
	got := rows[struct{ Text string }](u, "SELECT text AS Text FROM mentions WHERE via = 'thread' ORDER BY text")
	if fmt.Sprint(got) != "[{many thanks for one} {many thanks for two}]" {
		t.Errorf("replies: %v", got)
	}
}

// TestAdoptedIsKept: what waited for its post and is a mention now is kept as long as that, in every copy, and with all that
// any copy refers to, in whatever order post, copies and an edit are heard.
func TestAdoptedIsKept(t *testing.T) {
	t.Parallel()
	u := startUp(t)
	at := time.Now().UTC().Truncate(time.Hour).Add(-24 * time.Hour).Format(time.RFC3339)
	facts := []string{
		`"id":"p","kind":"post","text":"Velurex","author":{"id":"x","country":"DE"}`,
		`"id":"r","kind":"reply","text":"thanks","author":{"id":"a"},"in_reply_to":{"id":"p"}`,
		`"id":"r","kind":"reply","text":"thanks","author":{"id":"b"},"in_reply_to":{"id":"p"},"root_id":"elsewhere"`,
		`"id":"r","kind":"reply","text":"thanks","author":{"id":"a"},"in_reply_to":{"id":"p"},"root_id":"nowhere"`,
		`"kind":"edit","object":{"id":"r"},"text":"thanks, edited"`,
	}
	orders := 0
	for step := range facts {
		var lines []string
		permutations([]int{0, 1, 2, 3, 4}, func(order []int) {
			lines = append(lines, fmt.Sprintf(`{%s,"time":%q,"source":"s%d%d%d%d%d"}`, facts[order[step]], at, order[0], order[1], order[2], order[3], order[4]))
		})
		orders = len(lines)
		u.post([]byte(strings.Join(lines, "\n")), "application/x-ndjson", nil)
		u.settle()
	}
	f := func(query string, want int) {
		t.Helper()
		if got := rows[struct{ N int }](u, query)[0].N; got != want {
			t.Errorf("%d, want %d: %s", got, want, query)
		}
	}
	f("SELECT count() AS N FROM mentions WHERE text = 'thanks, edited'", orders)
	f("SELECT uniqExact(event_key, part, author_key) AS N FROM selves WHERE part = 'waiting'", 2*orders)
	f("SELECT count() AS N FROM (SELECT max(kept) AS stays FROM selves GROUP BY event_key, part, author_key HAVING NOT stays)", 0)
	f("SELECT uniqExact(direction, event_key, other_key) AS N FROM edges", 6*orders)
	f("SELECT count() AS N FROM (SELECT max(kept) AS stays FROM edges GROUP BY direction, event_key, other_key HAVING NOT stays)", 0)
}

// publishStatement does what an enricher does with a statement.
func (u *up) publishStatement(s social.Statement) {
	u.t.Helper()
	conn, err := nats.Connect("nats://" + u.at["nats"])
	if err != nil {
		u.t.Fatal(err)
	}
	defer conn.Close()
	js, err := conn.JetStream()
	if err != nil {
		u.t.Fatal(err)
	}
	line := wire.AppendStatement(nil, &s)
	if _, err := js.PublishMsg(&nats.Msg{Subject: topology.StatementsSubject, Data: wire.EncodeOne(line),
		Header: nats.Header{topology.HeaderSize: {strconv.Itoa(len(line))}, topology.HeaderEvents: {"1"}}}); err != nil {
		u.t.Fatal(err)
	}
}
