package nodes

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"polyphony/pkg/social"
)

// engine is the rules in the form that events are matched with. It never changes after newEngine.
type engine struct {
	table     *runeTable
	automaton *automaton
	patterns  []pattern
	queries   []*compiled
	always    bool // some query can hold although none of its terms is in the text
	accounts  map[accountKey]*owned
	divisions []*division

	known map[string]int32 // patterns by normal form, while compiling
}

type accountKey struct{ source, id string }

// owned is an account of the company: whose it is.
type owned struct {
	division int
	node     int // index within the division's nodes
	rule     rule
}

// pattern is one string of the automaton and the queries that a hit may decide.
type pattern struct {
	form    string
	words   int
	placed  bool // its places matter: it stands in a NEAR or is a hashtag
	queries []int32
}

// term is an operand: any of the patterns.
type term struct {
	written  string
	patterns []int32
	isTag    bool // only where it stands as a hashtag
	rule     rule // of a name; the terms of a query have that of the query
}

// compiled is a query over hits.
type compiled struct {
	root   *node
	always bool // can hold although none of its terms is in the text
	rule   rule
}

// rule names what a query, a name or an account stands for, to explain a match by.
type rule struct {
	what string // "listen of division oncology"
	doc  *document
	path string
}

// node is an operator or operand of a compiled query.
type node struct {
	op       op
	kids     []*node
	term     term
	field    string
	text     string
	distance int
}

// division is a division while matching: a node for each of its territories and one for elsewhere, which is the last.
type division struct {
	id         string
	listen     int32 // index of a query, -1 when it listens to nothing
	nodes      []divisionNode
	byCountry  map[string]int
	byLanguage map[string]int // -1 when several territories speak it
}

type divisionNode struct {
	node        social.Node
	units       []*unit
	products    []named
	competitors []named
	topics      []topic
}

type unit struct {
	listen int32
	mute   int32
}

// named is a product with all names and hashtags that count in a node.
type named struct {
	id    string
	terms []term
}

type topic struct {
	id    string
	query int32
}

// newEngine compiles rules that were checked. It fails when their terms are more than the automaton can hold.
func newEngine(r *Rules) (*engine, error) {
	e := &engine{table: theRunes(), accounts: map[accountKey]*owned{}, known: map[string]int32{}}
	units := map[string][]*BusinessUnit{} // by division
	for _, u := range r.units {
		units[u.Division] = append(units[u.Division], u)
	}
	for _, d := range r.divisions {
		e.addDivision(r, d, units[d.ID])
	}
	e.addDivision(r, r.companyDivision(), units[social.CompanyDivision])
	slices.SortFunc(e.divisions, func(a, b *division) int { return cmp.Compare(a.id, b.id) })
	for di, d := range e.divisions {
		for _, u := range units[d.id] {
			for i, a := range u.Accounts {
				at := slices.IndexFunc(d.nodes, func(n divisionNode) bool { return n.node.Territory == a.Territory })
				e.accounts[accountKey{a.Source, a.ID}] = &owned{division: di, node: at,
					rule: rule{fmt.Sprintf("account %s:%s of business unit %s", a.Source, a.ID, u.ID), u.doc, fmt.Sprintf("accounts[%d]", i)}}
			}
		}
	}

	forms := make([]string, len(e.patterns))
	for i, p := range e.patterns {
		forms[i] = p.form
	}
	var err error
	if e.automaton, err = newAutomaton(forms); err != nil {
		return nil, fmt.Errorf("compiling the queries: %w", err)
	}
	e.known = nil
	return e, nil
}

