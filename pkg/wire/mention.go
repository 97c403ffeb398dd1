package wire

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/segmentio/encoding/json"

	"polyphony/pkg/social"
)

const (
	// BatchContentType is the media type of every public message: CloudEvents 1.0, JSON batch format.
	BatchContentType = "application/cloudevents-batch+json"
	// MentionType is the CloudEvents type of a mention.
	MentionType = "polyphony.mention.v1"
	// RetractionType is the CloudEvents type of a mention that no longer holds.
	RetractionType = "polyphony.retraction.v1"
	// MaxBatch bounds a public message in bytes; only a batch of one mention may be larger.
	MaxBatch = 256 << 10
)

// A public batch is "[", newline, one CloudEvent a line, "]". BeginBatch, AppendMention for each, EndBatch.

// BeginBatch opens a batch in dst's memory.
func BeginBatch(dst []byte) []byte { return append(dst[:0], "[\n"...) }

// EndBatch closes a batch after its last mention.
func EndBatch(dst []byte) []byte {
	dst = bytes.TrimSuffix(dst, []byte(",\n"))
	return append(dst, "\n]\n"...)
}

// AppendMention appends m, a mention or a retraction, as one CloudEvent on a line of its own. origin is the CloudEvents
// source.
func AppendMention(dst []byte, origin string, m *social.Mention) []byte {
	if m.Retracted {
		dst = append(dst, `{"specversion":"1.0","type":"`+RetractionType+`","source":`...)
	} else {
		dst = append(dst, `{"specversion":"1.0","type":"`+MentionType+`","source":`...)
	}
	dst = appendString(dst, origin)
	dst = append(dst, `,"id":"`...)
	dst = appendHex(dst, m.EventKey[:])
	dst = append(dst, '.')
	dst = append(dst, m.Node.Division...)
	dst = append(dst, '.')
	dst = append(dst, m.Node.Territory...)
	dst = append(dst, '.')
	dst = appendHex(dst, m.Version[:])
	dst = append(dst, `","time":"`...)
	dst = appendTime(dst, m.Time)
	dst = append(dst, `","recordedtime":"`...)
	dst = appendTime(dst, m.RecordedTime)
	dst = append(dst, `","datacontenttype":"application/json","data":`...)
	if m.Retracted {
		dst = append(appendIdentity(dst, m), `"}`...)
	} else {
		dst = AppendMentionData(dst, m)
	}
	return append(dst, "},\n"...)
}

// AppendMentionData appends the data of a mention: the columns of the table mentions, under their names.
func AppendMentionData(dst []byte, m *social.Mention) []byte {
	dst = appendIdentity(dst, m)
	dst = append(dst, `","source":"`...)
	dst = append(dst, m.Source...)
	dst = append(dst, `","kind":"`...)
	dst = append(dst, m.Kind...)
	dst = appendKey(dst, `","author_key":"`, m.AuthorKey)
	dst = appendKey(dst, `","parent_key":"`, m.ParentKey)
	dst = appendKey(dst, `","root_key":"`, m.RootKey)
	dst = appendKey(dst, `","parent_author_key":"`, m.ParentAuthorKey)
	dst = append(dst, `","via":"`...)
	dst = append(dst, m.Via...)
	dst = append(dst, `","account":`...)
	dst = appendString(dst, m.Account)
	dst = appendBool(dst, `,"owned":`, m.Owned)
	dst = appendBool(dst, `,"by_company":`, m.ByCompany)
	dst = appendBool(dst, `,"bot":`, m.Bot)
	dst = append(dst, `,"role":"`...)
	dst = append(dst, m.Role...)
	dst = append(dst, `","role_confidence":`...)
	dst = appendFloat(dst, m.RoleConfidence)
	dst = append(dst, `,"lang":`...)
	dst = appendString(dst, m.Lang)
	dst = append(dst, `,"country":"`...)
	dst = append(dst, m.Country...)
	dst = append(dst, `","country_method":"`...)
	dst = append(dst, m.CountryMethod...)
	dst = append(dst, `","sentiment":`...)
	if m.Sentiment == nil {
		dst = append(dst, "null"...)
	} else {
		dst = appendFloat(dst, *m.Sentiment)
	}
	dst = appendNames(dst, `,"products":[`, m.Products)
	dst = appendNames(dst, `,"competitors":[`, m.Competitors)
	dst = appendNames(dst, `,"topics":[`, m.Topics)
	dst = appendNames(dst, `,"needs":[`, m.Needs)
	dst = appendBool(dst, `,"is_question":`, m.IsQuestion)
	dst = append(dst, `,"ae_elements":`...)
	dst = strconv.AppendUint(dst, uint64(m.AEElements), 10)
	dst = appendBool(dst, `,"ae_screened":`, m.AEScreened)
	dst = appendBool(dst, `,"ae_serious":`, m.AESerious)
	dst = appendBool(dst, `,"offlabel":`, m.OffLabel)
	dst = append(dst, `,"cluster_id":"`...) // a string: JSON numbers of 64 bits lose digits in many languages
	if m.ClusterID != 0 {
		dst = strconv.AppendUint(dst, m.ClusterID, 16)
	}
	dst = append(dst, `","followers":`...)
	dst = strconv.AppendInt(dst, m.Followers, 10)
	dst = append(dst, `,"text":`...)
	dst = appendString(dst, m.Text)
	dst = append(dst, `,"rules_version":"`...)
	dst = append(dst, m.RulesVersion...)
	dst = append(dst, '"')
	if m.Counters != nil {
		dst = appendCounters(dst, m.Counters)
	}
	return append(dst, '}')
}

