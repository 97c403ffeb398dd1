package wire

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	cloudevents "github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"polyphony/pkg/social"
)

func exampleMention() social.Mention {
	feel := float32(-0.25)
	at := time.Date(2026, 5, 25, 14, 23, 28, 757e6, time.UTC)
	return social.Mention{
		Node: social.Node{Division: "cardiology", Territory: "dach"}, EventKey: social.Key{1, 2, 3}, AuthorKey: social.Key{4},
		ParentKey: social.Key{5}, Version: social.OwnVersion(time.Time{}, at, 0xabcdef), Source: "bluesky", Kind: social.Reply,
		Time: at, RecordedTime: at.Add(time.Second), Via: social.ViaText, Role: social.RoleUnknown, Lang: "en", Country: "DE",
		CountryMethod: social.CountryByAuthor, Sentiment: &feel, Products: []string{"a", "b"}, Competitors: []string{},
		Topics: []string{}, Needs: []string{}, Followers: 120, ClusterID: 1 << 63, Text: "line\n\"quoted\" <b> ä 😀 \u2028", RulesVersion: "0123456789abcdef",
	}
}

// Each public batch parses with the CloudEvents SDK, and splits by newline.
func TestBatchIsCloudEvents(t *testing.T) {
	m := exampleMention()
	batch := BeginBatch(nil)
	batch = AppendMention(batch, "/polyphony/acme", &m)
	batch = AppendMention(batch, "/polyphony/acme", &m)
	batch = EndBatch(batch)

	var events []cloudevents.Event
	if err := json.Unmarshal(batch, &events); err != nil {
		t.Fatalf("%v\n%s", err, batch)
	}
	if len(events) != 2 {
		t.Fatalf("%d events", len(events))
	}
	for _, e := range events {
		if err := e.Validate(); err != nil {
			t.Error(err)
		}
		if e.Type() != MentionType || e.Source() != "/polyphony/acme" || !e.Time().Equal(m.Time) || e.DataContentType() != "application/json" {
			t.Errorf("%v", e)
		}
		if e.Extensions()["recordedtime"] == nil {
			t.Error("recordedtime is missing")
		}
	}
	lines := strings.Split(strings.TrimSuffix(string(batch), "\n"), "\n")
	if len(lines) != 4 || lines[0] != "[" || lines[3] != "]" || !strings.HasSuffix(lines[1], ",") || strings.HasSuffix(lines[2], ",") {
		t.Fatalf("not a line each:\n%s", batch)
	}
	for _, line := range lines[1:3] {
		if !json.Valid([]byte(strings.TrimSuffix(line, ","))) {
			t.Errorf("not JSON: %s", line)
		}
	}
}

func TestBatchRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var want []social.Mention
		batch := BeginBatch(nil)
		for range rapid.IntRange(1, 4).Draw(t, "n") {
			m := drawMention(t)
			want = append(want, m)
			batch = AppendMention(batch, "/polyphony/x", &m)
		}
		got, err := DecodeBatch(nil, EndBatch(batch))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatal(diff)
		}
	})
}

// A retraction travels between mentions, with little more than what it takes back.
func TestRetractionRoundTrip(t *testing.T) {
	m := exampleMention()
	gone := social.Mention{Node: m.Node, EventKey: m.EventKey, Version: social.Deleted(), Retracted: true, Time: m.Time, RecordedTime: m.RecordedTime}
	batch := EndBatch(AppendMention(AppendMention(BeginBatch(nil), "/polyphony/x", &m), "/polyphony/x", &gone))
	got, err := DecodeBatch(nil, batch)
	if diff := cmp.Diff([]social.Mention{m, gone}, got); diff != "" || err != nil {
		t.Errorf("%v %s", err, diff)
	}
	if strings.Count(string(batch), RetractionType) != 1 || strings.Count(string(batch), string(m.Kind)) != 1 {
		t.Errorf("%s", batch)
	}
}

