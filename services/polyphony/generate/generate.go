// Package generate invents the traffic of a company's networks: seeded, realistic events for a nodes directory, and the
// metrics that they must lead to.
//
// It owns the truth of tests and benchmarks, so it refuses to share anything with what it tests: it plants product
// names, owned accounts and countries, and knows from what it planted where every event belongs. Nothing of the
// matching or the routing of Polyphony is used. Noise that happens to contain a term of the directory is left out when
// the generator is made, and directories whose queries ask for more than planted names are refused.
//
// Threads are of one mind: whatever replies to an event that belongs to some nodes belongs to the same nodes by its own
// words, so the truth holds whether or not replies are also routed through their parents.
package generate

import (
	"fmt"
	"iter"
	"math/bits"
	"time"
)

// Config says how much of what is made. All shares are between 0 and 1.
type Config struct {
	Seed   uint64
	Events int           // lines to spread over Span; 0: all arrive at End, or at the time given by At
	End    time.Time     // arrival of the last event
	Span   time.Duration // how far back events happened; at most the lateness of the company less an hour

	Matching   float64 // events that concern a node by their own words or account
	PostsOnly  bool    // nothing refers to another event
	Both       float64 // of those by words: events that name products of two divisions
	Owned      float64 // of the matching: events on or by an owned account
	Unknown    float64 // of the matching: events from a country that nobody serves, or from no known country
	Duplicates float64 // lines that repeat an earlier one byte for byte
	Invalid    float64 // lines that must be rejected
	PadTo      int     // average bytes of a line; 0: as long as they come
}

// Default is the mixture of `polyphony generate`: every case of the contract, each often enough to be seen.
func Default(seed uint64, events int, end time.Time) Config {
	return Config{
		Seed: seed, Events: events, End: end, Span: 72 * time.Hour,
		Matching: 0.4, Both: 0.05, Owned: 0.15, Unknown: 0.15, Duplicates: 0.05, Invalid: 0.01,
	}
}

// Tally counts the lines made so far.
type Tally struct {
	Lines, Duplicates, Invalid int
	Matching                   int // valid first lines that concern a node by themselves
}

// Generator makes one line after the other. It is not safe for concurrent use; the same plan and configuration give
// the same lines for ever.
type Generator struct {
	cfg      Config
	lateness time.Duration
	plan     *vetted
	texts    []text // by tongue
	fluent
	ambient []string // hashtags that mean nothing

	random random
	seq    uint64 // events made, duplicates not counted
	base   uint64 // makes ids differ between seeds and ends
	clock  int64  // arrival of the next event, in ms
	owed   int    // bytes that earlier lines were too short by, when padding

	talk, noise ring // threads to join: those that concern a node, those that do not
	near        [16][]byte
	far         [1024][]byte
	distant     uint64 // how many of far are there

	truth truth
	tally Tally
	zipf  [1 << 14]uint16
}

// fluent says which tongues can be written, and where.
type fluent struct {
	all  []uint8
	sure []uint8   // those that place an event without country
	of   [][]uint8 // by territory
}

// New checks that a truth can be known for the plan and prepares everything that making a line needs.
func New(plan Plan, cfg Config) (*Generator, error) {
	v, err := vet(plan)
	if err != nil {
		return nil, err
	}
	// An hour of margin: events are judged when they are accepted, which is some time after they were made.
	if reach := plan.Lateness - time.Hour; plan.Lateness > 0 && cfg.Span > reach {
		return nil, fmt.Errorf("events of the last %s would be too late for a company that accepts %s", cfg.Span, plan.Lateness)
	}
	if cfg.Matching > 0 && len(v.accounts) == 0 && !v.plantable() {
		return nil, fmt.Errorf("no division has a product name of its own, so nothing can be planted")
	}
	g := &Generator{cfg: cfg, lateness: plan.Lateness, plan: v}
	if err := g.learn(plan); err != nil {
		return nil, err
	}
	end := uint64(cfg.End.UnixMilli())
	g.random = random{mix(cfg.Seed), mix(cfg.Seed ^ 0x5eed)}
	g.base = mix(cfg.Seed ^ mix(end))
	g.clock = cfg.End.UnixMilli()
	g.truth = newTruth(v)
	g.zipf = zipfTable()
	return g, nil
}

