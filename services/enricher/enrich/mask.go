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
// Its time is linear in the event, whatever its author wrote: no step looks twice at the same characters more often
// than a fixed number of times. Its memory is reused.
type masker struct {
	out   []byte
	named named
	met   []byte // the names that were found, each before a zero byte

	// Of the text in hand: what is copied up to kept and looked at up to at.
	text, country string
	kept, at      int
	run           run
	numbers       []span // telephone numbers found ahead, in order
	looked        int    // up to where they were looked for
	lookups       int    // into countries' numbers that are left
	row           row
}

// run says where the characters before the present one began to belong together. An e-mail address or a link without
// a scheme is recognised in its middle and takes its beginning with it. What may stand in a scheme or a host may stand
// in a local part too, so local is never behind the others.
type run struct {
	local  int  // what may be the local part of an e-mail address
	solid  bool // whether there is a letter or digit in it
	out    int  // where it began in the output, when a number in it is masked already
	word   int  // what may be a host
	dot    int  // the last dot in that, -1 for none
	scheme int  // what may be a link's scheme

	quote, opened int  // the last quotation mark and the one before it, each with what stands right before it, -1 for none
	paired        bool // whether the last is the second of a pair
}

type span struct{ start, end int }

// mask gives the event's title and text as they may be stored. country helps to recognise national phone numbers.
func (m *masker) mask(e *social.Event, country string) string {
	m.met = m.met[:0]
	m.named.collect(e)
	if e.Title == "" && !suspicious(e.Text) && !m.named.in(e.Text) { // most of them: nothing to copy
		return e.Text
	}
	m.out, m.country = m.out[:0], country
	m.append(e.Title)
	if e.Title != "" && e.Text != "" {
		m.out = append(m.out, '\n')
	}
	m.append(e.Text)
	return string(m.out)
}

// suspicious is the quick look that most texts pass: no "@", no slash, no dot inside a word, too few digits for a
// telephone.
func suspicious(text string) bool {
	if strings.IndexByte(text, '@') >= 0 || strings.IndexByte(text, '/') >= 0 {
		return true
	}
	n, ascii := digits(text)
	return n >= minPhone || hasInnerDot(text) || !ascii && suspiciousAbroad(text)
}

// digits counts those of ASCII, eight bytes at a time, and says whether all else is ASCII too.
func digits(text string) (n int, ascii bool) {
	const high, zeros = 0x8080808080808080, 0x3030303030303030
	var all uint64
	for ; len(text) >= 8; text = text[8:] {
		eight := binary.LittleEndian.Uint64([]byte(text[:8]))
		over := eight ^ zeros                                                  // at most 9 in a digit's byte
		n += 8 - bits.OnesCount64(((over&^high)+0x7676767676767676|over)&high) // 118 more reach the high bit from 10 on
		all |= eight
	}
	for i := range len(text) {
		if isDigit(text[i]) {
			n++
		}
		all |= uint64(text[i])
	}
	return n, all&high == 0
}

// hasInnerDot looks for a dot with a letter right behind it, as every host has.
func hasInnerDot(text string) bool {
	for {
		dot := strings.IndexByte(text, '.')
		if dot < 0 || dot+1 == len(text) {
			return false
		}
		if c := text[dot+1]; isLetter(c) || c >= utf8.RuneSelf {
			return true
		}
		text = text[dot+1:]
	}
}

// suspiciousAbroad is the same look at the characters of other keyboards. Those that plain knows begin with one of four
// bytes, which most languages do without.
func suspiciousAbroad(text string) bool {
	if strings.IndexByte(text, 0xd9) < 0 && strings.IndexByte(text, 0xdb) < 0 && strings.IndexByte(text, 0xe0) < 0 && strings.IndexByte(text, 0xef) < 0 {
		return false
	}
	n := 0
	for _, r := range text {
		if r >= utf8.RuneSelf {
			r = plain(r)
		}
		switch {
		case r == '@' || r == '/':
			return true
		case r >= '0' && r <= '9':
			if n++; n >= minPhone {
				return true
			}
		}
	}
	return false
}

