package nodes

import (
	"cmp"
	"slices"
	"strings"

	"polyphony/pkg/social"
)

// holds evaluates a query for the event at hand as it concerns node n. Queries without a hit that could matter are not
// looked at.
func (m *Matcher) holds(query int32, n *divisionNode) bool {
	if query < 0 {
		return false
	}
	if m.candidate[query] != m.epoch && !m.engine.queries[query].always {
		return false
	}
	return m.eval(m.engine.queries[query].root, n)
}

func (m *Matcher) eval(x *node, n *divisionNode) bool {
	switch x.op {
	case opTerm:
		return m.has(&x.term)
	case opProducts:
		return m.namesAny(n.products)
	case opCompetitors:
		return m.namesAny(n.competitors)
	case opField:
		return m.fieldIs(x.field, x.text)
	case opNot:
		return !m.eval(x.kids[0], n)
	case opAnd:
		for _, k := range x.kids {
			if !m.eval(k, n) {
				return false
			}
		}
		return true
	case opOr:
		for _, k := range x.kids {
			if m.eval(k, n) {
				return true
			}
		}
		return false
	case opNear:
		return m.isNear(x, n)
	}
	panic("BUG: unknown operator in a compiled query")
}

func (m *Matcher) namesAny(names []named) bool {
	for i := range names {
		if m.isNamed(&names[i]) {
			return true
		}
	}
	return false
}

// has reports whether a term is in the text; a hashtag only where it stands as one.
func (m *Matcher) has(t *term) bool {
	for _, p := range t.patterns {
		if m.hit[p] != m.epoch {
			continue
		}
		if !t.isTag {
			return true
		}
		for i := range m.hits {
			if h := &m.hits[i]; h.pattern == p && m.isHashtag(h) {
				return true
			}
		}
	}
	return false
}

// isHashtag reports whether a hit is a hashtag: one of the event's, or a whole one in its title or text.
func (m *Matcher) isHashtag(h *hit) bool {
	f := &m.fields[h.field]
	end := int(h.end)
	start := startOf(f.form, m.engine.patterns[h.pattern].form, end)
	if f.name == inHashtag {
		return start <= f.from && end >= f.to
	}
	return start > 0 && f.form[start-1] == '#' && (end == len(f.form) || separates(f.form[end]) && f.form[end] != border)
}

// bounds is where s begins and ends without the separators around it.
func bounds(s string) (from, to int) {
	from, to = 0, len(s)
	for from < to && separates(s[from]) && s[from] != border {
		from++
	}
	for to > from && separates(s[to-1]) && s[to-1] != border {
		to--
	}
	return from, to
}

// isNear reports whether hits of both operands stand in one field with at most so many words between them, in either order.
func (m *Matcher) isNear(x *node, n *divisionNode) bool {
	m.left = m.spansOf(x.kids[0], n, m.left[:0])
	m.right = m.spansOf(x.kids[1], n, m.right[:0])
	return follows(m.left, m.right, int32(x.distance)) || follows(m.right, m.left, int32(x.distance))
}

// follows reports whether some span of after begins behind one of before, with at most so many words between. It sorts after.
func follows(before, after []span, distance int32) bool {
	slices.SortFunc(after, func(a, b span) int { return cmp.Compare(a.first, b.first) })
	for _, s := range before {
		at, _ := slices.BinarySearchFunc(after, s.last+1, func(a span, word int32) int { return cmp.Compare(a.first, word) })
		if at < len(after) && after[at].first-s.last-1 <= distance {
			return true
		}
	}
	return false
}

// spansOf collects where an operand of NEAR stands.
func (m *Matcher) spansOf(x *node, n *divisionNode, spans []span) []span {
	switch x.op {
	case opTerm:
		return m.termSpans(&x.term, spans)
	case opProducts:
		return m.nameSpans(n.products, spans)
	case opCompetitors:
		return m.nameSpans(n.competitors, spans)
	default:
		for _, k := range x.kids {
			spans = m.spansOf(k, n, spans)
		}
		return spans
	}
}

func (m *Matcher) nameSpans(names []named, spans []span) []span {
	for i := range names {
		for j := range names[i].terms {
			spans = m.termSpans(&names[i].terms[j], spans)
		}
	}
	return spans
}

func (m *Matcher) termSpans(t *term, spans []span) []span {
	m.countWords()
	for _, p := range t.patterns {
		if m.hit[p] != m.epoch {
			continue
		}
		words := int32(m.engine.patterns[p].words)
		for i := range m.hits {
			if h := &m.hits[i]; h.pattern == p && (!t.isTag || m.isHashtag(h)) {
				spans = append(spans, span{h.word - words + 1, h.word})
			}
		}
	}
	return spans
}

// countWords numbers the words of all fields in one sweep, far apart from field to field, and gives every hit the
// number of its last word.
func (m *Matcher) countWords() {
	if m.counted {
		return
	}
	m.counted = true
	word, next := 0, 0
	for f := range m.fields {
		text := m.fields[f].form
		at, joined := 0, false
		for ; next < len(m.hits) && int(m.hits[next].field) == f; next++ {
			h := &m.hits[next]
			var count int
			count, joined = m.engine.table.words(text, at, int(h.end), joined)
			at = max(at, int(h.end))
			word += count
			h.word = int32(word)
		}
		count, _ := m.engine.table.words(text, at, len(text), joined)
		word += count + 2*maxDistance
	}
}

// fieldIs evaluates field:value.
func (m *Matcher) fieldIs(name, value string) bool {
	e := m.event
	switch name {
	case "lang":
		return len(e.Lang) >= len(value) && strings.EqualFold(e.Lang[:len(value)], value) &&
			(len(e.Lang) == len(value) || e.Lang[len(value)] == '-' || e.Lang[len(value)] == '_')
	case "country":
		return m.country == value
	case "source":
		return e.Source == value
	case "kind":
		return string(e.Kind) == value
	case "account":
		return e.Account == value
	case "role":
		return value == social.RoleUnknown // nobody has classified the author yet
	case "from":
		return e.Author.ID == value || strings.EqualFold(strings.TrimPrefix(e.Author.Handle, "@"), value)
	case "url":
		if containsFold(e.URL, value) {
			return true
		}
		for _, link := range e.Links {
			if containsFold(link, value) {
				return true
			}
		}
		return false
	}
	panic("BUG: unknown field in a compiled query: " + name)
}

// containsFold reports whether part is in s, by bytes and without regard to ASCII case, as addresses are written.
func containsFold(s, part string) bool {
	for i := 0; i+len(part) <= len(s); i++ {
		if strings.EqualFold(s[i:i+len(part)], part) {
			return true
		}
	}
	return false
}