// appendCounters appends the totals that were told.
func appendCounters(dst []byte, c *social.Counters) []byte {
	dst = append(dst, `,"counters":{"observed_at":"`...)
	dst = appendTime(dst, c.ObservedAt)
	dst = append(dst, '"')
	for _, total := range [...]struct {
		name string
		n    int64
	}{{`,"likes":`, c.Likes}, {`,"replies":`, c.Replies}, {`,"shares":`, c.Shares}, {`,"views":`, c.Views}} {
		if total.n != social.Unreported {
			dst = strconv.AppendInt(append(dst, total.name...), total.n, 10)
		}
	}
	return append(dst, '}')
}

// appendIdentity appends what mentions and retractions have in common, but for the last quote.
func appendIdentity(dst []byte, m *social.Mention) []byte {
	dst = append(dst, `{"division":"`...)
	dst = append(dst, m.Node.Division...)
	dst = append(dst, `","territory":"`...)
	dst = append(dst, m.Node.Territory...)
	dst = appendKey(dst, `","event_key":"`, m.EventKey)
	dst = append(dst, `","version":"`...)
	dst = appendHex(dst, m.Version[:])
	dst = append(dst, `","time":"`...)
	dst = appendTime(dst, m.Time)
	dst = append(dst, `","recorded_time":"`...)
	return appendTime(dst, m.RecordedTime)
}

// appendString appends s as JSON. Most strings need nothing but their quotes, which is seen eight bytes at a time.
func appendString(dst []byte, s string) []byte {
	if !plain(s) {
		return json.AppendEscape(dst, s, 0)
	}
	dst = append(dst, '"')
	dst = append(dst, s...)
	return append(dst, '"')
}

// plain tells whether s is UTF-8 without quotes, backslashes and control characters.
func plain(s string) bool {
	const ones, high, spaces, quotes, slashes = 0x0101010101010101, 0x8080808080808080, 0x2020202020202020, 0x2222222222222222, 0x5c5c5c5c5c5c5c5c
	var seen uint64
	rest := s
	for ; len(rest) >= 8; rest = rest[8:] {
		word := binary.LittleEndian.Uint64([]byte(rest[:8]))
		quote, slash := word^quotes, word^slashes
		if ((word-spaces)&^word|(quote-ones)&^quote|(slash-ones)&^slash)&high != 0 {
			return false
		}
		seen |= word
	}
	for i := range len(rest) {
		if c := rest[i]; c < ' ' || c == '"' || c == '\\' {
			return false
		}
		seen |= uint64(rest[i])
	}
	return seen&high == 0 || utf8.ValidString(s)
}

func appendBool(dst []byte, name string, v bool) []byte {
	return strconv.AppendBool(append(dst, name...), v)
}

func appendFloat(dst []byte, v float32) []byte {
	return strconv.AppendFloat(dst, float64(v), 'g', -1, 32)
}

func appendKey(dst []byte, name string, k social.Key) []byte {
	dst = append(dst, name...)
	if k == (social.Key{}) {
		return dst
	}
	return appendHex(dst, k[:])
}

func appendHex(dst, b []byte) []byte { return hex.AppendEncode(dst, b) }