// plain is what a character of another keyboard stands for in addresses and numbers, itself for most.
func plain(r rune) rune {
	if r < utf8.RuneSelf {
		return r
	}
	if r >= '\uff01' && r <= '\uff5e' { // full width
		return r - '\uff01' + '!'
	}
	for _, zero := range [...]rune{'\u0660', '\u06f0', '\u0966', '\u09e6', '\u0e50'} { // Arabic, Persian, Devanagari, Bengali, Thai
		if r >= zero && r <= zero+9 {
			return r - zero + '0'
		}
	}
	if r == '\ufe6b' {
		return '@'
	}
	return r
}

// append scans one text from left to right.
func (m *masker) append(text string) {
	if !suspicious(text) {
		m.keep(text)
		return
	}
	m.text, m.kept, m.at, m.looked, m.numbers = text, 0, 0, 0, m.numbers[:0]
	m.run.quote, m.run.opened, m.run.paired = -1, -1, false
	m.lookups = minLookups + len(text)/lookupEvery
	m.begin(0)
	for m.at < len(text) {
		m.step()
	}
	m.keep(text[m.kept:])
}

// step masks what begins or ends at the present character, or goes on behind it.
func (m *masker) step() {
	r, size := m.rune(m.at)
	switch {
	case r == '@':
		m.address()
		return
	case r == ':' && m.scheme(), (r == ':' || r == '/' || r == '?' || r == '#') && m.path(r, size):
		return
	case r == 'w' || r == 'W':
		if m.at == m.run.scheme && hasFold(m.text[m.at:], "www.") {
			m.replace(m.at, m.at+linkSize(m.text[m.at:]), maskedLink)
			return
		}
	case r >= '0' && r <= '9', r == '+', r == '(':
		if m.number() {
			return
		}
	case r == '"' && (m.at == 0 || m.text[m.at-1] != '\\'):
		m.run.opened, m.run.quote, m.run.paired = m.run.quote, m.run.local, !m.run.paired && m.run.quote >= 0
	}
	m.pass(r, size)
}

// rune is the character at i as plain gives it, and its length.
func (m *masker) rune(i int) (rune, int) {
	if c := m.text[i]; c < utf8.RuneSelf {
		return rune(c), 1
	}
	r, size := utf8.DecodeRuneInString(m.text[i:])
	return plain(r), size
}

// pass goes on behind a character that stays, and behind all letters that follow: a run of them has no other
// beginning in it.
func (m *masker) pass(r rune, size int) {
	m.at += size
	if r < utf8.RuneSelf && isLetter(byte(r)) {
		for m.at < len(m.text) && isLetter(m.text[m.at]) {
			m.at++
		}
		m.run.solid = true
		return
	}
	letter := isWord(r)
	if r == '.' {
		m.run.dot = m.at - 1
	}
	if r >= utf8.RuneSelf || !letter && r != '.' && r != '-' && r != '+' {
		m.run.scheme = m.at
	}
	if !letter && !isJoint(r) && r != '_' {
		m.run.word, m.run.dot = m.at, -1
		if !isAtom(r) {
			m.run.local, m.run.solid = m.at, false
		}
	}
	m.run.solid = m.run.solid || letter
}

// begin says that no run goes on across i.
func (m *masker) begin(i int) {
	m.run.local, m.run.word, m.run.scheme = i, i, i
	m.run.solid, m.run.dot = false, -1
}

// replace masks the text between two places, the first of them in the present run.
func (m *masker) replace(start, end int, mask string) {
	if start < m.kept { // a number in the run is masked already, and goes with the run
		m.out = m.out[:m.run.out]
	} else {
		m.keep(m.text[m.kept:start])
	}
	m.out = append(m.out, mask...)
	m.kept, m.at = end, end
	m.begin(end)
}

// address masks the handle or e-mail address with this "@" in it.
func (m *masker) address() {
	name := m.at
	for name < len(m.text) {
		r, size := m.rune(name)
		if r != '@' {
			break
		}
		name += size
	}
	end, beyond := m.name(name)
	quoted := m.isQuoted()
	if end == name && (quoted || m.run.solid) {
		end += literalSize(m.text[name:])
	}
	switch {
	case end == name: // nothing up to beyond can begin a name either
		m.at = beyond
		m.begin(beyond)
	case quoted:
		m.replace(m.run.opened, end, maskedEmail)
	case m.run.solid:
		start := m.run.local
		for start >= m.kept && strings.IndexByte("'`*{|", m.text[start]) >= 0 { // these are around an address more often than in it
			start++
		}
		m.replace(start, end, maskedEmail)
	default:
		m.replace(m.at, end, maskedHandle)
	}
}

