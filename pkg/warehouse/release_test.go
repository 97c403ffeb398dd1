package warehouse

import (
	"encoding/base64"
	commandline "flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"polyphony/pkg/embedded"
	"polyphony/pkg/embedded/enginetest"
	"polyphony/pkg/social"
	"polyphony/schemas"
)

var writeRelease = commandline.String("write-release", "", "write the tables of this release into testdata/NAME, which must not be there")

// releaseViews are what readers of every release find.
var releaseViews = []string{"mentions", "node_metrics_1m", "node_metrics_1h", "node_metrics_1d", "nodes", "rules", "rejects", "freshness"}

// TestEveryReleaseIsUpgraded: a database as an earlier release left it, tables and rows, is brought up to date, and every view shows
// what it showed. A release's tables are written once, when it is made, and never again:
//
//	go test ./pkg/warehouse -run TestEveryReleaseIsUpgraded -write-release release-1
func TestEveryReleaseIsUpgraded(t *testing.T) {
	if *writeRelease != "" {
		writeTables(t, filepath.Join("testdata", *writeRelease))
	}
	releases, err := filepath.Glob("testdata/release-*")
	if err != nil || len(releases) == 0 {
		t.Fatal("no release: ", err)
	}
	for _, dir := range releases {
		engine := enginetest.ClickHouse(t)
		over(t, engine, "SYSTEM STOP MERGES", "") // nothing grows old here
		over(t, engine, "CREATE DATABASE polyphony", "")
		tables, err := filepath.Glob(filepath.Join(dir, "*.sql"))
		if err != nil || len(tables) < 15 {
			t.Fatalf("%s: %d tables: %v", dir, len(tables), err)
		}
		for _, path := range tables {
			table := strings.TrimSuffix(filepath.Base(path), ".sql")
			over(t, engine, readFile(t, path), "")
			rows, err := base64.StdEncoding.DecodeString(readFile(t, filepath.Join(dir, table+".native.base64")))
			if err != nil {
				t.Fatal(err)
			}
			if len(rows) > 0 {
				over(t, engine, "INSERT INTO polyphony."+table+" FORMAT Native", string(rows))
			}
		}
		makeViews(t, engine, strings.Split(readFile(t, filepath.Join(dir, "views")), betweenViews))
		open(t, Config{Addr: engine.Addr()}) // migrates
		for _, view := range releaseViews {
			want := readFile(t, filepath.Join(dir, view+".tsv"))
			columns, _, _ := strings.Cut(want, "\n")
			if diff := cmp.Diff(want, over(t, engine, viewed(view, strings.ReplaceAll(columns, "\t", ", ")), "")); diff != "" {
				t.Errorf("%s: %s (-want +got)\n%s", dir, view, diff)
			}
		}
	}
}

// betweenViews separates the statements that make views.
const betweenViews = "\n\n--\n\n"

// makeViews makes views that read one another, in whichever order that needs.
func makeViews(t *testing.T, engine *embedded.ClickHouse, statements []string) {
	t.Helper()
	for len(statements) > 0 {
		var left []string
		for _, s := range statements {
			if _, err := asked(engine, s, ""); err != nil {
				left = append(left, s)
			}
		}
		if len(left) == len(statements) {
			t.Fatalf("%d views cannot be made, such as %s", len(left), left[0])
		}
		statements = left
	}
}

func viewed(view, columns string) string {
	return fmt.Sprintf("SELECT %s FROM polyphony.%s ORDER BY ALL FORMAT TSVWithNames", columns, view)
}

// over asks ClickHouse over HTTP.
func over(t *testing.T, engine *embedded.ClickHouse, query, body string) string {
	t.Helper()
	answer, err := asked(engine, query, body)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return answer
}

func asked(engine *embedded.ClickHouse, query, body string) (string, error) {
	response, err := http.Post("http://"+engine.HTTPAddr()+"/?query="+url.QueryEscape(query), "application/octet-stream", strings.NewReader(body))
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, answer)
	}
	return string(answer), err
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// writeTables writes each table with some rows, and what the views show of them.
func writeTables(t *testing.T, dir string) {
	t.Helper()
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	engine := enginetest.ClickHouse(t)
	w := open(t, Config{Addr: engine.Addr()})
	releaseRows(t, w)
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, table := range query(t, w, "SELECT name FROM system.tables WHERE database = 'polyphony' AND engine LIKE '%MergeTree' ORDER BY name") {
		write(table+".sql", over(t, engine, "SHOW CREATE TABLE polyphony."+table+" FORMAT TSVRaw", ""))
		write(table+".native.base64", base64.StdEncoding.EncodeToString([]byte(over(t, engine, "SELECT * FROM polyphony."+table+" FORMAT Native", ""))))
	}
	var views []string
	for _, view := range query(t, w, "SELECT name FROM system.tables WHERE database = 'polyphony' AND engine LIKE '%View' ORDER BY name") {
		views = append(views, over(t, engine, "SHOW CREATE TABLE polyphony."+view+" FORMAT TSVRaw", ""))
	}
	write("views", strings.Join(views, betweenViews))
	for _, view := range releaseViews {
		write(view+".tsv", over(t, engine, viewed(view, "*"), ""))
	}
}

