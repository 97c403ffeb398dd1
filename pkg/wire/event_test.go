package wire

import (
	"bytes"
	stdjson "encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"polyphony/pkg/social"
)

func TestDecodeEvent(t *testing.T) {
	f := func(line string, want social.Event) {
		t.Helper()
		var d EventDecoder
		got, err := d.Decode([]byte(line))
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if want.Hashtags == nil {
			want.Hashtags = []string{}
		}
		normal := *got
		for _, list := range []*[]string{&normal.Hashtags, &normal.Links, &want.Hashtags, &want.Links} {
			if len(*list) == 0 {
				*list = nil
			}
		}
		if len(normal.Mentions) == 0 {
			normal.Mentions = nil
		}
		if diff := cmp.Diff(want, normal); diff != "" {
			t.Fatalf("%s\n%s", line, diff)
		}
	}
	at := time.Date(2026, 5, 25, 12, 23, 28, 757e6, time.UTC)
	f(`{"id":"1","source":"x","kind":"post","time":"2026-05-25T14:23:28.7579+02:00","author":{"id":"a"}}`,
		social.Event{ID: "1", Source: "x", Kind: social.Post, Time: at, Author: social.Author{ID: "a"}})
	f(`{"id":"1","source":"x","kind":"post","time":"2026-05-25t12:23:28.757z","author":{"id":"a","country":"de","followers":3},"place":{"country":"AT"},"new_field":[{}]}`,
		social.Event{ID: "1", Source: "x", Kind: social.Post, Time: at, PlaceCountry: "AT",
			Author: social.Author{ID: "a", Country: "DE", Followers: 3}})
	f(`{"source":"x","kind":"delete","time":"2026-05-25T12:23:28.757Z","object":{"author_id":"a"}}`,
		social.Event{Source: "x", Kind: social.Delete, Time: at, Object: social.Ref{AuthorID: "a"}})
	f(`{"source":"x","kind":"counters","time":"2026-05-25T12:23:28.757Z","object":{"id":"1"},"counters":{"likes":0,"views":7}}`,
		social.Event{Source: "x", Kind: social.Counted, Time: at, Object: social.Ref{ID: "1"},
			Counters: &social.Counters{Replies: social.Unreported, Shares: social.Unreported, Views: 7, ObservedAt: at}})
	f(`{"id":"2","source":"x","kind":"reply","time":"2026-05-25T12:23:28.757Z","author":{"id":"a"},"in_reply_to":{"id":"1","author_id":"b"},"root_id":"0","mentions":[{"id":"m","handle":"h"}],"hashtags":["t"],"links":["l"],"text":"\u00e4\n"}`,
		social.Event{ID: "2", Source: "x", Kind: social.Reply, Time: at, Author: social.Author{ID: "a"}, Text: "ä\n",
			InReplyTo: social.Ref{ID: "1", AuthorID: "b"}, RootID: "0", Mentions: []social.Person{{ID: "m", Handle: "h"}},
			Hashtags: []string{"t"}, Links: []string{"l"}})
}