// At sets the time at which the next events arrive, for a generator that runs along with a clock. From then on
// Config.Events and Config.End have no say.
func (g *Generator) At(t time.Time) { g.clock, g.cfg.Events = t.UnixMilli(), 0 }

// Next appends one line with its newline to dst.
func (g *Generator) Next(dst []byte) []byte {
	g.tally.Lines++
	if g.cfg.Events > 0 {
		span := uint64(g.cfg.Span.Milliseconds())
		hi, lo := bits.Mul64(span, min(uint64(g.tally.Lines), uint64(g.cfg.Events)))
		done, _ := bits.Div64(hi, lo, uint64(g.cfg.Events))
		g.clock = g.cfg.End.UnixMilli() - int64(span-done)
	}
	if g.chance(g.cfg.Duplicates) {
		if old := g.earlier(); old != nil {
			g.tally.Duplicates++
			return append(dst, old...)
		}
	}
	start := len(dst)
	d := g.draw()
	if g.chance(g.cfg.Invalid) {
		g.tally.Invalid++
		return g.spoil(dst, &d)
	}
	dst = append(g.line(dst, &d), '\n')
	g.owed += g.cfg.PadTo - (len(dst) - start)
	g.remember(&d, dst[start:])
	g.count(&d)
	return dst
}

// Truth gives the rows that all lines so far must lead to, sorted by division, territory and bucket.
func (g *Generator) Truth() iter.Seq[Row] { return g.truth.rows() }

// Tally says what has been made so far.
func (g *Generator) Tally() Tally { return g.tally }

// kind of an event, those that are generated.
type kind uint8

const (
	post kind = iota
	reply
	share
	reaction
)

var kinds = [...]string{"post", "reply", "share", "reaction"}

// draft is an event before it is written down: all the decisions, none of the words.
type draft struct {
	kind    kind
	net     uint8
	tongue  uint8
	company bool     // written by the account
	matches bool     // concerns a node by itself
	divs    [2]int16 // whose products it names; none is -1
	account int16    // on which it happens; none is -1
	country int16    // none is -1: then the tongue is a hint
	at      int64    // ms
	num     uint64   // names it within its network
	author  uint64
	parent  ref // what it replies to, shares or reacts to
	root    ref
	flaw    flaw
}

// ref names another event of the same network.
type ref struct {
	num, author uint64
	kind        kind
}

const none = -1

// draw decides on the next event.
func (g *Generator) draw() draft {
	g.seq++
	d := draft{divs: [2]int16{none, none}, account: none, country: none, num: mix(g.base + g.seq), net: g.network()}
	d.matches = g.chance(g.cfg.Matching)
	switch r := g.random.below(100); {
	case r < 52:
		d.kind = post
	case r < 80:
		d.kind = reply
	case r < 90:
		d.kind = share
	default:
		d.kind = reaction
	}
	if g.cfg.PostsOnly {
		d.kind = post
	}
	if d.kind > reply && !networks[d.net].reshares {
		d.kind -= share // a post instead of a share, a reply instead of a reaction
	}
	if d.matches {
		g.drawTalk(&d)
	} else {
		g.drawNoise(&d)
	}
	return d
}

// drawTalk decides on an event that concerns a node. Reactions have no words, so here they become posts.
func (g *Generator) drawTalk(d *draft) {
	if d.kind == reaction {
		d.kind = post
	}
	if d.kind == reply {
		if p := g.talk.pick(&g.random); p != nil {
			g.join(d, p)
			return
		}
		d.kind = post
	}
	onAccount := len(g.plan.accounts) > 0 && (g.chance(g.cfg.Owned) || !g.plan.plantable())
	if onAccount {
		g.drawOnAccount(d)
	} else {
		d.divs[0] = g.division(none)
		if g.chance(g.cfg.Both) {
			d.divs[1] = g.division(d.divs[0])
		}
	}
	g.place(d)
	if !d.company {
		d.author = g.person(d)
	}
	g.date(d, 0)
	if d.kind == share {
		g.quote(d)
	}
}

