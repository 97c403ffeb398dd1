package nodes

import (
	"slices"
	"strings"

	"polyphony/pkg/social"
)

// Match says that an event belongs to a node, and what it is about there. Its slices are valid until the matcher's next call.
type Match struct {
	Node          social.Node
	Via           social.Via // ViaAccount or ViaText
	Account       string     // the owned account of the node's division, empty when none
	Owned         bool       // happened on that account
	ByCompany     bool       // written by an account of any business unit
	Products      []string   // ids found in the text, sorted, each once
	Competitors   []string
	Topics        []string
	Country       string // as known of the event, empty otherwise
	CountryMethod string // how: a constant of social
}

// Matcher matches events one at a time. It holds scratch, so every goroutine needs one of its own.
type Matcher struct {
	engine *engine
	text   normaliser
	fields []scanned
	buffer []byte // normal forms of all fields that needed one

	epoch     uint32
	hit       []uint32 // by pattern: the epoch in which it was found
	candidate []uint32 // by query: the epoch in which one of its terms was found
	hits      []hit
	counted   bool   // the words of hits are counted
	any       bool   // some query may hold
	left      []span // of the operands of a NEAR
	right     []span

	event   *social.Event
	country string
	method  string
	matches []Match
	muted   []Match
	words   []string // holds the slices of matches

	trace *trace // what Explain wants to know; nil otherwise
}

// scanned is one searched field in the form that was scanned: the text itself when it is ASCII.
type scanned struct {
	name     field
	index    int
	form     string
	from, to int // of a hashtag: where it begins and ends without the separators around it
}

type field uint8

const (
	inTitle field = iota
	inText
	inHashtag
)

// hit is a pattern found in a field. Only hits whose place matters are kept.
type hit struct {
	pattern int32
	field   int32
	end     int32
	word    int32 // number of the last word, once counted
}

// span is a hit as words, for NEAR.
type span struct{ first, last int32 }

// maxHits bounds the hits kept of one event: a text of 1 MiB that repeats a product name. Beyond it NEAR and hashtags
// are judged by the beginning of the text; terms are not affected.
const maxHits = 1 << 16

// Matcher makes a matcher for these rules. It is cheap.
func (r *Rules) Matcher() *Matcher {
	return &Matcher{
		engine:    r.engine,
		text:      normaliser{table: r.engine.table},
		hit:       make([]uint32, len(r.engine.patterns)),
		candidate: make([]uint32, len(r.engine.queries)),
	}
}

// Match gives the nodes that e belongs to by its account, author and words, sorted by node, each once; what a business
// unit mutes is left out. The result is valid until the next call.
func (m *Matcher) Match(e *social.Event) []Match {
	m.begin(e)
	on, by := m.ownedAccounts()
	m.scan()
	if !m.any && on == nil && by == nil {
		return nil
	}
	m.locate()
	m.byAccount(on, by)
	m.byText(on, by)
	return m.settle()
}

// Country is the country that the event of the last call of Match names, and how; also where it matched nothing.
func (m *Matcher) Country() (country, method string) {
	m.locate()
	return m.country, m.method
}

// Muted gives the matches that the last call of Match left out because a business unit mutes them. They are no
// mentions, but safety screening sees them.
func (m *Matcher) Muted() []Match { return m.muted }

func (m *Matcher) begin(e *social.Event) {
	m.event = e
	if m.epoch++; m.epoch == 0 { // after four billion events the marks would look fresh again
		clear(m.hit)
		clear(m.candidate)
		m.epoch = 1
	}
	m.hits, m.fields, m.buffer, m.counted = m.hits[:0], m.fields[:0], m.buffer[:0], false
	m.matches, m.muted, m.words = m.matches[:0], m.muted[:0], m.words[:0]
	m.any = m.engine.always
}

// ownedAccounts finds the account that the event stands on and the one that wrote it.
func (m *Matcher) ownedAccounts() (on, by *owned) {
	if m.event.Account != "" {
		on = m.engine.accounts[accountKey{m.event.Source, m.event.Account}]
	}
	return on, m.engine.accounts[accountKey{m.event.Source, m.event.Author.ID}]
}

// scan is the one pass over the text: it marks which patterns and queries are concerned.
func (m *Matcher) scan() {
	m.scanField(inTitle, 0, m.event.Title)
	m.scanField(inText, 0, m.event.Text)
	for i, tag := range m.event.Hashtags {
		m.scanField(inHashtag, i, tag)
	}
}

func (m *Matcher) scanField(name field, index int, text string) {
	if text == "" {
		return
	}
	if !isASCII(text) {
		from := len(m.buffer)
		m.buffer = append(m.buffer, m.text.normalise(text)...)
		text = unsafeString(m.buffer[from:])
	}
	field := int32(len(m.fields))
	f := scanned{name: name, index: index, form: text}
	if name == inHashtag {
		f.from, f.to = bounds(text)
	}
	m.fields = append(m.fields, f)
	if m.trace != nil {
		m.trace.places = append(m.trace.places, slices.Clone(m.text.places))
	}
	m.engine.automaton.scan(text, func(pattern int32, end int) { m.found(pattern, field, end) })
}