// appendTime appends RFC 3339 in UTC with milliseconds, for years of four digits; a mention has several times, and the
// general formatter takes as long for one as all the rest of a mention's short fields.
func appendTime(dst []byte, t time.Time) []byte {
	t = t.UTC()
	year, month, day := t.Date()
	hour, minute, second := t.Clock()
	ms := t.Nanosecond() / 1e6
	two := func(n int) (byte, byte) { return byte('0' + n/10), byte('0' + n%10) }
	y1, y2 := two(year / 100 % 100)
	y3, y4 := two(year % 100)
	mo1, mo2 := two(int(month))
	d1, d2 := two(day)
	h1, h2 := two(hour)
	mi1, mi2 := two(minute)
	s1, s2 := two(second)
	return append(dst, y1, y2, y3, y4, '-', mo1, mo2, '-', d1, d2, 'T', h1, h2, ':', mi1, mi2, ':', s1, s2, '.',
		byte('0'+ms/100), byte('0'+ms/10%10), byte('0'+ms%10), 'Z')
}

// appendNames appends names as they stand in the nodes directory: none of them needs escaping.
func appendNames(dst []byte, name string, values []string) []byte {
	dst = append(dst, name...)
	for i, v := range values {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendString(dst, v)
	}
	return append(dst, ']')
}

// rawMention is a CloudEvent of a public batch as it travels.
type rawMention struct {
	Type string      `json:"type"`
	Data mentionData `json:"data"`
}

// mentionData are the data of a mention, or those of a retraction, which has fewer.
type mentionData struct {
	Division        string   `json:"division"`
	Territory       string   `json:"territory"`
	EventKey        string   `json:"event_key"`
	Version         string   `json:"version"`
	Time            string   `json:"time"`
	RecordedTime    string   `json:"recorded_time"`
	Source          string   `json:"source"`
	Kind            string   `json:"kind"`
	AuthorKey       string   `json:"author_key"`
	ParentKey       string   `json:"parent_key"`
	RootKey         string   `json:"root_key"`
	ParentAuthorKey string   `json:"parent_author_key"`
	Via             string   `json:"via"`
	Account         string   `json:"account"`
	Owned           bool     `json:"owned"`
	ByCompany       bool     `json:"by_company"`
	Bot             bool     `json:"bot"`
	Role            string   `json:"role"`
	RoleConfidence  float32  `json:"role_confidence"`
	Lang            string   `json:"lang"`
	Country         string   `json:"country"`
	CountryMethod   string   `json:"country_method"`
	Sentiment       *float32 `json:"sentiment"`
	Products        []string `json:"products"`
	Competitors     []string `json:"competitors"`
	Topics          []string `json:"topics"`
	Needs           []string `json:"needs"`
	IsQuestion      bool     `json:"is_question"`
	AEElements      uint8    `json:"ae_elements"`
	AEScreened      bool     `json:"ae_screened"`
	AESerious       bool     `json:"ae_serious"`
	OffLabel        bool     `json:"offlabel"`
	ClusterID       string   `json:"cluster_id"`
	Followers       int64    `json:"followers"`
	Text            string   `json:"text"`
	RulesVersion    string   `json:"rules_version"`

	Counters *rawCounters `json:"counters"`
}

// DecodeBatch appends the mentions of a public batch to dst. Their strings alias batch. Events of other types are
// skipped, as a reader of CloudEvents does. A bad line does not harm its neighbours: all others are decoded, and the
// error tells of the first bad one and how many there are. An error is ours or a foreign publisher's: the enricher
// writes nothing that this does not read.
func DecodeBatch(dst []social.Mention, batch []byte) ([]social.Mention, error) {
	var first error
	bad := 0
	for event := range BatchEvents(batch) {
		dst = append(dst, social.Mention{}) // decoded in its place: a mention is large
		err := decodeMention(event, &dst[len(dst)-1])
		if err == nil {
			continue
		}
		dst = dst[:len(dst)-1]
		if !errors.Is(err, errOtherType) {
			bad++
			first = cmp.Or(first, err)
		}
	}
	if bad > 0 {
		return dst, fmt.Errorf("decoding mentions: %d bad lines, the first: %w", bad, first)
	}
	return dst, nil
}

// BatchEvents yields the CloudEvents of a public message, each as it stands on its line.
func BatchEvents(batch []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for line := range bytes.Lines(batch) {
			line = bytes.TrimRight(line, "\r\n")
			if len(line) == 0 || len(line) == 1 && (line[0] == '[' || line[0] == ']') {
				continue
			}
			if !yield(bytes.TrimSuffix(line, []byte{','})) {
				return
			}
		}
	}
}

// errOtherType marks a CloudEvent that is not a mention.
var errOtherType = errors.New("not a " + MentionType)

