package enrich

import (
	"encoding/binary"
	"math/bits"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/nyaruka/phonenumbers"

	"polyphony/pkg/social"
)

// What personal data in a text is replaced by.
const (
	maskedEmail  = "[email]"
	maskedHandle = "[handle]"
	maskedLink   = "[link]" // a link may lead to a person's page; the original is sealed with the event
	maskedPhone  = "[phone]"
)

// masker takes e-mail addresses, handles, links and telephone numbers out of texts. Where it doubts, it masks.
// Its memory is reused.
type masker struct {
	out   []byte
	pairs []string // what to replace and by what
}

const (
	// minLiteral is the shortest handle or id that is looked for as such; shorter ones are parts of ordinary words.
	minLiteral = 4
	// maxPersons bounds the people whose names are looked for; no network lets a post name more. Their handles are
	// masked all the same where an "@" stands before them.
	maxPersons = 100
)

// mask gives the event's title and text as they may be stored. country helps to recognise national phone numbers.
func (m *masker) mask(e *social.Event, country string) string {
	title, text := m.maskNamed(e)
	if title == "" && !suspicious(text) { // most of them: nothing to copy
		return text
	}
	m.out = m.out[:0]
	m.append(title, country)
	if title != "" && text != "" {
		m.out = append(m.out, '\n')
	}
	m.append(text, country)
	return string(m.out)
}

// maskNamed replaces the ids, handles and links that the event itself names, in one pass that never looks at what it
// has put in.
func (m *masker) maskNamed(e *social.Event) (title, text string) {
	m.pairs = m.pairs[:0]
	look := func(literal, mask string) {
		if len(literal) >= minLiteral && (strings.Contains(e.Text, literal) || strings.Contains(e.Title, literal)) {
			m.pairs = append(m.pairs, "@"+literal, mask, literal, mask)
		}
	}
	look(e.URL, maskedLink)
	look(e.Author.ID, maskedHandle)
	look(e.Author.Handle, maskedHandle)
	for _, p := range e.Mentions[:min(len(e.Mentions), maxPersons)] {
		look(p.ID, maskedHandle)
		look(p.Handle, maskedHandle)
	}
	if len(m.pairs) == 0 {
		return e.Title, e.Text
	}
	named := strings.NewReplacer(m.pairs...)
	return named.Replace(e.Title), named.Replace(e.Text)
}

// append scans one text from left to right. word is where the present run of word characters, dots and dashes began
// in the output: an e-mail address or a bare link is recognised in its middle and takes its beginning with it.
func (m *masker) append(text, country string) {
	if !suspicious(text) {
		m.out = append(m.out, text...)
		return
	}
	word := len(m.out)
	for i := 0; i < len(text); {
		rest := text[i:]
		begins := len(m.out) == word
		switch c := text[i]; {
		case begins && startsLink(rest):
			m.out = append(m.out, maskedLink...)
			i += linkSize(rest)
			word = len(m.out)
		case atSize(rest) > 0 && nameSize(rest[atSize(rest):]) > 0:
			if begins {
				m.out = append(m.out, maskedHandle...)
			} else {
				m.out = append(m.out[:word], maskedEmail...)
			}
			i += atSize(rest) + nameSize(rest[atSize(rest):])
			word = len(m.out)
		case c == '/' && isUserPath(m.out[word:]) && nameSize(rest[1:]) >= minLiteral-1:
			m.out = append(m.out[:word], maskedHandle...)
			i += 1 + nameSize(rest[1:])
			word = len(m.out)
		case c == '/' && endsInDomain(m.out[word:]):
			m.out = append(m.out[:word], maskedLink...)
			i += linkSize(rest)
			word = len(m.out)
		case begins && (c == '+' || c == '(' || isDigit(c)) && phoneSize(rest, country) > 0:
			m.out = append(m.out, maskedPhone...)
			i += phoneSize(rest, country)
			word = len(m.out)
		case isLetter(c): // and so are most: a run of them has no other beginning in it
			n := 1
			for n < len(rest) && isLetter(rest[n]) {
				n++
			}
			m.out = append(m.out, rest[:n]...)
			i += n
		default:
			r, size := utf8.DecodeRuneInString(rest)
			m.out = append(m.out, rest[:size]...)
			if i += size; !inName(r) {
				word = len(m.out)
			}
		}
	}
}

// suspicious is the quick look that most texts pass: no "@", no link, too few digits for a telephone.
func suspicious(text string) bool {
	return strings.IndexByte(text, '@') >= 0 || strings.IndexByte(text, '/') >= 0 || digits(text) >= minPhone ||
		strings.Contains(text, wideAt) || hasWWW(text)
}

