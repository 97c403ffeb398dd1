package wire

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/segmentio/encoding/json"

	"polyphony/pkg/social"
)

// rawStatement is a line of a frame of statements, which travel on a stream that is not public.
type rawStatement struct {
	Kind         string     `json:"kind"`
	Key          string     `json:"key"`
	Source       string     `json:"source"`
	ObjectKey    string     `json:"object_key,omitempty"`
	ObjectAuthor string     `json:"object_author_key,omitempty"`
	Time         int64      `json:"time,omitempty"` // Unix ms
	RecordedTime int64      `json:"recorded_time"`  // Unix ms
	Counters     *rawTotals `json:"counters,omitempty"`
	RulesVersion string     `json:"rules_version,omitempty"`
	Sealed       []byte     `json:"sealed,omitempty"`
}

type rawTotals struct {
	Likes   int64 `json:"likes"`
	Replies int64 `json:"replies"`
	Shares  int64 `json:"shares"`
	Views   int64 `json:"views"`
}

// AppendStatement appends s as one line of a frame.
func AppendStatement(dst []byte, s *social.Statement) []byte {
	raw := rawStatement{
		Kind: string(s.Kind), Key: s.Key.String(), Source: s.Source,
		ObjectKey: s.ObjectKey.String(), ObjectAuthor: s.ObjectAuthor.String(),
		Time: s.Time.UnixMilli(), RecordedTime: s.RecordedTime.UnixMilli(),
		RulesVersion: s.RulesVersion, Sealed: s.Sealed,
	}
	if s.Kind == social.Counted {
		c := s.Counters
		raw.Counters = &rawTotals{Likes: c.Likes, Replies: c.Replies, Shares: c.Shares, Views: c.Views}
	}
	out, err := json.Append(dst, &raw, 0)
	if err != nil {
		panic("BUG: a statement without maps, interfaces or floats cannot fail to encode: " + err.Error())
	}
	return append(out, '\n')
}

// DecodeStatements appends the lines of a decoded frame to dst. Strings alias lines. What stands before a bad line is
// decoded.
func DecodeStatements(dst []social.Statement, lines []byte) ([]social.Statement, error) {
	for line := range bytes.Lines(lines) {
		s, err := decodeStatement(line)
		if err != nil {
			return dst, fmt.Errorf("decoding a statement: %w", err)
		}
		dst = append(dst, s)
	}
	return dst, nil
}

func decodeStatement(line []byte) (s social.Statement, err error) {
	if err := checkShape(line); err != nil {
		return s, err
	}
	var raw rawStatement
	if _, err := json.Parse(line, &raw, parseFlags); err != nil {
		return s, err
	}
	s = social.Statement{
		Source: raw.Source, Kind: social.Kind(raw.Kind), Time: time.UnixMilli(raw.Time).UTC(), RecordedTime: time.UnixMilli(raw.RecordedTime).UTC(),
		RulesVersion: raw.RulesVersion, Sealed: raw.Sealed,
	}
	if !s.Kind.IsStatement() {
		return s, fmt.Errorf("kind %q is no statement", raw.Kind)
	}
	if c := raw.Counters; c != nil {
		s.Counters = social.Counters{Likes: c.Likes, Replies: c.Replies, Shares: c.Shares, Views: c.Views, ObservedAt: s.Time}
	}
	if s.Key, err = social.ParseKey(raw.Key); err != nil {
		return s, err
	}
	if s.ObjectKey, err = social.ParseKey(raw.ObjectKey); err != nil {
		return s, err
	}
	if s.ObjectAuthor, err = social.ParseKey(raw.ObjectAuthor); err != nil {
		return s, err
	}
	ofAuthor := s.Kind == social.Delete && s.ObjectAuthor != (social.Key{})
	switch {
	case !social.ValidTime(s.Time) || !social.ValidTime(s.RecordedTime):
		return s, errors.New("a time that the tables have no place for")
	case s.Key == (social.Key{}) || s.ObjectKey == (social.Key{}) && !ofAuthor:
		return s, errors.New("it is about nothing")
	case s.Kind == social.Counted && raw.Counters == nil:
		return s, errors.New("it tells no totals")
	}
	return s, nil
}