func TestDecodeEventRefuses(t *testing.T) {
	f := func(line string, code social.Code, detail string) {
		t.Helper()
		var d EventDecoder
		_, err := d.Decode([]byte(line))
		var bad *social.Invalid
		if !errors.As(err, &bad) {
			t.Fatalf("%.100s: got %v, want %s", line, err, code)
		}
		if bad.Code != code || !strings.HasPrefix(bad.Detail, detail) {
			t.Fatalf("%.100s: got %v, want %s: %s", line, bad, code, detail)
		}
	}
	with := func(fields string) string {
		return `{"id":"1","source":"x","kind":"post","time":"2026-05-25T14:23:28Z","author":{"id":"a"},` + fields + `}`
	}
	f(``, social.InvalidJSON, "")
	f(`null`, social.InvalidJSON, "want a JSON object")
	f(`[]`, social.InvalidJSON, "want a JSON object")
	f(`{"id":"1"`, social.InvalidJSON, "")
	f(`{"id":"1"} {"id":"2"}`, social.InvalidJSON, "")
	f(with(`"deep":`+strings.Repeat(`[`, 100)+strings.Repeat(`]`, 100)), social.InvalidJSON, "nested")
	f(with(`"broken":[tru]`), social.InvalidJSON, "")
	f("{\"id\":\"a\x01\"}", social.InvalidJSON, "")
	f("{\"id\":\"\xff\"}", social.InvalidUTF8, "")
	f(`{"text":"`+strings.Repeat("x", MaxEvent)+`"}`, social.TooLarge, "")
	f(`{}`, social.MissingField, "source")
	f(`{"source":"x"}`, social.MissingField, "kind")
	f(`{"source":"x","kind":"post"}`, social.MissingField, "time")
	f(`{"source":"x","kind":"post","time":"2026-05-25T14:23:28Z"}`, social.MissingField, "id")
	f(`{"source":"x","kind":"post","time":"2026-05-25T14:23:28Z","id":"1"}`, social.MissingField, "author.id")
	f(`{"source":"x","kind":"share","time":"2026-05-25T14:23:28Z","id":"1","author":{"id":"a"}}`, social.MissingField, "object.id")
	f(`{"source":"x","kind":"edit","time":"2026-05-25T14:23:28Z","object":{"author_id":"a"}}`, social.MissingField, "object.id")
	f(`{"source":"x","kind":"delete","time":"2026-05-25T14:23:28Z"}`, social.MissingField, "object.id")
	f(`{"source":"x","kind":"counters","time":"2026-05-25T14:23:28Z","object":{"id":"1"}}`, social.MissingField, "counters")
	f(`{"source":"x","kind":"poke","time":"2026-05-25T14:23:28Z"}`, social.UnknownKind, "")
	f(`{"source":"X!","kind":"post","time":"2026-05-25T14:23:28Z"}`, social.InvalidField, "source")
	f(`{"id":5}`, social.InvalidField, "id: a JSON number does not fit")
	f(with(`"text":{}`), social.InvalidField, "text")
	f(with(`"counters":{"likes":1.5}`), social.InvalidField, "counters.likes: a JSON number does not fit")
	f(with(`"counters":{"likes":-1}`), social.InvalidField, "counters.likes: want 0 to 9007199254740991")
	f(with(`"counters":{"views":9007199254740992}`), social.InvalidField, "counters.views: want 0 to 9007199254740991")
	f(with(`"counters":{"likes":1,"observed_at":"noon"}`), social.InvalidField, "counters.observed_at")
	f(with(`"place":{"country":"Germany"}`), social.InvalidField, "place.country")
	f(with(`"root_id":"`+strings.Repeat("r", social.MaxID+1)+`"`), social.InvalidField, "root_id: over 1 KiB")
	f(`{"source":"x","kind":"post","time":"yesterday","id":"1","author":{"id":"a"}}`, social.InvalidField, "time")
}

