package wire

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
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

func TestFactsRoundTrip(t *testing.T) {
	at := time.UnixMilli(1_700_000_000_123).UTC()
	want := Facts{
		Statements: []social.Statement{
			{Key: social.Key{1}, Source: "x", Kind: social.Edit, ObjectKey: social.Key{2}, Time: at, RecordedTime: at, Text: "now\nso", Lang: "en", Sealed: []byte{0, 255}},
			{Key: social.Key{3}, Source: "x", Kind: social.Delete, ObjectAuthor: social.Key{4}, Time: at, RecordedTime: at},
			{Key: social.Key{5}, Source: "x", Kind: social.Counted, ObjectKey: social.Key{6}, Time: at, RecordedTime: at,
				Counters: social.Counters{Likes: 1, Views: 1 << 60, ObservedAt: at}, RulesVersion: "v"},
		},
		Originals: []social.Original{{EventKey: social.Key{7}, Source: "x", RecordedTime: at, Sealed: []byte("sealed")}},
	}
	var lines []byte
	for i := range want.Statements {
		lines = AppendStatement(lines, &want.Statements[i])
	}
	lines = AppendOriginal(lines, &want.Originals[0])
	var got Facts
	if err := DecodeFacts(&got, lines); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
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

func FuzzDecodeFacts(f *testing.F) {
	f.Add([]byte(`{"kind":"delete","key":"01000000000000000000000000000000","source":"x","recorded_time":1}` + "\n"))
	f.Fuzz(func(t *testing.T, lines []byte) {
		var facts Facts
		_ = DecodeFacts(&facts, lines)
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
