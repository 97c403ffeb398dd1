package warehouse

import (
	"math/rand/v2"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"polyphony/pkg/social"
)

// mentionColumns and metricColumns are section 4 of the contract.
const mentionColumns = `
	division LowCardinality(String), territory LowCardinality(String), time DateTime64(3, 'UTC'),
	recorded_time DateTime64(3, 'UTC'), source String, kind LowCardinality(String),
	event_key String, author_key String, parent_key String, root_key String, parent_author_key String,
	via LowCardinality(String), account String, owned Bool, by_company Bool, bot Bool,
	role LowCardinality(String), role_confidence Float32, lang String, country String,
	country_method LowCardinality(String), sentiment Nullable(Float32),
	products Array(String), competitors Array(String),
	topics Array(String), needs Array(String),
	is_question Bool, ae_elements UInt8, ae_screened Bool, ae_serious Bool, offlabel Bool,
	cluster_id UInt64, followers Int64, text String, rules_version String`

const metricColumns = `
	division LowCardinality(String), territory LowCardinality(String), bucket DateTime('UTC'),
	mentions UInt64, voices UInt64, posts UInt64, replies UInt64, broadcasts UInt64, answers UInt64,
	shares Int64, reactions Int64, views Int64` // what totals say may fall

// column is a name and a type, which may have types within.
var column = regexp.MustCompile(`([a-z_]+) ([A-Z][A-Za-z0-9]*(?:\((?:[^()]|\([^()]*\))*\))?)(?:,|$)`)

func TestContractColumns(t *testing.T) {
	w := start(t)
	f := func(view, columns string) {
		t.Helper()
		has := map[string]string{}
		for _, line := range query(t, w, "SELECT name || ' ' || type FROM system.columns WHERE database = currentDatabase() AND table = ?", view) {
			name, kind, _ := strings.Cut(line, " ")
			has[name] = kind
		}
		wanted := column.FindAllStringSubmatch(columns, -1)
		if len(wanted) < 11 {
			t.Fatalf("only %d columns understood", len(wanted))
		}
		for _, m := range wanted {
			if has[m[1]] != m[2] {
				t.Errorf("%s.%s is %q, want %q", view, m[1], has[m[1]], m[2])
			}
		}
	}
	f("mentions", mentionColumns)
	f("node_metrics_1m", metricColumns)
	f("node_metrics_1h", metricColumns)
	f("node_metrics_1d", metricColumns+", day Date")
	for view, columns := range map[string]string{
		"node_metrics_1h_of(division='%', territory='%', from='2026-01-01 00:00:00', to='2026-01-02 00:00:00')": metricColumns,
		"node_metrics_1m_of(division='%', territory='%', from='2026-01-01 00:00:00', to='2026-01-02 00:00:00')": metricColumns,
		"node_metrics_1d_of(division='%', territory='%', from='2026-01-01 00:00:00', to='2026-01-02 00:00:00')": metricColumns + ", day Date",
	} {
		exec(t, w, "CREATE OR REPLACE VIEW looked_at AS SELECT * FROM "+view)
		f("looked_at", columns)
	}
}

// TestEveryColumnArrives sends a mention with something of its own in each column.
func TestEveryColumnArrives(t *testing.T) {
	w := start(t)
	half := float32(0.5)
	m := social.Mention{
		Node: social.Node{Division: "oncology", Territory: "dach"}, EventKey: social.Key{1}, Version: social.OwnVersion(time.Time{}, epoch, 7),
		Source: "bluesky", Kind: social.Reply, Time: epoch.Add(time.Millisecond), RecordedTime: epoch.Add(2 * time.Millisecond),
		AuthorKey: social.Key{2}, ParentKey: social.Key{3}, RootKey: social.Key{4}, ParentAuthorKey: social.Key{5},
		Via: social.ViaAccount, Account: "acme", Owned: true, ByCompany: true, Bot: true, Role: "hcp", RoleConfidence: 0.25,
		Lang: "de", Country: "DE", CountryMethod: social.CountryByPlace, Sentiment: &half,
		Products: []string{"p", "q"}, Competitors: []string{"c"}, Topics: []string{"t"}, Needs: []string{"n"},
		IsQuestion: true, AEElements: 9, AEScreened: true, AESerious: true, OffLabel: true, ClusterID: 1 << 63, Followers: -1,
		Text: "words", RulesVersion: "v9",
	}
	insert(t, w, m)
	want := `('oncology','dach','2026-05-25 14:00:00.001','2026-05-25 14:00:00.002','bluesky','reply',` +
		`'01000000000000000000000000000000','02000000000000000000000000000000','03000000000000000000000000000000',` +
		`'04000000000000000000000000000000','05000000000000000000000000000000','account','acme',true,true,true,'hcp',0.25,` +
		`'de','DE','place',0.5,['p','q'],['c'],['t'],['n'],true,9,true,true,true,9223372036854775808,-1,'words','v9')`
	same(t, "full", []string{want}, query(t, w, everything))

	insert(t, w, social.Mention{Node: m.Node, EventKey: social.Key{9}, Time: epoch, RecordedTime: epoch, Kind: social.Post, Via: social.ViaText})
	same(t, "empty", []string{"('','','','',NULL,[])"},
		query(t, w, "SELECT toString((author_key, parent_key, account, text, sentiment, products)) FROM mentions WHERE kind = 'post'"))
}