// isQuoted reports whether a quoted local part ends right before the present character. A quotation mark that follows a
// space and is not the second of a pair begins something.
func (m *masker) isQuoted() bool {
	if m.at < 2 || m.text[m.at-1] != '"' || m.run.opened < m.kept || m.at-m.run.opened > maxQuoted {
		return false
	}
	before, _ := utf8.DecodeLastRuneInString(m.text[:m.at-1])
	return m.run.paired || !unicode.IsSpace(before)
}

// maxQuoted bounds the quoted local part of an address: four times the 64 bytes that are allowed.
const maxQuoted = 256

// name gives the end of the handle or host that begins at i, i for none: word characters, and between them dots,
// dashes and further "@". beyond is the end of such characters that follow it without a word character.
func (m *masker) name(i int) (end, beyond int) {
	end = i
	for beyond = i; beyond < len(m.text); {
		r, size := m.rune(beyond)
		if r == '_' || isWord(r) {
			end = beyond + size
		} else if r != '@' && !isJoint(r) {
			break
		}
		beyond += size
	}
	return end, beyond
}

// literalSize is the length of a host given by its number in brackets, 0 for none.
func literalSize(s string) int {
	const longest = len("[IPv6:ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255]")
	if s == "" || s[0] != '[' {
		return 0
	}
	end := strings.IndexByte(s[:min(len(s), longest)], ']')
	if end < 0 || strings.Trim(strings.TrimPrefix(s[1:end], "IPv6:"), "0123456789abcdefABCDEF.:") != "" {
		return 0
	}
	return end + 1
}

// scheme masks the link that this colon ends the scheme of, and reports whether there was one.
func (m *masker) scheme() bool {
	rest := m.text[m.at:]
	start := m.run.scheme
	for start < m.at && !isLetter(m.text[start]) {
		start++
	}
	switch {
	case start == m.at:
		return false
	case strings.HasPrefix(rest, "://"):
		m.replace(start, m.at+max(linkSize(rest), len("://")), maskedLink)
		return true
	case !strings.EqualFold(m.text[start:m.at], "mailto") || linkSize(rest) < 2:
		return false
	}
	m.replace(start, m.at+linkSize(rest), maskedLink)
	return true
}

// path masks the handle or link without a scheme that goes on with this character, and reports whether there was one.
func (m *masker) path(r rune, size int) bool {
	next := m.at + size
	if r == '/' && isUserPath(m.text[m.run.word:m.at]) {
		if end, _ := m.name(next); end-next >= minLiteral-1 {
			m.replace(m.run.word, end, maskedHandle)
			return true
		}
	}
	if !m.isHost() {
		return false
	}
	if c := m.text[next:]; r == ':' && (c == "" || !isDigit(c[0])) { // before looking for the end, again and again
		return false
	}
	end := m.at + linkSize(m.text[m.at:])
	if end <= next && r != '/' {
		return false
	}
	m.replace(m.run.word, max(end, next), maskedLink)
	return true
}

// isUserPath reports whether a slash after this word begins a handle as Reddit writes it: u/name, user/name.
func isUserPath(word string) bool { return word == "u" || word == "U" || word == "user" }

// isHost reports whether the word before the present character looks like a host: a dot and then two letters or more.
func (m *masker) isHost() bool {
	const longest = 63 // of a label
	if m.run.dot <= m.run.word || m.at-m.run.dot > longest {
		return false
	}
	label := m.text[m.run.dot+1 : m.at]
	if hasFold(label, "xn--") {
		return true
	}
	letters := 0
	for _, r := range label {
		if !unicode.IsLetter(r) && !unicode.IsMark(r) {
			return false
		}
		letters++
	}
	return letters >= 2
}

