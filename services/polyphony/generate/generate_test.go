package generate

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"polyphony/pkg/social"
)

var end = time.Date(2026, 5, 25, 14, 30, 0, 0, time.UTC)

// example is a company with every case that routing knows: names in two spellings, hashtags, a territory that only some
// serve, a language that two territories share, units that widen and mute.
func example() Plan {
	return Plan{
		Lateness: 720 * time.Hour,
		Reserved: []string{"Lumen Pharma"},
		Divisions: []Division{
			{Name: "oncology", Listen: `products OR competitors OR (melanoma AND (treatment OR "side effect"))`, Territories: []string{"dach", "fr", "us"},
				Products: []string{"Examplumab", "Exa-mab"}, Hashtags: []string{"examplumab"}, Competitors: []string{"Rivalumab"}},
			{Name: "cardio", Listen: `products AND NOT (stock OR "share price")`, Territories: []string{"fr", "us", "uk", "jp", "alps"},
				Products: []string{"Herzolin", "Cœur Simple"}, Hashtags: []string{"herzolin"}},
			{Name: "derma", Listen: `(products OR *ekzem*) AND NOT lottery`, Territories: []string{"dach", "iberia", "jp"}, Products: []string{"Salbetta"}},
		},
		Territories: []Territory{
			{Name: "dach", Countries: []string{"DE", "AT", "CH"}, Languages: []string{"de"}},
			{Name: "fr", Countries: []string{"FR"}, Languages: []string{"fr"}},
			{Name: "us", Countries: []string{"US"}, Languages: []string{"en"}},
			{Name: "uk", Countries: []string{"GB", "IE"}, Languages: []string{"en"}},
			{Name: "iberia", Countries: []string{"ES", "PT"}, Languages: []string{"es", "pt-PT"}},
			{Name: "jp", Countries: []string{"JP"}, Languages: []string{"ja"}},
			{Name: "alps", Countries: []string{"CH", "LI"}, Languages: []string{"rm"}}, // shares a country; only one of the two is served
		},
		Units: []Unit{
			{Name: "oncology-dach", Division: "oncology", Listen: `Hautkrebs OR *melanom*`, Mute: `Aktie OR Stellenanzeige`, Local: []string{"Beispielumab"},
				Accounts: []Account{{"facebook", "1234567890", "dach"}, {"x", "99", "dach"}, {"telegram", "no-such-network", "dach"}}},
			{Name: "communications", Division: "company", Accounts: []Account{{"x", "1000", "us"}}},
			{Name: "cardio-us", Division: "cardio", Accounts: []Account{{"youtube", "UCherz", "us"}}},
		},
	}
}

func full(seed uint64, n int) Config { return Default(seed, n, end) }

func stream(tb testing.TB, p Plan, cfg Config, n int) ([]byte, *Generator) {
	tb.Helper()
	g, err := New(p, cfg)
	if err != nil {
		tb.Fatal(err)
	}
	var out []byte
	for range n {
		out = g.Next(out)
	}
	return out, g
}

func TestSameSeedGivesSameLines(t *testing.T) {
	a, ga := stream(t, example(), full(7, 5000), 5000)
	b, gb := stream(t, example(), full(7, 5000), 5000)
	if !bytes.Equal(a, b) || !cmp.Equal(slices.Collect(ga.Truth()), slices.Collect(gb.Truth())) {
		t.Error("the same seed gave different events or another truth")
	}
	other, _ := stream(t, example(), full(8, 5000), 5000)
	later := full(7, 5000)
	later.End = end.Add(time.Hour)
	another, _ := stream(t, example(), later, 5000)
	for _, x := range [][]byte{other, another} {
		for id := range ids(t, a) {
			if _, ok := ids(t, x)[id]; ok {
				t.Fatalf("id %s occurs under two seeds or ends: the second run would be taken for repeats", id)
			}
			break
		}
	}
}

func TestPrefixDoesNotDependOnTruth(t *testing.T) {
	a, g := stream(t, example(), full(1, 2000), 1000)
	for range g.Truth() {
	}
	for range 1000 {
		a = g.Next(a)
	}
	if b, _ := stream(t, example(), full(1, 2000), 2000); !bytes.Equal(a, b) {
		t.Error("reading the truth changed the events")
	}
}

