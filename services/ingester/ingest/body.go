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

	"github.com/klauspost/compress/zstd"
)

// errEncoding says that the body is compressed in a way we do not read.
var errEncoding = errors.New("unknown content encoding")

// maxWindow bounds what a zstd stream may make its reader allocate; the standard's own recommendation is 8 MiB.
const maxWindow = 8 << 20

// decompress wraps a body by its Content-Encoding. What comes out is bounded by the reader of it.
func decompress(encoding string, body io.Reader) (io.Reader, func(), error) {
	switch encoding {
	case "", "identity":
		return body, func() {}, nil
	case "gzip", "x-gzip":
		z, err := gzip.NewReader(body)
		if err != nil {
			return nil, nil, fmt.Errorf("reading gzip: %w", err)
		}
		return z, func() { _ = z.Close() }, nil
	case "zstd":
		z, err := zstd.NewReader(body, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, nil, fmt.Errorf("reading zstd: %w", err)
		}
		return z, z.Close, nil
	}
	return nil, nil, errEncoding
}

// form is how the events lie in a body.
type form int

const (
	lines      form = iota // NDJSON
	array                  // a JSON array of events
	object                 // one event, on any number of lines
	cloudEvent             // one CloudEvent whose data is the event
	cloudBatch             // a JSON array of CloudEvents
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
