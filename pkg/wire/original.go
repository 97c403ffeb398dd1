package wire

import (
	"encoding/binary"
	"fmt"
	"strings"
	"time"
	"unsafe"

	"github.com/segmentio/encoding/json"

	"polyphony/pkg/social"
)

// A batch of originals is a run of records: 16 bytes event key, 16 bytes version, 8 bytes recorded time (Unix ms, little
// endian), then source and sealed bytes, each after its length as an unsigned varint. There is one record for every event that
// concerns a node, and ciphertext gains nothing from text formats or compression.

// AppendOriginal appends o to a batch.
func AppendOriginal(dst []byte, o *social.Original) []byte {
	dst = append(append(dst, o.EventKey[:]...), o.Version[:]...)
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
	const keys = len(o.EventKey) + len(o.Version)
	const fixed = keys + 8
	if len(batch) < fixed {
		return nil, false
	}
	copy(o.EventKey[:], batch)
	copy(o.Version[:], batch[len(o.EventKey):])
	o.RecordedTime = time.UnixMilli(int64(binary.LittleEndian.Uint64(batch[keys:]))).UTC()
	source, rest, ok := field(batch[fixed:])
	if !ok {
		return nil, false
	}
	o.Source = unsafe.String(unsafe.SliceData(source), len(source))
	o.Sealed, rest, ok = field(rest)
	return rest, ok && social.ValidTime(o.RecordedTime) && o.Version == o.Version.Words() && o.Version.Revision() == 0
}

// field reads a length and as many bytes.
func field(b []byte) (value, rest []byte, ok bool) {
	size, n := binary.Uvarint(b)
	if n <= 0 || size > uint64(len(b)-n) {
		return nil, nil, false
	}
	return b[n : n+int(size)], b[n+int(size):], true
}

// AppendIdentity appends what leads back to the person behind an event, and what its mention, which has the text kept,
// does not tell of it: the plain text of an original. With both, the event can be routed again.
func AppendIdentity(dst []byte, e *social.Event, kept string) []byte {
	for _, field := range [...]struct{ name, value string }{
		{`{"id":`, e.ID}, {`,"url":`, e.URL}, {`,"author_id":`, e.Author.ID}, {`,"handle":`, e.Author.Handle}, {`,"name":`, e.Author.Name},
		{`,"account":`, e.Account}, {`,"title":`, e.Title},
	} {
		if field.value != "" || field.name[0] == '{' {
			dst = appendString(append(dst, field.name...), field.value)
		}
	}
	if len(e.Hashtags) > 0 {
		dst = appendNames(dst, `,"hashtags":[`, e.Hashtags)
	}
	if len(e.Links) > 0 {
		dst = appendNames(dst, `,"links":[`, e.Links)
	}
	if len(e.Mentions) > 0 {
		dst = appendPersons(append(dst, `,"mentions":`...), e.Mentions)
	}
	dst = appendRef(dst, `,"in_reply_to":`, e.InReplyTo)
	dst = appendRef(dst, `,"object":`, e.Object)
	if e.RootID != "" {
		dst = appendString(append(dst, `,"root_id":`...), e.RootID)
	}
	if textOf(kept, e.Title) != e.Text { // some of it is masked there
		dst = appendString(append(dst, `,"text":`...), e.Text)
	}
	return append(dst, '}')
}

func appendPersons(dst []byte, persons []social.Person) []byte {
	dst = append(dst, '[')
	for i, p := range persons {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendString(append(dst, `{"id":`...), p.ID)
		dst = append(appendString(append(dst, `,"handle":`...), p.Handle), '}')
	}
	return append(dst, ']')
}

func appendRef(dst []byte, name string, ref social.Ref) []byte {
	if ref == (social.Ref{}) {
		return dst
	}
	dst = appendString(append(append(dst, name...), `{"id":`...), ref.ID)
	return append(appendString(append(dst, `,"author_id":`...), ref.AuthorID), '}')
}

// textOf is a mention's text without the title, with which it begins.
func textOf(kept, title string) string {
	if title == "" {
		return kept
	}
	_, text, _ := strings.Cut(kept, "\n")
	return text
}

// DecodeIdentity puts back into e, whose text is that of its mention, what AppendIdentity wrote of it. Strings alias
// identity.
func DecodeIdentity(e *social.Event, identity []byte) error {
	var raw struct {
		ID       string   `json:"id"`
		URL      string   `json:"url"`
		AuthorID string   `json:"author_id"`
		Handle   string   `json:"handle"`
		Name     string   `json:"name"`
		Account  string   `json:"account"`
		Title    string   `json:"title"`
		Hashtags []string `json:"hashtags"`
		Links    []string `json:"links"`
		Mentions []struct {
			ID     string `json:"id"`
			Handle string `json:"handle"`
		} `json:"mentions"`
		InReplyTo struct {
			ID       string `json:"id"`
			AuthorID string `json:"author_id"`
		} `json:"in_reply_to"`
		Object struct {
			ID       string `json:"id"`
			AuthorID string `json:"author_id"`
		} `json:"object"`
		RootID string  `json:"root_id"`
		Text   *string `json:"text"`
	}
	if _, err := json.Parse(identity, &raw, parseFlags); err != nil {
		return fmt.Errorf("decoding an original: %w", err)
	}
	e.ID, e.URL, e.Account, e.Title, e.Hashtags = raw.ID, raw.URL, raw.Account, raw.Title, raw.Hashtags
	e.Author.ID, e.Author.Handle, e.Author.Name = raw.AuthorID, raw.Handle, raw.Name
	e.Links, e.Mentions = raw.Links, nil
	for _, m := range raw.Mentions {
		e.Mentions = append(e.Mentions, social.Person{ID: m.ID, Handle: m.Handle})
	}
	e.InReplyTo, e.Object, e.RootID = social.Ref(raw.InReplyTo), social.Ref(raw.Object), raw.RootID
	if e.Text = textOf(e.Text, raw.Title); raw.Text != nil {
		e.Text = *raw.Text
	}
	return nil
}
