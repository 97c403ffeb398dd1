// Package grafana has no code: it holds the data source and the dashboards for Grafana, and the tests that run every
// query of them.
package grafana

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"polyphony/pkg/embedded"
	"polyphony/pkg/embedded/enginetest"
	"polyphony/pkg/social"
	"polyphony/pkg/warehouse"
)

func TestMain(m *testing.M) { enginetest.Main(m) }

// dashboard is what the tests look at; Grafana knows more.
type dashboard struct {
	UID, Title, Description string
	Templating              struct{ List []variable }
	Panels                  []panel
	Links                   []struct{ URL string }
}

type variable struct {
	Name, Label, Description, Type, Definition string
	Multi, IncludeAll                          bool
	Datasource                                 source
	Query                                      struct{ RawSQL string }
}

type panel struct {
	ID                       int
	Type, Title, Description string
	Interval                 string
	Datasource               source
	GridPos                  struct{ X, Y, W, H int }
	FieldConfig              struct {
		Defaults  struct{ Unit string }
		Overrides []struct {
			Matcher struct{ ID, Options string }
		}
	}
	Options         struct{ XField string }
	Transformations []struct {
		ID      string
		Options struct{ ColumnField, RowField, ValueField string }
	}
	Targets []struct {
		RefID, QueryType, RawSQL string
		Format                   int
		Datasource               source
	}
}

type source struct{ Type, UID string }

func dashboards(t *testing.T) map[string]dashboard {
	t.Helper()
	files, err := filepath.Glob("dashboards/*.json")
	if err != nil || len(files) < 2 {
		t.Fatalf("%d dashboards: %v", len(files), err)
	}
	all := map[string]dashboard{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var d dashboard
		if err := json.Unmarshal(text, &d); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		all[d.UID] = d
	}
	return all
}

// provisioned reads the data source that Grafana is given.
func provisioned(t *testing.T) source {
	t.Helper()
	text, err := os.ReadFile("provisioning/datasources/polyphony.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var config struct {
		APIVersion  int `json:"apiVersion"`
		Datasources []struct {
			Name, UID, Type, Access string
			IsDefault, Editable     bool
			JSONData                map[string]any    `json:"jsonData"`
			SecureJSONData          map[string]string `json:"secureJsonData"`
		}
	}
	if err := yaml.UnmarshalStrict(text, &config); err != nil {
		t.Fatal(err)
	}
	if config.APIVersion != 1 || len(config.Datasources) != 1 {
		t.Fatal("want one data source of version 1")
	}
	d := config.Datasources[0]
	if d.JSONData["defaultDatabase"] != "polyphony" || !strings.HasPrefix(d.SecureJSONData["password"], "$") {
		t.Error("the data source reads another database, or carries a password")
	}
	return source{d.Type, d.UID}
}

func TestPanelsExplainThemselves(t *testing.T) {
	of := provisioned(t)
	all := dashboards(t)
	for uid, d := range all {
		if d.Title == "" || d.Description == "" {
			t.Errorf("%s: no title or no description", uid)
		}
		for _, l := range d.Links {
			if _, ok := all[strings.TrimPrefix(l.URL, "/d/")]; !ok {
				t.Errorf("%s: leads to %s, which is not there", uid, l.URL)
			}
		}
		for _, v := range d.Templating.List {
			if v.Label == "" || v.Description == "" || v.Datasource != of || v.Definition != v.Query.RawSQL {
				t.Errorf("%s: variable %s lacks a label, a description or the data source", uid, v.Name)
			}
		}
		ids, taken := map[int]bool{}, map[[2]int]string{}
		for _, p := range d.Panels {
			if p.Title == "" || len(p.Description) < 20 || p.FieldConfig.Defaults.Unit == "" {
				t.Errorf("%s/%s: lacks a title, a description or a unit", uid, p.Title)
			}
			if ids[p.ID] || p.ID == 0 {
				t.Errorf("%s/%s: id %d is taken", uid, p.Title, p.ID)
			}
			ids[p.ID] = true
			if p.Datasource != of || len(p.Targets) == 0 {
				t.Errorf("%s/%s: asks nobody", uid, p.Title)
			}
			for _, q := range p.Targets {
				if series := p.Type == "timeseries"; q.Datasource != of || (q.QueryType == "timeseries") != series || (q.Format == 0) != series {
					t.Errorf("%s/%s: query %s asks in another form than the panel shows", uid, p.Title, q.RefID)
				}
			}
			if p.Type == "timeseries" && p.Interval == "" {
				t.Errorf("%s/%s: intervals may become shorter than the hours that metrics are kept by", uid, p.Title)
			}
			for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
				for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
					if other := taken[[2]int{x, y}]; other != "" || x >= 24 {
						t.Fatalf("%s/%s: lies over %q or beyond the edge", uid, p.Title, other)
					}
					taken[[2]int{x, y}] = p.Title
				}
			}
		}
	}
}

