package wire

import (
	"bytes"
	"errors"
	"fmt"
	"iter"

	"github.com/klauspost/compress/s2"
)

const (
	// MaxFrameDecoded bounds what a reader must hold for one frame: one event of the greatest size and, in a frame of
	// rejects, what came before it.
	MaxFrameDecoded = MaxEvent + 512<<10
	// frameTarget is the decoded size that frames are cut to: social events compress about three to four times, so
	// this is near MaxFrameEncoded without a second try.
	frameTarget = 512 << 10
	// MaxFrameEncoded keeps stream messages small enough that consumers' windows hold many of them.
	// Only a frame of one single event may be larger.
	MaxFrameEncoded = 256 << 10
)

// ErrFrame marks bytes that are no frame: our bug or somebody else's message, never a sender's fault.
var ErrFrame = errors.New("not a frame")

// EncodeFrame compresses NDJSON lines, each ending in a newline, into as few frames as the bounds allow and yields
// each with the number of its lines and its decoded size. The yielded bytes are the caller's.
func EncodeFrame(lines []byte) iter.Seq2[[]byte, FrameInfo] {
	return func(yield func([]byte, FrameInfo) bool) { encodeFrame(lines, yield) }
}

// FrameInfo says what is in a frame.
type FrameInfo struct{ Events, Size int }

func encodeFrame(lines []byte, yield func([]byte, FrameInfo) bool) bool {
	if len(lines) == 0 {
		return true
	}
	n := bytes.Count(lines, []byte{'\n'})
	if n > 1 && len(lines) > frameTarget {
		return encodeHalves(lines, yield)
	}
	frame := s2.Encode(nil, lines)
	if n > 1 && len(frame) > MaxFrameEncoded {
		return encodeHalves(lines, yield)
	}
	return yield(frame, FrameInfo{Events: n, Size: len(lines)})
}

// encodeHalves splits at the line end nearest before the middle, or at the first one after it.
func encodeHalves(lines []byte, yield func([]byte, FrameInfo) bool) bool {
	half := bytes.LastIndexByte(lines[:len(lines)/2], '\n')
	if half < 0 {
		half = len(lines)/2 + bytes.IndexByte(lines[len(lines)/2:], '\n')
	}
	return encodeFrame(lines[:half+1], yield) && encodeFrame(lines[half+1:], yield)
}

// EncodeOne compresses bytes that must stay together into one frame.
func EncodeOne(content []byte) []byte { return s2.Encode(nil, content) }

// DecodeFrame gives back the lines of a frame, in dst's memory where it suffices. size is the declared size; a frame
// that would grow beyond it, or beyond the bound, is refused before anything is allocated.
func DecodeFrame(dst, frame []byte, size int) ([]byte, error) {
	n, err := s2.DecodedLen(frame)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrFrame, err)
	}
	if n > MaxFrameDecoded || n != size {
		return nil, fmt.Errorf("%w: holds %d bytes, declared %d, at most %d", ErrFrame, n, size, MaxFrameDecoded)
	}
	if cap(dst) < n {
		dst = make([]byte, n)
	}
	lines, err := s2.Decode(dst[:n], frame)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrFrame, err)
	}
	return lines, nil
}
