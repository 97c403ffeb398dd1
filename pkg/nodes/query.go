package nodes

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"polyphony/pkg/social"
)

// Query is a parsed listen, mute or topic query.
//
//	query   = and { "OR" and }
//	and     = not { "AND" not }
//	not     = "NOT" not | near
//	near    = operand [ "NEAR/" n operand ]
//	operand = "(" query ")" | word | prefix* | *stem* | "phrase" | products | competitors | field:value
//
// AND and OR side by side need parentheses, and two operands need an operator between them: what people mean by
// leaving them out differs from person to person.
type Query struct{ root *expr }

// String is the query in its plainest form; it parses to the same query.
func (q *Query) String() string { return q.root.String() }

type op uint8

const (
	opTerm op = iota
	opField
	opProducts
	opCompetitors
	opNear
	opNot
	opAnd
	opOr
)

// shape says how a term sits in a word.
type shape uint8

const (
	whole  shape = iota // a word, or words one after the other
	prefix              // the beginning of a word
	stem                // anywhere in a word
)

// expr is one operator or operand of a query.
type expr struct {
	op       op
	kids     []*expr
	text     string // of a term, as written without quotes and stars; of a field, its value
	shape    shape
	field    string
	distance int // words that may stand between the operands of NEAR

	offset   int  // where it begins in the query as written, in bytes
	wrapped  bool // stood in parentheses
	implicit bool // an AND that the author left out
}

// Bounds of a query. The longest queries of commercial listening tools have a few thousand characters.
const (
	maxQuery    = 16 << 10 // bytes
	maxNesting  = 32       // parentheses and NOTs within each other
	maxOperands = 1000
	maxDistance = 100 // words between the operands of NEAR: two paragraphs
	minStem     = 4   // letters of a *stem*: shorter ones sit in half of all words
	maxTerm     = 256 // bytes of one term
	maxMendable = 8   // faults with a suggestion: each shows the whole query mended
)

// queryFault is one thing wrong in a query, at a byte offset of its text.
type queryFault struct {
	Offset  int
	Message string
}

// parseQuery reads a query. It goes on after a fault that it knows how to mend, and then says what the query should be.
func parseQuery(text string) (*Query, []queryFault) {
	if len(text) > maxQuery {
		return nil, []queryFault{{0, fmt.Sprintf("the query has more than %d bytes: make several topics or business units of it", maxQuery)}}
	}
	p := &queryParser{text: text}
	p.tokens = p.scan()
	if len(p.faults) == 0 {
		root := p.or(0)
		if t := p.peek(); len(p.faults) == 0 && t.kind != tokenEnd {
			p.fatal(t.offset, "this ) closes nothing")
		}
		if len(p.faults) == 0 {
			p.mixed(root)
			if len(p.mendable) == 0 && matchesNothingSaid(root) {
				p.fatal(root.offset, "this matches everything but what it excludes: say what to look for, as in (a OR b) AND NOT c")
			}
			if len(p.mendable) > 0 {
				mended := root.String()
				for _, f := range p.mendable {
					p.fatal(f.Offset, "%s: write %s", f.Message, mended)
				}
			}
			if len(p.faults) == 0 {
				return &Query{root}, nil
			}
		}
	}
	return nil, p.faults
}

type queryParser struct {
	text     string
	tokens   []queryToken
	next     int
	operands int
	faults   []queryFault // the first of those that cannot be mended
	mendable []queryFault
}

type tokenKind uint8

const (
	tokenEnd tokenKind = iota
	tokenOpen
	tokenClose
	tokenAnd
	tokenOr
	tokenNot
	tokenNear
	tokenOperand
)

type queryToken struct {
	kind    tokenKind
	offset  int
	written string
	operand *expr
	n       int
}

func (p *queryParser) fatal(offset int, format string, args ...any) {
	p.faults = append(p.faults, queryFault{offset, fmt.Sprintf(format, args...)})
}

func (p *queryParser) mend(offset int, format string, args ...any) {
	if len(p.mendable) == maxMendable {
		return
	}
	p.mendable = append(p.mendable, queryFault{offset, fmt.Sprintf(format, args...)})
}

