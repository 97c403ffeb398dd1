package e2e

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// A history is what happened around a few posts: the posts, what refers to them, and what was said of them later. It is
// a set: what comes of it must not depend on the order in which it is heard.
type history struct {
	posts   []post
	edits   []edit
	deletes []deletion
	leaves  []leave
}

// post is an event about something, sent with each of its times: a network may give one event several.
type post struct {
	kind    string
	times   []time.Time
	author  int
	country string
	about   string // a product, "" for none
	parent  int    // of posts; -1 for none
	root    int
	shared  int // by a share or a reaction
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
	"company.yaml":          "company: histories\n",
	"divisions/alpha.yaml":  "division: alpha\nproducts: [{id: alphavir, names: [Alphavir]}]\nlisten: products\n",
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
	var h history
	posts := 2 + r.IntN(6)
	for range posts {
		p := post{kind: "post", times: []time.Time{at()}, author: r.IntN(4), country: []string{"DE", "FR"}[r.IntN(2)], about: about(0.5), parent: -1, root: -1, shared: -1}
		switch k := r.IntN(10); {
		case k < 5:
			p.kind, p.about, p.parent = "reply", about(0.25), other(posts)
			if r.IntN(3) == 0 {
				p.root = other(posts)
			}
		case k < 6:
			p.kind, p.about, p.shared = "share", "", r.IntN(posts)
		case k < 7:
			p.kind, p.about, p.shared = "reaction", "", r.IntN(posts)
		}
		for r.IntN(6) == 0 {
			p.times = append(p.times, at())
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
	author := func(i int) string { return fmt.Sprintf("%s-a%d", prefix, i) }
	ref := func(i int) map[string]any {
		return map[string]any{"id": id(i), "author_id": author(h.posts[i].author)}
	}
	for i, p := range h.posts {
		for _, at := range p.times {
			event := map[string]any{"id": id(i), "kind": p.kind, "time": at.Format(time.RFC3339Nano), "text": wordsAbout(p.about, 0),
				"author": map[string]any{"id": author(p.author), "country": p.country}}
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
		event := map[string]any{"kind": "edit", "time": e.at.Format(time.RFC3339Nano), "object": ref(e.post), "text": wordsAbout(e.about, i+1)}
		if e.country != "" {
			event["author"] = map[string]any{"country": e.country}
		}
		add(event)
	}
	for _, d := range h.deletes {
		add(map[string]any{"kind": "delete", "time": d.at.Format(time.RFC3339Nano), "object": ref(d.post)})
	}
	for _, l := range h.leaves {
		add(map[string]any{"kind": "delete", "time": l.until.Format(time.RFC3339Nano), "object": map[string]any{"author_id": author(l.author)}})
	}
	return lines
}

func wordsAbout(product string, version int) string {
	return strings.TrimSpace(fmt.Sprintf("words %d %s", version, product))
}

// row is a mention as the model and the table see it.
type row struct {
	Event, Author, Division, Territory, Kind, Via, Text string
	Time                                                int64 // Unix ms
}

// mentions computes the state from the set of facts: which events are mentions of which nodes, and why.
func (h *history) mentions(prefix string) []row {
	type node struct{ division, territory string }
	type state struct {
		own, all map[node]bool
		time     time.Time
		text     string
	}
	states := map[int]*state{}
	for i, p := range h.posts {
		s := &state{own: map[node]bool{}, all: map[node]bool{}, time: slices.MinFunc(p.times, time.Time.Compare), text: wordsAbout(p.about, 0)}
		refers := p.parent >= 0 && p.parent != i || p.root >= 0 && p.root != i || p.shared >= 0 && p.shared != i
		if p.about == "" && !refers {
			continue // concerns nobody and was dropped
		}
		about, country := p.about, p.country
		var newest *edit
		for j := range h.edits {
			if e := &h.edits[j]; e.post == i && (newest == nil || e.at.After(newest.at)) {
				newest = e
				s.text = wordsAbout(e.about, j+1)
			}
		}
		if newest != nil {
			about = newest.about
			if newest.country != "" {
				country = newest.country
			}
		}
		if about != "" {
			n := node{historyProducts[about], historyCountries[country]}
			s.own[n], s.all[n] = true, true
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
					if !s.all[n] {
						s.all[n], changed = true, true
					}
				}
			}
		}
	}
	var rows []row
	for i, s := range states {
		for n := range s.all {
			via := "thread"
			if s.own[n] {
				via = "text"
			}
			rows = append(rows, row{Event: fmt.Sprintf("%s-p%d", prefix, i), Author: fmt.Sprintf("%s-a%d", prefix, h.posts[i].author),
				Division: n.division, Territory: n.territory, Kind: h.posts[i].kind, Via: via, Text: s.text, Time: s.time.UnixMilli()})
		}
	}
	return rows
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

// hours are the metrics that follow from rows, by node and hour.
func hoursOf(rows []row) map[string]string {
	type counts struct {
		mentions, posts, replies, shares, reactions int
		voices                                      map[string]bool
	}
	hours := map[string]*counts{}
	for _, m := range rows {
		name := fmt.Sprintf("%s/%s/%d", m.Division, m.Territory, m.Time/3_600_000*3600)
		c := hours[name]
		if c == nil {
			c = &counts{voices: map[string]bool{}}
			hours[name] = c
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
		}
		if m.Kind == "post" || m.Kind == "reply" {
			c.mentions++
			c.voices[m.Author] = true
		}
	}
	texts := map[string]string{}
	for name, c := range hours {
		texts[name] = fmt.Sprintf("mentions %d voices %d posts %d replies %d shares %d reactions %d",
			c.mentions, len(c.voices), c.posts, c.replies, c.shares, c.reactions)
	}
	return texts
}

// difference names what one set of rows has and the other lacks, by history.
func difference(want, got []row) map[string][]string {
	prefix := func(event string) string {
		before, _, _ := strings.Cut(event, "-p")
		return before
	}
	count := map[row]int{}
	for _, m := range want {
		count[m]++
	}
	for _, m := range got {
		count[m]--
	}
	faults := map[string][]string{}
	for m, n := range count {
		if n != 0 {
			faults[prefix(m.Event)] = append(faults[prefix(m.Event)], fmt.Sprintf("%+d %+v", n, m))
		}
	}
	for _, list := range maps.All(faults) {
		slices.Sort(list)
	}
	return faults
}