// TestEveryQueryAnswers runs all queries of panels and variables on the real engine.
func TestEveryQueryAnswers(t *testing.T) {
	engine := startEngine(t)
	w, err := warehouse.Open(warehouse.Config{Addr: engine.Addr()})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := w.Migrate(t.Context(), func(string) {}); err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 5, 25, 14, 30, 0, 0, time.UTC)
	if err := w.InsertMentions(t.Context(), fewMentions(now)); err != nil {
		t.Fatal(err)
	}
	g := grafana{
		clickhouse: "http://" + engine.HTTPAddr(), client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}},
		from: now.Add(-7 * 24 * time.Hour), to: now.Add(time.Hour),
	}
	for uid, d := range dashboards(t) {
		g.variables, g.intervalMin = map[string][]string{}, 0
		for _, v := range d.Templating.List { // in order: later ones use earlier ones
			a, err := g.ask(v.Query.RawSQL)
			if err != nil || len(a.Meta) != 1 || len(a.Data) == 0 {
				t.Fatalf("%s: variable %s: %d values of %d columns: %v", uid, v.Name, len(a.Data), len(a.Meta), err)
			}
			for _, row := range a.Data {
				g.variables[v.Name] = append(g.variables[v.Name], fmt.Sprint(row[0]))
			}
			if !v.Multi {
				g.variables[v.Name] = []string{map[string]string{"division": "oncology", "territory": "dach"}[v.Name]}
			}
		}
		for _, p := range d.Panels {
			for _, q := range p.Targets {
				g.intervalMin = 0
				if p.Interval != "" {
					if g.intervalMin, err = time.ParseDuration(p.Interval); err != nil {
						t.Errorf("%s/%s: interval: %v", uid, p.Title, err)
					}
				}
				a, err := g.ask(q.RawSQL)
				if err != nil {
					t.Errorf("%s/%s: %v", uid, p.Title, err)
					continue
				}
				if err := a.fits(p); err != nil {
					t.Errorf("%s/%s: %v", uid, p.Title, err)
				}
			}
		}
	}

	// The login reads what it must, and no more.
	for _, sql := range []string{
		"SELECT count() FROM polyphony.originals", "INSERT INTO polyphony.touches VALUES ('a', 'b', 0, 1)", "DROP VIEW polyphony.mentions", "SELECT 1 SETTINGS max_memory_usage = 0",
	} {
		if a, err := g.ask(sql); err == nil || !strings.Contains(err.Error(), "ACCESS_DENIED") && !strings.Contains(err.Error(), "READONLY") {
			t.Errorf("%s: got %v, want a refusal: %v", sql, a.Data, err)
		}
	}

	// The numbers, once: what the dashboards say has to be what was put in.
	g.variables = map[string][]string{"division": {"oncology"}, "territory": {"dach"}}
	for title, want := range map[string]string{"Mentions": "3", "Voices": "2", "Broadcasts": "1", "Answers": "1"} {
		for _, p := range dashboards(t)["polyphony-node"].Panels {
			if p.Title != title || p.Type != "stat" {
				continue
			}
			if a, err := g.ask(p.Targets[0].RawSQL); err != nil || fmt.Sprint(a.Data[0][0]) != want {
				t.Errorf("%s: got %v, want %s: %v", title, a.Data, want, err)
			}
		}
	}
}

