package enrich

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"polyphony/pkg/social"
)

// Personal data are masked; what only looks a little like them stays.
func TestMask(t *testing.T) {
	var m masker
	f := func(text, want string) {
		t.Helper()
		if got := m.mask(&social.Event{Text: text}, ""); got != want {
			t.Fatalf("%q:\n got %q\nwant %q", text, got, want)
		}
	}
	f("", "")
	f("Nothing to hide, 20 mg twice a day since 2019.", "Nothing to hide, 20 mg twice a day since 2019.")
	f("write to jo.do+x@mail.example.org!", "write to [email]!")
	f("JO@EXAMPLE.ORG", "[email]")
	f("thanks @jo_do, and @jo.example.social.", "thanks [handle], and [handle].")
	f("on @jo@social.example today", "on [handle] today")
	f("(@jo)", "([handle])")
	f("at 5 @ home", "at 5 @ home")
	f("see https://social.example/@jo?x=1, really", "see [link], really")
	f("HTTP://A.EXAMPLE and www.b.example/x", "[link] and [link]")
	f("WWW.b.example", "[link]")
	f("see social.example/jo/123 now", "see [link] now")
	f("and/or 1/2 dose, w/o food", "and/or 1/2 dose, w/o food")
	f("ask u/jo_do, /u/jo-do or user/jodo", "ask [handle], /[handle] or [handle]")
	f("u/o, r/medicine and menu/jo_do", "u/o, r/medicine and menu/jo_do")
	f("＠jo_doさん to jo＠example.org", "[handle] to [email]")
	f("call +49 170 1234567 or 0170/1234567", "call [phone] or [phone]")
	f("(030) 123 45 67 8", "[phone]")
	f("555-123-4567", "[phone]")
	f("(212) 555-0123.", "[phone].")
	f("+1 (212) 555-0123x", "+1 (212) 555-0123x")
	f("on 2026-05-25 12:30 and 25.05.2026", "on 2026-05-25 12:30 and 25.05.2026")
	f("1000000 of 2000000 people", "1000000 of 2000000 people")
	f("ä@ö.example", "[email]")
}

// National numbers are known by the event's country.
func TestMaskNationalNumber(t *testing.T) {
	var m masker
	if got := m.mask(&social.Event{Text: "612 34 56 78"}, "ES"); got != "[phone]" {
		t.Errorf("%q", got)
	}
}

// Title and text are both masked; the handles and ids that the event itself names are masked without an "@" too.
func TestMaskWhatTheEventNames(t *testing.T) {
	var m masker
	e := &social.Event{
		Title: "For jo.example", Text: "jo.example and did:plc:abc told mona, see xx", URL: "https://s.example/1",
		Author:   social.Author{ID: "did:plc:abc", Handle: "jo.example"},
		Mentions: []social.Person{{ID: "xx", Handle: "mona"}},
	}
	want := "For [handle]\n[handle] and [handle] told [handle], see xx"
	if got := m.mask(e, ""); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A text full of names stays a text of its size: masks are not masked again.
func TestMaskDoesNotGrow(t *testing.T) {
	var m masker
	e := &social.Event{Text: strings.Repeat("hand ", 100_000)}
	for range 37_000 {
		e.Mentions = append(e.Mentions, social.Person{ID: "hand", Handle: "andl"})
	}
	if got := m.mask(e, ""); got != strings.Repeat("[handle] ", 100_000) {
		t.Errorf("%d bytes: %.50s", len(got), got)
	}
}

// Masking never panics, and nothing with an "@" in the middle of a word survives it.
func FuzzMask(f *testing.F) {
	f.Add("a@b.c @x +49 170 1234567 http://x 0\xff@y")
	f.Add("((((((0000000")
	f.Fuzz(func(t *testing.T, text string) {
		var m masker
		once := m.mask(&social.Event{Text: text}, "DE")
		if strings.Contains(once, "a@b") {
			t.Fatalf("%q became %q", text, once)
		}
	})
}

// go test -run '^$' -bench Mask -benchmem ./services/enricher/enrich
func BenchmarkMask(b *testing.B) {
	for name, text := range map[string]string{
		"plain":  strings.Repeat("Somebody wrote a few words about how it went. ", 8),
		"handle": strings.Repeat("Somebody wrote a few words about how it went. ", 7) + "@jo https://x.example/y",
	} {
		b.Run(name, func(b *testing.B) {
			var m masker
			e := &social.Event{Text: text, Author: social.Author{ID: "did:plc:abcdef", Handle: "jo.example"}}
			b.ReportAllocs()
			for b.Loop() {
				m.mask(e, "DE")
			}
		})
	}
}

func TestDigits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`[0-9/:é!-~\x{00}\x{b0}-\x{bf}]{0,40}`).Draw(t, "text")
		want := 0
		for i := range len(text) {
			if isDigit(text[i]) {
				want++
			}
		}
		if got := digits(text); got != want {
			t.Fatalf("%q: %d, want %d", text, got, want)
		}
	})
	for c := range 256 { // beside each of its neighbours
		text := string([]byte{byte(c), '0', byte(c), 0xff, byte(c), '9', byte(c), 0x80})
		want := 2
		if isDigit(byte(c)) {
			want += 4
		}
		if got := digits(text); got != want {
			t.Errorf("byte %d: %d, want %d", c, got, want)
		}
	}
}