// linkSize is the length of the link that s starts with, or of its remainder: up to white space, a quote or a closing
// bracket. An apostrophe inside a word belongs to it.
func linkSize(s string) int {
	size := len(s)
	for i, r := range s {
		if unicode.IsSpace(r) || strings.ContainsRune("<>\"`)]}、。」』）】”»", r) || r == '\'' && !wordAt(s, i+1) {
			size = i
			break
		}
	}
	return len(strings.TrimRight(s[:size], ".,;:!?"))
}

func wordAt(s string, i int) bool {
	r, _ := utf8.DecodeRuneInString(s[i:])
	return r != utf8.RuneError && isWord(r)
}

func hasFold(s, prefix string) bool {
	return len(s) > len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// isLetter reports on ASCII letters only.
func isLetter(c byte) bool { c |= 0x20; return c >= 'a' && c <= 'z' }

// isWord reports whether r may begin and end a name.
func isWord(r rune) bool {
	if r < utf8.RuneSelf {
		return isPlainWord(byte(r))
	}
	return unicode.In(r, unicode.L, unicode.M, unicode.Nd)
}

// isJoint reports whether r may stand inside a handle or host: what people see there, and what they do not see.
func isJoint(r rune) bool {
	if r < utf8.RuneSelf {
		return r == '.' || r == '-' || r == '+' || r == '%'
	}
	return unicode.Is(unicode.Cf, r)
}

// isAtom reports whether r, no word character or joint, may stand in the local part of an e-mail address (RFC 5322).
func isAtom(r rune) bool {
	return r < utf8.RuneSelf && strings.IndexByte("!#$&'*/=?^_`{|}~", byte(r)) >= 0
}

// isLoose reports whether words are written without spaces between them in r's script, so that a name or number ends
// where its characters end.
func isLoose(r rune) bool {
	return r >= '\u0e00' && unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Hangul, unicode.Thai,
		unicode.Lao, unicode.Khmer, unicode.Myanmar)
}

// number masks the telephone number that begins here, and reports whether there was one. The run goes on across it: an
// address may have it in its local part.
func (m *masker) number() bool {
	if m.at >= m.looked {
		m.numbers = m.numbers[:0]
		m.look()
	}
	for len(m.numbers) > 0 && m.numbers[0].start < m.at { // in a link that is masked already
		m.numbers = m.numbers[1:]
	}
	if len(m.numbers) == 0 || m.numbers[0].start != m.at {
		return false
	}
	if m.kept <= m.run.local {
		m.keep(m.text[m.kept:m.run.local])
		m.run.out, m.kept = len(m.out), m.run.local
	}
	m.keep(m.text[m.kept:m.at])
	m.out = append(m.out, maskedPhone...)
	m.kept, m.at = m.numbers[0].end, m.numbers[0].end
	m.run.solid = true
	return true
}

const (
	minPhone = 7  // digits of the shortest national numbers; below are years, prices and doses
	maxPhone = 15 // E.164
	maxJoint = 4  // characters between two groups of digits of a number
	maxRow   = 64 // groups looked at together; longer rows are looked at in parts
	// maxMisses bounds the groups of a row at which no number begins, after which only what begins as numbers with a
	// prefix do is looked at: looking into a country's numbers is expensive, and long rows are tables.
	maxMisses = 4
	// A look into a country's numbers takes as long as scanning a thousand characters. A text may have some dozens, as a
	// post with all the figures of a study needs, and then one for so many bytes. Beyond that, all is a number.
	minLookups  = 128
	lookupEvery = 64
)

// row is digits in groups, with little between them: telephone numbers, dates, tables.
type row struct {
	groups   []group
	numerals []byte // of all groups, in ASCII
	whole    bool   // whether the row ends with the last group
}

type group struct {
	span          // with the plus sign or parenthesis that opens it
	digits   int  // where its own begin
	from, to int  // in numerals
	joint    byte // the only character before it, ' ' for several or other ones
	plus     bool // whether a plus sign opens it
	open     bool // whether a parenthesis does
}

