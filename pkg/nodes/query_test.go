package nodes

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestQueriesInTheirPlainestForm(t *testing.T) {
	f := func(text, want string) {
		t.Helper()
		q, faults := parseQuery(text)
		if len(faults) > 0 {
			t.Errorf("%s: %v", text, faults)
			return
		}
		if got := q.String(); got != want {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
		again, faults := parseQuery(q.String())
		if len(faults) > 0 || again.String() != want {
			t.Errorf("%s does not read as itself: %v %v", want, again, faults)
		}
	}
	f("a", "a")
	f("  ( ( a ) ) ", "a")
	f("a AND b AND c", "a AND b AND c")
	f("a AND (b AND c)", "a AND b AND c")
	f("(a OR b) OR c", "a OR b OR c")
	f("a OR (b AND c)", "a OR (b AND c)")
	f("(a AND b) OR NOT (NOT c OR d)", "(a AND b) OR NOT (NOT c OR d)")
	f("a AND NOT NOT b", "a AND NOT NOT b")
	f(`"side effect" OR "rash"`, `"side effect" OR rash`)
	f(`„side effect“`, `"side effect"`)
	f(`"AND" OR "not" OR "products" OR "a:b" OR "-x"`, `"AND" OR "not" OR "products" OR "a:b" OR "-x"`)
	f("insur* AND *melanom*", "insur* AND *melanom*")
	f("skin NEAR/5 (red OR burn*)", "skin NEAR/5 (red OR burn*)")
	f("NOT a NEAR/3 b AND c", "NOT a NEAR/3 b AND c")
	f("products OR competitors", "products OR competitors")
	f(`lang:DE AND country:de AND from:@jo AND tag:#x AND url:"a b" AND account:12`, `lang:de AND country:DE AND from:jo AND tag:x AND url:"a b" AND account:12`)
	f("Exa-mora's OR Not OR Or", "Exa-mora's OR Not OR Or")
	f("(a)AND(b)", "a AND b")
	f("OR-gate", "OR-gate")
}

func TestQueryFaults(t *testing.T) {
	// The ^ of the second line stands under the place of the fault.
	f := func(text, want string) {
		t.Helper()
		at := strings.IndexByte(want, '^')
		_, faults := parseQuery(text)
		var got []string
		for _, fault := range faults {
			got = append(got, fmt.Sprintf("%s^%s", strings.Repeat(" ", len([]rune(text[:fault.Offset]))), fault.Message))
		}
		if diff := cmp.Diff([]string{want}, got); diff != "" || at < 0 {
			t.Errorf("%s: %s", text, diff)
		}
	}
	f(`patient support`,
		`        ^no operator between patient and support (or, for the phrase, "patient support"): write patient AND support`)
	f(`a "b c" (d OR e)`,
		`  ^no operator between a and "b c": write a AND "b c" AND (d OR e)`)
	f(`a OR b c`,
		`       ^no operator between b and c (or, for the phrase, "b c"): write a OR (b AND c)`)
	f(`a AND b OR c`,
		`^AND and OR side by side need parentheses: write (a AND b) OR c`)
	f(`x OR a AND NOT b`,
		`     ^AND and OR side by side need parentheses: write x OR (a AND NOT b)`)
	f(`a NOT b`,
		`  ^no operator between a and NOT: write a AND NOT b`)
	f(`a and b`,
		`  ^operators are written in capitals, words like "and" in quotes: write a AND b`)
	f(`kosten -aktie`,
		`       ^what to leave out is written with NOT: write kosten AND NOT aktie`)
	f(`a | b`,
		`  ^operators are AND, OR and NOT`)
	f(`NOT a`,
		`^this matches everything but what it excludes: say what to look for, as in (a OR b) AND NOT c`)
	f(`a OR NOT b`,
		`^this matches everything but what it excludes: say what to look for, as in (a OR b) AND NOT c`)
	f(``, `^the query is empty`)
	f(`   `, `^the query is empty`)
	f(`a AND`, `  ^a term is missing after AND`)
	f(`OR a`, `^a term is missing before OR`)
	f(`()`, ` ^a term is missing before )`)
	f(`(a OR b`, `^this ( is not closed`)
	f(`a OR b)`, `      ^this ) closes nothing`)
	f(`a OR "b`, `     ^this quote is not closed`)
	f(`a OR *bc*`, `     ^a *stem* needs 4 letters or more, "bc" has 2`)
	f(`*melanom`, `^a word's end alone cannot be searched for: write *melanom* to find it anywhere in a word`)
	f(`me*om`, `^a * stands at the end of a prefix* or around a *stem*`)
	f(`*`, `^a * stands at the end of a prefix* or around a *stem*`)
	f(`"side eff*"`, `^a * means nothing within quotes: write prefix* or *stem* without them`)
	f(`a OR 💊`, `     ^"💊" has no letters or digits to search for`)
	f(`ä OR é OR 💊`, `          ^"💊" has no letters or digits to search for`)
	f(`a NEAR b`, `  ^NEAR needs a number of words, as in NEAR/5`)
	f(`a NEAR/x b`, `  ^NEAR/n needs a number of words from 0 to 100, as in NEAR/5`)
	f(`a NEAR/500 b`, `  ^NEAR/n needs a number of words from 0 to 100, as in NEAR/5`)
	f(`a NEAR/2 b NEAR/3 c`, `           ^NEAR joins two operands: write a NEAR/2 b AND b NEAR/3 c`)
	f(`a NEAR/2 (b AND c)`, `  ^NEAR joins words, phrases and lists of them, as in (cost OR price) NEAR/5 insurance`)
	f(`a NEAR/2 lang:de`, `  ^NEAR joins words, phrases and lists of them, as in (cost OR price) NEAR/5 insurance`)
	f(`langg:de`, `^unknown field "langg", did you mean "lang"? fields are lang, country, source, kind, account, role, tag, from, url; a term with a colon is put in quotes`)
	f(`12:30`, `^unknown field "12"; fields are lang, country, source, kind, account, role, tag, from, url; a term with a colon is put in quotes`)
	f(`lang: de`, `^lang: needs a value right after the colon`)
	f(`lang:german`, `^"german" is not a language: write its code, as in lang:de`)
	f(`country:Germany`, `^"Germany" is not a country: write its code of ISO 3166-1, as in country:DE`)
	f(`kind:replay`, `^unknown kind "replay", did you mean "reply"? kinds are post, reply, share, reaction, follow, view, edit, delete, counters`)
	f(`role:doctor`, `^unknown role "doctor"; roles are patient, caregiver, hcp, employee, partner, company, other, unknown`)
	f(`tag:two-words`, `^"two-words" is not a hashtag: one word of letters, digits and _`)
	f(`source:X`, `^source "X": names begin with a letter a-z, then letters a-z, digits and -, 32 at most`)
	deep := strings.Repeat("(", 40) + "a" + strings.Repeat(")", 40)
	f(deep, strings.Repeat(" ", maxNesting)+`^nested more than 32 deep`)
	f(strings.Repeat("NOT ", 40)+"a", strings.Repeat(" ", 4*maxNesting)+`^nested more than 32 deep`)
	f(strings.Repeat("a OR ", maxOperands)+"a", strings.Repeat(" ", 5*maxOperands)+`^more than 1000 terms: make several topics or business units of it`)
	f(strings.Repeat("a", maxQuery+1), `^the query has more than 16384 bytes: make several topics or business units of it`)
}

// FuzzQuery checks that no query can crash the parser, that a query in its plainest form is the same query, and that
// what a fault suggests to write is free of faults.
func FuzzQuery(f *testing.F) {
	for _, seed := range []string{"a", "a AND b OR c", `"side effect" NEAR/3 (x OR products)`, "NOT (a OR *stem*) AND tag:x", "a b c", "lang:de-AT", "„a“ -b", "((((", `"`,
		"Müller* OR 新薬 OR ｶﾞ*", "a near/2 b", "from:\"x y\"", "+a", "--a", "-NEAR/3", "x:\"", "*\xff*"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		q, faults := parseQuery(text)
		if (q == nil) == (len(faults) == 0) {
			t.Fatalf("%q: query %v with faults %v", text, q, faults)
		}
		for _, fault := range faults {
			if fault.Offset < 0 || fault.Offset > len(text) {
				t.Fatalf("%q: fault at %d is not in it", text, fault.Offset)
			}
			if _, suggested, ok := strings.Cut(fault.Message, ": write "); ok && len(text) < 200 && len(faults) == 1 && !strings.Contains(fault.Message, "code") && !strings.Contains(fault.Message, "NEAR joins") && !strings.Contains(fault.Message, "*") {
				if _, again := parseQuery(suggested); len(again) > 0 && !strings.Contains(again[0].Message, "everything but") {
					t.Fatalf("%q: suggests %q, which has %v", text, suggested, again)
				}
			}
		}
		if q == nil {
			return
		}
		again, faults := parseQuery(q.String())
		if len(faults) > 0 {
			t.Fatalf("%q: %q does not parse: %v", text, q, faults)
		}
		if diff := cmp.Diff(meaning(q.root), meaning(again.root)); diff != "" {
			t.Fatalf("%q is not %q: %s", text, q, diff)
		}
	})
}

// meaning writes all that a query means, without places.
func meaning(x *expr) string {
	kids := make([]string, len(x.kids))
	for i, k := range x.kids {
		kids[i] = meaning(k)
	}
	return fmt.Sprintf("(%d %q %d %s %d %s)", x.op, x.text, x.shape, x.field, x.distance, strings.Join(kids, " "))
}