// addDivision compiles a division and the units that own nodes of it.
func (e *engine) addDivision(r *Rules, d *Division, businessUnits []*BusinessUnit) {
	rt := &division{id: d.ID, listen: -1, byCountry: map[string]int{}, byLanguage: map[string]int{}}
	for i, id := range d.Territories {
		t := r.territory(id)
		for _, c := range t.Countries {
			if _, taken := rt.byCountry[c]; !taken { // only the company's own division may overlap; its territories are sorted
				rt.byCountry[c] = i
			}
		}
		for _, l := range t.Languages {
			l, _, _ = strings.Cut(l, "-")
			if before, taken := rt.byLanguage[l]; taken && before != i {
				rt.byLanguage[l] = -1
			} else {
				rt.byLanguage[l] = i
			}
		}
		rt.nodes = append(rt.nodes, divisionNode{node: social.Node{Division: d.ID, Territory: id}})
	}
	rt.nodes = append(rt.nodes, divisionNode{node: social.Node{Division: d.ID, Territory: social.Elsewhere}})

	// Names first: the queries of the division that say "products" are triggered by every one of them.
	var productPatterns, competitorPatterns []int32
	addNames := func(p Product, from rule, n *[]named, all *[]int32) {
		terms := e.nameTerms(p, from)
		for _, t := range terms {
			*all = append(*all, t.patterns...)
		}
		at := slices.IndexFunc(*n, func(k named) bool { return k.id == p.ID })
		if at < 0 {
			*n = append(*n, named{id: p.ID})
			at = len(*n) - 1
		}
		(*n)[at].terms = append((*n)[at].terms, terms...)
	}
	for i := range rt.nodes {
		n := &rt.nodes[i]
		for j, p := range d.Products {
			addNames(p, rule{"product " + p.ID + " of division " + d.ID, d.doc, fmt.Sprintf("products[%d]", j)}, &n.products, &productPatterns)
		}
		for j, p := range d.Competitors {
			addNames(p, rule{"competitor " + p.ID + " of division " + d.ID, d.doc, fmt.Sprintf("competitors[%d]", j)}, &n.competitors, &competitorPatterns)
		}
		for _, u := range businessUnits {
			if slices.Contains(u.Territories, n.node.Territory) {
				for j, p := range u.Products {
					addNames(p, rule{"product " + p.ID + " of business unit " + u.ID, u.doc, fmt.Sprintf("products[%d]", j)}, &n.products, &productPatterns)
				}
			}
		}
		byID := func(a, b named) int { return cmp.Compare(a.id, b.id) }
		slices.SortFunc(n.products, byID)
		slices.SortFunc(n.competitors, byID)
	}

	compile := func(q *Query, what string, doc *document, path string) int32 {
		if q == nil {
			return -1
		}
		return e.addQuery(q, rule{what, doc, path}, productPatterns, competitorPatterns)
	}
	rt.listen = compile(d.Listen, "listen of division "+d.ID, d.doc, "listen")
	var topics []topic
	for i, t := range d.Topics {
		topics = append(topics, topic{t.ID, compile(t.Query, fmt.Sprintf("topic %s of division %s", t.ID, d.ID), d.doc, fmt.Sprintf("topics[%d].query", i))})
	}
	for i := range rt.nodes {
		rt.nodes[i].topics = slices.Clone(topics)
	}
	for _, u := range businessUnits {
		c := &unit{
			listen: compile(u.Listen, "listen of business unit "+u.ID, u.doc, "listen"),
			mute:   compile(u.Mute, "mute of business unit "+u.ID, u.doc, "mute"),
		}
		var own []topic
		for i, t := range u.Topics {
			own = append(own, topic{t.ID, compile(t.Query, fmt.Sprintf("topic %s of business unit %s", t.ID, u.ID), u.doc, fmt.Sprintf("topics[%d].query", i))})
		}
		for i := range rt.nodes {
			if n := &rt.nodes[i]; slices.Contains(u.Territories, n.node.Territory) {
				n.units = append(n.units, c)
				n.topics = append(n.topics, own...)
			}
		}
	}
	for i := range rt.nodes {
		slices.SortStableFunc(rt.nodes[i].topics, func(a, b topic) int { return cmp.Compare(a.id, b.id) })
	}
	e.divisions = append(e.divisions, rt)
}

// nameTerms is every way a product may be named: its names as words, its hashtags as hashtags.
func (e *engine) nameTerms(p Product, from rule) []term {
	var terms []term
	add := func(t term, text, list string, i int) {
		t.patterns = e.patternsOf(text, whole, true)
		t.rule = rule{from.what, from.doc, fmt.Sprintf("%s.%s[%d]", from.path, list, i)}
		terms = append(terms, t)
	}
	for i, name := range p.Names {
		add(term{written: name}, name, "names", i)
	}
	for i, tag := range p.Hashtags {
		add(term{written: "#" + tag, isTag: true}, tag, "hashtags", i)
	}
	return terms
}

// patternsOf gives the patterns that find a term, adding those that are new.
func (e *engine) patternsOf(text string, s shape, placed bool) []int32 {
	var ids []int32
	for _, form := range termForms(text) {
		first, last := bordersFreely(form)
		words, _ := e.table.words(form, 0, len(form), false)
		if s != stem && !first {
			form = " " + form
		}
		if s == whole && !last {
			form += " "
		}
		id, ok := e.known[form]
		if !ok {
			id = int32(len(e.patterns))
			e.known[form] = id
			e.patterns = append(e.patterns, pattern{form: form, words: words})
		}
		e.patterns[id].placed = e.patterns[id].placed || placed
		if !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// addQuery compiles a query and lets all patterns that can decide it trigger it.
func (e *engine) addQuery(q *Query, r rule, products, competitors []int32) int32 {
	id := int32(len(e.queries))
	triggers := map[int32]bool{}
	c := &compiled{rule: r, root: e.compile(q.root, false, triggers, products, competitors)}
	e.queries = append(e.queries, c)
	for p := range triggers {
		e.patterns[p].queries = append(e.patterns[p].queries, id)
	}
	c.always, _ = c.root.withoutHits()
	e.always = e.always || c.always
	return id
}

func (e *engine) compile(x *expr, placed bool, triggers map[int32]bool, products, competitors []int32) *node {
	n := &node{op: x.op, field: x.field, text: x.text, distance: x.distance}
	switch {
	case x.op == opTerm:
		n.term = term{written: x.String(), patterns: e.patternsOf(x.text, x.shape, placed)}
	case x.op == opField && x.field == "tag":
		n.op = opTerm
		n.term = term{written: x.String(), patterns: e.patternsOf(x.text, whole, true), isTag: true}
	}
	for _, kid := range x.kids {
		n.kids = append(n.kids, e.compile(kid, placed || x.op == opNear, triggers, products, competitors))
	}
	mine := n.term.patterns
	switch x.op {
	case opProducts:
		mine = products
	case opCompetitors:
		mine = competitors
	}
	for _, p := range mine {
		triggers[p] = true
	}
	return n
}

// withoutHits reports whether n can be true, and whether it can be false, for an event without any hit: what its
// fields say is open.
func (n *node) withoutHits() (canHold, canFail bool) {
	switch n.op {
	case opField:
		return true, true
	case opNot:
		holds, fails := n.kids[0].withoutHits()
		return fails, holds
	case opAnd:
		canHold = true
		for _, k := range n.kids {
			holds, fails := k.withoutHits()
			canHold, canFail = canHold && holds, canFail || fails
		}
		return canHold, canFail
	case opOr:
		canFail = true
		for _, k := range n.kids {
			holds, fails := k.withoutHits()
			canHold, canFail = canHold || holds, canFail && fails
		}
		return canHold, canFail
	}
	return false, true
}