// look finds the telephone numbers in the row that begins here.
func (m *masker) look() {
	m.read()
	w := &m.row
	m.looked = m.at + 1
	misses, doubt := 0, false
	for i := 0; i < len(w.groups); {
		if !w.whole && len(w.groups)-i <= maxPhone { // the end of a number may be missing
			m.looked = max(m.looked, w.groups[i].start)
			return
		}
		m.looked = w.groups[i].end
		if j := w.date(i); j > 0 {
			i = j
			m.looked = w.groups[j-1].end
			continue
		}
		end, sure := 0, false
		if m.mayStart(i, misses, doubt) {
			end, sure = m.longest(i, doubt)
		}
		if end == 0 {
			misses++
			i++
			continue
		}
		misses, doubt = 0, !sure
		if doubt && w.size(end, len(w.groups)) < minPhone {
			end = len(w.groups)
		}
		m.numbers = append(m.numbers, span{m.start(i, end), m.extension(w.groups[end-1].end)})
		m.looked = m.numbers[len(m.numbers)-1].end
		i = end
	}
}

// read splits the row that begins here into groups.
func (m *masker) read() {
	w := &m.row
	w.groups, w.numerals, w.whole = w.groups[:0], w.numerals[:0], true
	for i := m.at; ; {
		g := group{joint: ' '}
		g.start = -1
		n := 0
		for ; i < len(m.text) && n <= maxJoint; n++ {
			r, size := m.rune(i)
			if r >= '0' && r <= '9' {
				break
			}
			c := joint(r)
			if r == '+' && len(w.groups) == 0 && !g.plus {
				c, g.plus = '+', true
			}
			if c == 0 {
				return
			}
			if c == '(' {
				g.open = true
			}
			if c == '+' || c == '(' && g.start < 0 {
				g.start = i
			}
			if g.joint = ' '; n == 0 {
				g.joint = c
			}
			i += size
		}
		if i == len(m.text) || n > maxJoint {
			return
		}
		if len(w.groups) == maxRow {
			w.whole = false
			return
		}
		g.digits, g.from = i, len(w.numerals)
		if g.start < 0 {
			g.start = i
		}
		for i < len(m.text) {
			r, size := m.rune(i)
			if r < '0' || r > '9' {
				break
			}
			w.numerals = append(w.numerals, byte(r))
			i += size
		}
		g.end, g.to = i, len(w.numerals)
		w.groups = append(w.groups, g)
	}
}

// joint is what a character between groups of digits stands for, 0 when it ends the row.
func joint(r rune) byte {
	switch r {
	case ' ', '.', '-', '/', '(', ')':
		return byte(r)
	case '\t', '\u00ad', '\u2060', '\ufeff':
		return ' '
	case '\u00b7':
		return '.'
	case '\u2212', '\u30fc', '\ufe63':
		return '-'
	}
	switch {
	case r < '\u00a0':
		return 0
	case r >= '\u2010' && r <= '\u2015':
		return '-'
	case unicode.Is(unicode.Zs, r), r >= '\u200b' && r <= '\u200f':
		return ' '
	}
	return 0
}

// date gives the end of the date that begins with group i, 0 for none: year, month and day in either order, and the
// same character between them.
func (w *row) date(i int) int {
	if len(w.groups)-i < 3 {
		return 0
	}
	g := w.groups[i : i+3]
	if c := g[1].joint; c != g[2].joint || c != '-' && c != '.' && c != '/' {
		return 0
	}
	if i > 0 && g[0].joint != ' ' || g[0].plus || g[0].open || i+3 < len(w.groups) && w.groups[i+3].joint != ' ' {
		return 0
	}
	year, month, day := w.value(i), w.value(i+1), w.value(i+2)
	if g[2].to-g[2].from == 4 {
		year, day = day, year
		if month > 12 { // as in America
			month, day = day, month
		}
	}
	if year < 1900 || year > 2099 || month < 1 || month > 12 || day < 1 || day > 31 {
		return 0
	}
	return i + 3
}

// value is the number that group i is, 0 for one of more than four digits.
func (w *row) value(i int) (n int) {
	g := &w.groups[i]
	if g.to-g.from > 4 {
		return 0
	}
	for _, c := range w.numerals[g.from:g.to] {
		n = n*10 + int(c-'0')
	}
	return n
}

