package e2e

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestHistories: whatever happened, in whatever order it is heard, however often and in however many pieces, by two
// enrichers and two aggregators of which two are killed on the way, with merges in between, the mentions, the metrics and
// what totals make of them are what the set of facts says. POLYPHONY_TEST_HISTORIES and
// _SEED make it longer or other, and with _AT_ONCE more of them are told side by side, which is faster.
func TestHistories(t *testing.T) {
	t.Parallel()
	histories, seed, atOnce := setting(t, "HISTORIES", 2000), setting(t, "SEED", 1), setting(t, "AT_ONCE", 500)
	if testing.Short() {
		histories = 200
	}
	u := startUp(t, "--nodes", companyWith(t, historyCompany, ""))
	at := "POLYPHONY_NATS_URL=nats://" + u.at["nats"]
	others := func() []*service {
		return []*service{
			startService(t, "enricher", at, "POLYPHONY_AUTHOR_KEY_FILE="+filepath.Join(u.data, "author.key")),
			startService(t, "aggregator", at, "POLYPHONY_CLICKHOUSE_ADDR="+u.at["clickhouse"]),
		}
	}
	second := others()
	for _, s := range second {
		s.awaitReady()
	}
	r := rand.New(rand.NewPCG(uint64(seed), 0))
	around := time.Now().UTC().Truncate(time.Hour).Add(-48 * time.Hour)
	copyFile := filepath.Join(t.TempDir(), "copy")
	var all []told
	for first := 0; first < histories; first += atOnce {
		round := len(all)
		for i := first; i < min(histories, first+atOnce); i++ {
			h := inventHistory(r, around)
			for order := range orders {
				all = append(all, h.tell(r, fmt.Sprintf("h%d.%d", i, order), pieces))
			}
		}
		switch first / atOnce % 8 {
		case 0, 4: // with a pause, what comes later finds decided what came before
			u.tell(all[round:], u.settle)
		case 1:
			u.tell(all[round:], func() {
				for _, s := range second {
					s.kill()
				}
				second = others()
			})
		case 2, 6: // what is merged away nobody can look at
			u.tell(all[round:], func() {
				u.settle()
				for _, table := range []string{"mentions_store", "locations", "heads", "selves", "edges", "notes", "counters", "gains", "statements", "originals", "touches"} {
					u.sql("OPTIMIZE TABLE " + table + " FINAL")
				}
			})
		default:
			u.tell(all[round:], func() {})
		}
		u.copied("--file", copyFile)
	}
	u.mustShow(all, copyFile)
}

// A history is what happened around a few posts: the posts, what refers to them, and what was said of them later. It is
// a set: what comes of it must not depend on the order in which it is heard.
type history struct {
	posts   []post
	edits   []edit
	deletes []deletion
	leaves  []leave
	told    []observation
}

// post is an event about something, sent in several copies: a network may give one event several times, with other words
// and other totals from one time to the next.
type post struct {
	kind    string
	copies  []copied
	author  int
	country string
	parent  int // of posts; -1 for none
	root    int
	shared  int // by a share or a reaction
}

type copied struct {
	at    time.Time
	words words
	told  *totals
}

// words are a text by the product that it is about, "" for none, and a number.
type words struct {
	about  string
	number int
}

func (w words) String() string {
	return strings.TrimSpace(fmt.Sprintf("words %d %s", w.number, w.about))
}

// companyAuthor is the author who is the company itself, on one account in all histories, which is alpha's in the east.
const (
	companyAuthor  = 4
	companyAccount = "alphas-own"
)

// authorOf is the id of an author of a history.
func authorOf(prefix string, author int) string {
	if author == companyAuthor {
		return companyAccount
	}
	return fmt.Sprintf("%s-a%d", prefix, author)
}

// refers reports whether the ith of the posts names others than itself.
func (p *post) refers(i int) bool {
	return p.parent >= 0 && p.parent != i || p.root >= 0 && p.root != i || p.shared >= 0 && p.shared != i
}

// heard are the copies of the ith of the posts that leave a trace: others concern nobody and are dropped.
func (p *post) heard(i int) (heard []copied) {
	for _, c := range p.copies {
		if c.words.about != "" || p.author == companyAuthor || p.refers(i) {
			heard = append(heard, c)
		}
	}
	return heard
}

