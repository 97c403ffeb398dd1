package enrich

import (
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

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
	f("(030 1234567) and (01711234567)", "([phone]) and ([phone])")
	f("on 2026-05-25 12:30 and 25.05.2026", "on 2026-05-25 12:30 and 25.05.2026")
	f("1000000 of 2000000 people", "1000000 of 2000000 people")
	f("ä@ö.example", "[email]")
}

// Telephone numbers are masked however they are grouped and whatever stands around them.
func TestMaskPhone(t *testing.T) {
	var m masker
	f := func(text, want string) {
		t.Helper()
		if got := m.mask(&social.Event{Text: text}, ""); got != want {
			t.Errorf("%q:\n got %q\nwant %q", text, got, want)
		}
	}
	masked := func(text string) { t.Helper(); f(text, "[phone]") }
	stays := func(text string) { t.Helper(); f(text, text) }

	masked("0176 12 34 56 78")
	masked("0664 12 34 567")
	masked("+1 (212) 555-0123")
	masked("+1.555.123.4567x89")
	f("+1 (212) 555-0123x", "[phone]x") // a letter behind a number with a prefix is no reason to doubt
	f("0171 1234567a", "[phone]a")

	// Several numbers, or numbers and dates, in one row.
	f("0171 1234567 0172 7654321", "[phone] [phone]")
	f("0171 1234567 / 0172 7654321", "[phone] / [phone]")
	f("(030) 1234567 / (0171) 1234567", "[phone] / [phone]")
	f("0171 1234567,0172 7654321", "[phone],[phone]")
	f("0171 1234567 7654321 99", "[phone] [phone]") // where one ends is unknown
	f("0176-12345678 2026-11-20", "[phone] 2026-11-20")
	f("0171 1234567 12.05.2026", "[phone] 12.05.2026")
	f("06 12 34 56 78 2026-11-20", "[phone] 2026-11-20")
	f("2026-11-20 0171 1234567", "2026-11-20 [phone]")
	f("25.05.26 0171 1234567", "[phone] [phone]")
	f("5 0171 1234567", "5 [phone]")
	f(strings.Repeat("1 ", 100)+"0171 1234567", strings.Repeat("1 ", 100)+"[phone]")
	f(strings.Repeat("0171 1234567 ", 50), strings.Repeat("[phone] ", 50))

	// What stands before.
	f("Tel.0171 1234567", "Tel.[phone]")
	f("Tel.:0171 1234567", "Tel.:[phone]")
	f("Tel+49 171 1234567", "Tel[phone]")
	f("tel(0171)1234567", "tel[phone]")
	f("B12 and B0123456789", "B12 and B0123456789")
	f("電話は090-1234-5678です", "電話は[phone]です")
	f("전화010-1234-5678입니다", "전화[phone]입니다")

	// Other keyboards.
	masked("0171\u00a01234567")
	masked("0171\u202f123\u2009456 7")
	masked("0171\u2013123\u20114567")
	masked("0171\u200b1234567")
	masked("090ー1234ー5678")
	masked("０９０-１２３４-５６７８")
	masked("（０３０）　１２３４５６７")
	masked("＋４９ １７０ １２３４５６７")
	masked("٠١٧١ ١٢٣٤٥٦٧")
	masked("०१७१ १२३४५६७")

	stays("20 mg, 2.5mg, B12, 1000 IU")
	stays("0.25 0.5 1.0 1.7 2.4 mg")
	stays("1,05 1,10 1,15 1,20")
	stays("since 2019, 2019-2020 and 2021 2022 2023")
	stays("2019\u20132024")
	stays("12.99 or 1.299,00 EUR")
	stays("2026-05-25, 25.05.2026, 25/05/2026, 05/25/2026")
	stays("2026-05-25 12:30")
	stays("1000000 of 2000000 people")
	f("2026-15-45 12 34", "[phone]") // no date
}