// mayStart reports whether a number may begin with group i: not right behind a letter or a decimal point.
func (m *masker) mayStart(i, misses int, doubt bool) bool {
	w := &m.row
	g := &w.groups[i]
	if g.plus || g.open || doubt {
		return true
	}
	zero := w.numerals[g.from] == '0'
	if !zero && misses >= maxMisses {
		return false
	}
	if zero && g.to-g.from == 1 && i+1 < len(w.groups) && w.groups[i+1].joint == '.' { // a fraction
		return false
	}
	switch {
	case i == 0:
		r, _ := utf8.DecodeLastRuneInString(m.text[:g.start])
		return !unicode.IsLetter(r) || isLoose(r)
	case g.joint == '.':
		return false
	case g.joint == '-', g.joint == '/':
		return zero
	}
	return true
}

// longest gives the end of the longest number that begins with group i, 0 for none. It prefers one that leaves the
// rest of the row whole, and is sure of that only.
func (m *masker) longest(i int, doubt bool) (end int, sure bool) {
	w := &m.row
	last := i
	for last < len(w.groups) && w.size(i, last+1) <= maxPhone {
		last++
	}
	for j := last; j > i && w.size(i, j) >= minPhone; j-- {
		if w.clean(j) && m.isPhone(i, j, doubt) {
			return j, true
		}
	}
	for j := last; j > i && w.size(i, j) >= minPhone; j-- {
		if !w.clean(j) && m.isPhone(i, j, doubt) {
			return j, false
		}
	}
	return 0, false
}

// size counts the digits of groups i to j.
func (w *row) size(i, j int) int {
	if i == j {
		return 0
	}
	return w.groups[j-1].to - w.groups[i].from
}

// clean reports whether another number, a date or nothing begins with group j.
func (w *row) clean(j int) bool {
	if j == len(w.groups) {
		return w.whole
	}
	g := &w.groups[j]
	return w.date(j) > 0 || g.joint != '.' && g.joint != '-' && (g.open || w.numerals[g.from] == '0') && w.size(j, len(w.groups)) >= minPhone
}

// isPhone reports whether groups i to j are a telephone number.
func (m *masker) isPhone(i, j int, doubt bool) bool {
	w := &m.row
	g, number := w.groups[i:j], w.numerals[w.groups[i].from:w.groups[j-1].to]
	if doubt || g[0].plus || number[0] == '0' && (number[1] == '0' || g[0].open || len(number) >= 9) {
		return true
	}
	if len(g) == 4 && number[0] == '1' && g[0].to-g[0].from == 1 { // the prefix for other towns in America
		g = g[1:]
	}
	if len(g) == 3 && g[0].to-g[0].from == 3 && g[1].to-g[1].from == 3 && g[2].to-g[2].from == 4 {
		return true
	}
	r, _ := utf8.DecodeRuneInString(m.text[w.groups[j-1].end:])
	return !w.years(i, j) && (!unicode.IsLetter(r) || isLoose(r)) && m.isNational(string(number))
}

// years reports whether each of groups i to j is one.
func (w *row) years(i, j int) bool {
	for ; i < j; i++ {
		if year := w.value(i); year < 1900 || year > 2099 {
			return false
		}
	}
	return true
}

// isNational reports whether a number without any prefix is one in the country of the text, or may be.
func (m *masker) isNational(number string) bool {
	if m.lookups--; m.lookups < 0 {
		return true
	}
	country := m.country
	if country == "" {
		country = "US" // the most common style of numbers without any prefix
	}
	parsed, err := phonenumbers.Parse(number, country)
	return err == nil && phonenumbers.IsValidNumber(parsed)
}

// start is where the number of groups i to j begins. A parenthesis belongs to it when it is closed inside.
func (m *masker) start(i, j int) int {
	g := &m.row.groups[i]
	if g.open && !g.plus && !strings.ContainsAny(m.text[g.digits:m.row.groups[j-1].end], ")\uff09") {
		return g.digits
	}
	return g.start
}

// extension gives the end of the extension, as in x89, of the number that ends at i.
func (m *masker) extension(i int) int {
	end := i + 1
	for end < len(m.text) && end-i <= 6 && isDigit(m.text[end]) {
		end++
	}
	if end > i+1 && m.text[i]|0x20 == 'x' {
		return end
	}
	return i
}