// saying are the words that were heard at the earliest time. Of several a hash decides, which is the pipeline's business,
// but it is the same everywhere.
func (p *post) saying(i int) (at time.Time, saying []words) {
	for _, c := range p.heard(i) {
		if saying == nil || c.at.Before(at) {
			at, saying = c.at, []words{c.words}
		} else if c.at.Equal(at) && !slices.Contains(saying, c.words) {
			saying = append(saying, c.words)
		}
	}
	return at, saying
}

// totals are what a network told of a post at one time, -1 what it did not tell.
type totals struct {
	at                   time.Time
	shares, likes, views int
}

type observation struct {
	post int
	totals
}

type edit struct {
	post    int
	at      time.Time
	about   string
	country string // "" leaves it
}

type deletion struct {
	post int
	at   time.Time
}

// leave is an author who has all deleted that they wrote until then.
type leave struct {
	author int
	until  time.Time
}

// The company of the histories: a division for each product, which speaks of nothing else, and two territories.
var (
	historyProducts  = map[string]string{"alphavir": "alpha", "betazol": "beta"} // to their divisions
	historyCountries = map[string]string{"DE": "east", "FR": "west"}             // to their territories
)

var historyCompany = map[string]string{
	"company.yaml":         "company: histories\n",
	"divisions/alpha.yaml": "division: alpha\nproducts: [{id: alphavir, names: [Alphavir]}]\nlisten: products\n",
	"business-units/alpha-east.yaml": "business_unit: alpha-east\ndivision: alpha\nterritories: [east]\n" +
		"accounts: [{source: histories, id: " + companyAccount + "}]\n",
	"divisions/beta.yaml":   "division: beta\nproducts: [{id: betazol, names: [Betazol]}]\nlisten: products\n",
	"territories/east.yaml": "territory: east\ncountries: [DE]\ntimezone: Europe/Berlin\n",
	"territories/west.yaml": "territory: west\ncountries: [FR]\ntimezone: Europe/Paris\n",
}

// inventHistory makes a history around a point in time. Times of one kind of statement differ: which of two at one
// instant stands is nobody's promise.
func inventHistory(r *rand.Rand, around time.Time) history {
	n := 0
	at := func() time.Time { // within some hours, never the same twice
		n++
		return around.Add(time.Duration(r.IntN(4*3600))*time.Second + time.Duration(n)*time.Millisecond)
	}
	about := func(likely float64) string {
		if r.Float64() > likely {
			return ""
		}
		return []string{"alphavir", "betazol"}[r.IntN(2)]
	}
	other := func(of int) int { // any post, also a later one, also oneself
		if r.Float64() < 0.3 {
			return -1
		}
		return r.IntN(of)
	}
	tell := func(at time.Time) *totals {
		t := &totals{at, -1, -1, -1}
		for _, n := range []*int{&t.shares, &t.likes, &t.views} {
			if r.IntN(3) > 0 {
				*n = r.IntN(9)
			}
		}
		if *t == (totals{at, -1, -1, -1}) {
			t.views = 1
		}
		return t
	}
	carried := func(at time.Time) *totals {
		switch k := r.IntN(8); {
		case k < 5:
			return nil
		case k < 7: // counted when it was written, or soon after
			return tell(at.Add(time.Duration(r.IntN(3)) * 10 * time.Minute))
		}
		return tell(around.Add(time.Duration(r.IntN(6*3600)) * time.Second))
	}
	var h history
	posts := 2 + r.IntN(6)
	for range posts {
		p := post{kind: "post", copies: []copied{{at: at()}}, author: r.IntN(4), country: []string{"DE", "FR"}[r.IntN(2)], parent: -1, root: -1, shared: -1}
		likely := 0.5
		if r.IntN(8) == 0 {
			p.author = companyAuthor
		}
		switch k := r.IntN(10); {
		case k < 5:
			p.kind, likely, p.parent = "reply", 0.25, other(posts)
			if r.IntN(3) == 0 {
				p.root = other(posts)
			}
		case k < 6:
			p.kind, likely, p.shared = "share", 0, r.IntN(posts)
		case k < 7:
			p.kind, likely, p.shared = []string{"reaction", "reaction", "view"}[r.IntN(3)], 0, r.IntN(posts)
		}
		p.copies[0].words.about = about(likely)
		if p.shared >= 0 && r.IntN(3) == 0 {
			p.root = other(posts)
		}
		for r.IntN(6) == 0 {
			p.copies = append(p.copies, copied{at: at(), words: p.copies[0].words})
		}
		for r.IntN(6) == 0 {
			p.copies = append(p.copies, p.copies[r.IntN(len(p.copies))])
		}
		for r.IntN(8) == 0 { // cut off, corrected without a word, or told by another network of the same network
			c := p.copies[r.IntN(len(p.copies))]
			c.words = words{about(likely), 100 + len(p.copies)}
			p.copies = append(p.copies, c)
		}
		for i := range p.copies {
			p.copies[i].told = carried(p.copies[i].at)
		}
		h.posts = append(h.posts, p)
	}
	for r.IntN(2) == 0 {
		e := edit{post: r.IntN(posts), at: at(), about: about(0.7)}
		if r.IntN(4) == 0 {
			e.country = []string{"DE", "FR"}[r.IntN(2)]
		}
		h.edits = append(h.edits, e)
	}
	for r.IntN(3) == 0 {
		h.deletes = append(h.deletes, deletion{r.IntN(posts), at()})
	}
	for r.IntN(3) > 0 {
		h.told = append(h.told, observation{r.IntN(posts), *tell(at())})
	}
	if r.IntN(6) == 0 {
		h.leaves = append(h.leaves, leave{r.IntN(4), at()})
	}
	return h
}

