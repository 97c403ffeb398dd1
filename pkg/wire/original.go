package wire

import (
	"encoding/binary"
	"fmt"
	"time"
	"unsafe"

	"polyphony/pkg/social"
)

// A batch of originals is a run of records: 16 bytes event key, 8 bytes recorded time (Unix ms, little endian), then
// source and sealed bytes, each after its length as an unsigned varint. There is one record for every event that
// concerns a node, and ciphertext gains nothing from text formats or compression.

// AppendOriginal appends o to a batch.
func AppendOriginal(dst []byte, o *social.Original) []byte {
	dst = append(dst, o.EventKey[:]...)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(o.RecordedTime.UnixMilli()))
	dst = append(binary.AppendUvarint(dst, uint64(len(o.Source))), o.Source...)
	return append(binary.AppendUvarint(dst, uint64(len(o.Sealed))), o.Sealed...)
}

// DecodeOriginals appends the records of a batch to dst. Their source and sealed bytes alias batch. What stands before
// a bad record is decoded.
func DecodeOriginals(dst []social.Original, batch []byte) ([]social.Original, error) {
	for len(batch) > 0 {
		var o social.Original
		rest, ok := decodeOriginal(&o, batch)
		if !ok {
			return dst, fmt.Errorf("%w: %d bytes that are no original", ErrFrame, len(batch))
		}
		dst = append(dst, o)
		batch = rest
	}
	return dst, nil
}

func decodeOriginal(o *social.Original, batch []byte) (rest []byte, ok bool) {
	const fixed = len(o.EventKey) + 8
	if len(batch) < fixed {
		return nil, false
	}
	copy(o.EventKey[:], batch)
	o.RecordedTime = time.UnixMilli(int64(binary.LittleEndian.Uint64(batch[len(o.EventKey):]))).UTC()
	source, rest, ok := field(batch[fixed:])
	if !ok {
		return nil, false
	}
	o.Source = unsafe.String(unsafe.SliceData(source), len(source))
	o.Sealed, rest, ok = field(rest)
	return rest, ok && social.ValidTime(o.RecordedTime)
}

// field reads a length and as many bytes.
func field(b []byte) (value, rest []byte, ok bool) {
	size, n := binary.Uvarint(b)
	if n <= 0 || size > uint64(len(b)-n) {
		return nil, nil, false
	}
	return b[n : n+int(size)], b[n+int(size):], true
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