// digits counts those of ASCII, eight bytes at a time.
func digits(text string) (n int) {
	const high, zeros = 0x8080808080808080, 0x3030303030303030
	for ; len(text) >= 8; text = text[8:] {
		over := binary.LittleEndian.Uint64([]byte(text[:8])) ^ zeros           // at most 9 in a digit's byte
		n += 8 - bits.OnesCount64(((over&^high)+0x7676767676767676|over)&high) // 118 more reach the high bit from 10 on
	}
	for i := range len(text) {
		if isDigit(text[i]) {
			n++
		}
	}
	return n
}

// hasWWW looks for "www." in any case, by its dot: there are more of its letters in a text.
func hasWWW(text string) bool {
	for {
		dot := strings.IndexByte(text, '.')
		if dot < 0 {
			return false
		}
		if dot >= 3 && strings.EqualFold(text[dot-3:dot], "www") {
			return true
		}
		text = text[dot+1:]
	}
}

// atSize is the length of the "@" that s starts with, 0 for none.
func atSize(s string) int {
	switch {
	case s[0] == '@':
		return 1
	case strings.HasPrefix(s, wideAt):
		return len(wideAt)
	}
	return 0
}

// wideAt is the "@" of East Asian keyboards; networks take it as one.
const wideAt = "\uff20"

// isUserPath reports whether a slash after this run begins a handle as Reddit writes it: u/name, user/name.
func isUserPath(run []byte) bool {
	return string(run) == "u" || string(run) == "U" || string(run) == "user"
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// isLetter reports on ASCII letters only.
func isLetter(c byte) bool { c |= 0x20; return c >= 'a' && c <= 'z' }

// inName reports whether r may stand in a handle, the local part of an address, or a domain.
func inName(r rune) bool {
	if r < utf8.RuneSelf && isLetter(byte(r)) {
		return true
	}
	return r == '.' || r == '-' || r == '_' || r == '+' || r == '%' || unicode.IsLetter(r) || unicode.IsDigit(r)
}

// nameSize is the length of the handle or domain that s starts with: name characters and further "@", no trailing
// punctuation.
func nameSize(s string) int {
	size := strings.IndexFunc(s, func(r rune) bool { return !inName(r) && r != '@' })
	if size < 0 {
		size = len(s)
	}
	return len(strings.TrimRight(s[:size], ".-@+%"))
}

func startsLink(s string) bool {
	if c := s[0] | 0x20; c != 'h' && c != 'w' {
		return false
	}
	for _, prefix := range [...]string{"http://", "https://", "www."} {
		if len(s) > len(prefix) && strings.EqualFold(s[:len(prefix)], prefix) {
			return true
		}
	}
	return false
}

// linkSize is the length of the link that s starts with, or of its remainder: up to white space or a quote.
func linkSize(s string) int {
	size := strings.IndexFunc(s, func(r rune) bool {
		return unicode.IsSpace(r) || strings.ContainsRune("<>\"'`)]}", r)
	})
	if size < 0 {
		size = len(s)
	}
	return len(strings.TrimRight(s[:size], ".,;:!?"))
}

// endsInDomain reports whether a run of name characters looks like a host: a dot and then two letters or more.
func endsInDomain(run []byte) bool {
	dot := strings.LastIndexByte(string(run), '.')
	if dot <= 0 || len(run)-dot < 3 {
		return false
	}
	for _, c := range run[dot+1:] {
		if c|0x20 < 'a' || c|0x20 > 'z' {
			return false
		}
	}
	return true
}

const (
	minPhone = 7  // the shortest national numbers; below are years, prices and doses
	maxPhone = 15 // E.164
)

// phoneSize is the length of the telephone number that s starts with, 0 for none.
func phoneSize(s, country string) int {
	digits, end, groups := 0, 0, [3]int{}
	group := -1
scan:
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case isDigit(c):
			if i == 0 || !isDigit(s[i-1]) {
				group++
			}
			if group < len(groups) {
				groups[group]++
			}
			digits++
			end = i + 1
		case i == 0 && c == '+', strings.IndexByte(" .-/()", c) >= 0 && i-end < 3:
		default:
			break scan
		}
	}
	if r, _ := utf8.DecodeRuneInString(s[end:]); unicode.IsLetter(r) || digits < minPhone || digits > maxPhone {
		return 0
	}
	if groups == [3]int{4, 2, 2} { // an ISO date
		return 0
	}
	number := s[:end]
	international := number[0] == '+' || strings.HasPrefix(number, "00")
	if international || number[0] == '0' && digits >= 9 || strings.HasPrefix(number, "(0") {
		return end
	}
	if country == "" {
		country = "US" // the most common style of numbers without any prefix
	}
	if parsed, err := phonenumbers.Parse(number, country); err == nil && phonenumbers.IsValidNumber(parsed) {
		return end
	}
	if groups == [3]int{3, 3, 4} {
		return end
	}
	return 0
}
