package wire

import (
	"bytes"
	stdjson "encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/segmentio/encoding/json"

	"polyphony/pkg/social"
)

// rawReference is a line of a frame of references, which travel on a stream that is not public.
type rawReference struct {
	Until   int64              `json:"until"` // Unix ms
	Targets []string           `json:"targets"`
	Kept    bool               `json:"kept,omitempty"`
	Sealed  []byte             `json:"sealed,omitempty"`
	Data    stdjson.RawMessage `json:"data,omitempty"` // as of a mention; of an event that is one by itself only what follows
	Event   string             `json:"event_key,omitempty"`
	Time    int64              `json:"time,omitempty"`          // Unix ms
	Since   int64              `json:"recorded_time,omitempty"` // Unix ms
}

// AppendReference appends r as one line of a frame.
func AppendReference(dst []byte, r *social.Reference) []byte {
	raw := rawReference{Until: r.Until.UnixMilli(), Kept: r.Kept}
	if m := &r.Mention; r.Kept {
		raw.Event, raw.Time, raw.Since = m.EventKey.String(), m.Time.UnixMilli(), m.RecordedTime.UnixMilli()
	} else {
		raw.Sealed, raw.Data = r.Sealed, AppendMentionData(nil, m)
	}
	for _, k := range r.Targets {
		raw.Targets = append(raw.Targets, k.String())
	}
	out, err := json.Append(dst, &raw, 0)
	if err != nil {
		panic("BUG: a reference's own JSON cannot fail to encode: " + err.Error())
	}
	return append(out, '\n')
}

// DecodeReferences appends the lines of a decoded frame to dst. Strings alias lines. What stands before a bad line is
// decoded.
func DecodeReferences(dst []social.Reference, lines []byte) ([]social.Reference, error) {
	for line := range bytes.Lines(lines) {
		r, err := decodeReference(line)
		if err != nil {
			return dst, fmt.Errorf("decoding a reference: %w", err)
		}
		dst = append(dst, r)
	}
	return dst, nil
}

func decodeReference(line []byte) (r social.Reference, err error) {
	if err := checkShape(line); err != nil {
		return r, err
	}
	var raw rawReference
	if _, err := json.Parse(line, &raw, parseFlags); err != nil {
		return r, err
	}
	r.Until, r.Kept, r.Sealed = time.UnixMilli(raw.Until).UTC(), raw.Kept, raw.Sealed
	for _, s := range raw.Targets {
		k, err := social.ParseKey(s)
		if err != nil {
			return r, err
		}
		r.Targets = append(r.Targets, k)
	}
	if raw.Kept {
		r.Mention.Time, r.Mention.RecordedTime = time.UnixMilli(raw.Time).UTC(), time.UnixMilli(raw.Since).UTC()
		r.Mention.EventKey, err = social.ParseKey(raw.Event)
	} else {
		r.Mention, err = DecodeMentionData(raw.Data)
	}
	switch {
	case err != nil:
		return r, err
	case !social.ValidTime(r.Until) || !social.ValidTime(r.Mention.Time) || !social.ValidTime(r.Mention.RecordedTime):
		return r, errors.New("a time that the tables have no place for")
	case r.Mention.EventKey == (social.Key{}) || len(r.Targets) == 0 || slices.Contains(r.Targets, social.Key{}):
		return r, errors.New("it refers from or to nothing")
	}
	return r, nil
}

// DecodeMentionData reads what AppendMentionData writes, also of no node. Strings alias data.
func DecodeMentionData(data []byte) (social.Mention, error) {
	var raw mentionData
	if _, err := json.Parse(data, &raw, parseFlags); err != nil {
		return social.Mention{}, fmt.Errorf("decoding a mention's data: %w", err)
	}
	return raw.mention()
}