// A bad line is told of and harms none of its neighbours; other types are skipped, whatever they carry.
func TestDecodeBatchGoesOn(t *testing.T) {
	m := exampleMention()
	line := func(change func(*social.Mention)) string {
		m := exampleMention()
		change(&m)
		return string(AppendMention(nil, "/polyphony/x", &m))
	}
	good := line(func(*social.Mention) {})
	f := func(bad string, wantErr string) {
		t.Helper()
		want := []social.Mention{m, m}
		got, err := DecodeBatch(nil, EndBatch([]byte("[\n"+good+bad+good)))
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%.300s: %s", bad, diff)
		}
		if wantErr == "" && err != nil || wantErr != "" && (err == nil || !strings.Contains(err.Error(), wantErr)) {
			t.Errorf("%.300s: error %v, want %q", bad, err, wantErr)
		}
	}
	f("", "")
	f(strings.ReplaceAll(good, MentionType, RetractionType), "no kind")
	f(`{"specversion":"1.0","type":"`+RetractionType+`","source":"/a","id":"1","data":{"event_key":"01"}},`+"\n", "version")
	f(strings.ReplaceAll(good, MentionType, "polyphony.metric.v1"), "")
	f(`{"specversion":"1.0","type":"com.example.other","source":"/a","id":"1","data":"words"},`+"\n", "")
	f(`{"specversion":"1.0","type":"com.example.other","data":{"division":7}},`+"\n", "")

	f("{},\n", "1 bad lines")
	f("{\n{\n", "2 bad lines")
	f(`{"type":"com.example.other"`+"\n", "1 bad lines")
	f(`{"specversion":"1.0","type":"`+MentionType+`","data":{"division":7}},`+"\n", "1 bad lines")
	f(strings.TrimSuffix(good, ",\n")+good, "more than one value")
	f(line(func(m *social.Mention) { m.EventKey = social.Key{} }), "no event_key")
	for _, kind := range []social.Kind{"", "dance", social.Edit, social.Delete, social.Counted} {
		f(line(func(m *social.Mention) { m.Kind = kind }), "kind")
	}
	for _, via := range []social.Via{"", "rumour", "own"} {
		f(line(func(m *social.Mention) { m.Via = via }), "via")
	}
	for _, at := range []time.Time{
		time.Date(1969, 12, 31, 23, 59, 59, 999e6, time.UTC), time.Date(2106, 2, 7, 0, 0, 0, 0, time.UTC), time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC),
	} {
		f(line(func(m *social.Mention) { m.Time = at }), "before 1970")
		f(line(func(m *social.Mention) { m.RecordedTime = at }), "before 1970")
	}
}

func TestDecodeBatchReadsTheEndsOfTime(t *testing.T) {
	for _, at := range []time.Time{time.UnixMilli(0).UTC(), time.Date(2106, 2, 6, 23, 59, 59, 999e6, time.UTC)} {
		m := exampleMention()
		m.Time = at
		got, err := DecodeBatch(nil, EndBatch(AppendMention(BeginBatch(nil), "/polyphony/x", &m)))
		if err != nil || len(got) != 1 || !got[0].Time.Equal(at) {
			t.Errorf("%v: %v, %v", at, got, err)
		}
	}
}

func drawMention(t *rapid.T) social.Mention {
	m := exampleMention()
	key := rapid.Custom(func(t *rapid.T) (k social.Key) {
		copy(k[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "key"))
		return k
	})
	m.EventKey = key.Filter(func(k social.Key) bool { return k != social.Key{} }).Draw(t, "event")
	m.AuthorKey, m.RootKey, m.ParentAuthorKey = key.Draw(t, "author"), key.Draw(t, "root"), key.Draw(t, "parent author")
	m.Text = rapid.String().Draw(t, "text")
	m.Account = rapid.String().Draw(t, "account")
	m.Products = rapid.SliceOf(rapid.StringMatching(`[a-z]{1,5}`)).Draw(t, "products")
	if m.Products == nil {
		m.Products = []string{}
	}
	m.Owned, m.ByCompany, m.Bot = rapid.Bool().Draw(t, "owned"), rapid.Bool().Draw(t, "by company"), rapid.Bool().Draw(t, "bot")
	m.Time = time.UnixMilli(rapid.Int64Range(0, 4e12).Draw(t, "time")).UTC()
	if rapid.Bool().Draw(t, "no sentiment") {
		m.Sentiment = nil
	}
	if rapid.Bool().Draw(t, "counters") {
		total := rapid.Int64Range(social.Unreported, maxTotal)
		m.Counters = &social.Counters{Likes: total.Draw(t, "likes"), Replies: total.Draw(t, "replies"), Shares: total.Draw(t, "shares"), Views: total.Draw(t, "views"),
			ObservedAt: time.UnixMilli(rapid.Int64Range(0, 4e12).Draw(t, "observed")).UTC()}
	}
	return m
}

// The decoder by position agrees with the general one on whatever it reads, and reads what the enricher writes, but
// escapes by number, and escapes outside of the text.
func TestDecodersAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawMention(t)
		line := bytes.TrimSuffix(AppendMention(nil, "/polyphony/x", &m), []byte(",\n"))
		want, err := decodeForeign(line)
		if err != nil {
			t.Fatal(err)
		}
		var got social.Mention
		if !decodeOwn(line, &got) {
			if !bytes.Contains(line, []byte(`\u`)) && !strings.ContainsAny(m.Account, "\\\"\b\f\n\r\t") {
				t.Fatalf("not read: %s", line)
			}
			return
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatal(diff)
		}
	})
}