// TestTruthAgreesWithNaiveRecount reads the lines as a stranger would and counts them by contract section 5.
func TestTruthAgreesWithNaiveRecount(t *testing.T) {
	all := full(3, 15_000)
	all.Matching, all.Unknown, all.Both, all.Owned, all.Invalid = 1, 0.5, 0.4, 0.4, 0.1
	padded := full(4, 15_000)
	padded.PadTo = 700
	for _, cfg := range []Config{full(1, 20_000), all, padded} {
		p := example()
		lines, g := stream(t, p, cfg, cfg.Events)
		got := slices.Collect(g.Truth())
		want := recount(t, p, lines, cfg.End)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("seed %d: truth differs from the recount (-recount +truth):\n%.2000s", cfg.Seed, diff)
		}
		if len(got) < 500 {
			t.Errorf("seed %d: only %d node-hours", cfg.Seed, len(got))
		}
		seen := map[string]int{}
		for _, r := range got {
			if r.Mentions == 0 {
				t.Errorf("row without mentions: %v", r)
			}
			seen[r.Division+"/"+r.Territory] += r.Mentions
			if r.Voices < r.Mentions {
				seen["fewer voices than mentions"]++
			}
		}
		for _, need := range []string{"oncology/dach", "oncology/us", "oncology/zz", "cardio/jp", "cardio/uk", "cardio/alps", "cardio/zz", "derma/iberia", "derma/zz", "company/us", "fewer voices than mentions"} {
			if seen[need] == 0 {
				t.Errorf("seed %d: nothing in %s", cfg.Seed, need)
			}
		}
		if seen["oncology/jp"]+seen["derma/us"] > 0 {
			t.Errorf("seed %d: rows for territories that the division does not serve", cfg.Seed)
		}
	}
}

func TestProportions(t *testing.T) {
	const n = 30_000
	f := func(cfg Config) {
		t.Helper()
		lines, g := stream(t, example(), cfg, n)
		tally := g.Tally()
		if tally.Lines != n || bytes.Count(lines, []byte("\n")) != n {
			t.Fatalf("asked for %d lines, tally says %d, there are %d", n, tally.Lines, bytes.Count(lines, []byte("\n")))
		}
		valid := n - tally.Duplicates - tally.Invalid
		near(t, "matching", float64(tally.Matching)/float64(valid), cfg.Matching, 0.02)
		near(t, "duplicates", float64(tally.Duplicates)/n, cfg.Duplicates, 0.005)
		near(t, "invalid", float64(tally.Invalid)/float64(n-tally.Duplicates), cfg.Invalid, 0.005)
		if cfg.PadTo > 0 {
			near(t, "length", float64(len(lines))/n, float64(cfg.PadTo), 15)
		}
		first := map[string]int{}
		far, repeats := 0, 0
		for i, line := range bytes.Split(lines, []byte("\n")) {
			if at, ok := first[string(line)]; ok && len(line) > 0 {
				if repeats++; i-at > 1000 {
					far++
				}
			} else {
				first[string(line)] = i
			}
		}
		if repeats != tally.Duplicates {
			t.Errorf("%d lines repeat an earlier one, tally says %d", repeats, tally.Duplicates)
		}
		if cfg.Duplicates > 0 && far < repeats/10 {
			t.Errorf("only %d of %d repeats come more than 1,000 lines later", far, repeats)
		}
	}
	f(full(1, n))
	none := Config{Seed: 2, Events: n, End: end, Span: time.Hour, PadTo: 700}
	f(none)
	fifth := none
	fifth.Matching = 0.2
	f(fifth)
	every := none
	every.Matching, every.Duplicates = 1, 0.05
	f(every)
}

func near(t *testing.T, what string, got, want, tolerance float64) {
	t.Helper()
	if got < want-tolerance || got > want+tolerance {
		t.Errorf("%s: got %.3f, want %.3f", what, got, want)
	}
}