// isQuote reports whether r delimits a phrase: the plain quote and the typographic ones editors put in its place.
func isQuote(r rune) bool { return strings.ContainsRune("\"“”„‟«»", r) }

func isWordEnd(r rune) bool { return unicode.IsSpace(r) || r == '(' || r == ')' || isQuote(r) }

// scan cuts the query into tokens.
func (p *queryParser) scan() []queryToken {
	var tokens []queryToken
	for i := 0; i < len(p.text); {
		r, size := utf8.DecodeRuneInString(p.text[i:])
		switch {
		case unicode.IsSpace(r):
			i += size
		case r == '(':
			tokens = append(tokens, queryToken{kind: tokenOpen, offset: i, written: "("})
			i += size
		case r == ')':
			tokens = append(tokens, queryToken{kind: tokenClose, offset: i, written: ")"})
			i += size
		case isQuote(r):
			phrase, end := p.quoted(i)
			tokens = append(tokens, p.phrase(i, phrase, p.text[i:end]))
			i = end
		default:
			end := len(p.text)
			if n := strings.IndexFunc(p.text[i:], isWordEnd); n >= 0 {
				end = i + n
			}
			word := p.text[i:end]
			if name, value, isField := strings.Cut(word, ":"); isField {
				if value == "" && end < len(p.text) {
					if q, _ := utf8.DecodeRuneInString(p.text[end:]); isQuote(q) {
						value, end = p.quoted(end)
					}
				}
				tokens = append(tokens, p.field(i, name, value, p.text[i:end]))
			} else {
				tokens = append(tokens, p.word(i, word)...)
			}
			i = end
		}
	}
	return append(tokens, queryToken{kind: tokenEnd, offset: len(p.text), written: "the end"})
}

// quoted reads the quoted text at offset i and returns it with where it ends.
func (p *queryParser) quoted(i int) (string, int) {
	_, size := utf8.DecodeRuneInString(p.text[i:])
	rest := p.text[i+size:]
	n := strings.IndexFunc(rest, isQuote)
	if n < 0 {
		p.fatal(i, "this quote is not closed")
		return rest, len(p.text)
	}
	_, closing := utf8.DecodeRuneInString(rest[n:])
	return rest[:n], i + size + n + closing
}

func (p *queryParser) phrase(offset int, phrase, written string) queryToken {
	if strings.Contains(phrase, "*") {
		p.fatal(offset, "a * means nothing within quotes: write prefix* or *stem* without them")
	} else if message := termFault(phrase); message != "" {
		p.fatal(offset, "%s", message)
	}
	return queryToken{kind: tokenOperand, offset: offset, written: written, operand: &expr{op: opTerm, text: phrase, offset: offset}}
}

// isOperator reports whether a bare word is an operator, or would be one in capitals. "Not" and "Or" are words.
func isOperator(word string) bool {
	switch word {
	case "AND", "OR", "NOT", "and", "or", "not":
		return true
	}
	return strings.HasPrefix(word, "NEAR/") || strings.HasPrefix(word, "near/")
}

