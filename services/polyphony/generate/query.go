package generate

import (
	"fmt"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// The generator reads queries with a small reader of its own: it needs to know only whether a text that names a
// product, and no other term of the directory, is sure to match. Whatever it cannot be sure of is unsure.

type verdict int8

const (
	no verdict = iota
	unsure
	yes
)

// query is a node of a parsed query: an operator with operands, or a leaf.
type query struct {
	op    string // "AND", "OR", "NOT", "products", "term" or "field"
	args  []query
	words []term
}

// eval decides a query for a text that contains no term of it; products says whether it names one.
func (q query) eval(products verdict) verdict {
	switch q.op {
	case "AND":
		v := yes
		for _, a := range q.args {
			v = min(v, a.eval(products))
		}
		return v
	case "OR":
		v := no
		for _, a := range q.args {
			v = max(v, a.eval(products))
		}
		return v
	case "NOT":
		return yes - q.args[0].eval(products)
	case "products":
		return products
	case "field":
		return unsure
	}
	return no
}

// terms visits everything that a text must not contain for eval to be right.
func (q query) terms(visit func(term)) {
	for _, t := range q.words {
		visit(t)
	}
	for _, a := range q.args {
		a.terms(visit)
	}
}

func saysProducts(s string) bool {
	tokens, err := scan(s)
	if err != nil {
		return false
	}
	for _, t := range tokens {
		if t == "products" {
			return true
		}
	}
	return false
}

// parseQuery reads OR of AND of NOT of leaves. It is more lenient than `polyphony check`, which has the last word.
func parseQuery(s string) (query, error) {
	tokens, err := scan(s)
	if err != nil {
		return query{}, err
	}
	p := &reader{tokens: tokens}
	q, err := p.or(0)
	if err == nil && p.peek() != "" {
		err = fmt.Errorf("unexpected %s", p.peek())
	}
	return q, err
}

type reader struct {
	tokens []string
	at     int
}

func (p *reader) peek() string {
	if p.at < len(p.tokens) {
		return p.tokens[p.at]
	}
	return ""
}

// maxDepth bounds nesting; no query written by people comes near.
const maxDepth = 100

func (p *reader) or(depth int) (query, error) {
	if depth > maxDepth {
		return query{}, fmt.Errorf("nested deeper than %d", maxDepth)
	}
	q, err := p.and(depth)
	for err == nil && p.peek() == "OR" {
		p.at++
		var right query
		right, err = p.and(depth)
		q = query{op: "OR", args: []query{q, right}}
	}
	return q, err
}

func (p *reader) and(depth int) (query, error) {
	q, err := p.not(depth)
	for err == nil {
		near := strings.HasPrefix(p.peek(), "NEAR/")
		if p.peek() != "AND" && !near {
			break
		}
		p.at++
		var right query
		right, err = p.not(depth)
		q = query{op: "AND", args: []query{q, right}}
		if near { // nearness cannot be promised, absence can
			q = query{op: "AND", args: []query{q, {op: "field"}}}
		}
	}
	return q, err
}

func (p *reader) not(depth int) (query, error) {
	if p.peek() == "NOT" {
		p.at++
		if depth > maxDepth {
			return query{}, fmt.Errorf("nested deeper than %d", maxDepth)
		}
		q, err := p.not(depth + 1)
		return query{op: "NOT", args: []query{q}}, err
	}
	return p.leaf(depth)
}

func (p *reader) leaf(depth int) (query, error) {
	t := p.peek()
	p.at++
	switch {
	case t == "" || t == ")" || t == "AND" || t == "OR" || strings.HasPrefix(t, "NEAR/"):
		return query{}, fmt.Errorf("a term is missing before %q", t)
	case t == "(":
		q, err := p.or(depth + 1)
		if err == nil && p.peek() != ")" {
			err = fmt.Errorf("a closing parenthesis is missing")
		}
		p.at++
		return q, err
	case t == "products":
		return query{op: "products"}, nil
	case t == "competitors": // their names are forbidden anyway
		return query{op: "term"}, nil
	}
	if field, value, ok := strings.Cut(t, ":"); ok && t[0] != '"' {
		switch field {
		case "tag":
			return query{op: "term", words: words([]string{value})}, nil
		case "url": // every link of the generator leads to a reserved example domain
			return query{op: "term"}, nil
		}
		return query{op: "field"}, nil
	}
	return query{op: "term", words: words([]string{strings.Trim(t, `"`)})}, nil
}

// scan splits a query into parentheses, phrases in their quotes, and words.
func scan(s string) ([]string, error) {
	var tokens []string
	for s = strings.TrimSpace(s); s != ""; s = strings.TrimSpace(s) {
		switch s[0] {
		case '(', ')':
			tokens, s = append(tokens, s[:1]), s[1:]
		case '"':
			end := strings.IndexByte(s[1:], '"')
			if end < 0 {
				return nil, fmt.Errorf("a closing quote is missing")
			}
			tokens, s = append(tokens, s[:end+2]), s[end+2:]
		default:
			end := strings.IndexFunc(s, func(r rune) bool { return r == '(' || r == ')' || unicode.IsSpace(r) })
			if q := strings.Index(s, `:"`); q > 0 && (end < 0 || q < end) { // field:"some words"
				if e := strings.IndexByte(s[q+2:], '"'); e >= 0 {
					end = q + 2 + e + 1
				}
			}
			if end < 0 {
				end = len(s)
			}
			tokens, s = append(tokens, s[:end]), s[end:]
		}
	}
	return tokens, nil
}

// term is something that a text may contain: one or more words, folded.
type term struct {
	words          []string
	prefix, suffix bool // a star at the end, at the start
	anywhere       bool // written without spaces: matches inside words too
}

func (t term) equal(o term) bool {
	return strings.Join(t.words, " ") == strings.Join(o.words, " ") && t.prefix == o.prefix && t.suffix == o.suffix
}

// lexicon is a list of terms to look for. It is meant for short texts at start-up, not for speed.
type lexicon []term

// words makes terms, each in both ways of writing an umlaut.
func words(list []string) lexicon {
	var l lexicon
	for _, s := range list {
		s = strings.TrimPrefix(s, "#")
		t := term{prefix: strings.HasSuffix(s, "*"), suffix: strings.HasPrefix(s, "*")}
		s = strings.Trim(s, "*")
		for _, spelling := range []string{s, umlauts.Replace(s)} {
			t.words = split(fold(spelling))
			t.anywhere = strings.ContainsFunc(spelling, spaceless)
			if len(t.words) > 0 {
				l = append(l, t)
			}
			if spelling == umlauts.Replace(s) {
				break
			}
		}
	}
	return l
}

var umlauts = strings.NewReplacer("ä", "ae", "ö", "oe", "ü", "ue", "Ä", "Ae", "Ö", "Oe", "Ü", "Ue")

// hit reports whether s contains one of the terms.
func (l lexicon) hit(s string) bool {
	text := split(fold(s))
	for _, t := range l {
		if t.in(text) {
			return true
		}
	}
	return false
}

// edges reports whether s begins or ends with a word of a phrase: beside another text the phrase could come about.
func (l lexicon) edges(s string) bool {
	text := split(fold(s))
	if len(text) == 0 {
		return false
	}
	for _, t := range l {
		if len(t.words) < 2 {
			continue
		}
		if t.words[0] == text[len(text)-1] || t.words[len(t.words)-1] == text[0] {
			return true
		}
	}
	return false
}

func (t term) in(text []string) bool {
	if t.anywhere {
		return strings.Contains(strings.Join(text, ""), strings.Join(t.words, ""))
	}
	for i := 0; i+len(t.words) <= len(text); i++ {
		if t.at(text[i:]) {
			return true
		}
	}
	return false
}

func (t term) at(text []string) bool {
	for i, w := range t.words {
		got := text[i]
		switch first, last := i == 0 && t.suffix, i == len(t.words)-1 && t.prefix; {
		case first && last:
			if !strings.Contains(got, w) {
				return false
			}
		case first:
			if !strings.HasSuffix(got, w) {
				return false
			}
		case last:
			if !strings.HasPrefix(got, w) {
				return false
			}
		case got != w:
			return false
		}
	}
	return true
}

// fold makes spellings equal that matching takes for equal: case, accents, sharp s, compatibility forms.
func fold(s string) string {
	var b strings.Builder
	for _, r := range norm.NFKD.String(s) {
		switch {
		case unicode.Is(unicode.Mn, r):
		case r == 'ß':
			b.WriteString("ss")
		default:
			b.WriteRune(unicode.ToLower(r))
		}
	}
	return b.String()
}

func split(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !unicode.IsMark(r) && r != '_'
	})
}

func spaceless(r rune) bool {
	return unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Thai, unicode.Lao, unicode.Khmer, unicode.Myanmar)
}
