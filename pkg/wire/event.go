// Package wire turns bytes into nouns and back: canonical events, raw frames, the public batches of mentions and the
// internal facts. It is pure: no I/O, no clock. Bytes from outside give a *social.Invalid, never a panic.
package wire

import (
	"bytes"
	"encoding/binary"
	stdjson "encoding/json"
	"errors"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/segmentio/encoding/json"

	"polyphony/pkg/social"
)

const (
	// MaxEvent bounds one event in bytes: one MiB is fifty times the longest post of any network.
	MaxEvent = 1 << 20
	// maxDepth bounds nesting; the canonical event needs three levels. The parser recurses, its stack must not.
	maxDepth = 64
	// maxTotal is 2^53-1, which every language can read. It leaves room for the sums of a thousand such totals.
	maxTotal = 1<<53 - 1

	parseFlags = json.ZeroCopy | json.DontMatchCaseInsensitiveStructFields
)

// EventDecoder decodes canonical events one at a time, reusing its memory: an event is valid until the next call,
// and its strings alias the line it was decoded from.
type EventDecoder struct {
	raw   rawEvent
	event social.Event
	ctrs  social.Counters
}

// rawEvent is the canonical event as it travels.
type rawEvent struct {
	ID        string      `json:"id"`
	Source    string      `json:"source"`
	Kind      string      `json:"kind"`
	Time      string      `json:"time"`
	Text      string      `json:"text"`
	Title     string      `json:"title"`
	Lang      string      `json:"lang"`
	URL       string      `json:"url"`
	Author    rawAuthor   `json:"author"`
	Account   string      `json:"account"`
	InReplyTo rawRef      `json:"in_reply_to"`
	RootID    string      `json:"root_id"`
	Object    rawRef      `json:"object"`
	Place     rawPlace    `json:"place"`
	Mentions  []rawPerson `json:"mentions"`
	Hashtags  []string    `json:"hashtags"`
	Links     []string    `json:"links"`
	Counters  rawCounters `json:"counters"`
}

type rawAuthor struct {
	ID        string `json:"id"`
	Handle    string `json:"handle"`
	Name      string `json:"name"`
	Bio       string `json:"bio"`
	Location  string `json:"location"`
	Country   string `json:"country"`
	Followers int64  `json:"followers"`
	Verified  bool   `json:"verified"`
	Bot       bool   `json:"bot"`
}

type rawRef struct {
	ID       string `json:"id"`
	AuthorID string `json:"author_id"`
}

type rawPlace struct {
	Country string `json:"country"`
}

type rawPerson struct {
	ID     string `json:"id"`
	Handle string `json:"handle"`
}

// rawCounters are pointers: a total that is absent differs from one that is zero.
type rawCounters struct {
	Likes      *int64 `json:"likes"`
	Replies    *int64 `json:"replies"`
	Shares     *int64 `json:"shares"`
	Views      *int64 `json:"views"`
	ObservedAt string `json:"observed_at"`
}

// Decode reads one event and checks it against the contract, all but its time against the clock.
// The error is a *social.Invalid.
func (d *EventDecoder) Decode(line []byte) (*social.Event, error) {
	if len(line) > MaxEvent {
		return nil, invalid(social.TooLarge, "event over 1 MiB")
	}
	if !utf8.Valid(line) {
		return nil, invalid(social.InvalidUTF8, "event is not UTF-8")
	}
	if err := checkShape(line); err != nil {
		return nil, err
	}
	raw := &d.raw
	*raw = rawEvent{Mentions: emptied(raw.Mentions), Hashtags: emptied(raw.Hashtags), Links: emptied(raw.Links)}
	rest, err := json.Parse(line, raw, parseFlags|plainFlag(line))
	if err != nil || len(bytes.TrimSpace(rest)) > 0 {
		return nil, explainParse(line)
	}
	return d.check()
}

// emptied makes room for the next event's list. The parser leaves alone what an element does not mention, and all of
// an element that is null, so nothing of the last event's may stay. Rare long lists are let go.
func emptied[T any](list []T) []T {
	const keep = 256
	list = list[:cap(list)]
	if len(list) > keep {
		return nil
	}
	clear(list)
	return list[:0]
}

// checkShape refuses what the parser would accept or choke on: anything but an object, and deep nesting.
func checkShape(line []byte) error {
	trimmed := bytes.TrimLeft(line, " \t\r\n")
	if len(trimmed) == 0 || trimmed[0] != '{' {
		return invalid(social.InvalidJSON, "want a JSON object")
	}
	if bytes.Count(line, []byte("{"))+bytes.Count(line, []byte("[")) > maxDepth && nesting(line) > maxDepth {
		return invalid(social.InvalidJSON, "nested more than 64 levels deep")
	}
	return nil
}