// keep copies what no pattern has found, without the names in it.
func (m *masker) keep(text string) {
	for {
		start, end, mask := m.named.find(text)
		if start < 0 {
			m.out = append(m.out, text...)
			return
		}
		m.out = append(append(m.out, text[:start]...), mask...)
		m.met = append(append(m.met, text[start:end]...), 0)
		text = text[end:]
	}
}

const (
	// minLiteral is the shortest handle or id that is looked for as such in any case. Handles of one letter less are
	// looked for as they are written; still shorter ones are ordinary words.
	minLiteral = 4
	// minNumber is the shortest id of digits only; shorter ones are years and doses.
	minNumber = 5
	// maxWords bounds how often a text is looked at for the same name. A longer name is known by its beginning and
	// takes what follows up to a space with it.
	maxWords = 16
)

// named is what an event itself names: ids, handles, its link. They are looked for as whole words. The hash of a name
// up to the end of each of its words leads from word to word, so that the number of names costs no time in the text.
type named struct {
	literals []literal
	places   [256]byte // of each byte in the first three of a name, as bits
	words    map[uint64]uses
	exact    map[string]bool // names that are looked for as they are written
}

type literal struct {
	text string
	uses uses
}

// uses says what the words up to here are, as bits.
type uses uint8

const (
	goesOn     uses = 1 << iota // there are longer names
	isName                      // a whole name
	isLink                      // a whole link
	isExact                     // a whole name when it is written like this
	isCutShort                  // a name's beginning
)

// collect takes the names from an event. Most texts have none of them: the words are taken in when one may have.
func (n *named) collect(e *social.Event) {
	n.literals, n.words = n.literals[:0], nil
	clear(n.places[:])
	n.add(e.URL, isLink)
	n.add(e.Author.Handle, isName|isExact)
	for _, id := range [...]string{
		e.Author.ID, e.InReplyTo.AuthorID, e.Object.AuthorID, e.InReplyTo.ID, e.Object.ID, e.RootID, e.ID,
	} {
		if id != "" {
			n.add(id, isName)
		}
	}
	for i := range e.Mentions {
		n.add(e.Mentions[i].ID, isName)
		n.add(e.Mentions[i].Handle, isName|isExact)
	}
	const wide = 0xef // what is in full width begins with
	if strings.IndexByte(e.Text, wide) >= 0 || strings.IndexByte(e.Title, wide) >= 0 {
		n.anywhere()
	}
}

// add takes one in, without what is around its words. One that may be exact is when it is short.
func (n *named) add(text string, uses uses) {
	text = trim(text)
	switch {
	case len(text) >= minLiteral && !(len(text) < minNumber && isNumber(text)):
		uses &^= isExact
	case len(text) == minLiteral-1 && uses&isExact != 0 && !isNumber(text):
		uses = isExact
	default:
		return
	}
	n.literals = append(n.literals, literal{text, uses})
	for i := range minLiteral - 1 {
		c := text[i]
		if isLetter(c) {
			n.places[c^0x20] |= 1 << i
		}
		n.places[c] |= 1 << i
		if c >= utf8.RuneSelf { // another case may be any
			n.anywhere()
			return
		}
	}
}

// anywhere says that what is not ASCII may stand anywhere in a name.
func (n *named) anywhere() {
	for c := utf8.RuneSelf; c < len(n.places); c++ {
		n.places[c] = 1<<(minLiteral-1) - 1
	}
}

func trim(text string) string {
	if text == "" || isPlainWord(text[0]) && isPlainWord(text[len(text)-1]) {
		return text
	}
	return strings.TrimFunc(text, func(r rune) bool { return !isWord(r) })
}

func isPlainWord(c byte) bool { return isLetter(c) || isDigit(c) }

func isNumber(text string) bool {
	for i := range len(text) {
		if !isDigit(text[i]) {
			return false
		}
	}
	return true
}

// in reports whether there is a name in the text.
func (n *named) in(text string) bool {
	start, _, _ := n.find(text)
	return start >= 0
}

