package wire

import (
	"bytes"
	"fmt"
	"iter"
	"time"

	"github.com/segmentio/encoding/json"

	"polyphony/pkg/social"
)

// MaxRejectBytes is how much of an event that is itself too large is kept.
const MaxRejectBytes = 64 << 10

// Reject is an event that could not be processed, with its original bytes; or several short events of one code, one a
// line, where a body had more of them than a reject each could hold in bounds. A frame of rejects holds for each a line
// of JSON and then the bytes themselves, so that any bytes whatever come back as they were.
type Reject struct {
	Code         social.Code `json:"code"`
	Detail       string      `json:"detail"`           // what is wrong; never a value of the event, as it is stored with fewer guards than the bytes
	Source       string      `json:"source,omitempty"` // as far as it is known
	RecordedTime time.Time   `json:"recorded_time"`
	Origin       *Origin     `json:"origin,omitempty"` // nil of an event in a request
	Size         int         `json:"size"`             // of the original
	Kept         int         `json:"kept"`             // bytes that follow
	Bytes        []byte      `json:"-"`
}

// Origin is the message that held a rejected event, so that the event can be put there again. Of a line of a frame, which
// RAW and THREADS hold, the bytes are that line; of any other message they are a message by themselves, with Header.
type Origin struct {
	Stream   string              `json:"stream"`
	Sequence uint64              `json:"sequence,omitempty"` // in the stream, 0 where it is not known any more
	Line     int                 `json:"line,omitempty"`     // which of the message's events it is, from 1; 0 for the whole message
	Subject  string              `json:"subject"`
	Header   map[string][]string `json:"header,omitempty"`
}

// SourceOf is the source that a refused event names, "" when it names none that is valid. It looks for the field only,
// so it finds it in text that is no JSON, too large or nested too deep as well.
func SourceOf(line []byte) string {
	const field = `"source"`
	line = line[:min(len(line), MaxEvent)] // 16 of these are a millisecond each, and no event is longer
	for depth, i := 0, 0; i < len(line); i++ {
		switch line[i] {
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		case '"':
			if depth == 1 && bytes.HasPrefix(line[i:], []byte(field)) {
				if name, ok := nameAfterColon(line[i+len(field):]); ok {
					return name
				}
			}
			i += stringSize(line[i:]) - 1
		}
	}
	return ""
}

// nameAfterColon reads `: "name"`; ok when that is what stands there and the name is a valid one.
func nameAfterColon(b []byte) (name string, ok bool) {
	b, ok = bytes.CutPrefix(bytes.TrimLeft(b, " \t\r\n"), []byte(":"))
	if b = bytes.TrimLeft(b, " \t\r\n"); !ok || len(b) < 2 || b[0] != '"' {
		return "", false
	}
	size := stringSize(b)
	if b[size-1] != '"' || size > social.MaxName+2 {
		return "", false
	}
	name = string(b[1 : size-1])
	return name, social.ValidName(name)
}

// stringSize is the size of the JSON string at the start of b with its quotes, of all of b when it does not end.
func stringSize(b []byte) int {
	for i := 1; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(b)
}

// AppendReject appends r to a frame of rejects that is to be compressed as one: rejects are not split by lines.
func AppendReject(dst []byte, r *Reject) []byte {
	kept := r.Bytes
	if len(kept) > MaxEvent {
		kept = kept[:MaxRejectBytes]
	}
	head := *r
	head.Size, head.Kept = len(r.Bytes), len(kept)
	dst, err := json.Append(dst, &head, 0)
	if err != nil {
		panic("BUG: a reject's head cannot fail to encode: " + err.Error())
	}
	dst = append(append(dst, '\n'), kept...)
	return append(dst, '\n')
}

// DecodeRejects yields the rejects of a decoded frame. Bytes alias frame.
func DecodeRejects(frame []byte) iter.Seq2[Reject, error] {
	return func(yield func(Reject, error) bool) {
		for len(frame) > 0 {
			r, rest, err := decodeReject(frame)
			if err != nil {
				yield(Reject{}, fmt.Errorf("decoding a reject: %w", err))
				return
			}
			if !yield(r, nil) {
				return
			}
			frame = rest
		}
	}
}

func decodeReject(frame []byte) (r Reject, rest []byte, err error) {
	end := bytes.IndexByte(frame, '\n')
	if end < 0 {
		return r, nil, fmt.Errorf("%w: no line end", ErrFrame)
	}
	if _, err = json.Parse(frame[:end], &r, parseFlags); err != nil {
		return r, nil, fmt.Errorf("%w: %v", ErrFrame, err)
	}
	rest = frame[end+1:]
	if r.Kept < 0 || r.Kept >= len(rest) || rest[r.Kept] != '\n' {
		return r, nil, fmt.Errorf("%w: bytes are missing", ErrFrame)
	}
	r.Bytes = rest[:r.Kept]
	return r, rest[r.Kept+1:], nil
}