// word reads a bare word: an operator, a name, or a term.
func (p *queryParser) word(offset int, word string) []queryToken {
	token := queryToken{offset: offset, written: word}
	name, n, _ := strings.Cut(word, "/")
	switch {
	case isOperator(word):
		if name != strings.ToUpper(name) {
			p.mend(offset, "operators are written in capitals, words like %q in quotes", word)
		}
		switch strings.ToUpper(name) {
		case "AND":
			token.kind = tokenAnd
		case "OR":
			token.kind = tokenOr
		case "NOT":
			token.kind = tokenNot
		default:
			token.kind = tokenNear
			var err error
			if token.n, err = strconv.Atoi(n); err != nil || token.n < 0 || token.n > maxDistance {
				p.fatal(offset, "NEAR/n needs a number of words from 0 to %d, as in NEAR/5", maxDistance)
			}
		}
		return []queryToken{token}
	case word == "NEAR":
		p.fatal(offset, "NEAR needs a number of words, as in NEAR/5")
	case word == "products", word == "competitors":
		token.kind, token.operand = tokenOperand, &expr{op: opProducts, offset: offset}
		if word == "competitors" {
			token.operand.op = opCompetitors
		}
		return []queryToken{token}
	case len(word) > 1 && (word[0] == '-' || word[0] == '+'):
		negated := word[0] == '-'
		inner := p.word(offset+1, word[1:])
		if inner[len(inner)-1].kind != tokenOperand {
			p.fatal(offset, "%q is not a word", word)
			return inner
		}
		if negated {
			p.mend(offset, "what to leave out is written with NOT")
			return append([]queryToken{{kind: tokenNot, offset: offset, written: word}}, inner...)
		}
		p.mend(offset, "a + means nothing")
		return inner
	}
	term := &expr{op: opTerm, offset: offset, text: word}
	token.kind, token.operand = tokenOperand, term
	head, tail := strings.HasPrefix(word, "*"), strings.HasSuffix(word, "*")
	term.text = strings.TrimSuffix(strings.TrimPrefix(word, "*"), "*")
	switch {
	case strings.Contains(term.text, "*") || term.text == "" && head:
		p.fatal(offset, "a * stands at the end of a prefix* or around a *stem*")
		return []queryToken{token}
	case head && tail:
		term.shape = stem
		if n := letters(term.text); n < minStem {
			p.fatal(offset, "a *stem* needs %d letters or more, %q has %d", minStem, term.text, n)
			return []queryToken{token}
		}
	case tail:
		term.shape = prefix
	case head:
		p.fatal(offset, "a word's end alone cannot be searched for: write *%s* to find it anywhere in a word", term.text)
		return []queryToken{token}
	}
	if message := termFault(term.text); message != "" {
		if word == "|" || word == "||" || word == "&" || word == "&&" || word == "!" {
			message = "operators are AND, OR and NOT"
		}
		p.fatal(offset, "%s", message)
	}
	return []queryToken{token}
}

// letters counts the letters and digits of a term.
func letters(term string) int {
	n := 0
	for _, r := range term {
		if unicode.IsLetter(r) || unicode.IsNumber(r) {
			n++
		}
	}
	return n
}

var fieldNames = []string{"lang", "country", "source", "kind", "account", "role", "tag", "from", "url"}

// The values that role: and kind: may have.
var (
	roleNames = []string{"patient", "caregiver", "hcp", "employee", "partner", "company", "other", social.RoleUnknown}
	kindNames = []string{string(social.Post), string(social.Reply), string(social.Share), string(social.Reaction), string(social.Follow),
		string(social.View), string(social.Edit), string(social.Delete), string(social.Counted)}
)

// field reads name:value and checks the value where only some are possible.
func (p *queryParser) field(offset int, name, value, written string) queryToken {
	token := queryToken{kind: tokenOperand, offset: offset, written: written, operand: &expr{op: opField, field: name, text: value, offset: offset}}
	fault := func(format string, args ...any) queryToken {
		p.fatal(offset, format, args...)
		return token
	}
	if !slices.Contains(fieldNames, name) {
		return fault("unknown field %q%s fields are %s; a term with a colon is put in quotes", name, separated(didYouMean(name, fieldNames)), strings.Join(fieldNames, ", "))
	}
	if value == "" {
		return fault("%s: needs a value right after the colon", name)
	}
	switch name {
	case "lang":
		if !language.MatchString(strings.ToLower(value)) {
			return fault("%q is not a language: write its code, as in lang:de", value)
		}
		token.operand.text = strings.ToLower(value)
	case "country":
		if !isCountry(strings.ToUpper(value)) {
			return fault("%q is not a country: write its code of ISO 3166-1, as in country:DE", value)
		}
		token.operand.text = strings.ToUpper(value)
	case "source":
		if !social.ValidName(value) {
			return fault("source %q: %s", value, nameRule)
		}
	case "kind":
		if !slices.Contains(kindNames, value) {
			return fault("unknown kind %q%s kinds are %s", value, separated(didYouMean(value, kindNames)), strings.Join(kindNames, ", "))
		}
	case "role":
		if !slices.Contains(roleNames, value) {
			return fault("unknown role %q%s roles are %s", value, separated(didYouMean(value, roleNames)), strings.Join(roleNames, ", "))
		}
	case "tag":
		token.operand.text = strings.TrimPrefix(value, "#")
		if !isTag(token.operand.text) {
			return fault("%q is not a hashtag: one word of letters, digits and _", value)
		}
	case "from":
		if token.operand.text = strings.TrimPrefix(value, "@"); token.operand.text == "" {
			return fault("from: needs the id or handle of an author")
		}
	}
	return token
}