// lines are the history as canonical events, ids beginning with prefix, repeats included.
func (h *history) lines(r *rand.Rand, prefix string) []string {
	var lines []string
	add := func(event map[string]any) {
		event["source"] = "histories"
		text, err := json.Marshal(event)
		if err != nil {
			panic(err)
		}
		for lines = append(lines, string(text)); r.IntN(5) == 0; {
			lines = append(lines, string(text))
		}
	}
	id := func(i int) string { return fmt.Sprintf("%s-p%d", prefix, i) }
	author := func(i int) string { return authorOf(prefix, i) }
	ref := func(i int) map[string]any {
		return map[string]any{"id": id(i), "author_id": author(h.posts[i].author)}
	}
	counters := func(t *totals) map[string]any {
		c := map[string]any{"observed_at": t.at.Format(time.RFC3339Nano)}
		for name, n := range map[string]int{"shares": t.shares, "likes": t.likes, "views": t.views} {
			if n >= 0 {
				c[name] = n
			}
		}
		return c
	}
	for i, p := range h.posts {
		for _, copy := range p.copies {
			event := map[string]any{"id": id(i), "kind": p.kind, "time": copy.at.Format(time.RFC3339Nano), "text": copy.words.String(),
				"author": map[string]any{"id": author(p.author), "country": p.country}}
			if copy.told != nil {
				event["counters"] = counters(copy.told)
			}
			if p.parent >= 0 {
				event["in_reply_to"] = ref(p.parent)
			}
			if p.root >= 0 {
				event["root_id"] = id(p.root)
			}
			if p.shared >= 0 {
				event["object"] = ref(p.shared)
			}
			add(event)
		}
	}
	for i, e := range h.edits {
		event := map[string]any{"kind": "edit", "time": e.at.Format(time.RFC3339Nano), "object": ref(e.post), "text": words{e.about, i + 1}.String()}
		if e.country != "" {
			event["author"] = map[string]any{"country": e.country}
		}
		add(event)
	}
	for _, o := range h.told {
		add(map[string]any{"kind": "counters", "time": o.at.Format(time.RFC3339Nano), "object": ref(o.post), "counters": counters(&o.totals)})
	}
	for _, d := range h.deletes {
		add(map[string]any{"kind": "delete", "time": d.at.Format(time.RFC3339Nano), "object": ref(d.post)})
	}
	for _, l := range h.leaves {
		add(map[string]any{"kind": "delete", "time": l.until.Format(time.RFC3339Nano), "object": map[string]any{"author_id": author(l.author)}})
	}
	return lines
}

// row is a mention as the model and the table see it.
type row struct {
	Event, Author, Division, Territory, Kind, Via, Text string
	Time                                                int64 // Unix ms
}

type node struct{ division, territory string }

// state is where a post is a mention, how, and as what.
type state struct {
	all  map[node]string // text, account or thread
	time time.Time
	text string
}

// choice gives the words of each post that stand before any edit.
type choice []words

// choices are what hashes can decide.
func (h *history) choices() []choice {
	all := []choice{nil}
	for i := range h.posts {
		_, saying := h.posts[i].saying(i)
		if len(saying) == 0 {
			saying = []words{{}}
		}
		var longer []choice
		for _, c := range all {
			for _, w := range saying {
				longer = append(longer, append(slices.Clone(c), w))
			}
		}
		all = longer
	}
	return all
}

