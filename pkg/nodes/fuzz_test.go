package nodes

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/text/unicode/norm"

	"polyphony/pkg/social"
)

// FuzzNormalise checks that any bytes have a normal form, that it is the same with and without places, that every place
// is one of the text, and that canonically equivalent texts have the same words.
func FuzzNormalise(f *testing.F) {
	for _, seed := range []string{"", "plain", "Straße ﬁne ÉCOLE", "e\u0301\u0327x", "新薬Examora™の", "ｶﾞｷﾞ", "\u1100\u1161\u11a8", "กินยาแล้วที่", "\xff\xfe\x80", "💊❤️x", "\u0301\u0301", "a\u200db", "ﷺ"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		plain, traced := normaliser{table: theRunes()}, normaliser{table: theRunes(), traced: true}
		form := slices.Clone(plain.normalise(text))
		if diff := cmp.Diff(form, traced.normalise(text)); diff != "" {
			t.Fatalf("traced and untraced differ: %s", diff)
		}
		if len(traced.places) != len(form) {
			t.Fatalf("%d places for %d bytes", len(traced.places), len(form))
		}
		before := int32(0)
		for i, at := range traced.places {
			if at < before || int(at) >= len(text) || utf8.ValidString(text) && !utf8.RuneStart(text[at]) {
				t.Fatalf("byte %d comes from %d, after %d of %d bytes", i, at, before, len(text))
			}
			before = at
		}
		if !utf8.ValidString(text) {
			return
		}
		words := func(s string) []string {
			return strings.FieldsFunc(strings.ToLower(string(plain.normalise(s))), func(r rune) bool { return r < utf8.RuneSelf && separates(byte(r)) })
		}
		if diff := cmp.Diff(words(norm.NFC.String(text)), words(norm.NFD.String(text))); diff != "" {
			t.Fatalf("composed and decomposed differ: %s", diff)
		}
	})
}

// FuzzMatch checks that no event crashes a matcher and that an explanation speaks of places that exist.
func FuzzMatch(f *testing.F) {
	r := load(f, routingCompany)
	f.Add("Cordia fast", "title", "tag", "FR", "de", "heart-at")
	f.Add("ＣＯＲＤＩＡ é", "\xff", "#aortin", "xx", "", "")
	f.Fuzz(func(t *testing.T, text, title, tag, country, lang, account string) {
		m := r.Matcher()
		e := &social.Event{Source: "facebook", Kind: social.Post, Text: text, Title: title, Hashtags: []string{tag}, PlaceCountry: country, Lang: lang, Account: account}
		want := short(m.Match(e))
		for _, reason := range m.Explain(e) {
			if reason.Start > reason.End || reason.Start < 0 {
				t.Fatalf("%+v", reason)
			}
			if field := map[string]string{"text": text, "title": title, "hashtags[0]": tag}[reason.Field]; reason.End > len(field) {
				t.Fatalf("%+v is not in %q", reason, field)
			}
		}
		if diff := cmp.Diff(want, short(m.Match(e))); diff != "" {
			t.Fatalf("explaining changed the match: %s", diff)
		}
	})
}

// FuzzLoad checks that no file crashes the loader, that faults point into the file, and that what loads can be packed
// and opened.
func FuzzLoad(f *testing.F) {
	for _, seed := range []string{"division: d\nlisten: x\n", "division: d\nlisten: >-\n  a OR\n  b c\n", "- a", "{a: [b, {c: d}]}", "a: &x *x", "\ta", "? - a", "a: |2\n  b", "<<: *a", "'", "a: \"\\x", "%YAML 1.2\n---\n", "a: !!binary x"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		fsys := directory(usual)
		fsys["divisions/d.yaml"] = &fstest.MapFile{Data: data}
		r, err := Load(fsys)
		if err != nil {
			var faults Faults
			if !errors.As(err, &faults) || len(faults) == 0 {
				t.Fatalf("not faults: %v", err)
			}
			for _, fault := range faults {
				if fault.Line > strings.Count(string(data), "\n")+strings.Count(string(data), "\r")+2 {
					t.Fatalf("%v is below the end of the file", fault)
				}
			}
			return
		}
		again, err := Open(r.Archive())
		if err != nil || again.Version() != r.Version() {
			t.Fatalf("opening what was packed: %v", err)
		}
	})
}

// FuzzOpen checks that no bytes crash Open.
func FuzzOpen(f *testing.F) {
	f.Add(load(f, routingCompany).Archive())
	f.Add([]byte{0x1f, 0x8b})
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := Open(data)
		if (r == nil) == (err == nil) {
			t.Fatal("neither rules nor an error")
		}
	})
}