// drawOnAccount decides who speaks on an owned account: the company itself, or somebody to it.
func (g *Generator) drawOnAccount(d *draft) {
	d.account = int16(g.random.below(uint64(len(g.plan.accounts))))
	a := g.plan.accounts[d.account]
	d.net, d.kind = uint8(a.source), post
	own := int16(a.division)
	if len(g.plan.names[own]) == 0 {
		own = none
	}
	switch r := g.random.below(10); {
	case r < 3: // a broadcast, often about a product
		d.company, d.author = true, companyAuthor(d.account)
		if r < 2 {
			d.divs[0] = own
		}
	case r < 5: // somebody names the product there: still one mention in one node
		d.divs[0] = own
	case r < 6 && g.cfg.Both > 0: // somebody names another division's product there
		d.divs[0] = g.division(int16(a.division))
	}
}

// join makes d a reply within the thread of p: the same nodes, for the same reasons.
func (g *Generator) join(d, p *draft) {
	d.net, d.account, d.country, d.tongue, d.divs = p.net, p.account, p.country, p.tongue, p.divs
	d.parent = ref{p.num, p.author, p.kind}
	d.root = d.parent
	if p.root.num != 0 {
		d.root = p.root
	}
	if d.account >= 0 && !p.company && g.random.below(3) == 0 {
		d.company, d.author, d.divs = true, companyAuthor(d.account), [2]int16{none, none}
	} else {
		d.author = g.person(d)
	}
	g.date(d, p.at)
}

// drawNoise decides on an event that concerns nobody. Shares and reactions may well be about one that does.
func (g *Generator) drawNoise(d *draft) {
	d.author = g.person(d)
	if g.random.below(4) > 0 {
		d.country = int16(g.random.below(uint64(len(g.plan.countries))))
	}
	d.tongue = g.speech(d.country)
	switch d.kind {
	case reply:
		p := g.noise.pick(&g.random)
		if p == nil {
			d.kind = post
			break
		}
		g.join(d, p)
		return
	case share, reaction:
		g.quote(d)
	}
	g.date(d, 0)
}

// quote makes d a share of, or a reaction to, some event of its network, or of one that was never seen.
func (g *Generator) quote(d *draft) {
	for range 4 {
		r := &g.noise
		if g.random.below(2) == 0 {
			r = &g.talk
		}
		if p := r.pick(&g.random); p != nil && p.net == d.net {
			d.parent = ref{p.num, p.author, p.kind}
			return
		}
	}
	d.parent = ref{mix(^g.base - g.seq), g.everybody(), post}
}

// division picks one that has names to plant, other than not; none when there is no other.
func (g *Generator) division(not int16) int16 {
	n := uint64(len(g.plan.names))
	at := g.random.below(n)
	for i := range n {
		if d := int16((at + i) % n); d != not && len(g.plan.names[d]) > 0 {
			return d
		}
	}
	return none
}

// place decides where it happens, and in which tongue.
func (g *Generator) place(d *draft) {
	v := g.plan
	d.country = int16(g.random.below(uint64(len(v.countries))))
	if d.divs[0] >= 0 && g.random.below(8) > 0 {
		if homes := v.homes[d.divs[0]]; len(homes) > 0 {
			d.country = int16(homes[g.random.below(uint64(len(homes)))])
		}
	}
	if g.chance(g.cfg.Unknown) {
		if len(g.sure) > 0 && g.random.below(2) == 0 {
			d.country = none
			d.tongue = g.sure[g.random.below(uint64(len(g.sure)))]
			return
		}
		if len(v.nowhere) > 0 {
			d.country = int16(v.nowhere[g.random.below(uint64(len(v.nowhere)))])
		}
	}
	d.tongue = g.speech(d.country)
}

