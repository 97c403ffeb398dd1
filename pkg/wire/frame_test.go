package wire

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/klauspost/compress/s2"
	"pgregory.net/rapid"

	"polyphony/pkg/social"
)

// Frames give back every line, in order, within the bounds.
func TestFrameRoundTrip(t *testing.T) {
	f := func(lines []byte) {
		t.Helper()
		var back []byte
		events := 0
		for frame, info := range EncodeFrame(lines) {
			if info.Size > MaxFrameDecoded || len(frame) > MaxFrameEncoded && info.Events > 1 {
				t.Fatalf("a frame of %d events has %d bytes, %d decoded", info.Events, len(frame), info.Size)
			}
			got, err := DecodeFrame(nil, frame, info.Size)
			if err != nil {
				t.Fatal(err)
			}
			if n := bytes.Count(got, []byte{'\n'}); n != info.Events {
				t.Fatalf("%d lines, %d declared", n, info.Events)
			}
			back = append(back, got...)
			events += info.Events
		}
		if !bytes.Equal(back, lines) || events != bytes.Count(lines, []byte{'\n'}) {
			t.Fatalf("%d bytes came back as %d", len(lines), len(back))
		}
	}
	f(nil)
	f([]byte("{}\n"))
	f(bytes.Repeat([]byte("{\"text\":\"the same again and again\"}\n"), 100_000))
	random := rand.New(rand.NewPCG(1, 2))
	var noise []byte // does not compress
	for range 40_000 {
		for range 50 {
			noise = append(noise, byte('!'+random.IntN(90)))
		}
		noise = append(noise, '\n')
	}
	f(noise)
	big := append(bytes.Repeat([]byte{'x'}, MaxEvent), '\n')
	f(big)
	f(append(append([]byte("{}\n"), big...), "{}\n{}\n"...))
}

// A frame that would grow beyond what it declares, or beyond the bound, is refused before it is unpacked.
func TestDecodeFrameRefusesBombs(t *testing.T) {
	f := func(frame []byte, size int) {
		t.Helper()
		if _, err := DecodeFrame(nil, frame, size); !errors.Is(err, ErrFrame) {
			t.Fatalf("got %v", err)
		}
	}
	bomb := s2.EncodeBest(nil, make([]byte, 64<<20))
	f(bomb, 64<<20)
	f(bomb, 100)
	f(s2.Encode(nil, []byte("{}\n")), 100)
	f([]byte("no frame"), 8)
	f(nil, 0)
	good := s2.Encode(nil, bytes.Repeat([]byte("abc\n"), 100))
	f(good[:len(good)-3], 400)
}

func TestRejectRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var frame []byte
		var want []Reject
		for range rapid.IntRange(0, 5).Draw(t, "n") {
			raw := rapid.SliceOf(rapid.Byte()).Draw(t, "bytes")
			r := Reject{Code: social.InvalidJSON, Detail: rapid.String().Draw(t, "detail"), RecordedTime: time.UnixMilli(5).UTC(), Bytes: raw}
			if rapid.Bool().Draw(t, "in a message") {
				r.Origin = &Origin{Stream: "RAW", Sequence: rapid.Uint64().Draw(t, "sequence"), Line: rapid.IntRange(0, 9).Draw(t, "line"), Subject: "social.raw.x",
					Header: map[string][]string{"Polyphony-Rules": {"v"}}}
			}
			frame = AppendReject(frame, &r)
			r.Size, r.Kept = len(raw), len(raw)
			want = append(want, r)
		}
		var got []Reject
		for r, err := range DecodeRejects(frame) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, r)
		}
		opt := cmp.Comparer(func(a, b []byte) bool { return bytes.Equal(a, b) })
		if diff := cmp.Diff(want, got, opt); diff != "" {
			t.Fatal(diff)
		}
	})
}

// Of a reject that is too large for any frame, the beginning is kept and its true size told.
func TestRejectOfHugeEventIsCut(t *testing.T) {
	r := Reject{Code: social.TooLarge, Bytes: make([]byte, 3<<20)}
	frame := AppendReject(nil, &r)
	if len(frame) > MaxFrameDecoded {
		t.Fatalf("%d bytes", len(frame))
	}
	for got, err := range DecodeRejects(frame) {
		if err != nil || got.Size != 3<<20 || len(got.Bytes) != MaxRejectBytes {
			t.Fatalf("%v: size %d, kept %d", err, got.Size, len(got.Bytes))
		}
	}
}

func TestStatementsRoundTrip(t *testing.T) {
	at := time.UnixMilli(1_700_000_000_123).UTC()
	want := []social.Statement{
		{Key: social.Key{1}, Source: "x", Kind: social.Edit, ObjectKey: social.Key{2}, Time: at, RecordedTime: at, Sealed: []byte{0, 255}},
		{Key: social.Key{3}, Source: "x", Kind: social.Delete, ObjectAuthor: social.Key{4}, Time: at, RecordedTime: at},
		{Key: social.Key{5}, Source: "x", Kind: social.Counted, ObjectKey: social.Key{6}, Time: at, RecordedTime: at,
			Counters: social.Counters{Likes: 1, Views: 1 << 60, ObservedAt: at}, RulesVersion: "v"},
	}
	var lines []byte
	for i := range want {
		lines = AppendStatement(lines, &want[i])
	}
	got, err := DecodeStatements(nil, lines)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
}