// TestReadmeQueriesRun runs every statement that schemas/clickhouse/README.md shows.
func TestReadmeQueriesRun(t *testing.T) {
	readme, err := os.ReadFile("../../schemas/clickhouse/README.md")
	if err != nil {
		t.Fatal(err)
	}
	shown := regexp.MustCompile("(?s)```sql\n(.*?)```").FindAllSubmatch(readme, -1)
	if len(shown) < 3 {
		t.Fatalf("%d statements shown", len(shown))
	}
	w := start(t)
	facts := history(rand.New(rand.NewPCG(41, 1)), 500)
	for i := range facts {
		facts[i].Time = time.Now().Add(-time.Duration(i) * time.Minute).UTC()
	}
	insert(t, w, facts...)
	for _, s := range shown {
		rows := query(t, w, "SELECT toString(tuple(*)) FROM ("+string(s[1])+")")
		if len(rows) == 0 {
			t.Errorf("no rows:\n%s", s[1])
		}
	}
	for _, view := range query(t, w, "SELECT name FROM system.tables WHERE database = currentDatabase() AND engine = 'View'") {
		switch view {
		case "visible", "counted", "counted_by_day", "made_hours", "hours", "stale_hours", "clocks":
			continue
		}
		if !strings.Contains(string(readme), "`"+view+"`") && !strings.Contains(string(readme), "`"+view+"(") {
			t.Errorf("the README does not explain %s", view)
		}
	}
	for _, column := range query(t, w, "SELECT DISTINCT name FROM system.columns WHERE database = currentDatabase() AND table IN ('mentions', 'node_metrics_1d')") {
		if !strings.Contains(string(readme), "`"+column+"`") {
			t.Errorf("the README does not explain column %s", column)
		}
	}
}

// TestNodeAndTimeFiltersPrune asks the planner how many rows each view would read for one day of one node of a hundred.
func TestNodeAndTimeFiltersPrune(t *testing.T) {
	w := start(t)
	exec(t, w, `INSERT INTO mentions_store (division, territory, time, event_key, kind, source, version)
		SELECT 'd' || toString(number % 10), 't' || toString(intDiv(number, 10) % 10),
			toDateTime64('2026-03-01 00:00:00', 3, 'UTC') + intDiv(number, 100) * 600,
			reinterpretAsFixedString(toUInt128(number + 1)), 'post', 'x', 1
		FROM numbers(400000)`)
	exec(t, w, "INSERT INTO touches SELECT division, territory, toStartOfHour(time), any(rand64()) FROM mentions_store GROUP BY ALL")
	exec(t, w, "INSERT INTO gains SELECT division, territory, time, event_key, 'total', 1, 0, 1, 1, 1 FROM mentions_store")
	f := func(most int, from string) {
		t.Helper()
		for _, table := range []string{"mentions_store", "gains"} {
			if table != "mentions_store" && strings.HasPrefix(from, "mentions") {
				continue
			}
			read := query(t, w, "SELECT toString(sum(rows)) FROM (EXPLAIN ESTIMATE SELECT * FROM "+from+") WHERE table = ?", table)
			if n, err := strconv.Atoi(read[0]); err != nil || n == 0 || n > most {
				t.Errorf("%s reads %s rows of 400000 of %s, want at most %d", from, read[0], table, most)
			}
		}
	}
	const granule = 8192
	const node = " WHERE division = 'd3' AND territory = 't5'"
	const day = " AND bucket >= '2026-03-10 00:00:00' AND bucket < '2026-03-11 00:00:00'"
	const of = "(division='d3', territory='t5', from='2026-03-10 00:00:00', to='2026-03-11 00:00:00')"
	f(2*granule, "mentions"+node+" AND time >= '2026-03-10 00:00:00' AND time < '2026-03-11 00:00:00'")
	f(2*granule, "node_metrics_1m"+node+day)
	f(2*granule, "node_metrics_1h"+node+day)
	f(3*granule, "node_metrics_1d"+node+day)
	f(2*granule, "node_metrics_1m_of"+of)
	f(2*granule, "node_metrics_1h_of"+of)
	f(2*granule, "node_metrics_1d_of"+of)
	if _, _, err := w.Seal(t.Context(), SealOptions{Eager: true, Max: 1_000_000}); err != nil {
		t.Fatal(err)
	}
	read := query(t, w, "SELECT toString(sum(rows)) FROM (EXPLAIN ESTIMATE SELECT * FROM node_metrics_1h"+node+day+") WHERE table = 'mentions_store'")
	same(t, "rows of mentions read when all is sealed", []string{"0"}, read)
}