// states computes the state from the set of facts: which events are mentions of which nodes, and why.
func (h *history) states(chosen choice) map[int]*state {
	states := map[int]*state{}
	for i, p := range h.posts {
		at, saying := p.saying(i)
		if len(saying) == 0 {
			continue // concerns nobody and was dropped
		}
		s := &state{all: map[node]string{}, time: at, text: chosen[i].String()}
		about, country := chosen[i].about, p.country
		var newest *edit
		for j := range h.edits {
			if e := &h.edits[j]; e.post == i && (newest == nil || e.at.After(newest.at)) {
				newest = e
				s.text = words{e.about, j + 1}.String()
			}
		}
		if newest != nil {
			about = newest.about
			if newest.country != "" {
				country = newest.country
			}
		}
		if p.author == companyAuthor {
			s.all[node{"alpha", "east"}] = "account"
		}
		if division := historyProducts[about]; about != "" && !(division == "alpha" && p.author == companyAuthor) {
			s.all[node{division, historyCountries[country]}] = "text"
		}
		deleted := slices.ContainsFunc(h.deletes, func(d deletion) bool { return d.post == i }) ||
			slices.ContainsFunc(h.leaves, func(l leave) bool { return l.author == p.author && !s.time.After(l.until) })
		if !deleted {
			states[i] = s
		}
	}
	for changed := true; changed; {
		changed = false
		for i, s := range states {
			for _, target := range []int{h.posts[i].parent, h.posts[i].root, h.posts[i].shared} {
				if target == i || states[target] == nil {
					continue
				}
				for n := range states[target].all {
					if s.all[n] == "" {
						s.all[n], changed = "thread", true
					}
				}
			}
		}
	}
	return states
}

// mentions are the states as rows.
func (h *history) mentions(prefix string, chosen choice) []row {
	var rows []row
	for i, s := range h.states(chosen) {
		for n, via := range s.all {
			rows = append(rows, row{Event: fmt.Sprintf("%s-p%d", prefix, i), Author: authorOf(prefix, h.posts[i].author),
				Division: n.division, Territory: n.territory, Kind: h.posts[i].kind, Via: via, Text: s.text, Time: s.time.UnixMilli()})
		}
	}
	return rows
}

// originals are the posts of which an original must be kept, and those of which one may be: that of a deleted post goes some
// time later.
func (h *history) originals(chosen choice) (must, may map[int]bool) {
	must, may = map[int]bool{}, map[int]bool{}
	states := h.states(chosen)
	for i, p := range h.posts {
		concerns := func(w words) bool { return w.about != "" || p.author == companyAuthor }
		must[i] = states[i] != nil && concerns(chosen[i])
		for _, c := range p.copies {
			may[i] = may[i] || concerns(c.words)
		}
	}
	return must, may
}

// gain is what totals add to a node at a time.
type gain struct {
	Event, Division, Territory string
	Time                       int64 // Unix ms
	Shares, Likes, Views       int
}

// gains computes from the set of facts how totals changed from one time to the next where their posts are mentions, and
// takes away the single events beside them.
func (h *history) gains(prefix string, chosen choice) (gains []gain) {
	states := h.states(chosen)
	add := func(post int, in node, at time.Time, shares, likes, views int) {
		if shares != 0 || likes != 0 || views != 0 {
			gains = append(gains, gain{fmt.Sprintf("%s-p%d", prefix, post), in.division, in.territory, at.UnixMilli(), shares, likes, views})
		}
	}
	told := map[int]totals{} // whether anything was, and the last
	for i := range h.posts {
		byTime := map[time.Time]totals{}
		see := func(t totals) {
			was, ok := byTime[t.at]
			if !ok {
				was = totals{t.at, -1, -1, -1}
			}
			byTime[t.at] = totals{t.at, max(was.shares, t.shares), max(was.likes, t.likes), max(was.views, t.views)}
		}
		for _, c := range h.posts[i].heard(i) {
			if c.told != nil {
				see(*c.told)
			}
		}
		for _, o := range h.told {
			if o.post == i {
				see(o.totals)
			}
		}
		last := totals{time.Time{}, -1, -1, -1}
		for _, t := range slices.SortedFunc(maps.Values(byTime), func(a, b totals) int { return a.at.Compare(b.at) }) {
			var shares, likes, views int
			for _, n := range []struct {
				now        int
				last, gain *int
			}{{t.shares, &last.shares, &shares}, {t.likes, &last.likes, &likes}, {t.views, &last.views, &views}} {
				if n.now >= 0 {
					*n.gain, *n.last = n.now-max(*n.last, 0), n.now
				}
			}
			if s := states[i]; s != nil {
				for in := range s.all {
					add(i, in, t.at, shares, likes, views)
				}
			}
		}
		told[i] = last
	}
	for i, s := range states {
		p := h.posts[i]
		post := states[p.shared]
		if p.shared == i || post == nil || p.author == companyAuthor { // the company's own share is no engagement
			continue
		}
		for in := range s.all {
			if post.all[in] == "" {
				continue
			}
			switch last := told[p.shared]; {
			case p.kind == "share" && last.shares >= 0:
				add(i, in, s.time, -1, 0, 0)
			case p.kind == "reaction" && last.likes >= 0:
				add(i, in, s.time, 0, -1, 0)
			case p.kind == "view" && last.views >= 0:
				add(i, in, s.time, 0, 0, -1)
			}
		}
	}
	return gains
}