// startEngine runs the engine with the logins of deploy/clickhouse beside its own, so that queries run as Grafana's.
func startEngine(t *testing.T) *embedded.ClickHouse {
	t.Helper()
	users, err := os.ReadFile("../clickhouse/users.d/polyphony.xml")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "users.d"), 0o755); err != nil {
		t.Fatal(err)
	}
	users = bytes.Replace(users, []byte(`<default remove="remove"/>`), nil, 1) // the engine's own login proves that it is ready
	if err := os.WriteFile(filepath.Join(dir, "users.d", "polyphony.xml"), users, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("POLYPHONY_CLICKHOUSE_PASSWORD", "one")
	t.Setenv("GRAFANA_CLICKHOUSE_PASSWORD", "two")
	engine, err := embedded.StartClickHouse(t.Context(), embedded.ClickHouseConfig{Dir: dir, Addr: "127.0.0.1:0", HTTPAddr: "127.0.0.1:0", Log: enginetest.Log(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := engine.Close(context.Background()); err != nil {
			t.Errorf("closing ClickHouse: %v", err)
		}
	})
	return engine
}

// fewMentions: in oncology/dach three mentions of two voices, one of them of a bot besides, a broadcast and an answer.
func fewMentions(now time.Time) []social.Mention {
	var mentions []social.Mention
	add := func(n social.Node, author byte, kind social.Kind, company, bot bool, ago time.Duration) {
		m := social.Mention{
			Node: n, EventKey: social.Key{byte(len(mentions) + 1)}, AuthorKey: social.Key{author}, Source: "mastodon", Kind: kind,
			Time: now.Add(-ago), RecordedTime: now, Via: social.ViaText, ByCompany: company, Bot: bot, Role: social.RoleUnknown,
			Lang: "de", Country: "DE", CountryMethod: social.CountryByAuthor, Products: []string{"examplumab"}, Competitors: []string{"rivalumab"},
			Topics: []string{"access"}, Text: "a word", RulesVersion: "v1",
		}
		m.Version = social.OwnVersion(time.Time{}, m.Time, 1)
		mentions = append(mentions, m)
	}
	dach, fr := social.Node{Division: "oncology", Territory: "dach"}, social.Node{Division: "cardio", Territory: "fr"}
	add(dach, 1, social.Post, false, false, time.Minute)
	add(dach, 2, social.Reply, false, false, 26*time.Hour)
	add(dach, 3, social.Post, false, true, 2*time.Hour)
	add(dach, 9, social.Post, true, false, time.Hour)
	add(dach, 9, social.Reply, true, false, time.Hour)
	add(dach, 1, social.Share, false, false, time.Hour)
	add(fr, 1, social.Post, false, false, 3*time.Hour)
	return mentions
}

// grafana asks as Grafana with its ClickHouse plugin would.
type grafana struct {
	clickhouse  string
	client      *http.Client
	from, to    time.Time
	intervalMin time.Duration
	variables   map[string][]string
}

type answer struct {
	Meta []struct{ Name, Type string }
	Data [][]any
}

func (g grafana) ask(sql string) (a answer, err error) {
	expanded, err := g.expand(sql)
	if err != nil {
		return a, err
	}
	// The plugin sets a limit of its own, which a reader must be allowed to.
	q := url.Values{"default_format": {"JSONCompact"}, "database": {"polyphony"}, "user": {"grafana"}, "password": {"two"}, "max_execution_time": {"20"}}
	resp, err := g.client.Post(g.clickhouse+"/?"+q.Encode(), "text/plain", strings.NewReader(expanded))
	if err != nil {
		return a, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return a, err
	}
	if resp.StatusCode != http.StatusOK {
		return a, fmt.Errorf("%s\n%s", bytes.TrimSpace(body), expanded)
	}
	return a, json.Unmarshal(body, &a)
}

var (
	placeholder = regexp.MustCompile(`\$\{(\w+)(?::(\w+))?\}`)
	macro       = regexp.MustCompile(`\$__(\w+)(?:\(([^()]*)\))?`)
)

// expand replaces variables as Grafana does, then macros as the data source does.
func (g grafana) expand(sql string) (string, error) {
	var faults []string
	sql = placeholder.ReplaceAllStringFunc(sql, func(s string) string {
		m := placeholder.FindStringSubmatch(s)
		values, ok := g.variables[m[1]]
		if !ok || m[2] != "sqlstring" {
			faults = append(faults, s+" is no variable, or not quoted for SQL")
		}
		var quoted []string
		for _, v := range values {
			quoted = append(quoted, "'"+strings.ReplaceAll(v, "'", "''")+"'")
		}
		return strings.Join(quoted, ",")
	})
	second := func(t time.Time) string { return "toDateTime(" + strconv.FormatInt(t.Unix(), 10) + ")" }
	milli := func(t time.Time) string {
		return "fromUnixTimestamp64Milli(" + strconv.FormatInt(t.UnixMilli(), 10) + ")"
	}
	day := func(t time.Time) string { return "toDate('" + t.Format(time.DateOnly) + "')" }
	within := func(column string, at func(time.Time) string) string {
		return fmt.Sprintf("%s >= %s AND %s <= %s", column, at(g.from), column, at(g.to))
	}
	// A panel has some 1,000 points at most.
	interval := max(g.to.Sub(g.from)/1000, g.intervalMin, time.Second)
	sql = macro.ReplaceAllStringFunc(sql, func(s string) string {
		m := macro.FindStringSubmatch(s)
		switch name, arg := m[1], m[2]; {
		case name == "timeFilter" && arg != "":
			return within(arg, second)
		case name == "timeFilter_ms" && arg != "":
			return within(arg, milli)
		case name == "dateFilter" && arg != "":
			return within(arg, day)
		case name == "timeInterval" && arg != "":
			return fmt.Sprintf("toStartOfInterval(toDateTime(%s), INTERVAL %d second)", arg, int(interval.Seconds()))
		case name == "fromTime":
			return second(g.from)
		case name == "toTime":
			return second(g.to)
		case name == "interval_s":
			return strconv.Itoa(int(interval.Seconds()))
		}
		faults = append(faults, s+" is no macro of the data source")
		return s
	})
	if len(faults) > 0 {
		return "", fmt.Errorf("%s", strings.Join(faults, "; "))
	}
	if strings.Contains(sql, "$") {
		return "", fmt.Errorf("something is left unexpanded in %s", sql)
	}
	return sql, nil
}

// fits reports whether a panel of this kind can show the answer.
func (a answer) fits(p panel) error {
	if len(a.Data) == 0 {
		return fmt.Errorf("no rows, though there are mentions")
	}
	types := map[string]string{}
	for _, c := range a.Meta {
		types[c.Name] = c.Type
	}
	number := func(name string) bool {
		return strings.Contains(types[name], "Int") || strings.Contains(types[name], "Float")
	}
	numbers := slices.ContainsFunc(slices.Collect(maps.Keys(types)), number)
	switch p.Type {
	case "stat":
		if len(a.Meta) != 1 || len(a.Data) != 1 || !numbers {
			return fmt.Errorf("a stat shows one number, this is %v", a.Meta)
		}
	case "timeseries":
		if !strings.HasPrefix(types["time"], "DateTime") || !numbers {
			return fmt.Errorf("a time series needs `time` and a number, this is %v", a.Meta)
		}
	case "barchart":
		if types[p.Options.XField] == "" || !numbers {
			return fmt.Errorf("the bars stand over %q, this is %v", p.Options.XField, a.Meta)
		}
	case "table":
		for _, o := range p.FieldConfig.Overrides {
			if types[o.Matcher.Options] == "" {
				return fmt.Errorf("no column %q to override", o.Matcher.Options)
			}
		}
		for _, tr := range p.Transformations {
			o := tr.Options
			if types[o.ColumnField] == "" || types[o.RowField] == "" || !number(o.ValueField) {
				return fmt.Errorf("the matrix takes columns that are not there: %v", o)
			}
		}
	default:
		return fmt.Errorf("nobody checks a panel of type %q", p.Type)
	}
	return nil
}

func TestUnknownMacrosAreFound(t *testing.T) {
	g := grafana{variables: map[string][]string{"division": {"it's"}}}
	f := func(sql, want string) {
		t.Helper()
		got, err := g.expand(sql)
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("%s became %s, want %s", sql, got, want)
		}
	}
	f("$__timeFilters(bucket)", "error")
	f("$__timeFilter()", "error")
	f("${territory:sqlstring}", "error")
	f("${division}", "error")
	f("$division", "error")
	f("IN (${division:sqlstring})", "IN ('it''s')")
	f("$__interval_s", "1")
}