// separated ends a hint so that a list can follow.
func separated(hint string) string {
	if hint == "" {
		return ";"
	}
	return hint
}

func (p *queryParser) peek() queryToken { return p.tokens[p.next] }

func (p *queryParser) take() queryToken {
	t := p.tokens[p.next]
	if t.kind != tokenEnd {
		p.next++
	}
	return t
}

func (p *queryParser) or(depth int) *expr {
	return p.chain(opOr, depth, func() *expr { return p.and(depth) }, func(t queryToken) (bool, bool) { return t.kind == tokenOr, false })
}

// and takes operands side by side for an AND that was left out.
func (p *queryParser) and(depth int) *expr {
	return p.chain(opAnd, depth, func() *expr { return p.not(depth) }, func(t queryToken) (goesOn, implicit bool) {
		switch t.kind {
		case tokenAnd:
			return true, false
		case tokenOperand, tokenOpen, tokenNot:
			return true, true
		}
		return false, false
	})
}

// chain reads operands joined by one operator into one flat expression.
func (p *queryParser) chain(op op, depth int, operand func() *expr, goesOn func(queryToken) (bool, bool)) *expr {
	first := operand()
	joined := &expr{op: op, kids: []*expr{first}, offset: first.offset}
	for len(p.faults) == 0 {
		ahead, implicit := goesOn(p.peek())
		if !ahead {
			break
		}
		if implicit {
			if !joined.implicit {
				p.adjacent()
			}
			joined.implicit = true
		} else {
			p.take()
		}
		kid := operand()
		if kid.op == op {
			joined.kids = append(joined.kids, kid.kids...) // (a OR b) OR c is a OR b OR c
		} else {
			joined.kids = append(joined.kids, kid)
		}
	}
	if len(joined.kids) == 1 {
		return first
	}
	if first.op == op {
		joined.kids = append(slices.Clone(first.kids), joined.kids[1:]...)
	}
	return joined
}

// adjacent reports that the tokens before and after the current place have no operator between them.
func (p *queryParser) adjacent() {
	before, after := p.tokens[p.next-1], p.peek()
	if slices.ContainsFunc(p.mendable, func(f queryFault) bool { return f.Offset == after.offset }) {
		return
	}
	hint := ""
	if isBare(before) && isBare(after) {
		hint = fmt.Sprintf(` (or, for the phrase, "%s %s")`, before.written, after.written)
	}
	p.mend(after.offset, "no operator between %s and %s%s", before.written, after.written, hint)
}

func isBare(t queryToken) bool {
	return t.kind == tokenOperand && t.operand.op == opTerm && t.operand.shape == whole && !strings.ContainsFunc(t.written, isQuote)
}

func (p *queryParser) not(depth int) *expr {
	t := p.peek()
	if t.kind != tokenNot {
		return p.near(depth)
	}
	p.take()
	if depth >= maxNesting {
		p.fatal(t.offset, "nested more than %d deep", maxNesting)
		return &expr{offset: t.offset}
	}
	return &expr{op: opNot, kids: []*expr{p.not(depth + 1)}, offset: t.offset}
}

func (p *queryParser) near(depth int) *expr {
	left := p.operand(depth)
	t := p.peek()
	if len(p.faults) > 0 || t.kind != tokenNear {
		return left
	}
	p.take()
	right := p.operand(depth)
	for _, side := range []*expr{left, right} {
		if len(p.faults) == 0 && !hasPlaces(side) {
			p.fatal(t.offset, "NEAR joins words, phrases and lists of them, as in (cost OR price) NEAR/5 insurance")
		}
	}
	if again := p.peek(); len(p.faults) == 0 && again.kind == tokenNear {
		p.fatal(again.offset, "NEAR joins two operands: write a NEAR/%d b AND b NEAR/%d c", t.n, again.n)
	}
	return &expr{op: opNear, kids: []*expr{left, right}, distance: t.n, offset: left.offset}
}

