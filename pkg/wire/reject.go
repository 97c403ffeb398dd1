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

// Reject is an event that could not be processed, with its original bytes. A frame of rejects holds for each a line
// of JSON and then the bytes themselves, so that any bytes whatever come back as they were.
type Reject struct {
	Code         social.Code `json:"code"`
	Detail       string      `json:"detail"`
	Source       string      `json:"source,omitempty"` // as far as it is known
	RecordedTime time.Time   `json:"recorded_time"`
	Size         int         `json:"size"` // of the original
	Kept         int         `json:"kept"` // bytes that follow
	Bytes        []byte      `json:"-"`
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
