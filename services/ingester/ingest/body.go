package ingest

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"mime"
	"net/http"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// errEncoding says that the body is compressed in a way we do not read.
var errEncoding = errors.New("unknown content encoding")

// maxWindow is the largest that the zstd format's own tools can write. It costs nothing: a body is decompressed in one
// piece, which is its own window.
const maxWindow = 2 << 30

// maxBlock is how large the blocks of a zstd frame may be, decompressed.
const maxBlock = 128 << 10

// encodingOf is how a body is compressed: "", "gzip" or "zstd".
func encodingOf(header http.Header) (string, error) {
	encoding := ""
	for one := range strings.SplitSeq(strings.ToLower(strings.Join(header.Values("Content-Encoding"), ",")), ",") {
		switch one = strings.TrimSpace(one); {
		case one == "" || one == "identity":
		case encoding != "":
			return "", errEncoding
		case one == "gzip" || one == "x-gzip":
			encoding = "gzip"
		case one == "zstd":
			encoding = one
		default:
			return "", errEncoding
		}
	}
	return encoding, nil
}

// read reads and decompresses a body into buffer, taking all its copies from the budget as it grows. held is to be
// released.
func (b *budget) read(buffer []byte, w http.ResponseWriter, r *http.Request) (body []byte, held int64, err error) {
	limited := http.MaxBytesReader(w, r.Body, maxBody+1)
	encoding, err := encodingOf(r.Header)
	if err != nil {
		return buffer, 0, err
	}
	switch encoding {
	case "gzip":
		z, err := gzip.NewReader(limited)
		if err != nil {
			return buffer, 0, fmt.Errorf("reading gzip: %w", err)
		}
		return b.readAll(buffer, z)
	case "zstd":
		packed, held, err := b.readAll(nil, limited)
		defer b.release(held)
		if err != nil {
			return buffer, 0, err
		}
		return b.unzstd(buffer, packed)
	}
	return b.readAll(buffer, limited)
}

func (b *budget) readAll(buffer []byte, reader io.Reader) (body []byte, held int64, err error) {
	const step = 64 << 10
	for {
		if copies*int64(len(buffer)) >= held {
			if !b.take(copies * step) {
				return buffer, held, errBusy
			}
			held += copies * step
		}
		if cap(buffer)-len(buffer) < step/2 {
			buffer = append(make([]byte, 0, 2*cap(buffer)+step), buffer...)
		}
		n, err := reader.Read(buffer[len(buffer):min(cap(buffer), int(held/copies))])
		buffer = buffer[:len(buffer)+n]
		var tooLarge *http.MaxBytesError
		switch {
		case len(buffer) > maxBody, errors.As(err, &tooLarge):
			return buffer, held, errTooLarge
		case err == io.EOF:
			return buffer, held, nil
		case err != nil:
			return buffer, held, err
		}
	}
}

// unzstd decompresses into buffer, made larger as long as it does not suffice. A stream's reader would allocate the
// window that the sender declares, however small the body.
func (b *budget) unzstd(buffer, packed []byte) (body []byte, held int64, err error) {
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		return buffer, 0, fmt.Errorf("reading zstd: %w", err)
	}
	defer z.Close()
	for size := 8*len(packed) + 64<<10; ; size *= 4 {
		size = min(size, maxBody+1)
		if grow := copies*int64(size) - held; !b.take(grow) {
			return buffer, held, errBusy
		}
		held = copies * int64(size)
		if cap(buffer) < size {
			buffer = make([]byte, 0, size)
		}
		body, err := z.DecodeAll(packed, buffer[:0:size])
		// Where the size stands nowhere, the block that does not fit looks like a bad one.
		full := errors.Is(err, zstd.ErrDecoderSizeExceeded) || err != nil && len(body)+maxBlock > size
		switch {
		case full && size <= maxBody:
			continue
		case full, len(body) > maxBody:
			return buffer, held, errTooLarge
		case errors.Is(err, zstd.ErrWindowSizeExceeded):
			return buffer, held, errors.New("its zstd window is over 2 GiB: compress with --long=31 or less")
		case err != nil:
			return buffer, held, fmt.Errorf("reading zstd: %w", err)
		}
		return body, held, nil
	}
}

// form is how the events lie in a body.
type form int

const (
	lines      form = iota // NDJSON
	array                  // a JSON array of events
	object                 // one event, on any number of lines
	cloudEvent             // one CloudEvent whose data is the event
	cloudBatch             // a JSON array of CloudEvents
	arrayLines             // NDJSON that begins with a bracket, or a broken array with events on lines of their own
)

// formOf tells the form by the media type where it is definite, by the bytes where it is not: clients often send
// NDJSON under another name.
func formOf(header http.Header, body []byte) (form, error) {
	body = trimBody(body)
	if len(body) == 0 {
		return 0, errors.New("the body is empty")
	}
	media, _, _ := mime.ParseMediaType(header.Get("Content-Type"))
	switch media {
	case "application/cloudevents+json":
		return cloudEvent, nil
	case "application/cloudevents-batch+json":
		return cloudBatch, nil
	case "application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines":
		return lines, nil
	}
	switch {
	case header.Get("ce-specversion") != "":
		return object, nil
	case body[0] == '[' && linesAfterBracket(body):
		return arrayLines, nil
	case body[0] == '[':
		return array, nil
	}
	if first, _, more := bytes.Cut(body, []byte("\n")); more && !json.Valid(first) && json.Valid(body) {
		return object, nil
	}
	if body[0] != '{' && !bytes.Contains(body, []byte("{")) {
		return 0, errors.New("want events as NDJSON, a JSON array or one JSON object")
	}
	return lines, nil
}