// Times are RFC 3339 and nothing besides.
func TestParseTime(t *testing.T) {
	f := func(text, want string) {
		t.Helper()
		got := ""
		if at, ok := parseTime(text); ok {
			got = at.Format("2006-01-02T15:04:05.000Z07:00")
		}
		if got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
	f("2026-05-25T14:23:28Z", "2026-05-25T14:23:28.000Z")
	f("2026-05-25t14:23:28.7579+02:00", "2026-05-25T12:23:28.757Z")
	f("2026-05-25T14:23:28-23:59", "2026-05-26T14:22:28.000Z")
	f("2026-05-25T14:23:28.123456789012Z", "2026-05-25T14:23:28.123Z")
	f("2026-05-25T1:23:45Z", "")
	f("2026-05-25T14:23:28,5Z", "")
	f("2026-05-25T14:23:28.Z", "")
	f("2026-05-25T14:23:28+24:00", "")
	f("2026-05-25T14:23:28+01:60", "")
	f("2026-05-25T14:23:28+0100", "")
	f("2026-05-25T24:00:00Z", "")
	f("2026-02-29T14:23:28Z", "")
	f("2026-05-25 14:23:28Z", "")
	f("2026-05-25T14:23:28", "")
	f("2026-05-25T14:23:28Z ", "")
	f("2016-12-31T23:59:60Z", "2016-12-31T23:59:59.999Z")
	f("2016-12-31t23:59:60.25z", "2016-12-31T23:59:59.999Z")
	f("2017-01-01T05:29:60+05:30", "2016-12-31T23:59:59.999Z")
	f("2016-12-31T23:58:60Z", "")
	f("2016-12-31T23:59:60+01:00", "")
	f("2016-12-31T23:59:61Z", "")
	f("2016-12-31T23:59:60,5Z", "")
}

// What does not look like a language tag does not pass for one: it would stand in public messages.
func TestLanguage(t *testing.T) {
	f := func(tag, want string) {
		t.Helper()
		var d EventDecoder
		line, _ := stdjson.Marshal(map[string]any{"id": "1", "source": "x", "kind": "post", "time": "2026-05-25T14:23:28Z", "author": map[string]string{"id": "a"}, "lang": tag})
		e, err := d.Decode(line)
		if err != nil {
			t.Fatalf("%q: %v", tag, err)
		}
		if e.Lang != want {
			t.Errorf("%q is %q, want %q", tag, e.Lang, want)
		}
	}
	for _, tag := range []string{"", "de", "pt_BR", "zh-Hans-CN", "DE", "de-CH-1996", "x-klingon", "de-" + strings.Repeat("a", 32)} {
		f(tag, tag)
	}
	for _, tag := range []string{"jane.doe@example.com", "x\n]", "4de", "-de", "de ", "dé", "@de", "[de", "de{", "de-" + strings.Repeat("a", 33)} {
		f(tag, "")
	}
}

// A refused event still says whose it is, whatever is wrong with it, and never anything but a name.
func TestSourceOf(t *testing.T) {
	f := func(line, want string) {
		t.Helper()
		if got := SourceOf([]byte(line)); got != want {
			t.Errorf("%.100s: %q, want %q", line, got, want)
		}
	}
	f(`{"id":5,"source":"x"}`, "x")
	f(`{"author":{"source":"y"},"text":"\"source\":\"z\"","source" : "x"`, "x")
	f(`{"list":["source",{"source":"y"}],"source":"x","broken`, "x")
	f(`{"text":"}}\\","source":"x"}`, "x")
	f("{\"text\":\"\xff\",\"source\":\"x-2\"}", "x-2")
	f(`{"source":"x","text":"`+strings.Repeat("x", MaxEvent)+`"}`, "x")
	f(`{"source":"x","deep":`+strings.Repeat("[", 100_000), "x")
	f(`{"source":"a2345678901234567890123456789012"}`, "a2345678901234567890123456789012")
	f(`{"source":"a23456789012345678901234567890123"}`, "")
	f(`{"text":"source","kind":"x"}`, "")
	f(`{"text":"`+strings.Repeat("x", MaxEvent)+`","source":"x"}`, "")
	for _, bad := range []string{``, `{`, `null`, `{"source"`, `{"source":`, `{"source":"`, `{"source":"x`, `{"source":"x\"`, `{"source":5}`, `{"source":null}`,
		`{"source":""}`, `{"source":"jane.doe@example.com"}`, `{"source":"X"}`, `{"source" "x"}`, `[{"source":"x"}]`} {
		f(bad, "")
	}
}

// The details of a refusal go into answers and tables: they must not carry what the event says.
func TestDecodeEventRefusalsCarryNoValues(t *testing.T) {
	for _, line := range []string{
		`{"source":"x","kind":"post","time":"2026-05-25T14:23:28Z","id":"1","author":{"id":424242}}`,
		`{"source":"x","kind":"post","time":"424242","id":"1","author":{"id":"a"}}`,
		`{"source":"x","kind":"post","time":"2026-05-25T14:23:28Z","id":"1","author":{"id":"a","country":"424242"}}`,
		`{"source":"424242","kind":"post"}`, `{"source":"x","kind":"424242"}`, `{"id":"424242"`,
	} {
		var d EventDecoder
		if _, err := d.Decode([]byte(line)); err == nil || strings.Contains(err.Error(), "424242") {
			t.Errorf("%s: %v", line, err)
		}
	}
}

// An event holds nothing of the one before it.
func TestDecoderForgets(t *testing.T) {
	var d EventDecoder
	if _, err := d.Decode([]byte(`{"id":"1","source":"x","kind":"post","time":"2026-05-25T14:23:28Z","author":{"id":"a","bot":true},"counters":{"likes":1},"hashtags":["h"],"mentions":[{"id":"m"}],"text":"t"}`)); err != nil {
		t.Fatal(err)
	}
	e, err := d.Decode([]byte(`{"id":"2","source":"y","kind":"post","time":"2026-05-25T14:23:28Z","author":{"id":"b"}}`))
	if err != nil {
		t.Fatal(err)
	}
	if e.Counters != nil || e.Author.Bot || e.Text != "" || len(e.Hashtags)+len(e.Mentions)+len(e.Links) > 0 {
		t.Fatalf("left over: %+v", e)
	}
}

// A control character is found wherever it stands, among bytes of any kind.
func TestPlainFlag(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		line := rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "line")
		if got, want := plainFlag(line) != 0, !bytes.ContainsFunc(line, func(r rune) bool { return r < ' ' }); got != want {
			t.Fatalf("%q: got %v, want %v", line, got, want)
		}
	})
}