// speech picks a tongue of the country's territory, now and then another.
func (g *Generator) speech(country int16) uint8 {
	of := g.all
	if country >= 0 && g.random.below(8) > 0 {
		of = g.of[g.plan.countries[country].territory]
	}
	return of[g.random.below(uint64(len(of)))]
}

// date puts d shortly before its arrival, mostly; some come hours late, a few as late as Span. Nothing is dated before
// what it replies to.
func (g *Generator) date(d *draft, after int64) {
	span := g.cfg.Span.Milliseconds()
	d.at = g.clock
	if span > 0 {
		var delay uint64
		switch r := g.random.below(100); {
		case r < 85:
			delay = g.random.below(90_000)
		case r < 97:
			delay = g.random.below(uint64(min(span, 6*3_600_000)))
		default:
			delay = g.random.below(uint64(span))
		}
		d.at -= int64(delay)
		if first := g.cfg.End.UnixMilli() - span; g.cfg.Events > 0 && d.at < first {
			d.at = first + int64(g.random.below(uint64(g.clock-first)+1))
		}
	}
	if d.at < after {
		d.at = min(after+int64(g.random.below(600_000)), max(g.clock, after))
	}
}

// nodes appends the nodes that d belongs to by itself, each once.
func (g *Generator) nodes(dst []node, d *draft) []node {
	v := g.plan
	var home int
	if d.account >= 0 {
		a := v.accounts[d.account]
		home = a.division
		dst = append(dst, node{a.division, a.territory})
	}
	for i, div := range d.divs {
		if div < 0 || d.account >= 0 && int(div) == home || i == 1 && div == d.divs[0] {
			continue
		}
		var t int
		if d.country < 0 {
			t = v.hints[div][d.tongue]
		} else {
			t = v.where[div][d.country]
		}
		dst = append(dst, node{int(div), t})
	}
	return dst
}

// count enters d into the truth.
func (g *Generator) count(d *draft) {
	if !d.matches {
		return
	}
	g.tally.Matching++
	if d.kind > reply || d.company {
		return
	}
	var nodes [3]node
	for _, n := range g.nodes(nodes[:0], d) {
		g.truth.add(n, d.at, d.author, d.net, isBot(d))
	}
}

// remember keeps d for those who will reply, and its bytes for those who will send it again.
func (g *Generator) remember(d *draft, line []byte) {
	if answer := d.company && d.kind == reply; d.kind <= reply && !answer {
		if d.matches {
			g.talk.put(d)
		} else {
			g.noise.put(d)
		}
	}
	if g.cfg.Duplicates == 0 {
		return
	}
	slot := &g.near[g.seq%uint64(len(g.near))]
	*slot = append((*slot)[:0], line...)
	if g.random.below(64) == 0 { // on average 64 x 1,024 events stay between an event and its late repeat
		at := g.distant
		if g.distant < uint64(len(g.far)) {
			g.distant++
		} else {
			at = g.random.below(g.distant)
		}
		g.far[at] = append(g.far[at][:0], line...)
	}
}

// earlier is a line that went out before: one of the last few, or one from long ago.
func (g *Generator) earlier() []byte {
	if g.distant > 0 && g.random.below(2) == 0 {
		return g.far[g.random.below(g.distant)]
	}
	if old := g.near[g.random.below(uint64(len(g.near)))]; len(old) > 0 {
		return old
	}
	return nil
}

// ring holds the last threads that can be joined.
type ring struct {
	posts [2048]draft
	n     uint64
}

func (r *ring) put(d *draft) {
	r.posts[r.n%uint64(len(r.posts))] = *d
	r.n++
}

func (r *ring) pick(random *random) *draft {
	if r.n == 0 {
		return nil
	}
	return &r.posts[random.below(min(r.n, uint64(len(r.posts))))]
}