// pseudonymOf is how the documents say that keys are made.
func pseudonymOf(secret []byte, id string) string {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte("histories|" + id))
	return hex.EncodeToString(mac.Sum(nil)[:16])
}

// told is a history as it is told once: in an order of its own, in pieces.
type told struct {
	history *history
	prefix  string
	pieces  [][]string
}

// tell makes pieces of a history in a random order.
func (h *history) tell(r *rand.Rand, prefix string, pieces int) told {
	lines := h.lines(r, prefix)
	r.Shuffle(len(lines), func(i, j int) { lines[i], lines[j] = lines[j], lines[i] })
	t := told{history: h, prefix: prefix, pieces: make([][]string, pieces)}
	from := 0
	for i := range pieces {
		to := len(lines)
		if i < pieces-1 {
			to = from + r.IntN(len(lines)-from+1)
		}
		t.pieces[i] = lines[from:to]
		from = to
	}
	return t
}

// hoursOf are the metrics that follow from rows and gains, by node and hour.
func hoursOf(rows []row, gains []gain) map[string]string {
	type counts struct {
		mentions, posts, replies, broadcasts, answers, shares, reactions, views int
		voices                                                                  map[string]bool
	}
	hours := map[string]*counts{}
	hour := func(division, territory string, ms int64) *counts {
		name := fmt.Sprintf("%s/%s/%d", division, territory, ms/3_600_000*3600)
		if hours[name] == nil {
			hours[name] = &counts{voices: map[string]bool{}}
		}
		return hours[name]
	}
	for _, g := range gains {
		c := hour(g.Division, g.Territory, g.Time)
		c.shares, c.reactions, c.views = c.shares+g.Shares, c.reactions+g.Likes, c.views+g.Views
	}
	for _, m := range rows {
		c := hour(m.Division, m.Territory, m.Time)
		if m.Author == companyAccount {
			switch m.Kind {
			case "post":
				c.broadcasts++
			case "reply":
				c.answers++
			}
			continue
		}
		switch m.Kind {
		case "post":
			c.posts++
		case "reply":
			c.replies++
		case "share":
			c.shares++
		case "reaction":
			c.reactions++
		case "view":
			c.views++
		}
		if m.Kind == "post" || m.Kind == "reply" {
			c.mentions++
			c.voices[m.Author] = true
		}
	}
	texts := map[string]string{}
	for name, c := range hours {
		bySource := ""
		if c.mentions > 0 {
			bySource = fmt.Sprintf("'histories':%d", c.mentions)
		}
		texts[name] = fmt.Sprintf("mentions %d voices %d posts %d replies %d broadcasts %d answers %d shares %d reactions %d views %d {%s}",
			c.mentions, len(c.voices), c.posts, c.replies, c.broadcasts, c.answers, c.shares, c.reactions, c.views, bySource)
	}
	return texts
}

// fact is what is compared, event by event.
type fact interface {
	row | gain
	event() string
}

func (r row) event() string  { return r.Event }
func (g gain) event() string { return g.Event }

// historyOf is the prefix of an event's id.
func historyOf(event string) string {
	prefix, _, _ := strings.Cut(event, "-p")
	return prefix
}

// difference names what one set of facts has and the other lacks, by history.
func difference[F fact](want, got []F) map[string][]string {
	count := map[F]int{}
	for _, m := range want {
		count[m]++
	}
	for _, m := range got {
		count[m]--
	}
	faults := map[string][]string{}
	for m, n := range count {
		if n != 0 {
			history := historyOf(m.event())
			faults[history] = append(faults[history], fmt.Sprintf("%+d %+v", n, m))
		}
	}
	for _, list := range maps.All(faults) {
		slices.Sort(list)
	}
	return faults
}