// Nothing of the address stays, and what is around it does.
func TestMaskEmail(t *testing.T) {
	var m masker
	f := func(text, want string) {
		t.Helper()
		if got := m.mask(&social.Event{Text: text}, ""); got != want {
			t.Errorf("%q:\n got %q\nwant %q", text, got, want)
		}
	}
	for _, address := range []string{
		"john.o'brien@example.com", "jane&doe@example.com", "jane_doe+x=y@example.com", "jane!#$%&'*+/=?^_`{|}~-doe@example.com",
		`"john doe"@example.com`, `"john \"x\" doe"@example.com`, `john."x doe"@example.com`, "jo@[192.168.0.1]", "jo@[IPv6:2001:db8::1]",
		"jane-0171-1234567@example.com", "0171-1234567-jane@example.com", "01711234567@example.com", "jo@пример.рф", "jö@bücher.example",
		"JO@localhost", "a@b@c.example",
	} {
		f(address, "[email]")
		f("write to "+address+", please", "write to [email], please")
		f("("+address+")", "([email])")
	}
	f("'jo@x.example'", "'[email]'")
	f("`jo@x.example` or *jo@x.example*", "`[email]` or *[email]*")
	f(`"jo@x.example"`, `"[email]"`)
	f("<jo@x.example>", "<[email]>")
	f(".@jo /@jo", ".[handle] /[handle]")
	f("@@jo @ @, @-", "[handle] @ @, @-")
	f("@जेन", "[handle]")
	f(`she said "hi" to "@jo"`, `she said "hi" to "[handle]"`)
	f("jane@[x]", "jane@[x]")
}

// Links are masked whole.
func TestMaskLink(t *testing.T) {
	var m masker
	f := func(text, want string) {
		t.Helper()
		if got := m.mask(&social.Event{Text: text}, ""); got != want {
			t.Errorf("%q:\n got %q\nwant %q", text, got, want)
		}
	}
	for _, link := range []string{
		"facebook.com?profile=janedoe", "example.com#janedoe", "example.com:8080/janedoe", "tg://resolve?domain=janedoe",
		"at://did:plc:abc123/app.bsky.feed.post/3k", "mailto:jane@example.com", "MAILTO:jane%40example.com", "пример.рф/janedoe",
		"xn--e1afmkfd.xn--p1ai/janedoe", "x.com／janedoe", "https://x.example/o'brien", "web+ap://x/y", "https://x.example:1/@a:b,c;d!e",
	} {
		f(link, "[link]")
		f("see "+link+". Or ("+link+")", "see [link]. Or ([link])")
	}
	f("詳細はhttps://x.example/jane。次", "詳細は[link]。次")
	f("'https://x.example/jane' \"www.x.example\"", "'[link]' \"[link]\"")
	for _, stays := range []string{
		"does it help on example.com? Yes: it does.", "on example.com: nothing", "z.B./usw.", "3:1 and a: b", "http: //", "either/or", "and.Then",
	} {
		f(stays, stays)
	}
}

