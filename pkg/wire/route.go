package wire

import (
	stdjson "encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/segmentio/encoding/json"

	"polyphony/pkg/social"
)

// Edit asks where an edited event belongs now: its own bytes are sealed, and rules are the enricher's business.
type Edit struct {
	RulesVersion string         // that the edit was accepted under
	RecordedTime time.Time      // when the edit was accepted
	Version      social.Version // of what becomes of the event
	Line         []byte         // the edit as it came, sealed
	Original     []byte         // what leads back to the author, sealed
	Base         social.Mention // the event as first written
}

// Edited is the answer: the event as it stands now, of no node, and in each node that it concerns by itself.
type Edited struct {
	Self     social.Mention
	Mentions []social.Mention
}

type rawEdit struct {
	RulesVersion string             `json:"rules_version"`
	RecordedTime int64              `json:"recorded_time"` // Unix ms
	Version      string             `json:"version"`
	Line         []byte             `json:"line"`
	Original     []byte             `json:"original"`
	Base         stdjson.RawMessage `json:"base"`
}

type rawEdited struct {
	Fault    string               `json:"fault,omitempty"` // why there is no answer
	Never    bool                 `json:"never,omitempty"` // nor will there be one
	Self     stdjson.RawMessage   `json:"self,omitempty"`
	Mentions []stdjson.RawMessage `json:"mentions,omitempty"`
}

// EncodeEdit and DecodeEdit are the question on its way.
func EncodeEdit(e *Edit) []byte {
	return encoded(&rawEdit{RulesVersion: e.RulesVersion, RecordedTime: e.RecordedTime.UnixMilli(), Version: e.Version.String(),
		Line: e.Line, Original: e.Original, Base: AppendMentionData(nil, &e.Base)})
}

// DecodeEdit reads what EncodeEdit writes.
func DecodeEdit(b []byte) (e Edit, err error) {
	var raw rawEdit
	if _, err := json.Parse(b, &raw, parseFlags); err != nil {
		return e, fmt.Errorf("decoding an edit: %w", err)
	}
	e = Edit{RulesVersion: raw.RulesVersion, RecordedTime: time.UnixMilli(raw.RecordedTime).UTC(), Line: raw.Line, Original: raw.Original}
	if e.Version, err = social.ParseVersion(raw.Version); err != nil {
		return e, fmt.Errorf("decoding an edit: %w", err)
	}
	e.Base, err = DecodeMentionData(raw.Base)
	return e, err
}

// ErrUnroutable says of an edit that it can be applied neither now nor later.
var ErrUnroutable = errors.New("unroutable")

// EncodeEdited and DecodeEdited are the answer on its way; fault tells why there is none. The words, which may be many,
// travel once: they are the same in every mention.
func EncodeEdited(e *Edited, fault error) []byte {
	if fault != nil {
		return encoded(&rawEdited{Fault: fault.Error(), Never: errors.Is(fault, ErrUnroutable)})
	}
	raw := rawEdited{Self: AppendMentionData(nil, &e.Self)}
	for i := range e.Mentions {
		m := e.Mentions[i]
		m.Text = ""
		raw.Mentions = append(raw.Mentions, AppendMentionData(nil, &m))
	}
	return encoded(&raw)
}

// DecodeEdited reads what EncodeEdited writes.
func DecodeEdited(b []byte) (e Edited, err error) {
	var raw rawEdited
	if _, err := json.Parse(b, &raw, parseFlags); err != nil {
		return e, fmt.Errorf("decoding an edited event: %w", err)
	}
	switch {
	case raw.Never:
		return e, fmt.Errorf("%w: %s", ErrUnroutable, strings.TrimPrefix(raw.Fault, ErrUnroutable.Error()+": "))
	case raw.Fault != "":
		return e, fmt.Errorf("routing an edit: %s", raw.Fault)
	}
	if e.Self, err = DecodeMentionData(raw.Self); err != nil {
		return e, err
	}
	for _, data := range raw.Mentions {
		m, err := DecodeMentionData(data)
		if err != nil {
			return e, err
		}
		m.Text = e.Self.Text
		e.Mentions = append(e.Mentions, m)
	}
	return e, nil
}

func encoded(v any) []byte {
	b, err := json.Append(nil, v, 0)
	if err != nil {
		panic("BUG: our own JSON cannot fail to encode: " + err.Error())
	}
	return b
}