// TestLargestEdit: an edit of the largest event there is fits into a frame that its reader takes.
func TestLargestEdit(t *testing.T) {
	edit := social.Statement{Key: social.Key{1}, Source: "x", Kind: social.Edit, ObjectKey: social.Key{2}, Time: time.UnixMilli(1).UTC(),
		RecordedTime: time.UnixMilli(1).UTC(), RulesVersion: "0123456789abcdef", Sealed: make([]byte, MaxEvent+64)}
	for frame, info := range EncodeFrame(AppendStatement(nil, &edit)) {
		lines, err := DecodeFrame(nil, frame, info.Size)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := DecodeStatements(nil, lines); err != nil || len(got) != 1 || len(got[0].Sealed) != MaxEvent+64 {
			t.Fatalf("%d statements, %v", len(got), err)
		}
	}
}

func TestOriginalsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var want []social.Original
		var batch []byte
		for range rapid.IntRange(0, 5).Draw(t, "n") {
			o := social.Original{
				Source: rapid.StringMatching("[a-z]{0,9}").Draw(t, "source"), Sealed: rapid.SliceOf(rapid.Byte()).Draw(t, "sealed"),
				RecordedTime: time.UnixMilli(rapid.Int64Range(0, 4e12).Draw(t, "ms")).UTC(),
			}
			copy(o.EventKey[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "key"))
			o.Version = social.OwnVersion(time.Time{}, o.RecordedTime, rapid.Uint64().Draw(t, "words")).Words()
			want = append(want, o)
			batch = AppendOriginal(batch, &o)
		}
		got, err := DecodeOriginals(nil, batch)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Fatal(diff)
		}
		if len(batch) == 0 {
			return
		}
		cut := rapid.IntRange(1, len(batch)).Draw(t, "cut")
		got, err = DecodeOriginals(nil, batch[:len(batch)-cut])
		for i := range got {
			if diff := cmp.Diff(want[i], got[i], cmpopts.EquateEmpty()); diff != "" {
				t.Fatal(diff)
			}
		}
		if err == nil && len(got) == len(want) {
			t.Fatal("a cut batch is read as whole")
		}
	})
}

func FuzzDecodeFrame(f *testing.F) {
	f.Add(s2.Encode(nil, []byte("{}\n")), 3)
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0x0f}, 5)
	f.Fuzz(func(t *testing.T, frame []byte, size int) {
		if got, err := DecodeFrame(nil, frame, size); err == nil && len(got) != size {
			t.Fatalf("%d bytes, declared %d", len(got), size)
		}
	})
}

func FuzzDecodeStatements(f *testing.F) {
	f.Add([]byte(`{"kind":"delete","key":"01000000000000000000000000000000","source":"x","recorded_time":1}` + "\n"))
	f.Fuzz(func(t *testing.T, lines []byte) {
		_, _ = DecodeStatements(nil, lines)
	})
}

// TestIdentityAndMention: what a mention keeps of an event and what its original does are together what an edit leaves as it
// was, whatever of the text is masked.
func TestIdentityAndMention(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.SampledFrom([]string{"", "a", "@b", "a\n@b", "\n"})
		names := rapid.SliceOfN(rapid.SampledFrom([]string{"x", "y \"z\""}), 0, 3)
		want := social.Event{ID: "id", Title: text.Draw(t, "title"), Text: text.Draw(t, "text"), Hashtags: names.Draw(t, "tags"), Links: names.Draw(t, "links")}
		for _, name := range names.Draw(t, "named") {
			want.Mentions = append(want.Mentions, social.Person{ID: name, Handle: name + "!"})
		}
		ref := func(what string) social.Ref {
			return social.Ref{ID: rapid.SampledFrom([]string{"", "p"}).Draw(t, what), AuthorID: rapid.SampledFrom([]string{"", "a"}).Draw(t, what+" by")}
		}
		want.InReplyTo, want.Object, want.RootID = ref("parent"), ref("object"), ref("root").ID
		kept := want.Title
		if want.Title != "" && want.Text != "" {
			kept += "\n"
		}
		kept = strings.ReplaceAll(kept+want.Text, "@b", "[handle]")
		got := social.Event{Text: kept}
		if err := DecodeIdentity(&got, AppendIdentity(nil, &want, kept)); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Fatal(diff)
		}
	})
}

// What is read as originals is written as it was, but for lengths that could have been shorter.
func FuzzDecodeOriginals(f *testing.F) {
	f.Add(AppendOriginal(nil, &social.Original{EventKey: social.Key{1}, Source: "x", RecordedTime: time.UnixMilli(5), Sealed: []byte("sealed")}))
	f.Add(append(make([]byte, 40), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01))
	f.Fuzz(func(t *testing.T, batch []byte) {
		got, err := DecodeOriginals(nil, batch)
		var again []byte
		for i := range got {
			again = AppendOriginal(again, &got[i])
		}
		if len(again) > len(batch) || err == nil && len(again) == len(batch) && !bytes.Equal(again, batch) {
			t.Fatalf("%x became %x", batch, again)
		}
	})
}

func FuzzDecodeRejects(f *testing.F) {
	f.Add(AppendReject(nil, &Reject{Code: "c", Bytes: []byte("x\ny")}))
	f.Add([]byte("{\"kept\":-1}\nabc\n"))
	f.Fuzz(func(t *testing.T, frame []byte) {
		for r, err := range DecodeRejects(frame) {
			if err == nil && len(r.Bytes) != r.Kept {
				t.Fatalf("%d bytes, %d kept", len(r.Bytes), r.Kept)
			}
		}
	})
}
