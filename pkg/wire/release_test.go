package wire

import (
	"bytes"
	"encoding/base64"
	stdjson "encoding/json"
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/s2"

	"polyphony/pkg/social"
)

var writeRelease = flag.String("write-release", "", "write the messages of this release into testdata/NAME, which must not be there")

// messageKind is one of what lies in streams: as this release writes it, and as it reads what any release wrote.
type messageKind struct {
	write func() []byte
	read  func([]byte) (any, error)
}

var messageKinds = map[string]messageKind{
	"raw.frame": {
		func() []byte {
			return firstFrame([]byte(`{"id":"1","source":"forum","kind":"post","time":"2026-05-25T14:00:00Z","text":"Examplumab helps, ünser Wort","author":{"id":"a","country":"DE"}}` + "\n" +
				`{"source":"forum","kind":"delete","time":"2026-05-25T15:00:00Z","object":{"id":"1"}}` + "\n"))
		},
		func(b []byte) (any, error) {
			lines, err := unframed(b)
			var decoder EventDecoder
			var events []social.Event
			for line := range bytes.Lines(lines) {
				e, wrong := decoder.Decode(bytes.Clone(bytes.TrimSpace(line)))
				if wrong != nil {
					return nil, wrong
				}
				events = append(events, *e)
			}
			return events, err
		},
	},
	"mentions.batch": {
		func() []byte {
			m := exampleMention()
			gone := social.Mention{Node: m.Node, EventKey: m.EventKey, Version: social.Deleted(), Retracted: true, Time: m.Time, RecordedTime: m.RecordedTime}
			return EndBatch(AppendMention(AppendMention(BeginBatch(nil), "/polyphony/acme", &m), "/polyphony/acme", &gone))
		},
		func(b []byte) (any, error) { return DecodeBatch(nil, b) },
	},
	"originals": {
		func() []byte {
			o := social.Original{EventKey: social.Key{1}, Version: exampleMention().Version.Words(), Source: "forum", RecordedTime: releaseTime, Sealed: bytes.Repeat([]byte{0, 1, 255}, 20)}
			return AppendOriginal(AppendOriginal(nil, &o), &o)
		},
		func(b []byte) (any, error) { return DecodeOriginals(nil, b) },
	},
	"references.frame": {
		func() []byte {
			m := exampleMention()
			m.Node, m.Via = social.Node{}, social.ViaThread
			r := social.Reference{Mention: m, Targets: []social.Key{{7}, {8}}, Until: releaseTime.Add(time.Hour), Sealed: []byte{1, 2}}
			kept := social.Reference{Mention: social.Mention{EventKey: m.EventKey, Time: m.Time, RecordedTime: m.RecordedTime}, Targets: []social.Key{{7}},
				Until: releaseTime.Add(time.Hour), Kept: true}
			return firstFrame(AppendReference(AppendReference(nil, &r), &kept))
		},
		func(b []byte) (any, error) {
			lines, err := unframed(b)
			if err != nil {
				return nil, err
			}
			return DecodeReferences(nil, lines)
		},
	},
	"statements.frame": {
		func() []byte {
			edit := social.Statement{Key: social.Key{1}, Source: "forum", Kind: social.Edit, ObjectKey: social.Key{2}, ObjectAuthor: social.Key{3}, Time: releaseTime,
				RecordedTime: releaseTime.Add(time.Second), RulesVersion: "v", Sealed: []byte{9}}
			counted := edit
			counted.Kind, counted.Sealed = social.Counted, nil
			counted.Counters = social.Counters{ObservedAt: releaseTime}
			return firstFrame(AppendStatement(AppendStatement(nil, &edit), &counted))
		},
		func(b []byte) (any, error) {
			lines, err := unframed(b)
			if err != nil {
				return nil, err
			}
			return DecodeStatements(nil, lines)
		},
	},
	"rejects.frame": {
		func() []byte {
			r := Reject{Code: social.InvalidJSON, Detail: "not a JSON object on its own", Source: "forum", RecordedTime: releaseTime, Bytes: []byte("{\n\x00")}
			line := r
			line.Origin = &Origin{Stream: "RAW", Sequence: 7, Line: 3, Subject: "social.raw.forum", Header: map[string][]string{"Polyphony-Rules": {"v"}}}
			return EncodeOne(AppendReject(AppendReject(nil, &r), &line))
		},
		func(b []byte) (any, error) {
			lines, err := unframed(b)
			type whole struct {
				Reject
				Bytes []byte
			}
			var rejects []whole
			for r, wrong := range DecodeRejects(lines) {
				err = errors.Join(err, wrong)
				rejects = append(rejects, whole{r, r.Bytes})
			}
			return rejects, err
		},
	},
}

var releaseTime = time.UnixMilli(1_780_000_000_123).UTC()

func firstFrame(lines []byte) []byte {
	for frame := range EncodeFrame(lines) {
		return frame
	}
	return nil
}

func unframed(frame []byte) ([]byte, error) {
	size, err := s2.DecodedLen(frame)
	if err != nil {
		return nil, err
	}
	return DecodeFrame(nil, frame, size)
}

// TestEveryReleaseIsRead: what an earlier release left in the streams is read as what it was. A release's messages are written once,
// when it is made, and never again:
//
//	go test ./pkg/wire -run TestEveryReleaseIsRead -write-release release-1
func TestEveryReleaseIsRead(t *testing.T) {
	if *writeRelease != "" {
		writeMessages(t, filepath.Join("testdata", *writeRelease))
	}
	releases, err := filepath.Glob("testdata/release-*")
	if err != nil || len(releases) == 0 {
		t.Fatal("no release: ", err)
	}
	for _, dir := range releases {
		for name, kind := range messageKinds {
			text, err := os.ReadFile(filepath.Join(dir, name+".base64"))
			if errors.Is(err, fs.ErrNotExist) && dir != "testdata/release-1" {
				continue // there was no such message yet, or no more
			}
			if err != nil {
				t.Fatal(err)
			}
			message, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(text)))
			if err != nil {
				t.Fatal(err)
			}
			want, err := os.ReadFile(filepath.Join(dir, name+".json"))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), shown(t, kind, message)); diff != "" {
				t.Errorf("%s: %s (-want +got)\n%s", dir, name, diff)
			}
		}
	}
}

// shown is a message as it is read, for people.
func shown(t *testing.T, kind messageKind, message []byte) string {
	t.Helper()
	value, err := kind.read(message)
	if err != nil {
		t.Fatal(err)
	}
	text, err := stdjson.MarshalIndent(value, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(keys.ReplaceAllFunc(text, func(key []byte) []byte { return spaces.ReplaceAll(key, nil) })) + "\n"
}

// keys are arrays of bytes, which are better seen on one line.
var keys, spaces = regexp.MustCompile(`\[\s*(\d+,\s*)*\d+\s*\]`), regexp.MustCompile(`\s+`)

func writeMessages(t *testing.T, dir string) {
	t.Helper()
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, kind := range messageKinds {
		message := kind.write()
		for suffix, text := range map[string]string{".base64": base64.StdEncoding.EncodeToString(message) + "\n", ".json": shown(t, kind, message)} {
			if err := os.WriteFile(filepath.Join(dir, name+suffix), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}