func (m *Matcher) found(id, field int32, end int) {
	p := &m.engine.patterns[id]
	if m.trace != nil {
		m.trace.hits = append(m.trace.hits, hit{pattern: id, field: field, end: int32(end)})
	}
	if p.placed && len(m.hits) < maxHits {
		m.hits = append(m.hits, hit{pattern: id, field: field, end: int32(end)})
	}
	if m.hit[id] == m.epoch {
		return
	}
	m.hit[id] = m.epoch
	for _, q := range p.queries {
		m.candidate[q] = m.epoch
		m.any = true
	}
}

// locate finds the country of the event.
func (m *Matcher) locate() {
	m.country, m.method = "", social.CountryNone
	if c := m.event.PlaceCountry; len(c) == 2 {
		m.country, m.method = strings.ToUpper(c), social.CountryByPlace
	} else if c := m.event.Author.Country; len(c) == 2 {
		m.country, m.method = strings.ToUpper(c), social.CountryByAuthor
	}
}

// byAccount routes an event to the node of the account it stands on and of the account that wrote it.
func (m *Matcher) byAccount(on, by *owned) {
	for _, o := range []*owned{on, by} {
		if o == nil {
			continue
		}
		match := Match{Via: social.ViaAccount, ByCompany: by != nil, Country: m.country, CountryMethod: m.method}
		if m.country == "" {
			match.CountryMethod = social.CountryByAccount
		}
		if on != nil && on.division == o.division {
			match.Account, match.Owned = m.event.Account, true
		} else {
			match.Account = m.event.Author.ID
			match.Owned = on == nil && m.event.Kind == social.Post
		}
		m.add(match, &m.engine.divisions[o.division].nodes[o.node])
	}
}

// byText routes an event to every division that listens to what it says. The divisions of its accounts have it already.
func (m *Matcher) byText(on, by *owned) {
	if !m.any {
		return
	}
	for i, d := range m.engine.divisions {
		if on != nil && on.division == i || by != nil && by.division == i {
			continue
		}
		at, method := m.territory(d)
		n := &d.nodes[at]
		if m.holds(d.listen, n) || slices.ContainsFunc(n.units, func(u *unit) bool { return m.holds(u.listen, n) }) {
			m.add(Match{Via: social.ViaText, ByCompany: by != nil, Country: m.country, CountryMethod: method}, n)
		}
	}
}

// territory picks the node of a division by the country of the event, else by its language.
func (m *Matcher) territory(d *division) (at int, method string) {
	elsewhere := len(d.nodes) - 1
	if m.country != "" {
		if at, served := d.byCountry[m.country]; served {
			return at, m.method
		}
		return elsewhere, m.method
	}
	var primary [8]byte
	n := 0
	for n < len(m.event.Lang) && n < len(primary) && m.event.Lang[n] != '-' && m.event.Lang[n] != '_' {
		primary[n] = m.event.Lang[n] | 0x20
		n++
	}
	if at, spoken := d.byLanguage[string(primary[:n])]; spoken && at >= 0 {
		return at, social.CountryByLanguage
	}
	return elsewhere, social.CountryNone
}

// add keeps a match unless its node has one, and fills in what the text says there.
func (m *Matcher) add(match Match, n *divisionNode) {
	for i := range m.matches {
		if m.matches[i].Node == n.node {
			return
		}
	}
	for i := range m.muted {
		if m.muted[i].Node == n.node {
			return
		}
	}
	match.Node = n.node
	match.Products = m.namesIn(n.products)
	match.Competitors = m.namesIn(n.competitors)
	match.Topics = m.topicsIn(n)
	if slices.ContainsFunc(n.units, func(u *unit) bool { return m.holds(u.mute, n) }) {
		m.muted = append(m.muted, match)
	} else {
		m.matches = append(m.matches, match)
	}
}

func (m *Matcher) namesIn(names []named) []string {
	from := len(m.words)
	for i := range names {
		if m.isNamed(&names[i]) {
			m.words = append(m.words, names[i].id)
		}
	}
	return m.wordsFrom(from)
}

func (m *Matcher) isNamed(n *named) bool {
	for i := range n.terms {
		if m.has(&n.terms[i]) {
			return true
		}
	}
	return false
}

func (m *Matcher) topicsIn(n *divisionNode) []string {
	from := len(m.words)
	for _, t := range n.topics {
		if (len(m.words) == from || m.words[len(m.words)-1] != t.id) && m.holds(t.query, n) {
			m.words = append(m.words, t.id)
		}
	}
	return m.wordsFrom(from)
}

// wordsFrom is nil when nothing was added, so that a match without products is equal to one that never had any.
func (m *Matcher) wordsFrom(from int) []string {
	if len(m.words) == from {
		return nil
	}
	return m.words[from:len(m.words):len(m.words)]
}

func (m *Matcher) settle() []Match {
	byNode := func(a, b Match) int { return a.Node.Compare(b.Node) }
	slices.SortFunc(m.matches, byNode)
	slices.SortFunc(m.muted, byNode)
	if len(m.matches) == 0 {
		return nil
	}
	return m.matches
}