// releaseRows puts something into every table.
func releaseRows(t *testing.T, w *Warehouse) {
	t.Helper()
	at := time.UnixMilli(1_780_000_000_123).UTC()
	late := time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC) // of what would go by its age
	mentions := history(newRand(1), 40)
	m := mentions[0]
	insert(t, w, mentions...)
	must := func(errs ...error) {
		t.Helper()
		for _, err := range errs {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	reference := social.Reference{Mention: social.Mention{EventKey: social.Key{7}, Source: "forum", Kind: social.Reply, Time: at, RecordedTime: at},
		Targets: []social.Key{m.EventKey}, Until: late, Sealed: []byte("sealed")}
	must(
		w.PutRules(t.Context(), Rules{Version: "v1", RecordedTime: at, Document: "-- company.yaml --\ncompany: acme\n",
			Nodes:       []Node{{Division: m.Node.Division, Territory: m.Node.Territory, DivisionTitle: "D", TerritoryTitle: "T", Timezone: "Europe/Berlin"}},
			Territories: []Territory{{Name: m.Node.Territory, Timezone: "Europe/Berlin"}}}),
		w.InsertStatements(t.Context(), []social.Statement{
			{Key: social.Key{1}, Source: m.Source, Kind: social.Edit, ObjectKey: m.EventKey, Time: at, RecordedTime: at, RulesVersion: "v1", Sealed: []byte("sealed")},
			{Key: social.Key{2}, Source: m.Source, Kind: social.Delete, ObjectKey: mentions[1].EventKey, Time: at, RecordedTime: at, RulesVersion: "v1"}}),
		w.PutHeads(t.Context(), map[social.Key]social.Version{mentions[1].EventKey: social.Deleted()}),
		w.PutAuthorHeads(t.Context(), map[social.Key]time.Time{mentions[2].AuthorKey: mentions[2].Time}),
		w.InsertOriginals(t.Context(), []social.Original{{EventKey: m.EventKey, Version: m.Version.Words(), Source: m.Source, RecordedTime: at, Sealed: []byte("sealed")}}),
		w.InsertCounters(t.Context(), []Observation{{EventKey: m.EventKey, Counters: social.Counters{ObservedAt: at}}}),
		w.InsertEdges(t.Context(), []social.Reference{reference}),
		w.InsertSelves(t.Context(), []social.Reference{reference}, Edited),
		w.InsertRejects(t.Context(), []Reject{{ID: "m-1", Sequence: 1, Position: 1, Stage: "ingest", Code: "invalid_json", Source: "forum", Detail: "not a JSON object on its own",
			RulesVersion: "v1", Size: 3, Time: late}}),
		w.PutFreshness(t.Context(), "MENTIONS", Freshness{Epoch: 1, CompleteUntil: at, Sequence: 9, Positions: []byte("p")}),
	)
	if _, _, err := w.Seal(t.Context(), SealOptions{Eager: true}); err != nil {
		t.Fatal(err)
	}
}

// TestMigrateWhileDataFlow: while a later schema comes, with a column more and its views made anew, writers of this one go on, and
// nothing that they write is lost or strange.
func TestMigrateWhileDataFlow(t *testing.T) {
	const writers, batches, each = 3, 20, 50
	w := start(t)
	current, err := readMigrations(schemas.ClickHouseFS)
	if err != nil {
		t.Fatal(err)
	}
	migrations := []migration{
		{3, "0003_later.sql", []string{"ALTER TABLE mentions_store ADD COLUMN IF NOT EXISTS later LowCardinality(String) DEFAULT 'unknown'",
			"ALTER TABLE rejects_store ADD COLUMN IF NOT EXISTS later UInt8"}},
	}
	var writing sync.WaitGroup
	for n := range writers {
		writing.Go(func() {
			mentions := history(newRand(uint64(n)), batches*each)
			for batch := range batches {
				if err := w.InsertMentions(t.Context(), mentions[batch*each:][:each]); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 10 { // as many processes that start, of both releases
		if err := w.migrate(t.Context(), slices.Concat(current, migrations), func(string) {}); err != nil {
			t.Error(err)
		}
	}
	writing.Wait()
	if got := query(t, w, "SELECT toString((count(), any(later))) FROM (SELECT division, territory, time, event_key, any(later) AS later FROM mentions_store GROUP BY ALL)"); got[0] != fmt.Sprintf("(%d,'unknown')", writers*batches*each) {
		t.Errorf("%s mentions are stored, want %d", got[0], writers*batches*each)
	}
	if got := query(t, w, "SELECT toString((SELECT sum(mentions + broadcasts + answers) FROM node_metrics_1h) = (SELECT count() FROM mentions WHERE kind IN ('post', 'reply')))"); got[0] != "true" && got[0] != "1" {
		t.Errorf("metrics are not those of the mentions: %s", got[0])
	}
}
