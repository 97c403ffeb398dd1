package wire

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strconv"
	"time"

	"github.com/segmentio/encoding/json"

	"polyphony/pkg/social"
)

// Facts are what the enricher tells the aggregator besides mentions: statements about posts, and sealed originals.
// They travel in frames, a JSON object a line, on a stream that is not public.

// Facts is the content of fact frames.
type Facts struct {
	Statements []social.Statement
	Originals  []social.Original
}

// rawFact is either a statement or, when Kind is "original", an original.
type rawFact struct {
	Kind         string     `json:"kind"`
	Key          string     `json:"key"`
	Source       string     `json:"source"`
	ObjectKey    string     `json:"object_key,omitempty"`
	ObjectAuthor string     `json:"object_author_key,omitempty"`
	Time         int64      `json:"time,omitempty"` // Unix ms
	RecordedTime int64      `json:"recorded_time"`  // Unix ms
	Counters     *rawTotals `json:"counters,omitempty"`
	Text         string     `json:"text,omitempty"`
	Lang         string     `json:"lang,omitempty"`
	RulesVersion string     `json:"rules_version,omitempty"`
	Sealed       []byte     `json:"sealed,omitempty"`
}

type rawTotals struct {
	Likes   int64 `json:"likes"`
	Replies int64 `json:"replies"`
	Shares  int64 `json:"shares"`
	Views   int64 `json:"views"`
}

const originalKind = "original"

// AppendStatement appends s as one line of a fact frame.
func AppendStatement(dst []byte, s *social.Statement) []byte {
	raw := rawFact{
		Kind: string(s.Kind), Key: s.Key.String(), Source: s.Source,
		ObjectKey: s.ObjectKey.String(), ObjectAuthor: s.ObjectAuthor.String(),
		Time: s.Time.UnixMilli(), RecordedTime: s.RecordedTime.UnixMilli(),
		Text: s.Text, Lang: s.Lang, RulesVersion: s.RulesVersion, Sealed: s.Sealed,
	}
	if s.Kind == social.Counted {
		c := s.Counters
		raw.Counters = &rawTotals{Likes: c.Likes, Replies: c.Replies, Shares: c.Shares, Views: c.Views}
	}
	return appendFact(dst, &raw)
}

// AppendOriginal appends o as one line of a fact frame.
func AppendOriginal(dst []byte, o *social.Original) []byte {
	dst = append(dst, `{"kind":"`+originalKind+`","key":"`...)
	dst = appendHex(dst, o.EventKey[:])
	dst = append(dst, `","source":"`...)
	dst = append(dst, o.Source...)
	dst = append(dst, `","recorded_time":`...)
	dst = strconv.AppendInt(dst, o.RecordedTime.UnixMilli(), 10)
	dst = append(dst, `,"sealed":"`...)
	dst = base64.StdEncoding.AppendEncode(dst, o.Sealed)
	return append(dst, "\"}\n"...)
}

// AppendIdentity appends what leads back to the person behind an event: the plain text of an original.
func AppendIdentity(dst []byte, e *social.Event) []byte {
	for _, field := range [...]struct{ name, value string }{
		{`{"id":`, e.ID}, {`,"url":`, e.URL}, {`,"author_id":`, e.Author.ID}, {`,"handle":`, e.Author.Handle}, {`,"name":`, e.Author.Name},
	} {
		dst = appendString(append(dst, field.name...), field.value)
	}
	return append(dst, '}')
}

// ownOriginal reads a line exactly as AppendOriginal writes it; there is one for every event that concerns a node, and
// the general decoder takes six times as long.
func ownOriginal(line []byte) (o social.Original, ok bool) {
	r := ownReader{rest: line, ok: true}
	r.literal(`{"kind":"` + originalKind + `","key":`)
	o.EventKey = r.key()
	r.literal(`,"source":`)
	o.Source = r.text()
	r.literal(`,"recorded_time":`)
	o.RecordedTime = time.UnixMilli(r.integer()).UTC()
	r.literal(`,"sealed":`)
	text := r.text()
	r.literal("}\n")
	if !r.ok || len(r.rest) > 0 {
		return o, false
	}
	var err error
	o.Sealed, err = base64.StdEncoding.DecodeString(text)
	return o, err == nil
}

func appendFact(dst []byte, raw *rawFact) []byte {
	out, err := json.Append(dst, raw, 0)
	if err != nil {
		panic("BUG: a fact without maps, interfaces or floats cannot fail to encode: " + err.Error())
	}
	return append(out, '\n')
}

// DecodeFacts adds the lines of a decoded fact frame to f. Strings alias lines.
func DecodeFacts(f *Facts, lines []byte) error {
	for line := range bytes.Lines(lines) {
		if err := f.add(line); err != nil {
			return fmt.Errorf("decoding a fact: %w", err)
		}
	}
	return nil
}

func (f *Facts) add(line []byte) error {
	if o, ok := ownOriginal(line); ok {
		f.Originals = append(f.Originals, o)
		return nil
	}
	var raw rawFact
	if _, err := json.Parse(line, &raw, parseFlags); err != nil {
		return err
	}
	key, err := social.ParseKey(raw.Key)
	if err != nil {
		return err
	}
	recorded := time.UnixMilli(raw.RecordedTime).UTC()
	if raw.Kind == originalKind {
		f.Originals = append(f.Originals, social.Original{EventKey: key, Source: raw.Source, RecordedTime: recorded, Sealed: raw.Sealed})
		return nil
	}
	s := social.Statement{
		Key: key, Source: raw.Source, Kind: social.Kind(raw.Kind), Time: time.UnixMilli(raw.Time).UTC(), RecordedTime: recorded,
		Text: raw.Text, Lang: raw.Lang, RulesVersion: raw.RulesVersion, Sealed: raw.Sealed,
	}
	if !s.Kind.IsStatement() {
		return fmt.Errorf("kind %q is no fact", raw.Kind)
	}
	if raw.Counters != nil {
		c := raw.Counters
		s.Counters = social.Counters{Likes: c.Likes, Replies: c.Replies, Shares: c.Shares, Views: c.Views, ObservedAt: s.Time}
	}
	if s.ObjectKey, err = social.ParseKey(raw.ObjectKey); err != nil {
		return err
	}
	if s.ObjectAuthor, err = social.ParseKey(raw.ObjectAuthor); err != nil {
		return err
	}
	f.Statements = append(f.Statements, s)
	return nil
}