// Strings without escapes alias the line, whatever their script.
func TestDecodeEventCopiesNothing(t *testing.T) {
	line := []byte(`{"id":"1","source":"x","kind":"post","time":"2026-05-25T14:23:28Z","author":{"id":"a"},"text":"` + strings.Repeat("Grüße 薬 ", 100) + `"}`)
	var d EventDecoder
	e, err := d.Decode(line)
	if err != nil {
		t.Fatal(err)
	}
	before := e.Text
	copy(line[bytes.Index(line, []byte("Gr")):], "XX")
	if e.Text[:2] != "XX" {
		t.Errorf("the text was copied: %.10s", before)
	}
}

// The fast parser accepts nothing that the standard library refuses, and never panics.
func FuzzDecodeEvent(f *testing.F) {
	f.Add([]byte(`{"id":"1","source":"x","kind":"post","time":"2026-05-25T14:23:28.757Z","author":{"id":"a"},"text":"\ud83d\ude00 \u00e4"}`))
	f.Add([]byte(`{"source":"x","kind":"counters","time":"2026-05-25T12:23:28Z","object":{"id":"1"},"counters":{"likes":9223372036854775807}}`))
	f.Add([]byte("{\"a\":\"\xff\"}"))
	f.Add([]byte(strings.Repeat(`{"a":`, 100)))
	f.Fuzz(func(t *testing.T, line []byte) {
		var d EventDecoder
		e, err := d.Decode(line)
		if err != nil {
			var bad *social.Invalid
			if !errors.As(err, &bad) {
				t.Fatalf("not a refusal: %v", err)
			}
			if source := SourceOf(line); source != "" && !social.ValidName(source) {
				t.Fatalf("%q is no source", source)
			}
			return
		}
		if !stdjson.Valid(line) {
			t.Fatalf("accepted what is no JSON: %q", line)
		}
		var raw rawEvent
		if err := stdjson.Unmarshal(line, &raw); err == nil && !bytes.Contains(bytes.ToLower(line), []byte(`\u`)) && raw.Source == e.Source && raw.Text != e.Text {
			t.Fatalf("text differs from the standard library's: %q, %q", raw.Text, e.Text)
		}
	})
}

