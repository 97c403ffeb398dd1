package nodes

import (
	"fmt"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// Texts and terms are compared in one form: NFKC, case folded, without accents on Latin, Greek and Cyrillic letters,
// ß as ss, and everything that is not part of a word as a separator. Three decisions go beyond NFKC. A trade mark sign
// is a separator, or no brand with ™ would ever match. Invisible characters (soft hyphens, joiners, variation selectors)
// are left out. A mark belongs to what it stands on, so an emoji with a selector does not glue itself to the next word.
//
// Scripts without spaces border on every other script as if a space stood between: the brand in 新薬Examplumabの is a
// word. Within such a script there are no words, a term matches anywhere.
//
// ASCII is its own normal form: the automaton folds its case and its separators.
const (
	space  = ' '
	border = 0x1f // between two scripts where the text has nothing
)

// What a character is to the matcher.
const (
	isWord      = 1 << iota // a letter, digit, mark or _
	isSpaceless             // of a script without spaces
	isBase                  // a letter that sheds its accents
	isMark
	isInvisible
	isComposing // may merge with the character before it
	isStacking  // a mark with a canonical order among marks
	isReplaced  // the form is replacements[props>>16]
	isSeparator = 0
)

// runeTable says of every character what it is. It is made once, from the Unicode tables of the standard library and
// of golang.org/x/text, and never changes.
type runeTable struct {
	pages        [(unicode.MaxRune + 1) >> 8]*[256]uint32
	replacements []string
}

var theRunes = sync.OnceValue(newRuneTable)

func (t *runeTable) props(r rune) uint32 {
	if r < 0 || r > unicode.MaxRune {
		return isSeparator
	}
	if page := t.pages[r>>8]; page != nil {
		return page[r&0xff]
	}
	return isSeparator
}

var spaceless = []*unicode.RangeTable{unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Thai, unicode.Lao, unicode.Khmer, unicode.Myanmar}

func newRuneTable() *runeTable {
	t := &runeTable{}
	empty := &[256]uint32{}
	composing := map[rune]bool{}
	for page := range t.pages {
		entries := &[256]uint32{}
		used := false
		for i := range entries {
			r := rune(page<<8 | i)
			entries[i] = t.classify(r, composing)
			used = used || entries[i] != 0
		}
		if t.pages[page] = entries; !used {
			t.pages[page] = empty
		}
	}
	for r := range composing {
		t.pages[r>>8][r&0xff] |= isComposing
	}
	return t
}

// classify says what r is, and records which characters merge with one before them.
func (t *runeTable) classify(r rune, composing map[rune]bool) uint32 {
	switch {
	case r >= 0x4e00 && r <= 0x9fff || r >= 0x20000 && r <= 0x2a6d0: // Han that stands for itself, as nearly all of it does
		if unicode.Is(unicode.Han, r) {
			return isWord | isSpaceless
		}
		return isSeparator
	case r >= 0xac00 && r <= 0xd7a3: // Hangul syllables
		return isWord
	case r >= 0x1160 && r <= 0x11ff: // Hangul vowels and finals
		return isWord | isComposing
	case r == '™' || r == '℠' || r == 'ʼ' || r == 'ʻ':
		return isSeparator
	case !unicode.In(r, unicode.L, unicode.N, unicode.M, unicode.S, unicode.P, unicode.Z, unicode.Cf):
		return isSeparator
	}
	p := uint32(isSeparator)
	switch {
	case unicode.In(r, unicode.Cf, unicode.Variation_Selector) || r == 0x034f:
		return isInvisible
	case unicode.In(r, unicode.Mn, unicode.Me):
		p = isWord | isMark
		if norm.NFC.PropertiesString(string(r)).CCC() != 0 {
			p |= isStacking
		}
	case unicode.In(r, unicode.L, unicode.N, unicode.M) || r == '_':
		p = isWord
		if unicode.In(r, unicode.Latin, unicode.Greek, unicode.Cyrillic) {
			p |= isBase
		}
	}
	if unicode.In(r, spaceless...) || r == 'ー' {
		p |= isSpaceless
	}
	if d := norm.NFD.String(string(r)); len(d) > utf8.RuneLen(r) || d != string(r) {
		if last, size := utf8.DecodeLastRuneInString(d); size < len(d) && norm.NFC.String(d) == string(r) {
			composing[last] = true
		}
	}
	if form := formOf(r); form != string(r) {
		p |= isReplaced | uint32(len(t.replacements))<<16
		t.replacements = append(t.replacements, form)
	}
	return p
}

// formOf is the normal form of one character standing alone.
func formOf(r rune) string {
	form := string(r)
	for range 3 { // folding may uncover what composes differently; twice is enough for all of Unicode 15
		var folded strings.Builder
		base := false
		for _, c := range norm.NFD.String(norm.NFKC.String(form)) {
			if base && unicode.In(c, unicode.Mn, unicode.Me) {
				continue
			}
			base = unicode.In(c, unicode.Latin, unicode.Greek, unicode.Cyrillic) && unicode.IsLetter(c)
			switch c {
			case 'ß', 'ẞ':
				folded.WriteString("ss")
			case 'և':
				folded.WriteString("եւ")
			default:
				folded.WriteRune(foldCase(c))
			}
		}
		form = norm.NFKC.String(folded.String())
	}
	return form
}

// foldCase is the one character that stands for all that differ from r by case only.
func foldCase(r rune) rune {
	least := r
	for c := unicode.SimpleFold(r); c != r; c = unicode.SimpleFold(c) {
		least = min(least, c)
	}
	return unicode.ToLower(least)
}

// normaliser holds the state between two characters and the buffers, which are used again for the next text.
type normaliser struct {
	table    *runeTable
	out      []byte
	places   []int32 // for each byte of out, where in the text it comes from; kept only when traced
	traced   bool
	last     uint32  // properties of the last character that was not left out
	composed bool    // the text is in NFKC already
	scratch  []byte  // the text in NFKC
	origins  []int32 // for each byte of scratch, where in the text it comes from
	segments norm.Iter
}

// isASCII reports whether s needs no normal form.
func isASCII(s string) bool {
	for ; len(s) >= 8; s = s[8:] {
		if (s[0]|s[1]|s[2]|s[3]|s[4]|s[5]|s[6]|s[7])&0x80 != 0 {
			return false
		}
	}
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// normalise gives the normal form of text, valid until the next call. Nothing is dropped from the middle of a text that
// could make two words one.
func (n *normaliser) normalise(text string) []byte {
	n.composed = false
	if !n.run(text) {
		n.compose(text)
		n.composed = true
		n.runComposed()
	}
	return n.out
}

// compose writes the NFKC form of text to scratch. It is needed only where marks merge with what they stand on.
func (n *normaliser) compose(text string) {
	n.scratch, n.origins = n.scratch[:0], n.origins[:0]
	n.segments.InitString(norm.NFKC, text)
	for !n.segments.Done() {
		from := n.segments.Pos()
		segment := n.segments.Next()
		n.scratch = append(n.scratch, segment...)
		for range segment {
			n.origins = append(n.origins, int32(from))
		}
	}
}

func (n *normaliser) runComposed() {
	n.run(unsafeString(n.scratch))
	for i, at := range n.places {
		n.places[i] = n.origins[at]
	}
}

// run writes the normal form of text to out. It stops and returns false when the text has to be composed first.
func (n *normaliser) run(text string) bool {
	n.out, n.places, n.last = n.out[:0], n.places[:0], isSeparator
	for i := 0; i < len(text); {
		end := i
		for end < len(text) && text[end] < utf8.RuneSelf {
			end++
		}
		if end > i {
			n.ascii(text[i:end], i)
			if i = end; i == len(text) {
				break
			}
		}
		r, size := utf8.DecodeRuneInString(text[i:])
		p := n.table.props(r)
		switch {
		case p&(isWord|isMark|isComposing|isReplaced) == isWord: // nearly all that is not ASCII
			n.border(p, i)
			n.last = p
			n.put(text[i:i+size], i)
		case p&isReplaced == 0:
			if !n.emit(r, p, i) {
				return false
			}
		default:
			for _, f := range n.table.replacements[p>>16] {
				if !n.emit(f, n.table.props(f)&^isReplaced, i) {
					return false
				}
			}
		}
		i += size
	}
	return true
}

// ascii appends a run of ASCII, which is its own normal form.
func (n *normaliser) ascii(run string, at int) {
	if !separates(run[0]) {
		n.border(isWord, at)
	}
	n.out = append(n.out, run...)
	if n.traced {
		for i := range len(run) {
			n.places = append(n.places, int32(at+i))
		}
	}
	n.last = n.table.props(rune(run[len(run)-1])) &^ isReplaced
}

// border separates a character of the given properties from one of the other kind of script before it.
func (n *normaliser) border(p uint32, at int) {
	if n.last&isWord != 0 && (n.last^p)&isSpaceless != 0 {
		n.put(string(rune(border)), at)
	}
}

// emit appends one character that is in its own normal form; false when it may have to merge with the one before.
func (n *normaliser) emit(r rune, p uint32, at int) bool {
	switch {
	case p&isInvisible != 0:
		return true
	case p&isMark != 0:
		if n.last&isBase != 0 || n.last&isWord == 0 {
			return true
		}
		if !n.composed && (p&isComposing != 0 || p&isStacking != 0 && n.last&isStacking != 0) {
			return false
		}
		n.last = n.last&^isStacking | p&isStacking
		n.put(string(r), at)
		return true
	case p&isWord == 0:
		n.last = isSeparator
		if r == '#' {
			n.put("#", at)
		} else {
			n.put(" ", at)
		}
		return true
	case p&isComposing != 0 && !n.composed:
		return false
	}
	n.border(p, at)
	n.last = p
	n.put(string(r), at)
	return true
}

// put appends bytes that all come from one place.
func (n *normaliser) put(form string, at int) {
	n.out = append(n.out, form...)
	if n.traced {
		for range len(form) {
			n.places = append(n.places, int32(at))
		}
	}
}

// separates reports whether a byte of the normal form, or of plain ASCII, is a separator.
func separates(b byte) bool {
	return b < utf8.RuneSelf && b != '_' && (b < '0' || b > '9') && (b|0x20 < 'a' || b|0x20 > 'z')
}

var umlauts = strings.NewReplacer("ä", "ae", "ö", "oe", "ü", "ue", "Ä", "Ae", "Ö", "Oe", "Ü", "Ue")

// termForms gives the normal forms that a term is searched for in, words separated by one space: one form for most
// terms; for those with ä, ö or ü all mixtures of ä and ae, which are 16 for four umlauts, and beyond that all of them
// one way or all the other. None when the term has no word.
func termForms(term string) []string {
	n := normaliser{table: theRunes()}
	composed := norm.NFC.String(term)
	variants := []string{""}
	if strings.Count(umlauts.Replace(composed), "e")-strings.Count(composed, "e") > 4 {
		variants = []string{composed, umlauts.Replace(composed)}
		composed = ""
	}
	for _, r := range composed {
		plain := string(r)
		spelt := umlauts.Replace(plain)
		grown := variants[:0:0]
		for _, v := range variants {
			grown = append(grown, v+plain)
			if spelt != plain {
				grown = append(grown, v+spelt)
			}
		}
		variants = grown
	}
	var forms []string
	for _, v := range variants {
		words := strings.FieldsFunc(strings.ToLower(string(n.normalise(v))), func(r rune) bool { return r < utf8.RuneSelf && separates(byte(r)) })
		if len(words) > 0 {
			forms = append(forms, strings.Join(words, " "))
		}
	}
	return forms
}

// termFault says why no text can contain term, or "".
func termFault(term string) string {
	if len(term) > maxTerm {
		return fmt.Sprintf("a term has at most %d bytes", maxTerm)
	}
	if len(termForms(term)) == 0 {
		return fmt.Sprintf("%q has no letters or digits to search for", term)
	}
	return ""
}

// isTag reports whether s could be a hashtag without its #: one run of word characters.
func isTag(s string) bool {
	if s == "" || len(s) > maxTerm {
		return false
	}
	n := normaliser{table: theRunes()}
	for _, b := range n.normalise(s) {
		if separates(b) && b != border {
			return false
		}
	}
	return len(n.out) > 0
}

// bordersFreely reports whether a normal form begins (or ends) with a script without spaces, where a term needs no
// word boundary.
func bordersFreely(form string) (first, last bool) {
	t := theRunes()
	r, _ := utf8.DecodeRuneInString(form)
	first = t.props(r)&isSpaceless != 0
	for len(form) > 0 {
		r, size := utf8.DecodeLastRuneInString(form)
		if p := t.props(r); p&isMark == 0 {
			return first, p&isSpaceless != 0
		}
		form = form[:len(form)-size]
	}
	return first, false
}