// hasPlaces reports whether x is something that stands at places in a text, so that a distance can be measured.
func hasPlaces(x *expr) bool {
	switch x.op {
	case opTerm, opProducts, opCompetitors:
		return true
	case opOr:
		return !slices.ContainsFunc(x.kids, func(k *expr) bool { return !hasPlaces(k) })
	}
	return false
}

func (p *queryParser) operand(depth int) *expr {
	t := p.take()
	switch t.kind {
	case tokenOperand:
		if p.operands++; p.operands > maxOperands {
			p.fatal(t.offset, "more than %d terms: make several topics or business units of it", maxOperands)
		}
		return t.operand
	case tokenOpen:
		if depth >= maxNesting {
			p.fatal(t.offset, "nested more than %d deep", maxNesting)
			return &expr{offset: t.offset}
		}
		x := p.or(depth + 1)
		if closing := p.take(); len(p.faults) == 0 && closing.kind != tokenClose {
			p.fatal(t.offset, "this ( is not closed")
		}
		wrapped := *x
		wrapped.wrapped = true
		return &wrapped
	case tokenEnd:
		if p.next == 0 {
			p.fatal(0, "the query is empty")
		} else {
			p.fatal(p.tokens[p.next-1].offset, "a term is missing after %s", p.tokens[p.next-1].written)
		}
	default:
		p.fatal(t.offset, "a term is missing before %s", t.written)
	}
	return &expr{offset: t.offset}
}

// mixed reports an OR that has an AND beside it without parentheses.
func (p *queryParser) mixed(x *expr) {
	for _, kid := range x.kids {
		if x.op == opOr && kid.op == opAnd && !kid.wrapped && !kid.implicit {
			p.mend(kid.offset, "AND and OR side by side need parentheses")
		}
		p.mixed(kid)
	}
}

// matchesNothingSaid reports whether x holds for a text in which none of its operands is found.
func matchesNothingSaid(x *expr) bool {
	switch x.op {
	case opNot:
		return !matchesNothingSaid(x.kids[0])
	case opAnd:
		return !slices.ContainsFunc(x.kids, func(k *expr) bool { return !matchesNothingSaid(k) })
	case opOr:
		return slices.ContainsFunc(x.kids, matchesNothingSaid)
	}
	return false
}

func (x *expr) String() string {
	var b strings.Builder
	x.write(&b)
	return b.String()
}

func (x *expr) write(b *strings.Builder) {
	switch x.op {
	case opTerm:
		switch {
		case x.shape == prefix:
			b.WriteString(x.text + "*")
		case x.shape == stem:
			b.WriteString("*" + x.text + "*")
		case standsBare(x.text):
			b.WriteString(x.text)
		default:
			b.WriteString(`"` + x.text + `"`)
		}
	case opProducts:
		b.WriteString("products")
	case opCompetitors:
		b.WriteString("competitors")
	case opField:
		b.WriteString(x.field + ":")
		if strings.ContainsFunc(x.text, isWordEnd) {
			b.WriteString(`"` + x.text + `"`)
		} else {
			b.WriteString(x.text)
		}
	case opNot:
		b.WriteString("NOT ")
		x.kids[0].writeWithin(b, x.op)
	default:
		separator := map[op]string{opAnd: " AND ", opOr: " OR ", opNear: fmt.Sprintf(" NEAR/%d ", x.distance)}[x.op]
		for i, kid := range x.kids {
			if i > 0 {
				b.WriteString(separator)
			}
			kid.writeWithin(b, x.op)
		}
	}
}

// writeWithin puts parentheses around what would otherwise read differently, or only by knowing the precedence.
func (x *expr) writeWithin(b *strings.Builder, outer op) {
	compound := x.op == opAnd || x.op == opOr || x.op == opNear && outer == opNear
	if compound {
		b.WriteString("(")
	}
	x.write(b)
	if compound {
		b.WriteString(")")
	}
}

// standsBare reports whether a term reads as itself without quotes.
func standsBare(term string) bool {
	if strings.ContainsFunc(term, isWordEnd) || strings.ContainsAny(term, ":*") || term[0] == '-' || term[0] == '+' {
		return false
	}
	switch term {
	case "NEAR", "products", "competitors":
		return false
	}
	return !isOperator(term)
}