// go test -run '^$' -bench DecodeEvent -benchmem ./pkg/wire
func BenchmarkDecodeEvent(b *testing.B) {
	line := []byte(benchEvent)
	var d EventDecoder
	b.SetBytes(int64(len(line)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.Decode(line); err != nil {
			b.Fatal(err)
		}
	}
}

// benchEvent is about 700 bytes, as the pipeline's benchmark sends them.
var benchEvent = `{"id":"post-0000000000000001","source":"bluesky","kind":"post","time":"2026-05-25T14:23:28.757Z","text":"` +
	strings.Repeat("Somebody wrote a few words about how it went. ", 8) +
	`","lang":"en","url":"https://social.example/p/1","author":{"id":"author-000001","handle":"somebody.example","name":"Some Body","country":"DE","followers":120},"hashtags":["health"],"counters":{"likes":1,"replies":0,"shares":2}}`

// Nothing of one event shows in the next, whatever the next leaves out.
func TestEventsDoNotMix(t *testing.T) {
	const head = `{"source":"x","kind":"post","time":"2026-05-25T14:23:28Z",`
	full := head + `"id":"1","title":"t","text":"t","lang":"de","url":"u","account":"a","root_id":"r","place":{"country":"DE"},` +
		`"author":{"id":"a","handle":"h","name":"n","bio":"b","location":"l","country":"DE","followers":1,"verified":true,"bot":true},` +
		`"in_reply_to":{"id":"i","author_id":"j"},"object":{"id":"o","author_id":"p"},"mentions":[{"id":"m","handle":"h"},{"handle":"k"}],` +
		`"hashtags":["x","y"],"links":["l"],"counters":{"likes":1,"observed_at":"2026-05-25T14:23:28Z"}}`
	broken := head + `"id":"1","author":{"id":"a"},"mentions":[{"id":"q","handle":"r"},{"id":5}]}`
	bare := head + `"id":"2","author":{"id":"c"},"mentions":[{"id":"d"},{}],"hashtags":[],"counters":{}}`
	var fresh, used EventDecoder
	want, err := fresh.Decode([]byte(bare))
	if err != nil {
		t.Fatal(err)
	}
	for _, before := range []string{full, broken, full + "x"} {
		_, _ = used.Decode([]byte(before))
		got, err := used.Decode([]byte(bare))
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" || err != nil {
			t.Errorf("after %.60s: %v\n%s", before, err, diff)
		}
	}
}

// What a decoder decoded before makes no difference, whatever is null or missing.
func TestUsedDecoderIsAsGoodAsNew(t *testing.T) {
	word := rapid.SampledFrom([]string{`"a"`, `"b"`, `""`, `null`, `null`})
	var used EventDecoder
	rapid.Check(t, func(t *rapid.T) {
		text := func(name string) string { return word.Draw(t, name) }
		list := func(name string, element func(string) string) string {
			if rapid.Bool().Draw(t, name+" is null") {
				return "null"
			}
			var elements []string
			for range rapid.IntRange(0, 12).Draw(t, name) {
				elements = append(elements, element(name))
			}
			return "[" + strings.Join(elements, ",") + "]"
		}
		person := func(name string) string {
			return rapid.SampledFrom([]string{"null", "{}", `{"id":null}`, `{"handle":"h"}`, `{"id":"p","handle":null}`, `{"id":"q","handle":"i"}`, "5"}).Draw(t, name)
		}
		fields := []string{`"id":"1"`, `"source":"x"`, `"kind":"post"`, `"time":"2026-05-25T14:23:28Z"`, `"author":{"id":"a","handle":` + text("handle") + `,"bot":null}`}
		for _, field := range []struct{ name, value string }{
			{"text", text("text")}, {"title", text("title")}, {"lang", text("lang")}, {"url", text("url")}, {"account", text("account")},
			{"in_reply_to", rapid.SampledFrom([]string{"null", `{"id":null}`, `{"id":"r"}`, `{"author_id":"s"}`}).Draw(t, "reply")},
			{"place", rapid.SampledFrom([]string{"null", `{"country":null}`, `{"country":"DE"}`}).Draw(t, "place")},
			{"counters", rapid.SampledFrom([]string{"null", `{"likes":null}`, `{"likes":1}`, `{"views":2,"observed_at":null}`}).Draw(t, "counters")},
			{"mentions", list("mentions", person)}, {"hashtags", list("hashtags", text)}, {"links", list("links", text)},
		} {
			if rapid.Bool().Draw(t, field.name) {
				fields = append(fields, `"`+field.name+`":`+field.value)
			}
		}
		line := []byte("{" + strings.Join(rapid.Permutation(fields).Draw(t, "order"), ",") + "}")
		var fresh EventDecoder
		want, wantErr := fresh.Decode(line)
		got, err := used.Decode(line)
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("%s: %v, want %v", line, err, wantErr)
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); err == nil && diff != "" {
			t.Fatalf("%s\n%s", line, diff)
		}
		if err == nil && (slices.Contains(got.Hashtags, "") || slices.Contains(got.Links, "") || slices.Contains(got.Mentions, social.Person{})) {
			t.Fatalf("%s has empty elements: %v", line, got)
		}
	})
}