// TestEveryCaseOccurs guards against a generator that became tame.
func TestEveryCaseOccurs(t *testing.T) {
	lines, _ := stream(t, example(), full(1, 20_000), 20_000)
	seen := map[string]int{}
	accounts := map[string]bool{"facebook/1234567890": true, "x/99": true, "youtube/UCherz": true}
	for line := range bytes.Lines(lines) {
		e, reason := judge(line, end, 720*time.Hour)
		if reason != "" {
			seen["reject "+reason]++
			continue
		}
		seen["source "+e.Source]++
		seen["kind "+e.Kind]++
		seen["lang "+e.Lang]++
		seen["author is a bot"] += btoi(e.Author.Bot)
		seen["country by place"] += btoi(e.Place.Country != "" && e.Place.Country != e.Author.Country)
		seen["country by author"] += btoi(e.Place.Country == "" && e.Author.Country != "")
		seen["no country"] += btoi(e.Place.Country == "" && e.Author.Country == "")
		own := accounts[e.Source+"/"+e.Author.ID]
		seen["broadcast"] += btoi(own && e.Kind == "post")
		seen["answer"] += btoi(own && e.Kind == "reply")
		seen["said to the company"] += btoi(!own && accounts[e.Source+"/"+e.Account])
		seen["quoted"] += btoi(e.Kind == "share" && e.Text != "")
		seen["another offset"] += btoi(!strings.HasSuffix(e.Time, "Z"))
		seen["with counters"] += btoi(e.Counters != nil)
		seen["title"] += btoi(e.Title != "")
		seen["hashtag"] += btoi(slices.Contains(e.Hashtags, "examplumab"))
	}
	for _, need := range []string{
		"reject invalid_json", "reject invalid_utf8", "reject missing_field", "reject unknown_kind", "reject invalid_field", "reject too_late", "reject in_future",
		"source bluesky", "source mastodon", "source x", "source reddit", "source facebook", "source youtube", "source feeds",
		"kind post", "kind reply", "kind share", "kind reaction", "lang en", "lang de", "lang fr", "lang es", "lang it", "lang pt", "lang ja", "lang ",
		"author is a bot", "country by place", "country by author", "no country", "broadcast", "answer", "said to the company", "quoted", "another offset", "with counters", "title", "hashtag",
	} {
		if seen[need] == 0 {
			t.Errorf("%s: never", need)
		}
	}
}

// TestRepliesAgreeWithTheirThread holds the promise that routing through threads adds no mention.
func TestRepliesAgreeWithTheirThread(t *testing.T) {
	p := example()
	lines, _ := stream(t, p, full(5, 20_000), 20_000)
	posts := map[string][]social.Node{}
	company := map[string]bool{}
	checked := 0
	for line := range bytes.Lines(lines) {
		e, reason := judge(line, end, p.Lateness)
		if reason != "" || e.Kind != "post" && e.Kind != "reply" {
			continue
		}
		nodes, own := route(p, e)
		posts[e.Source+"|"+e.ID], company[e.Source+"|"+e.ID] = nodes, own
		if e.Kind != "reply" || own {
			continue
		}
		for _, of := range []string{e.InReplyTo.ID, e.RootID} {
			if parent, ok := posts[e.Source+"|"+of]; ok {
				checked++
				if !cmp.Equal(parent, nodes) {
					t.Fatalf("a reply belongs to %v, its thread to %v:\n%s", nodes, parent, line)
				}
			}
		}
	}
	if checked < 2000 {
		t.Errorf("only %d replies had a known thread", checked)
	}
}

func TestTimesStayInSpan(t *testing.T) {
	cfg := full(1, 20_000)
	cfg.Invalid = 0
	lines, _ := stream(t, example(), cfg, cfg.Events)
	oldest, late, newest := end, 0, time.Time{}
	for line := range bytes.Lines(lines) {
		var e event
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatal(err)
		}
		at := e.at(t)
		if at.Before(end.Add(-cfg.Span)) || at.After(end) {
			t.Fatalf("time %v is outside of the %v before %v", at, cfg.Span, end)
		}
		if newest.Sub(at) > time.Hour {
			late++
		}
		newest = later(newest, at)
		if at.Before(oldest) {
			oldest = at
		}
	}
	if end.Sub(oldest) < 70*time.Hour || end.Sub(newest) > time.Hour || late < 500 {
		t.Errorf("events from %v to %v, %d late: the span is not used", oldest, newest, late)
	}
}

