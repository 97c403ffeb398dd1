package generate

import (
	"strings"
	"testing"
)

func TestVerdicts(t *testing.T) {
	f := func(q string, with, without verdict) {
		t.Helper()
		parsed, err := parseQuery(q)
		if err != nil {
			t.Errorf("%s: %v", q, err)
			return
		}
		if a, b := parsed.eval(yes), parsed.eval(no); a != with || b != without {
			t.Errorf("%s: %d with a product and %d without, want %d and %d", q, a, b, with, without)
		}
	}
	f(`products`, yes, no)
	f(`products OR heart`, yes, no)
	f(`products AND heart`, no, no)
	f(`products AND NOT heart`, yes, no)
	f(`NOT products`, no, yes)
	f(`NOT NOT products`, yes, no)
	f(`NOT heart OR products`, yes, yes)
	f(`(heart OR products) AND NOT ("share price" OR stock*)`, yes, no)
	f(`products AND lang:de`, unsure, no)
	f(`products OR lang:de`, yes, unsure)
	f(`products OR (heart AND lang:de)`, yes, no)
	f(`products OR tag:heart OR url:"a b"`, yes, no)
	f(`products NEAR/3 heart`, no, no)
	f(`heart NEAR/3 ache OR products`, yes, no)
	f(`competitors`, no, no)
}

func TestTermsAreFound(t *testing.T) {
	f := func(term, text string, want bool) {
		t.Helper()
		if got := words([]string{term}).hit(text); got != want {
			t.Errorf("%q in %q: %t", term, text, got)
		}
	}
	f("heart", "My HEART!", true)
	f("heart", "hearty", false)
	f("heart*", "hearty", true)
	f("*melanom*", "Hautmelanome", true)
	f("*melanom*", "Melanie", false)
	f("side effect", "a side-effect", true)
	f("side effect", "side of effect", false)
	f("Küche", "die kuche", true)
	f("Küche", "die KUECHE", true)
	f("Straße", "strasse", true)
	f("#soup", "soup", true)
	f("スープ", "おいしいスープです", true)
	f("", "anything", false)
}

// FuzzQuery: whatever the text, the reader answers and its verdicts are ordered: naming a product can only be surer to
// match when the query does not exclude products.
//
//	go test ./services/polyphony/generate -run '^$' -fuzz FuzzQuery -fuzztime 30s
func FuzzQuery(f *testing.F) {
	for _, seed := range []string{`products OR "a b" AND NOT (c* OR *dddd*)`, `lang:de NEAR/3 tag:x`, `((((`, `"`, `NOT`, `a:"b`, `products)`, "産 OR 品"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		q, err := parseQuery(s)
		if err != nil {
			return
		}
		if !strings.Contains(s, "NOT") && q.eval(yes) < q.eval(no) {
			t.Errorf("%q matches less with a product than without", s)
		}
		q.terms(func(term term) {
			if len(term.words) == 0 {
				t.Errorf("%q has a term without words", s)
			}
		})
	})
}