// National numbers are known by the event's country.
func TestMaskNationalNumber(t *testing.T) {
	var m masker
	f := func(text, want string) {
		t.Helper()
		if got := m.mask(&social.Event{Text: text}, "ES"); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
	f("612 34 56 78", "[phone]")
	f("5 612 34 56 78", "5 [phone]")
	f("612 34 56 78 612 34 56 78", "[phone] [phone]")
	f(strings.Repeat("612345678 ", 9), strings.Repeat("[phone] ", 9))
	f("612345678mg", "612345678mg")
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

// Every person the event names is looked for as a whole word, in any case and width.
func TestMaskNames(t *testing.T) {
	var m masker
	f := func(e social.Event, want string) {
		t.Helper()
		if got := m.mask(&e, ""); got != want {
			t.Errorf("%q:\n got %q\nwant %q", e.Text, got, want)
		}
	}
	text := "told 1234567890abc so"
	for _, e := range []social.Event{
		{ID: "1234567890abc"}, {RootID: "1234567890abc"}, {Author: social.Author{ID: "1234567890abc"}},
		{InReplyTo: social.Ref{ID: "1234567890abc"}}, {InReplyTo: social.Ref{AuthorID: "1234567890abc"}},
		{Object: social.Ref{ID: "1234567890abc"}}, {Kind: social.Edit, Object: social.Ref{AuthorID: "1234567890abc"}},
		{Mentions: []social.Person{{ID: "1234567890abc"}}},
	} {
		e.Text = text
		f(e, "told [handle] so")
	}
	f(social.Event{Account: "1234567890abc", Text: text}, text)

	by := func(handle, text, want string) {
		t.Helper()
		f(social.Event{Text: text, Author: social.Author{Handle: handle}}, want)
		f(social.Event{Text: text, Mentions: []social.Person{{}, {Handle: handle}}}, want)
	}
	by("@janedoe99", "by janedoe99, JaneDoe99 and @janedoe99", "by [handle], [handle] and [handle]")
	by("JaneDoe99", "by janedoe99's ｊａｎｅｄｏｅ９９", "by [handle]'s [handle]")
	by("Анна", "это анна и АННА", "это [handle] и [handle]")
	by("anna", "Susanna and annabel met Anna.", "Susanna and annabel met [handle].")
	by("anna", "_anna_ anna-marie (anna)", "_[handle]_ [handle]-marie ([handle])")
	by("mona", "monaさん、山田さん", "[handle]さん、山田さん")
	by("山田太郎", "昨日山田太郎さんが", "昨日[handle]さんが")
	by("Ann", "Ann and ann and Anne", "[handle] and ann and Anne")
	by("Jo", "Jo said no", "Jo said no")
	by("2019", "since 2019", "since 2019")
	by("jane.doe", "Jane.Doe, jane doe, jane.doe.example", "[handle], jane doe, [handle].example")
	by("jane", "jane@example.org", "[email]")
	by(strings.Repeat("a.", 20)+"z", "not a.a. but "+strings.Repeat("A.", 20)+"z.", "not a.a. but [handle]")

	many := social.Event{Text: "told user9999 and User77, not user10001"}
	for i := range 10_000 {
		many.Mentions = append(many.Mentions, social.Person{Handle: "user" + strconv.Itoa(i)})
	}
	f(many, "told [handle] and [handle], not user10001")
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

// A quarter of what an author can write at most is masked in a second of processor time or two, however busy the machine is. A masker
// that looks at everything as often as it is long takes a minute: a few posts would stop a worker.
func TestMaskTakesLinearTime(t *testing.T) {
	for name, e := range hostile(1 << 18) {
		start := processorTime(t)
		var m masker
		m.mask(e, "DE")
		took := processorTime(t) - start
		t.Logf("%-12.12q %v", name, took)
		if took > 8*time.Second {
			t.Errorf("%.20q took %v", name, took)
		}
	}
}

// processorTime is what this process used so far.
func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		t.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// hostile makes texts of a size that make a careless masker look at the same characters again and again.
func hostile(size int) map[string]*social.Event {
	events := map[string]*social.Event{}
	for _, part := range []string{
		"@", "＠", "-@", "@-", "@a-", "a@", "@.", "\"@", "\"", "\"a", "a\"@a", "!", "!@", "1", "1 ", "(1 ", "(", "+", "+1 ", "0 ", "0 1", "1-", "1.",
		"1 1 1 1 1 1 1 1 1 1 1 1 1 1,", "2345678,", "0171 ", "12.05.2026 ", "2019 ", "00", "a", "A", "a.", ".", "a.bb", "a.bb/", "a.bb/ ", "a.bb?",
		"a.bb?!", "a.bb:", "a1.a1/", "/", "u/", "u/a-", "u/-", "u/abc", ":", "a:", "a://", "://", "mailto:", "mailto:!", "www.", "www.!", "w", "?", "#",
		"é", "漢", "漢字", "\u0301", "\u200b", "\xff", "１", "[", "a@[", "a@[1", " ", "x.", "jane.", "jane ", "a.a.a.",
	} {
		events[part] = &social.Event{
			Text:   strings.Repeat(part, size/len(part)),
			Author: social.Author{ID: strings.Repeat("a.", 40) + "z", Handle: "@jane.jane.jane.jane.doe"}, Mentions: []social.Person{{ID: "漢漢漢漢漢字", Handle: "1 1 1 1 1 2"}},
		}
	}
	names := &social.Event{Text: strings.Repeat("a.b ", size/8)}
	for i := range size / 16 {
		names.Mentions = append(names.Mentions, social.Person{Handle: "a.b." + strconv.Itoa(i)})
	}
	events["names"] = names
	return events
}

// Masking never panics, masks what is planted in any text, and leaves a masked text as it is.
func FuzzMask(f *testing.F) {
	for _, text := range []string{
		"a@b.c @x +49 170 1234567 http://x 0\xff@y", "((((((0000000", "0176 12 34 56 78", "0171 1234567 0172 7654321", "06 12 34 56 78 2026-11-20",
		"電話は090-1234-5678です", "０９０-１２３４-５６７８", "+1.555.123.4567x89", "'jo@x.example'", `"john doe"@host`, "@[192.168.0.1]",
		"facebook.com?profile=jo", "example.com:8080/jo", "tg://resolve", "mailto:jo@x", "пример.рф/jo", "x.com／jo", "-@-@a", "u/jodo",
		"2125550123 4 0171 1234567", "612 34 56 78 612 34 56 78",
	} {
		f.Add(text, "")
		f.Add("", text)
	}
	f.Fuzz(func(t *testing.T, before, after string) {
		var m masker
		mask := func(text string) string {
			return m.mask(&social.Event{Text: text, Author: social.Author{Handle: "Zaphodx"}}, "DE")
		}
		once := mask(before + after)
		if twice := mask(once); utf8.ValidString(before+after) && twice != once {
			t.Fatalf("%q became %q and then %q", before+after, once, twice)
		}
		for planted, readable := range map[string]string{
			"0171 7654321": "7654321", "+49-171-7654321": "7654321", "john.o'brien77@example.com": "brien77", "zaphodx": "zaphodx", "x.example/jane77": "jane77",
		} {
			masked := mask(before + "\n" + planted + "\n" + after)
			if strings.Contains(masked, readable) && !strings.Contains(before+after, readable) {
				t.Fatalf("%q between %q and %q is readable: %q", planted, before, after, masked)
			}
		}
	})
}

// go test -run '^$' -bench Mask -benchmem ./services/enricher/enrich
func BenchmarkMask(b *testing.B) {
	for name, text := range map[string]string{
		"plain":  strings.Repeat("Somebody wrote a few words about how it went. ", 8),
		"handle": strings.Repeat("Somebody wrote a few words about how it went. ", 7) + "@jo https://x.example/y",
		"abroad": strings.Repeat("Кто-то написал пару слов о том, как всё прошло. ", 8),
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
		if got, _ := digits(text); got != want {
			t.Fatalf("%q: %d, want %d", text, got, want)
		}
	})
	for c := range 256 { // beside each of its neighbours
		text := string([]byte{byte(c), '0', byte(c), 0xff, byte(c), '9', byte(c), 0x80})
		want := 2
		if isDigit(byte(c)) {
			want += 4
		}
		if got, _ := digits(text); got != want {
			t.Errorf("byte %d: %d, want %d", c, got, want)
		}
	}
}

// go test -run '^$' -bench HostileMask -benchtime 1x ./services/enricher/enrich
func BenchmarkHostileMask(b *testing.B) {
	for name, e := range hostile(64 << 10) {
		b.Run(strconv.Quote(name), func(b *testing.B) {
			var m masker
			b.SetBytes(int64(len(e.Text)))
			for b.Loop() {
				m.mask(e, "DE")
			}
		})
	}
}