// linesAfterBracket tells NDJSON whose first line happens to begin with a bracket from an array, be that cut off or
// with bad elements: a line is an object of its own though the line before it says nothing that an element may follow,
// which is a comma, or the opening bracket of an array. A good line is so never lost to a bad first one.
func linesAfterBracket(body []byte) bool {
	var before []byte // the last line that is not empty
	for line := range bytes.Lines(body) {
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		if line[0] == '{' && len(before) > 0 && !opensElement(before) && json.Valid(bytes.TrimSuffix(line, []byte(","))) {
			return true
		}
		before = line
	}
	return false
}

// opensElement reports whether a value may follow the line in JSON: after a comma, a colon, or a bracket that stands
// alone or after a colon.
func opensElement(line []byte) bool {
	switch last := len(line) - 1; line[last] {
	case ',', ':':
		return true
	case '[':
		line = bytes.TrimSpace(line[:last])
		return len(line) == 0 || line[len(line)-1] == ':'
	}
	return false
}

// trimBody takes off white space and the byte order mark that some editors write.
func trimBody(body []byte) []byte {
	return bytes.TrimSpace(bytes.TrimPrefix(body, []byte("\xef\xbb\xbf")))
}

// events yields each event with its number, counting from 1: of its line, or of its element. An event is one line of
// JSON or bytes that the decoder will refuse.
func (f form) events(body []byte) iter.Seq2[int, []byte] {
	return func(yield func(int, []byte) bool) {
		switch f {
		case lines:
			eachLine(bytes.TrimPrefix(body, []byte("\xef\xbb\xbf")), yield)
		case arrayLines:
			eachLine(trimBody(body), func(n int, line []byte) bool { return yield(n, lineOfArray(line)) })
		case object:
			yield(1, oneLine(trimBody(body)))
		case cloudEvent:
			yield(1, cloudEventData(trimBody(body)))
		case array:
			eachElement(trimBody(body), func(n int, e []byte) bool { return yield(n, oneLine(e)) })
		case cloudBatch:
			eachElement(trimBody(body), func(n int, e []byte) bool { return yield(n, cloudEventData(e)) })
		}
	}
}

func eachLine(body []byte, yield func(int, []byte) bool) {
	n := 0
	for line := range bytes.Lines(body) {
		n++
		if line = bytes.TrimSpace(line); len(line) > 0 && !yield(n, line) {
			return
		}
	}
}

// lineOfArray is the object on a line of an array, without the bracket before it or what is behind it there; any other line as it is.
func lineOfArray(line []byte) []byte {
	inner, first := bytes.CutPrefix(line, []byte("["))
	inner, last := bytes.CutSuffix(inner, []byte("]"))
	inner = bytes.TrimSpace(bytes.TrimSuffix(bytes.TrimSpace(inner), []byte(",")))
	if !(first && last) && bytes.HasPrefix(inner, []byte("{")) && json.Valid(inner) {
		return inner
	}
	return line
}

// eachElement cuts a JSON array at its top-level commas. What follows a fault is yielded as one broken element: so is
// what stands behind the array, and, empty, what is missing of an array that was cut off.
func eachElement(body []byte, yield func(int, []byte) bool) {
	if len(body) == 0 || body[0] != '[' {
		yield(1, body)
		return
	}
	body = bytes.TrimSpace(body[1:])
	for n := 1; ; n++ {
		if len(body) == 0 {
			if n > 1 {
				yield(n, nil)
			}
			return
		}
		if body[0] == ']' {
			if behind := bytes.TrimSpace(body[1:]); len(behind) > 0 {
				yield(n, behind)
			}
			return
		}
		size := elementSize(body)
		if !yield(n, bytes.TrimSpace(body[:size])) || size == len(body) && !json.Valid(body) {
			return
		}
		if size < len(body) && body[size] == ',' {
			size++
		}
		body = bytes.TrimSpace(body[size:])
	}
}

// elementSize is where the first element ends: at a comma or bracket outside of strings and inner brackets.
func elementSize(b []byte) int {
	depth, inString := 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '{' || c == '[':
			depth++
		case depth == 0 && (c == ',' || c == ']'):
			return i
		case c == '}' || c == ']':
			depth--
		}
	}
	return len(b)
}

// cloudEventData is the data of a structured CloudEvent. A CloudEvent without data yields an empty object, whose
// missing fields say the rest.
func cloudEventData(b []byte) []byte {
	var ce struct {
		Data       json.RawMessage `json:"data"`
		DataBase64 []byte          `json:"data_base64"`
	}
	if bytes.HasPrefix(b, []byte("{")) && json.Unmarshal(b, &ce) == nil {
		switch {
		case len(ce.Data) > 0:
			return oneLine(ce.Data)
		case len(ce.DataBase64) > 0:
			return oneLine(bytes.TrimSpace(ce.DataBase64))
		}
		return []byte("{}")
	}
	return oneLine(b)
}

// oneLine folds JSON that was written on several lines; anything else comes back as it is.
func oneLine(b []byte) []byte {
	if bytes.IndexByte(b, '\n') < 0 && bytes.IndexByte(b, '\r') < 0 {
		return b
	}
	var folded bytes.Buffer
	if json.Compact(&folded, b) != nil {
		return b
	}
	return folded.Bytes()
}