// plainFlag spares lines without control characters a second look at each of their strings. The parser sets this
// flag itself, but for ASCII only: it then copies every other string rune by rune, to mend bytes that are not UTF-8,
// which Decode has refused already. The flag is not exported; TestDecodeEventCopiesNothing fails when it goes.
func plainFlag(line []byte) json.ParseFlags {
	const noControlCharacters = 1 << 28
	for ; len(line) >= 8; line = line[8:] { // eight at a time: is any byte less than a space?
		word := binary.LittleEndian.Uint64(line)
		if (word-0x2020202020202020)&^word&0x8080808080808080 != 0 {
			return 0
		}
	}
	for _, c := range line {
		if c < ' ' {
			return 0
		}
	}
	return noControlCharacters
}

// nesting is the greatest number of brackets open at once outside strings.
func nesting(b []byte) int {
	depth, deepest, inString := 0, 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '{' || c == '[':
			if depth++; depth > deepest {
				deepest = depth
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return deepest
}

// explainParse finds out what the fast parser disliked: the text is no JSON, or a field has another type.
func explainParse(line []byte) error {
	if !stdjson.Valid(line) {
		return invalid(social.InvalidJSON, "not a JSON object on its own")
	}
	var e rawEvent
	err := stdjson.Unmarshal(line, &e)
	var wrong *stdjson.UnmarshalTypeError
	if errors.As(err, &wrong) {
		kind, _, _ := strings.Cut(wrong.Value, " ") // what follows "number" is the number itself
		return invalid(social.InvalidField, wrong.Field+": a JSON "+kind+" does not fit")
	}
	return invalid(social.InvalidJSON, "unusual JSON")
}

// check moves the raw fields into d.event and holds them against the contract.
func (d *EventDecoder) check() (*social.Event, error) {
	raw, e := &d.raw, &d.event
	kind := social.Kind(raw.Kind)
	switch {
	case raw.Source == "":
		return nil, invalid(social.MissingField, "source")
	case !social.ValidName(raw.Source):
		return nil, invalid(social.InvalidField, "source: want [a-z][a-z0-9-]{0,31}")
	case raw.Kind == "":
		return nil, invalid(social.MissingField, "kind")
	case !kind.Known():
		return nil, invalid(social.UnknownKind, "kind: none of post, reply, share, reaction, follow, view, edit, delete, counters")
	case raw.Time == "":
		return nil, invalid(social.MissingField, "time")
	case raw.ID == "" && !kind.IsStatement():
		return nil, invalid(social.MissingField, "id")
	case raw.Author.ID == "" && !kind.IsStatement():
		return nil, invalid(social.MissingField, "author.id")
	case raw.Object.ID == "" && kind.NeedsObject() && (kind != social.Delete || raw.Object.AuthorID == ""):
		return nil, invalid(social.MissingField, "object.id")
	case raw.Author.Followers < 0:
		return nil, invalid(social.InvalidField, "author.followers: negative")
	}
	for _, id := range [...]struct{ name, value string }{
		{"id", raw.ID}, {"author.id", raw.Author.ID}, {"account", raw.Account}, {"root_id", raw.RootID},
		{"object.id", raw.Object.ID}, {"object.author_id", raw.Object.AuthorID},
		{"in_reply_to.id", raw.InReplyTo.ID}, {"in_reply_to.author_id", raw.InReplyTo.AuthorID},
	} {
		if len(id.value) > social.MaxID {
			return nil, invalid(social.InvalidField, id.name+": over 1 KiB")
		}
	}
	at, ok := parseTime(raw.Time)
	if !ok {
		return nil, invalid(social.InvalidField, "time: want RFC 3339")
	}
	place, ok := country(raw.Place.Country)
	if !ok {
		return nil, invalid(social.InvalidField, "place.country: want two letters (ISO 3166-1)")
	}
	home, ok := country(raw.Author.Country)
	if !ok {
		return nil, invalid(social.InvalidField, "author.country: want two letters (ISO 3166-1)")
	}
	counters, err := d.counters(at)
	if err != nil {
		return nil, err
	}
	if counters == nil && kind == social.Counted {
		return nil, invalid(social.MissingField, "counters")
	}

	mentions := e.Mentions[:0]
	for _, m := range raw.Mentions {
		if m != (rawPerson{}) {
			mentions = append(mentions, social.Person(m))
		}
	}
	*e = social.Event{
		Source: raw.Source, ID: raw.ID, Kind: kind, Time: at,
		Title: raw.Title, Text: raw.Text, Lang: language(raw.Lang), URL: raw.URL,
		Hashtags: withoutEmpty(raw.Hashtags), Links: withoutEmpty(raw.Links), Mentions: mentions,
		Author: social.Author{
			ID: raw.Author.ID, Handle: raw.Author.Handle, Name: raw.Author.Name, Bio: raw.Author.Bio,
			Location: raw.Author.Location, Country: home,
			Followers: raw.Author.Followers, Verified: raw.Author.Verified, Bot: raw.Author.Bot,
		},
		Account: raw.Account, InReplyTo: social.Ref(raw.InReplyTo), RootID: raw.RootID, Object: social.Ref(raw.Object),
		PlaceCountry: place, Counters: counters,
	}
	return e, nil
}

// counters gives the totals that the event carries, nil when it carries none.
func (d *EventDecoder) counters(at time.Time) (*social.Counters, error) {
	raw := &d.raw.Counters
	if raw.Likes == nil && raw.Replies == nil && raw.Shares == nil && raw.Views == nil {
		return nil, nil
	}
	if err := raw.read(&d.ctrs, at); err != nil {
		return nil, err
	}
	return &d.ctrs, nil
}

// read gives the totals that were told. They hold from the event's own time where the network does not say when it
// counted.
func (raw *rawCounters) read(c *social.Counters, at time.Time) error {
	c.ObservedAt = at
	for _, total := range [...]struct {
		name string
		from *int64
		to   *int64
	}{
		{"likes", raw.Likes, &c.Likes}, {"replies", raw.Replies, &c.Replies},
		{"shares", raw.Shares, &c.Shares}, {"views", raw.Views, &c.Views},
	} {
		if *total.to = social.Unreported; total.from == nil {
			continue
		}
		if *total.from < 0 || *total.from > maxTotal {
			return invalid(social.InvalidField, "counters."+total.name+": want 0 to 9007199254740991")
		}
		*total.to = *total.from
	}
	if raw.ObservedAt != "" {
		observed, ok := parseTime(raw.ObservedAt)
		if !ok {
			return invalid(social.InvalidField, "counters.observed_at: want RFC 3339")
		}
		c.ObservedAt = observed
	}
	return nil
}

// parseTime reads RFC 3339 with any offset, in either case of its letters, and cuts it to milliseconds.
func parseTime(s string) (time.Time, bool) {
	if t, ok := parseUpper(s); ok {
		return t.Truncate(time.Millisecond), true
	}
	s = strings.ToUpper(s)
	if t, ok := parseUpper(s); ok {
		return t.Truncate(time.Millisecond), true
	}
	// The second that some days have more, 23:59:60 in UTC, is the last millisecond before it: Go's times have none.
	const seconds = len("2006-01-02T15:04:")
	if len(s) < seconds+2 || s[seconds:seconds+2] != "60" {
		return time.Time{}, false
	}
	t, ok := parseUpper(s[:seconds] + "59" + s[seconds+2:])
	return t.Truncate(time.Second).Add(999 * time.Millisecond), ok && t.Hour() == 23 && t.Minute() == 59
}

// parseUpper refuses what the standard library takes besides RFC 3339: an hour of one digit, a comma before the
// fraction, offsets of 24 hours or with 60 minutes.
func parseUpper(s string) (time.Time, bool) {
	t, err := time.Parse(time.RFC3339Nano, s)
	const hour = len("2006-01-02T15")
	if err != nil || s[hour] != ':' || s[hour+len(":04:05")] == ',' {
		return time.Time{}, false
	}
	if s[len(s)-1] != 'Z' {
		if offset := s[len(s)-len("07:00"):]; offset[:2] > "23" || offset[3:] > "59" {
			return time.Time{}, false
		}
	}
	return t.UTC(), true
}

// language gives a language tag, or "" for what does not look like one. It goes into public messages as it is, so it
// must not carry whatever a sender writes there.
func language(s string) string {
	const longest = 35 // what RFC 5646 asks buffers to hold
	if len(s) > longest {
		return ""
	}
	for i := range len(s) {
		c := s[i]
		if letter := c|0x20 >= 'a' && c|0x20 <= 'z'; !letter && (i == 0 || (c < '0' || c > '9') && c != '-' && c != '_') {
			return ""
		}
	}
	return s
}

// withoutEmpty drops the elements that say nothing, null among them.
func withoutEmpty(list []string) []string {
	return slices.DeleteFunc(list, func(s string) bool { return s == "" })
}

// country gives an ISO 3166-1 code in upper case; "" stays "".
func country(s string) (string, bool) {
	if s == "" {
		return "", true
	}
	if len(s) != 2 {
		return "", false
	}
	a, b := s[0]&^0x20, s[1]&^0x20
	if a < 'A' || a > 'Z' || b < 'A' || b > 'Z' {
		return "", false
	}
	if a == s[0] && b == s[1] {
		return s, true
	}
	return strings.ToUpper(s), true
}

func invalid(code social.Code, detail string) *social.Invalid {
	return &social.Invalid{Code: code, Detail: detail}
}