// find gives the first name in the text and its mask, a negative start for none.
func (n *named) find(text string) (start, end int, mask string) {
	if len(n.literals) == 0 {
		return -1, 0, ""
	}
	for i := 0; i+1 < len(text); i += 2 { // two of three bytes are enough to meet every name, at its first or second
		places := n.places[text[i]] & (n.places[text[i+1]] >> 1)
		if places == 0 {
			continue
		}
		for start := max(i-1, 0); start <= i; start++ {
			if beginsWord(text, start) {
				if end, mask := n.match(text[start:]); end > 0 {
					return start, start + end, mask
				}
			}
		}
	}
	return -1, 0, ""
}

// beginsWord reports whether a word begins with the character at i.
func beginsWord(text string, i int) bool {
	if text[i] < utf8.RuneSelf && (i == 0 || text[i-1] < utf8.RuneSelf) {
		return isPlainWord(text[i]) && (i == 0 || !isPlainWord(text[i-1]))
	}
	if !wordAt(text, i) {
		return false
	}
	before, _ := utf8.DecodeLastRuneInString(text[:i])
	r, _ := utf8.DecodeRuneInString(text[i:])
	return !isWord(before) || isLoose(before) || isLoose(r)
}

// match gives the end of the longest name that text begins with, 0 for none.
func (n *named) match(text string) (end int, mask string) {
	if !n.may(text) {
		return 0, ""
	}
	if n.words == nil {
		n.learn()
	}
	for hash, i := range words(text) {
		uses, known := n.words[hash]
		if !known {
			break
		}
		switch {
		case uses&isCutShort != 0:
			end, mask = i+len(text[i:])-len(strings.TrimLeftFunc(text[i:], func(r rune) bool { return !unicode.IsSpace(r) })), maskedHandle
		case uses&isLink != 0:
			end, mask = i, maskedLink
		case uses&isName != 0, uses&isExact != 0 && n.exact[text[:i]]:
			end, mask = i, maskedHandle
		}
		if uses&goesOn == 0 {
			break
		}
	}
	return end, mask
}

// may reports whether a name can begin with the first bytes of text: a look at each of them is less than taking in their
// words. What is not ASCII is not looked at more closely.
func (n *named) may(text string) bool {
	const first = minLiteral - 1
	if len(text) < first {
		return false
	}
	for i := range n.literals {
		name, k := n.literals[i].text, 0
		for k < first && (text[k]|0x20 == name[k]|0x20 || text[k] >= utf8.RuneSelf || name[k] >= utf8.RuneSelf) {
			k++
		}
		if k == first {
			return true
		}
	}
	return false
}

// learn takes the words of all names in.
func (n *named) learn() {
	n.words, n.exact = make(map[uint64]uses, 2*len(n.literals)), nil
	for _, l := range n.literals {
		if l.uses == isExact {
			if n.exact == nil {
				n.exact = map[string]bool{}
			}
			n.exact[l.text] = true
		}
		count := 0
		for hash, i := range words(l.text) {
			count++
			switch {
			case i == len(l.text):
				n.words[hash] |= l.uses
			case count == maxWords:
				n.words[hash] |= isCutShort
			default:
				n.words[hash] |= goesOn
			}
		}
	}
}

// words yields the end of each of the first words of a text, which begins with one, and the hash of all up to there,
// the same in any case and width. The characters of scripts without spaces are words of their own.
func words(text string) func(func(uint64, int) bool) {
	return func(yield func(uint64, int) bool) {
		const offset, prime = 14695981039346656037, 1099511628211 // FNV-1a
		hash, count, word, loose := uint64(offset), 0, false, false
		for i, r := range text {
			within := isWord(r)
			nowLoose := within && isLoose(r)
			if word && (!within || loose || nowLoose) {
				if count++; !yield(hash, i) || count == maxWords {
					return
				}
			}
			word, loose = within, nowLoose
			hash = (hash ^ uint64(fold(r))) * prime
		}
		if word {
			yield(hash, len(text))
		}
	}
}

// fold gives all cases and widths of a character the same one.
func fold(r rune) rune {
	r = plain(r)
	if r < utf8.RuneSelf {
		if isLetter(byte(r)) {
			r |= 0x20
		}
		return r
	}
	return unicode.ToLower(unicode.ToUpper(r))
}