func TestLiveGeneratorFollowsTheClock(t *testing.T) {
	cfg := full(1, 100)
	cfg.Invalid, cfg.Span = 0, time.Hour
	cfg.Duplicates = 0 // they keep the time that they had
	g, err := New(example(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	for range cfg.Events {
		g.Next(nil)
	}
	now := end.Add(1000 * time.Hour)
	g.At(now)
	for range 1000 {
		var e event
		if err := json.Unmarshal(g.Next(nil), &e); err != nil {
			t.Fatal(err)
		}
		if at := e.at(t); at.After(now) || at.Before(now.Add(-time.Hour)) {
			t.Fatalf("time %v with the clock at %v", at, now)
		}
	}
}

// lineWriter takes note of writes that do not end where a line ends.
type lineWriter struct {
	lines, torn int
	stop        func()
	after       int
}

func (w *lineWriter) Write(b []byte) (int, error) {
	w.lines += bytes.Count(b, []byte("\n"))
	if b[len(b)-1] != '\n' {
		w.torn++
	}
	if w.lines >= w.after {
		w.stop()
	}
	return len(b), nil
}

func TestWrite(t *testing.T) {
	f := func(n, rate int, live bool, after, want int) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		g, err := New(example(), full(1, n))
		if err != nil {
			t.Fatal(err)
		}
		w := &lineWriter{stop: cancel, after: after}
		start := time.Now()
		if err := g.Write(ctx, w, n, rate, live); err != nil {
			t.Fatal(err)
		}
		if w.torn > 0 {
			t.Errorf("%d writes ended within a line", w.torn)
		}
		if w.lines < want || n > 0 && w.lines != want {
			t.Errorf("%d lines, want %d", w.lines, want)
		}
		if floor := time.Duration(w.lines-rate/10) * time.Second; rate > 0 && time.Since(start) < floor/time.Duration(rate) {
			t.Errorf("%d lines in %v are more than %d a second", w.lines, time.Since(start), rate)
		}
	}
	f(5000, 0, false, 1e9, 5000)
	f(500, 2000, false, 1e9, 500)
	f(0, 5000, true, 1000, 1000)
	f(0, 0, false, 0, 0)
}

func TestNoiseSaysNothingOfTheDirectory(t *testing.T) {
	p := example()
	// Words that the generator's own sentences contain: they have to go. (The French "soupe" is another word.)
	p.Units[0].Mute = `tomatoes OR "evenings get" OR weekend* OR kitchen`
	p.Divisions[1].Listen = `products OR *ubenswarm* OR soup OR スープ OR Küche OR tag:rain`
	cfg := full(1, 15_000)
	cfg.Invalid = 0
	lines, _ := stream(t, p, cfg, cfg.Events)
	for line := range bytes.Lines(lines) {
		for _, bad := range []string{"tomatoes", "evenings get", "weekend", "kitchen", "soup ", "スープ", "küche", `"rain"`, "melanom", "side effect", "lumen", "rivalumab", "beispielumab"} {
			if strings.Contains(strings.ToLower(string(line)), bad) {
				t.Fatalf("%q is said:\n%s", bad, line)
			}
		}
	}
	if got, want := recount(t, p, lines, end), 500; len(got) < want {
		t.Errorf("only %d node-hours left", len(got))
	}
}

func TestRefusedPlans(t *testing.T) {
	f := func(change func(*Plan), want string) {
		t.Helper()
		p := example()
		change(&p)
		_, err := New(p, full(1, 10))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
	f(func(p *Plan) { p.Divisions[0].Listen = "melanoma" }, "division oncology: listen lacks `products`")
	f(func(p *Plan) { p.Divisions[0].Listen = `"our products"` }, "division oncology: listen lacks `products`")
	f(func(p *Plan) { p.Divisions[0].Listen = "" }, "division oncology: listen lacks `products`")
	f(func(p *Plan) { p.Divisions[1].Listen = "products AND heart" }, "division cardio: listen: is not decided")
	f(func(p *Plan) { p.Divisions[1].Listen = "products AND lang:de" }, "division cardio: listen: is not decided")
	f(func(p *Plan) { p.Divisions[1].Listen = "products NEAR/3 heart" }, "division cardio: listen: is not decided")
	f(func(p *Plan) { p.Divisions[1].Listen = "products OR NOT heart" }, "division cardio: listen: is not decided")
	f(func(p *Plan) { p.Divisions[1].Listen = "products OR (heart" }, "closing parenthesis")
	f(func(p *Plan) { p.Divisions[1].Listen = `products OR "heart` }, "products")
	f(func(p *Plan) { p.Divisions[1].Listen = strings.Repeat("(", 1000) + "products" }, "nested deeper")
	f(func(p *Plan) { p.Units[0].Listen = "source:x" }, "business unit oncology-dach: listen")
	f(func(p *Plan) { p.Units[0].Mute = "products" }, "business unit oncology-dach: mute")
	f(func(p *Plan) { p.Units[0].Accounts[0].Territory = "mars" }, "no known node")
	f(func(p *Plan) { p.Lateness = 24 * time.Hour }, "too late")
	f(func(p *Plan) { p.Divisions = nil }, "no division")
	f(func(p *Plan) {
		p.Units = nil
		for i := range p.Divisions {
			p.Divisions[i].Products, p.Divisions[i].Hashtags = nil, nil
		}
	}, "nothing can be planted")
	f(func(p *Plan) { p.Units[0].Mute = "a* OR b* OR the OR *c* OR d* OR 今* OR e* OR 、 OR の" }, "nearly every sentence")
}

// TestSharedNamesAreNotPlanted: a name that two divisions would hear says nothing about where it was meant to go.
func TestSharedNamesAreNotPlanted(t *testing.T) {
	p := example()
	p.Divisions[1].Products = append(p.Divisions[1].Products, "Examplumab")
	p.Divisions[2].Competitors = []string{"Herzolin"}
	cfg := full(1, 5000)
	lines, _ := stream(t, p, cfg, cfg.Events)
	for _, shared := range []string{"examplumab", "herzolin"} {
		if strings.Contains(strings.ToLower(string(lines)), shared) {
			t.Errorf("%s is planted though two divisions hear it", shared)
		}
	}
	if !strings.Contains(string(lines), "Exa-mab") || !strings.Contains(string(lines), "Cœur Simple") {
		t.Error("the names that are left are not planted")
	}
}

func TestNextDoesNotAllocate(t *testing.T) {
	cfg := full(1, 0)
	cfg.Matching, cfg.PadTo, cfg.Span = 0.2, 700, time.Hour
	g, err := New(example(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 0, 8<<10)
	for range 100_000 { // every author has been heard, every slot used
		line = g.Next(line[:0])
	}
	// The set of voices still grows now and then.
	if got := testing.AllocsPerRun(20_000, func() { line = g.Next(line[:0]) }); got >= 0.05 {
		t.Errorf("%.2f allocations a line", got)
	}
}

// The generator feeds benchmarks, so it has to be much faster than what it feeds.
//
//	go test ./services/polyphony/generate -run '^$' -bench Next -benchmem
func BenchmarkNext(b *testing.B) {
	for name, matching := range map[string]float64{"match=20": 0.2, "match=100": 1} {
		b.Run(name, func(b *testing.B) {
			cfg := full(1, 1_000_000)
			cfg.Matching, cfg.PadTo = matching, 700
			g, err := New(example(), cfg)
			if err != nil {
				b.Fatal(err)
			}
			line := make([]byte, 0, 8<<10)
			var total int
			for b.Loop() {
				line = g.Next(line[:0])
				total += len(line)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
			b.ReportMetric(float64(total)/float64(b.N), "B/event")
		})
	}
}

// event is the canonical event of the contract, as far as counting goes.
type event struct {
	ID, Source, Kind, Time, Title, Text, Lang string
	Author                                    struct {
		ID, Handle, Country string
		Bot                 bool
	}
	Account   string
	InReplyTo struct {
		ID string `json:"id"`
	} `json:"in_reply_to"`
	RootID   string `json:"root_id"`
	Object   struct{ ID string }
	Place    struct{ Country string }
	Hashtags []string
	Counters json.RawMessage
}

func (e event) at(tb testing.TB) time.Time {
	at, err := time.Parse(time.RFC3339, e.Time)
	if err != nil {
		tb.Fatal(err)
	}
	return at
}

// judge reads a line and says why it must be rejected, if it must.
func judge(line []byte, now time.Time, lateness time.Duration) (e event, reason string) {
	if !utf8.Valid(line) {
		return e, "invalid_utf8"
	}
	if json.Unmarshal(line, &e) != nil {
		return e, "invalid_json"
	}
	if e.ID == "" || e.Source == "" || e.Kind == "" || e.Time == "" || e.Author.ID == "" {
		return e, "missing_field"
	}
	if !social.Kind(e.Kind).Known() {
		return e, "unknown_kind"
	}
	if social.Kind(e.Kind).NeedsObject() && e.Object.ID == "" {
		return e, "missing_field"
	}
	at, err := time.Parse(time.RFC3339, e.Time)
	switch {
	case err != nil || !social.ValidName(e.Source) || len(e.ID) > social.MaxID:
		return e, "invalid_field"
	case at.Before(now.Add(-lateness)):
		return e, "too_late"
	case at.After(now.Add(10 * time.Minute)):
		return e, "in_future"
	}
	return e, ""
}

// route says where an event belongs, in the plainest way. It returns whether the company wrote it.
func route(p Plan, e event) (nodes []social.Node, own bool) {
	home := ""
	for _, u := range p.Units {
		for _, a := range u.Accounts {
			if a.Source == e.Source && (a.ID == e.Account || a.ID == e.Author.ID) {
				home = u.Division
				nodes = append(nodes, social.Node{Division: u.Division, Territory: a.Territory})
				own = own || a.ID == e.Author.ID
			}
		}
	}
	country := e.Place.Country
	if country == "" {
		country = e.Author.Country
	}
	said := strings.ToLower(e.Title + "\n" + e.Text + "\n" + strings.Join(e.Hashtags, "\n"))
	for _, d := range p.Divisions {
		if d.Name == home || !slices.ContainsFunc(slices.Concat(d.Products, d.Hashtags), func(n string) bool { return strings.Contains(said, strings.ToLower(n)) }) {
			continue
		}
		territory, fits := social.Elsewhere, 0
		for _, t := range p.Territories {
			served := d.Territories == nil || slices.Contains(d.Territories, t.Name)
			if served && (slices.Contains(t.Countries, country) || country == "" && slices.Contains(t.Languages, e.Lang)) {
				territory = t.Name
				fits++
			}
		}
		if fits > 1 {
			territory = "two territories fit, the contract does not say which"
		}
		nodes = append(nodes, social.Node{Division: d.Name, Territory: territory})
	}
	slices.SortFunc(nodes, social.Node.Compare)
	return slices.Compact(nodes), own
}

// recount counts mentions and voices by node and hour from the lines alone.
func recount(t *testing.T, p Plan, lines []byte, now time.Time) []Row {
	t.Helper()
	type bucket struct {
		social.Node
		hour time.Time
	}
	mentions, voices := map[bucket]int{}, map[bucket]map[string]bool{}
	seen := map[string]bool{}
	for line := range bytes.Lines(lines) {
		e, reason := judge(line, now, p.Lateness)
		if reason != "" || seen[e.Source+"|"+e.ID] {
			continue
		}
		seen[e.Source+"|"+e.ID] = true
		nodes, own := route(p, e)
		if own || e.Kind != "post" && e.Kind != "reply" {
			continue
		}
		for _, n := range nodes {
			b := bucket{n, e.at(t).UTC().Truncate(time.Hour)}
			mentions[b]++
			if voices[b] == nil {
				voices[b] = map[string]bool{}
			}
			if !e.Author.Bot {
				voices[b][e.Source+"|"+e.Author.ID] = true
			}
		}
	}
	var rows []Row
	for b, n := range mentions {
		rows = append(rows, Row{b.Division, b.Territory, b.hour, n, len(voices[b])})
	}
	slices.SortFunc(rows, func(a, b Row) int {
		x, y := social.Node{Division: a.Division, Territory: a.Territory}, social.Node{Division: b.Division, Territory: b.Territory}
		if c := x.Compare(y); c != 0 {
			return c
		}
		return a.Bucket.Compare(b.Bucket)
	})
	return rows
}

func ids(t *testing.T, lines []byte) map[string]bool {
	t.Helper()
	set := map[string]bool{}
	for line := range bytes.Lines(lines) {
		if e, reason := judge(line, end.Add(time.Hour), 720*time.Hour); reason == "" {
			set[e.Source+"|"+e.ID] = true
		}
	}
	return set
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}
