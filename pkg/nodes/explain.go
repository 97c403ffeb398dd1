package nodes

import (
	"fmt"
	"slices"
	"unicode/utf8"

	"polyphony/pkg/social"
)

// Reason is one step of how an event was routed: which rule, and what in the event, decided.
type Reason struct {
	Effect    Effect `json:"effect"`
	Division  string `json:"division,omitempty"` // of the node it concerns, empty when it concerns none
	Territory string `json:"territory,omitempty"`

	Rule   string `json:"rule,omitempty"` // such as "listen of division oncology"; empty when no rule of the files is meant
	File   string `json:"file,omitempty"` // where the rule stands, within the nodes directory
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`

	Term  string `json:"term,omitempty"`  // the operand of the rule that was found, as written there
	Field string `json:"field,omitempty"` // where in the event: title, text, hashtags[0], lang, place.country, ...
	Start int    `json:"start"`           // bytes of that field, as it came, that the term stands at;
	End   int    `json:"end"`             // both 0 when it is not about a place in a text

	Note string `json:"note,omitempty"` // what the rest does not say
}

// Effect says what a reason is a reason for.
type Effect string

// The effects.
const (
	Routed    Effect = "routed"    // the event is a mention there by this rule
	Muted     Effect = "muted"     // it would be one, but a business unit mutes it
	Located   Effect = "located"   // why this territory
	Labelled  Effect = "labelled"  // a product, competitor or topic of the mention
	Unrouted  Effect = "unrouted"  // the rule found something, but does not hold
	Unmatched Effect = "unmatched" // no rule found anything
)

// trace is what a scan keeps for an explanation.
type trace struct {
	hits   []hit
	places [][]int32 // by field: where each byte of its form comes from; empty for fields scanned as they are
}

// maxShown bounds how often one term is reported: the first places tell what the next thousand would.
const maxShown = 3

// Explain tells why Match gives what it gives for e. It is slow and allocates; the strings of its result do not alias e.
func (m *Matcher) Explain(e *social.Event) []Reason {
	m.trace, m.text.traced = &trace{}, true
	defer func() { m.trace, m.text.traced = nil, false }()
	m.Match(e)
	m.locate()
	on, by := m.ownedAccounts()

	x := explanation{m: m}
	for _, match := range m.matches {
		x.match(match, Routed, on, by)
	}
	for _, match := range m.muted {
		x.match(match, Muted, on, by)
	}
	for _, d := range m.engine.divisions {
		x.missed(d)
	}
	if len(x.reasons) == 0 {
		x.reasons = append(x.reasons, Reason{Effect: Unmatched,
			Note: "no account of the event is the company's, and nothing any division or business unit listens for is in its words"})
	}
	return x.reasons
}

type explanation struct {
	m       *Matcher
	reasons []Reason
}

// match explains one match: the account or the listens that brought it, its territory, its labels, and what mutes it.
func (x *explanation) match(match Match, effect Effect, on, by *owned) {
	m := x.m
	d, n := x.find(match.Node)
	if match.Via == social.ViaAccount {
		for _, o := range []*owned{on, by} {
			if o == nil || m.engine.divisions[o.division] != d || &d.nodes[o.node] != n {
				continue
			}
			r := x.at(Reason{Division: n.node.Division, Territory: n.node.Territory, Effect: effect, Field: "account", Note: "it stands on an account of this node"}, o.rule)
			if o == by && o != on {
				r.Field, r.Note = "author.id", "an account of this node wrote it"
			}
			x.reasons = append(x.reasons, r)
		}
	} else {
		for _, q := range listens(d, n) {
			if m.holds(q, n) {
				x.query(n, effect, q)
			}
		}
		x.located(match, n)
	}
	for _, u := range n.units {
		if m.holds(u.mute, n) {
			x.query(n, Muted, u.mute)
		}
	}
	for _, names := range [][]named{n.products, n.competitors} {
		for i := range names {
			for j := range names[i].terms {
				x.term(Reason{Division: n.node.Division, Territory: n.node.Territory, Effect: Labelled}, names[i].terms[j].rule, &names[i].terms[j])
			}
		}
	}
	for _, t := range n.topics {
		if m.holds(t.query, n) {
			x.query(n, Labelled, t.query)
		}
	}
}

// missed explains the queries of a division that found something and still do not hold.
func (x *explanation) missed(d *division) {
	m := x.m
	at, _ := m.territory(d)
	n := &d.nodes[at]
	isNode := func(match Match) bool { return match.Node.Division == d.id }
	if slices.ContainsFunc(m.matches, isNode) || slices.ContainsFunc(m.muted, isNode) {
		return
	}
	for _, q := range listens(d, n) {
		if q < 0 || m.candidate[q] != m.epoch {
			continue
		}
		before := len(x.reasons)
		x.operands(Reason{Division: n.node.Division, Territory: n.node.Territory, Effect: Unrouted}, m.engine.queries[q].rule, m.engine.queries[q].root, n, true)
		for i := before; i < len(x.reasons); i++ {
			x.reasons[i].Note = "found, but the query as a whole does not hold"
		}
	}
}

// listens are the queries that route events to n.
func listens(d *division, n *divisionNode) []int32 {
	queries := []int32{d.listen}
	for _, u := range n.units {
		queries = append(queries, u.listen)
	}
	return queries
}

// located explains the territory of a match by words.
func (x *explanation) located(match Match, n *divisionNode) {
	r := Reason{Division: n.node.Division, Territory: n.node.Territory, Effect: Located}
	elsewhere := n.node.Territory == social.Elsewhere
	switch match.CountryMethod {
	case social.CountryByPlace, social.CountryByAuthor:
		r.Field, r.Term = match.CountryMethod+".country", match.Country
		r.Note = fmt.Sprintf("country %s is in territory %s", match.Country, n.node.Territory)
		if elsewhere {
			r.Note = fmt.Sprintf("no territory of division %s has country %s", n.node.Division, match.Country)
		}
	case social.CountryByLanguage:
		r.Field, r.Term = "lang", string([]byte(x.m.event.Lang))
		r.Note = fmt.Sprintf("no country is known, and %s is the one territory of the division with this language", n.node.Territory)
	default:
		r.Note = "no country is known, and the language does not tell one territory"
	}
	x.reasons = append(x.reasons, r)
}

// query gives a reason for every operand that makes a query hold.
func (x *explanation) query(n *divisionNode, effect Effect, query int32) {
	q := x.m.engine.queries[query]
	before := len(x.reasons)
	x.operands(Reason{Division: n.node.Division, Territory: n.node.Territory, Effect: effect}, q.rule, q.root, n, false)
	if len(x.reasons) == before {
		x.reasons = append(x.reasons, x.at(Reason{Division: n.node.Division, Territory: n.node.Territory, Effect: effect, Note: "the query holds by what is not there"}, q.rule))
	}
}

// operands reports the operands that are true below o; with all set, also those of parts that are false as a whole.
func (x *explanation) operands(r Reason, from rule, o *node, n *divisionNode, all bool) {
	m := x.m
	if !all && !m.eval(o, n) {
		return
	}
	switch o.op {
	case opTerm:
		x.term(r, from, &o.term)
	case opProducts, opCompetitors:
		names := n.products
		if o.op == opCompetitors {
			names = n.competitors
		}
		for i := range names {
			for j := range names[i].terms {
				x.term(r, from, &names[i].terms[j])
			}
		}
	case opField:
		if m.fieldIs(o.field, o.text) {
			r.Term, r.Field = o.field+":"+o.text, o.field
			x.reasons = append(x.reasons, x.at(r, from))
		}
	case opNot:
		if all {
			x.operands(r, from, o.kids[0], n, all)
		}
	default:
		for _, k := range o.kids {
			x.operands(r, from, k, n, all)
		}
	}
}

// term reports the first places where a term stands.
func (x *explanation) term(r Reason, from rule, t *term) {
	m := x.m
	shown := 0
	for _, h := range m.trace.hits {
		if shown == maxShown {
			return
		}
		if !slices.Contains(t.patterns, h.pattern) || t.isTag && !m.isHashtag(&h) {
			continue
		}
		shown++
		found := x.at(r, from)
		found.Term = t.written
		found.Field, found.Start, found.End = x.place(&h)
		x.reasons = append(x.reasons, found)
	}
}

// place finds where in the event a hit stands.
func (x *explanation) place(h *hit) (name string, start, end int) {
	m := x.m
	f := m.fields[h.field]
	start, end = startOf(f.form, m.engine.patterns[h.pattern].form, int(h.end)), int(h.end)
	original := m.event.Text
	switch f.name {
	case inTitle:
		name, original = "title", m.event.Title
	case inText:
		name = "text"
	case inHashtag:
		name, original = fmt.Sprintf("hashtags[%d]", f.index), m.event.Hashtags[f.index]
	}
	if places := m.trace.places[h.field]; !isASCII(original) && len(places) > 0 {
		last := int(places[end-1])
		_, size := utf8.DecodeRuneInString(original[last:])
		start = int(places[start])
		switch {
		case end == len(places):
			end = len(original)
		default:
			end = max(int(places[end]), last+size)
		}
	}
	return name, start, end
}

// at fills in where a rule stands.
func (x *explanation) at(r Reason, from rule) Reason {
	r.Rule = from.what
	if from.doc != nil {
		p := from.doc.at(from.path)
		r.File, r.Line, r.Column = from.doc.file, p.line, p.column
	}
	return r
}

func (x *explanation) find(n social.Node) (*division, *divisionNode) {
	for _, d := range x.m.engine.divisions {
		for i := range d.nodes {
			if d.nodes[i].node == n {
				return d, &d.nodes[i]
			}
		}
	}
	panic("BUG: a match in a node that is not there: " + n.String())
}