func decodeMention(line []byte, m *social.Mention) error {
	if !decodeOwn(line, m) {
		foreign, err := decodeForeign(line)
		if err != nil {
			return err
		}
		*m = foreign
	}
	return checkMention(m)
}

// checkMention refuses what the tables have no value for, or would store as something else.
func checkMention(m *social.Mention) error {
	switch {
	case m.Retracted && (m.Kind != "" || m.Via != ""):
		return errors.New("a retraction has no kind and no via")
	case !social.ValidName(m.Node.Division) || !social.ValidName(m.Node.Territory) || m.EventKey == (social.Key{}):
		return errors.New("no node or no event_key")
	case !m.Retracted && (!m.Kind.Known() || m.Kind.IsStatement()):
		return fmt.Errorf("kind %q is no mention's", m.Kind)
	case !m.Retracted && m.Via != social.ViaText && m.Via != social.ViaAccount && m.Via != social.ViaThread:
		return fmt.Errorf("via %q is unknown", m.Via)
	case !social.ValidTime(m.Time) || !social.ValidTime(m.RecordedTime):
		return errors.New("time or recorded_time is before 1970 or after 2106-02-06")
	case m.Counters != nil && !social.ValidTime(m.Counters.ObservedAt):
		return errors.New("counters.observed_at is before 1970 or after 2106-02-06")
	}
	return nil
}

// decodeForeign reads a mention whose fields stand in any order.
func decodeForeign(line []byte) (m social.Mention, err error) {
	if err := checkShape(line); err != nil {
		return m, err
	}
	var raw rawMention
	rest, err := json.Parse(line, &raw, parseFlags)
	if err == nil && len(bytes.TrimSpace(rest)) > 0 {
		err = errors.New("more than one value on the line")
	}
	if raw.Type != MentionType && raw.Type != RetractionType || err != nil {
		return m, cmp.Or(otherType(line), err, errors.New("no type"))
	}
	m, err = raw.Data.mention()
	m.Retracted = raw.Type == RetractionType
	return m, err
}

func (d *mentionData) mention() (m social.Mention, err error) {
	m = social.Mention{
		Node:   social.Node{Division: d.Division, Territory: d.Territory},
		Source: d.Source, Kind: social.Kind(d.Kind), Via: social.Via(d.Via),
		Account: d.Account, Owned: d.Owned, ByCompany: d.ByCompany, Bot: d.Bot,
		Role: d.Role, RoleConfidence: d.RoleConfidence, Lang: d.Lang,
		Country: d.Country, CountryMethod: d.CountryMethod, Sentiment: d.Sentiment,
		Products: d.Products, Competitors: d.Competitors, Topics: d.Topics, Needs: d.Needs,
		IsQuestion: d.IsQuestion, AEElements: d.AEElements, AEScreened: d.AEScreened, AESerious: d.AESerious,
		OffLabel: d.OffLabel, Followers: d.Followers, Text: d.Text, RulesVersion: d.RulesVersion,
	}
	if d.ClusterID != "" {
		if m.ClusterID, err = strconv.ParseUint(d.ClusterID, 16, 64); err != nil {
			return m, fmt.Errorf("cluster_id: %w", err)
		}
	}
	if m.Version, err = social.ParseVersion(d.Version); err != nil {
		return m, err
	}
	for _, k := range [...]struct {
		to   *social.Key
		from string
	}{
		{&m.EventKey, d.EventKey}, {&m.AuthorKey, d.AuthorKey}, {&m.ParentKey, d.ParentKey},
		{&m.RootKey, d.RootKey}, {&m.ParentAuthorKey, d.ParentAuthorKey},
	} {
		if *k.to, err = social.ParseKey(k.from); err != nil {
			return m, err
		}
	}
	for _, t := range [...]struct {
		to   *time.Time
		from string
	}{{&m.Time, d.Time}, {&m.RecordedTime, d.RecordedTime}} {
		var ok bool
		if *t.to, ok = parseTime(t.from); !ok {
			return m, fmt.Errorf("time %q is not RFC 3339", t.from)
		}
	}
	if d.Counters != nil {
		m.Counters = new(social.Counters)
		err = d.Counters.read(m.Counters, m.Time)
	}
	return m, err
}

// otherType is errOtherType for a whole CloudEvent of another type, whatever its data look like.
func otherType(line []byte) error {
	var event struct {
		Type string `json:"type"`
	}
	rest, err := json.Parse(line, &event, parseFlags)
	if err == nil && len(bytes.TrimSpace(rest)) == 0 && event.Type != "" && event.Type != MentionType && event.Type != RetractionType {
		return errOtherType
	}
	return nil
}