// Whatever one byte is changed to, the decoder by position reads nothing that the general one reads differently.
func FuzzDecodersAgree(f *testing.F) {
	m := exampleMention()
	m.Text = "plain"
	f.Add(bytes.TrimSuffix(AppendMention(nil, "/polyphony/x", &m), []byte(",\n")))
	m.Counters = &social.Counters{Likes: 1, Replies: social.Unreported, Shares: 0, Views: 12, ObservedAt: m.Time}
	m.Text = "a title\nand \"words\" and a \\"
	f.Add(bytes.TrimSuffix(AppendMention(nil, "/polyphony/x", &m), []byte(",\n")))
	f.Fuzz(func(t *testing.T, line []byte) {
		var got social.Mention
		if !decodeOwn(line, &got) || !utf8.Valid(line) || bytes.ContainsFunc(line, unicode.IsControl) {
			return
		}
		want, err := decodeForeign(line)
		if err != nil {
			t.Fatalf("read what is no mention: %v\n%s", err, line)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("%s\n%s", diff, line)
		}
	})
}

// Strings are written as JSON whatever is in them, and whatever stands where in a word of eight bytes.
func TestAppendString(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.OneOf(rapid.String(), rapid.StringMatching(`[ !-~é\x{2028}\x{80}]{0,30}`), rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) })).Draw(t, "s")
		var got string
		if err := json.Unmarshal(appendString(nil, s), &got); err != nil {
			t.Fatal(err)
		}
		if want := strings.ToValidUTF8(s, "\ufffd"); got != want && utf8.ValidString(s) || !utf8.ValidString(got) {
			t.Fatalf("%q became %q", s, got)
		}
	})
	for c := range 256 {
		for i := range 9 {
			s := []byte("abcdefghi")
			s[i] = byte(c)
			want := c >= ' ' && c != '"' && c != '\\' && c < 0x80
			if got := plain(string(s)); got != want {
				t.Errorf("byte %d at %d: %v", c, i, got)
			}
		}
	}
}

// Times are written as the standard library writes them.
func TestAppendTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		at := time.UnixMilli(rapid.Int64Range(-1e12, 2e14).Draw(t, "ms"))
		if got, want := string(appendTime(nil, at)), at.UTC().Format("2006-01-02T15:04:05.000Z"); got != want {
			t.Fatalf("got %s, want %s", got, want)
		}
	})
}

// What was read, beside bad lines too, is fit for the tables and can be written and read again.
func FuzzDecodeBatch(f *testing.F) {
	m := exampleMention()
	f.Add(EndBatch(AppendMention(BeginBatch(nil), "/polyphony/x", &m)))
	f.Add([]byte("[\n{}\n]\n"))
	f.Add(EndBatch(AppendMention([]byte("[\n{},\n"), "/polyphony/x", &m)))
	f.Fuzz(func(t *testing.T, batch []byte) {
		got, _ := DecodeBatch(nil, batch)
		again := BeginBatch(nil)
		for i := range got {
			if err := checkMention(&got[i]); err != nil {
				t.Fatal(err)
			}
			again = AppendMention(again, "/polyphony/x", &got[i])
		}
		if len(got) == 0 {
			return
		}
		if _, err := DecodeBatch(nil, EndBatch(again)); err != nil && !bytes.Contains(batch, []byte(`\`)) && json.Valid(batch) {
			t.Fatalf("what was read cannot be written and read: %v", err)
		}
	})
}

// go test -run '^$' -bench Mention -benchmem ./pkg/wire
func BenchmarkAppendMention(b *testing.B) {
	m := exampleMention()
	m.Text = strings.Repeat("Somebody wrote a few words about how it went. ", 8)
	buf := BeginBatch(nil)
	b.ReportAllocs()
	for b.Loop() {
		buf = AppendMention(buf[:0], "/polyphony/acme", &m)
	}
	b.SetBytes(int64(len(buf)))
}

// go test -run '^$' -bench Mention -benchmem ./pkg/wire
func BenchmarkDecodeMention(b *testing.B) {
	m := exampleMention()
	m.Text = strings.Repeat("Somebody wrote a few words about how it went. ", 8)
	batch := EndBatch(AppendMention(BeginBatch(nil), "/polyphony/acme", &m))
	var dst []social.Mention
	b.SetBytes(int64(len(batch)))
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if dst, err = DecodeBatch(dst[:0], batch); err != nil {
			b.Fatal(err)
		}
	}
}

// go test -run '^$' -bench Mention -benchmem ./pkg/wire
func BenchmarkDecodeForeignMention(b *testing.B) {
	m := exampleMention()
	m.Text = strings.Repeat("Somebody wrote a few words about how it went. ", 8)
	line := bytes.TrimSuffix(AppendMention(nil, "/polyphony/acme", &m), []byte(",\n"))
	b.SetBytes(int64(len(line)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := decodeForeign(line); err != nil {
			b.Fatal(err)
		}
	}
}
