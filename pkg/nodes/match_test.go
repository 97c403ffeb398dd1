package nodes

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"polyphony/pkg/social"
)

// listening makes rules of one division "d" with this query and two products.
func listening(t testing.TB, listen string) *Rules {
	t.Helper()
	return load(t, fmt.Sprintf(`
-- divisions/d.yaml --
division: d
products:
  - {id: examora, names: [Examora, "Exa-mora"], hashtags: [livingwithexamora]}
  - {id: zweitol, names: [Zweitöl]}
competitors:
  - {id: rivalora, names: [Rivalora]}
listen: |-
  %s
`, listen))
}

func TestMatching(t *testing.T) {
	f := func(rule, listen, text string, want bool) {
		t.Helper()
		m := listening(t, listen).Matcher()
		if got := len(m.Match(&social.Event{Source: "x", Kind: social.Post, Text: text, PlaceCountry: "FR"})) > 0; got != want {
			t.Errorf("%s: query %s on %q: got %v, want %v", rule, listen, text, got, want)
		}
	}
	const nfkc = "normalised by NFKC"
	f(nfkc, "examora", "Ｅｘａｍｏｒａ", true)
	f(nfkc, "Ｅｘａｍｏｒａ", "examora", true)
	f(nfkc, "finance", "ﬁnance", true)
	f(nfkc, "ガ", "ｶﾞ", true)
	f(nfkc, "カ", "ｶﾞ", false)
	f(nfkc, "각", "\u1100\u1161\u11a8", true)
	f(nfkc, "क़लम", "\u0915\u093c\u0932\u092e", true)
	f(nfkc, "آب", "\u0627\u0653\u0628", true)
	const folding = "case folding"
	f(folding, "examora", "EXAMORA", true)
	f(folding, "EXAMORA", "examora", true)
	f(folding, "ΟΔΟΣ", "οδος", true)
	f(folding, "боль", "БОЛЬ", true)
	const accents = "accents dropped"
	f(accents, "cafe", "café", true)
	f(accents, "café", "cafe", true)
	f(accents, "café", "cafe\u0301", true)
	f(accents, "ταξη", "τάξη", true)
	f(accents, "мед", "мёд", true)
	f(accents, "xq", "x\u030cq\u0308", true)
	f(accents, "か", "が", false)
	f(accents, "เจบ", "เจ็บ", false)
	f(accents, "कल", "किल", false)
	const umlauts = "a term written with ä, ö, ü also matches ae, oe, ue"
	f(umlauts, "Müller", "Mueller", true)
	f(umlauts, "Müller", "Müller", true)
	f(umlauts, "Müller", "Muller", true)
	f(umlauts, "Mu\u0308ller", "MUELLER", true)
	f(umlauts, "Muller", "Müller", true)
	f(umlauts, "Muller", "Mueller", false)
	f(umlauts, "Übelkeit*", "uebelkeiten", true)
	f(umlauts, "*geschwür*", "Magengeschwuere", true)
	f(umlauts, `"böse Öfen"`, "Boese Ofen", true)
	const eszett = "ß = ss"
	f(eszett, "Strasse", "Straße", true)
	f(eszett, "Straße", "STRASSE", true)
	f(eszett, "Straße", "STRAẞE", true)
	const quotes = "typographic quotes made plain"
	f(quotes, "“side effect”", "a side effect here", true)
	f(quotes, "„side effect“", "side effect", true)
	f(quotes, "Crohn's", "Crohn’s disease", true)
	f(quotes, "Crohn’s", "Crohn's disease", true)
	const wholeWords = "terms are whole words (letters, digits, marks, _)"
	f(wholeWords, "mora", "examora", false)
	f(wholeWords, "exam", "examora", false)
	f(wholeWords, "exam", "exam2", false)
	f(wholeWords, "exam", "exam_a", false)
	f(wholeWords, "exam", "exam-a", true)
	f(wholeWords, "exam", "(exam)", true)
	f(wholeWords, "exam", "exam", true)
	f(wholeWords, "exam", "💊exam❤️exam", true)
	f(wholeWords, "exam", "❤️exam", true)
	f(wholeWords, "exam", "exam™ and exam®", true)
	f(wholeWords, "exam", "ex\u00adam", true)
	f(wholeWords, "exam", "éexam", false)
	f(wholeWords, "약", "두통약", false)
	f(wholeWords, "क", "कि", false)
	const spaceless = "in scripts without spaces they match anywhere"
	f(spaceless, "副作用", "ひどい副作用が出た", true)
	f(spaceless, "作用", "副作用", true)
	f(spaceless, "ベルレ", "ベルレックス", true)
	f(spaceless, "ยา", "กินยาแล้ว", true)
	f(spaceless, "ຢາ", "ກິນຢາແລ້ວ", true)
	f(spaceless, "ថ្នាំ", "លេបថ្នាំហើយ", true)
	f(spaceless, "ဆေး", "ဒီဆေးကောင်း", true)
	f(spaceless, "examora", "今日examoraを飲んだ", true)
	f(spaceless, "examora", "今日examorasを飲んだ", false)
	f(spaceless, "抗PD1抗体", "新しい抗pd1抗体です", true)
	f(spaceless, "副作用", "副。作用", false)
	const adjacency = "words of a term stand side by side, with nothing between that belongs to a word"
	f(adjacency, "Exa-mora", "Exa-mora", true)
	f(adjacency, "Exa-mora", "exa mora", true)
	f(adjacency, "Exa-mora", "exa – mora", true)
	f(adjacency, "Exa-mora", "examora", false)
	f(adjacency, "Exa-mora", "exa x mora", false)
	f(adjacency, `"side effect"`, "side\n#effect", true)
	const hashtags = "#Examora in text matches the term Examora"
	f(hashtags, "examora", "hurray #Examora!", true)
	f(hashtags, "examora", "#examorarocks", false)

	const precedence = "NOT > AND"
	f(precedence, "a AND NOT b", "a", true)
	f(precedence, "a AND NOT b", "a b", false)
	f(precedence, "NOT a AND b", "b", true)
	f(precedence, "NOT a AND b", "a b", false)
	const parentheses = "parentheses"
	f(parentheses, "a AND (b OR c)", "a c", true)
	f(parentheses, "a AND (b OR c)", "c", false)
	f(parentheses, "a AND NOT (b OR c)", "a c", false)
	const phrase = `"phrase"`
	f(phrase, `"side effect"`, "Side effect!", true)
	f(phrase, `"side effect"`, "effect side", false)
	f(phrase, `"side effect"`, "side effects", false)
	f(phrase, `"side effect"`, "inside effect", false)
	f(phrase, `"a b" OR "b c"`, "a b c", true)
	const near = "NEAR/n: at most n words between, in either order"
	f(near, "skin NEAR/2 red", "skin is very red", true)
	f(near, "skin NEAR/2 red", "skin is very very red", false)
	f(near, "skin NEAR/2 red", "red and sore skin", true)
	f(near, "skin NEAR/0 red", "red skin", true)
	f(near, "skin NEAR/0 red", "red, skin", true)
	f(near, "skin NEAR/0 red", "red hot skin", false)
	f(near, "skin NEAR/2 skin", "skin", false)
	f(near, "skin NEAR/2 skin", "skin on skin", true)
	f(near, "(cost OR price) NEAR/3 insur*", "the insurer pays no price", true)
	f(near, `"side effect" NEAR/1 strong`, "strong first side effect", true)
	f(near, `"side effect" NEAR/1 strong`, "strong and first side effect", false)
	f(near, "products NEAR/1 pain", "pain with Exa Mora", true)
	f(near, "products NEAR/1 pain", "pain came with Exa-Mora", false)
	f(near, "頭 NEAR/2 痛", "頭がだ痛", true)
	f(near, "頭 NEAR/2 痛", "頭がだが痛", false)
	f(near, "skin NEAR/2 rouge", "skin très très rouge", true)
	f(near, "skin NEAR/1 rouge", "skin très très rouge", false)
	const wildcard = "prefix*, *stem* (four letters or more)"
	f(wildcard, "insur*", "insurance", true)
	f(wildcard, "insur*", "insur", true)
	f(wildcard, "insur*", "reinsurance", false)
	f(wildcard, "*melanom*", "Hautmelanome", true)
	f(wildcard, "*melanom*", "melanom", true)
	f(wildcard, "*melanom*", "mela nom", false)
	f(wildcard, "exa-mo*", "exa mora", true)
	f(wildcard, "*mnopqrz* OR *nopqry* OR *opqr*", "mnopqr", true)
	const names = "products and competitors (names, or hashtags)"
	f(names, "products", "EXAMORA", true)
	f(names, "products", "exa mora", true)
	f(names, "products", "zweitoel", true)
	f(names, "products", "#livingwithexamora", true)
	f(names, "products", "livingwithexamora", false)
	f(names, "products", "#livingwithexamoratoo", false)
	f(names, "products", "rivalora", false)
	f(names, "competitors", "rivalora", true)
	f(names, `"products"`, "our products", true)
	f(names, "products AND NOT competitors", "examora or rivalora", false)
}

func TestFields(t *testing.T) {
	f := func(listen string, change func(*social.Event), want bool) {
		t.Helper()
		e := social.Event{Source: "mastodon", ID: "1", Kind: social.Reply, Text: "hello #World and #été", Title: "A title", Lang: "de-AT", PlaceCountry: "at",
			Account: "page-7", Author: social.Author{ID: "u1", Handle: "@Jo.Doe", Country: "FR"}, URL: "https://social.example/@jo/1",
			Hashtags: []string{"#Grüße", "two words"}, Links: []string{"https://News.example/Path?q=1"}}
		if change != nil {
			change(&e)
		}
		m := listening(t, listen).Matcher()
		if got := len(m.Match(&e)) > 0; got != want {
			t.Errorf("%s: got %v, want %v", listen, got, want)
		}
	}
	f("lang:de", nil, true)
	f("lang:de-at", nil, true)
	f("lang:de-ch", nil, false)
	f("lang:en", nil, false)
	f("lang:de", func(e *social.Event) { e.Lang = "den" }, false)
	f("lang:de", func(e *social.Event) { e.Lang = "" }, false)
	f("country:AT", nil, true)
	f("country:fr", nil, false)
	f("country:fr", func(e *social.Event) { e.PlaceCountry = "" }, true)
	f("source:mastodon", nil, true)
	f("source:x", nil, false)
	f("kind:reply", nil, true)
	f("kind:post", nil, false)
	f("account:page-7", nil, true)
	f("account:page", nil, false)
	f("role:unknown", nil, true)
	f("role:hcp", nil, false)
	f("tag:world", nil, true)
	f("tag:été", nil, true)
	f("tag:Gruesse", nil, false)
	f("tag:grüße", nil, true)
	f("tag:#grusse", nil, true)
	f("tag:hello", nil, false)
	f("tag:two", nil, false)
	f("tag:title", nil, false)
	f("tag:worl", nil, false)
	f("from:u1", nil, true)
	f("from:@jo.doe", nil, true)
	f("from:JO.DOE", nil, true)
	f("from:jo", nil, false)
	f("url:news.example", nil, true)
	f("url:social.example/@jo", nil, true)
	f(`url:"path?q=1"`, nil, true)
	f("url:other.example", nil, false)
	f("NOT lang:de AND hello", nil, false)
	f("NOT lang:en AND hello", nil, true)
	f("lang:de AND NOT hello", nil, false)
	f("lang:de AND NOT goodbye", nil, true)
}

func TestSearchedAreTitleTextAndHashtags(t *testing.T) {
	m := listening(t, `rash OR "one two" OR (far NEAR/50 away)`).Matcher()
	f := func(e social.Event, want bool) {
		t.Helper()
		e.Source, e.Kind = "x", social.Post
		if got := len(m.Match(&e)) > 0; got != want {
			t.Errorf("%+v: got %v, want %v", e, got, want)
		}
	}
	f(social.Event{Title: "Rash"}, true)
	f(social.Event{Text: "a rash"}, true)
	f(social.Event{Hashtags: []string{"x", "#rash"}}, true)
	f(social.Event{Hashtags: []string{"RASH"}}, true)
	f(social.Event{URL: "https://rash.example", Lang: "rash", Author: social.Author{Name: "rash", Bio: "rash", Handle: "rash"}, Links: []string{"rash"}}, false)
	f(social.Event{Title: "one", Text: "two"}, false)
	f(social.Event{Title: "far", Text: "away"}, false)
	f(social.Event{Hashtags: []string{"one", "two"}}, false)
	f(social.Event{}, false)
}

const routingCompany = `
-- company.yaml --
company: nimbara
names: [Nimbara, "Nimbara Labs"]
-- territories/alps.yaml --
territory: alps
countries: [AT, CH]
languages: [de, it]
-- territories/gaul.yaml --
territory: gaul
countries: [FR, BE]
languages: [fr]
-- territories/rhine.yaml --
territory: rhine
countries: [DE, BE]
languages: [de-DE]
-- divisions/heart.yaml --
division: heart
territories: [alps, gaul]
products: [{id: cordia, names: [Cordia]}, {id: aortin, names: [Aortin], hashtags: [aortin]}]
competitors: [{id: venalor, names: [Venalor]}]
listen: products OR competitors OR palpitations
topics: [{id: access, query: price OR cost}, {id: speed, query: products NEAR/2 fast}]
-- divisions/lung.yaml --
division: lung
territories: [alps, rhine]
products: [{id: breezol, names: [Breezol]}]
listen: products OR breath* OR cordia
-- business-units/heart-alps.yaml --
business_unit: heart-alps
division: heart
territories: [alps]
accounts: [{source: facebook, id: heart-at}]
products: [{id: cordia, names: [Herzol]}]
listen: Jodler
mute: Aktie
topics: [{id: local, query: Berg}, {id: access, query: Preis}]
-- business-units/heart-gaul.yaml --
business_unit: heart-gaul
division: heart
territories: [gaul]
accounts: [{source: facebook, id: heart-fr}]
-- business-units/lung-rhine.yaml --
business_unit: lung-rhine
division: lung
territories: [rhine]
accounts: [{source: facebook, id: lung-de}]
`

// short writes matches as "division/territory via account owned company [products|competitors|topics] country by method".
func short(matches []Match) []string {
	out := []string{}
	for _, m := range matches {
		s := fmt.Sprintf("%s %s", m.Node, m.Via)
		if m.Account != "" {
			s += " on " + m.Account
		}
		if m.Owned {
			s += " owned"
		}
		if m.ByCompany {
			s += " company"
		}
		if all := slices.Concat(m.Products, m.Competitors, m.Topics); len(all) > 0 {
			s += fmt.Sprintf(" [%s|%s|%s]", strings.Join(m.Products, ","), strings.Join(m.Competitors, ","), strings.Join(m.Topics, ","))
		}
		out = append(out, fmt.Sprintf("%s %s by %s", s, m.Country, m.CountryMethod))
	}
	return out
}

func TestRouting(t *testing.T) {
	r := load(t, routingCompany)
	m := r.Matcher()
	type event = social.Event
	by := func(id string) social.Author { return social.Author{ID: id} }
	f := func(rule string, e event, want ...string) {
		t.Helper()
		if e.Source == "" {
			e.Source = "facebook"
		}
		if e.Kind == "" {
			e.Kind = social.Post
		}
		if diff := cmp.Diff(want, short(m.Match(&e)), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s: %s", rule, diff)
		}
	}
	const account = "an event on an owned account, or written by it, belongs to that account's node"
	f(account, event{Account: "heart-at", Author: by("u"), Text: "hi"}, "heart/alps account on heart-at owned  by account")
	f(account, event{Account: "heart-at", Author: by("u"), Text: "hi", PlaceCountry: "FR"}, "heart/alps account on heart-at owned FR by place")
	f(account, event{Account: "heart-at", Source: "mastodon", Text: "hi"})
	f(account, event{Account: "somebody", Text: "hi"})
	f(account, event{Author: by("heart-at"), Text: "hi"}, "heart/alps account on heart-at owned company  by account")
	f(account, event{Author: by("heart-at"), Source: "mastodon", Text: "hi"})
	f(account, event{Author: by("heart-at"), Kind: social.Reply, Text: "hi"}, "heart/alps account on heart-at company  by account")
	f(account, event{Account: "heart-at", Author: by("heart-at"), Kind: social.Reply}, "heart/alps account on heart-at owned company  by account")
	f(account, event{Account: "heart-at", Author: by("heart-fr"), Kind: social.Reply},
		"heart/alps account on heart-at owned company  by account", "heart/gaul account on heart-at owned company  by account")
	f(account, event{Account: "heart-at", Author: by("lung-de"), Kind: social.Reply},
		"heart/alps account on heart-at owned company  by account", "lung/rhine account on lung-de company  by account")
	const listen = "besides, it belongs to every division whose listen matches, in the territory of its country"
	f(listen, event{Text: "palpitations", PlaceCountry: "AT"}, "heart/alps text AT by place")
	f(listen, event{Text: "palpitations", PlaceCountry: "ch"}, "heart/alps text CH by place")
	f(listen, event{Text: "palpitations", PlaceCountry: "FR", Author: social.Author{Country: "AT"}}, "heart/gaul text FR by place")
	f(listen, event{Text: "palpitations", Author: social.Author{Country: "AT"}}, "heart/alps text AT by author")
	f(listen, event{Text: "cordia", PlaceCountry: "AT"}, "heart/alps text [cordia||] AT by place", "lung/alps text AT by place")
	f(listen, event{Text: "nothing of the kind", PlaceCountry: "AT"})
	f(listen, event{Text: "cordia", Account: "heart-at", PlaceCountry: "AT"}, "heart/alps account on heart-at owned [cordia||] AT by place", "lung/alps text AT by place")
	f(listen, event{Text: "cordia", Author: by("heart-at"), PlaceCountry: "AT"}, "heart/alps account on heart-at owned company [cordia||] AT by place", "lung/alps text company AT by place")
	const sameDivision = "for the division of (1), the account's territory"
	f(sameDivision, event{Text: "palpitations", Account: "heart-at", PlaceCountry: "FR"}, "heart/alps account on heart-at owned FR by place")
	const elsewhere = "a known country that no territory of the division serves gives territory zz"
	f(elsewhere, event{Text: "palpitations", PlaceCountry: "JP"}, "heart/zz text JP by place")
	f(elsewhere, event{Text: "palpitations", PlaceCountry: "DE", Lang: "de"}, "heart/zz text DE by place")
	f(elsewhere, event{Text: "cordia", PlaceCountry: "DE"}, "heart/zz text [cordia||] DE by place", "lung/rhine text DE by place")
	const language = "with no country known, the one territory whose languages fit"
	f(language, event{Text: "palpitations", Lang: "fr"}, "heart/gaul text  by language")
	f(language, event{Text: "palpitations", Lang: "FR-ca"}, "heart/gaul text  by language")
	f(language, event{Text: "palpitations", Lang: "de"}, "heart/alps text  by language")
	const noLanguage = "no country with no fitting language gives territory zz"
	f(noLanguage, event{Text: "palpitations", Lang: "ja"}, "heart/zz text  by none")
	f(noLanguage, event{Text: "palpitations"}, "heart/zz text  by none")
	f(noLanguage, event{Text: "breathless", Lang: "de"}, "lung/zz text  by none")
	const unit = "a unit's listen widens the division's, for its own territories only"
	f(unit, event{Text: "Jodler", PlaceCountry: "AT"}, "heart/alps text AT by place")
	f(unit, event{Text: "Jodler", PlaceCountry: "FR"})
	f(unit, event{Text: "Jodler", PlaceCountry: "JP"})
	const localNames = "local names count in the unit's own territories"
	f(localNames, event{Text: "Herzol", PlaceCountry: "AT"}, "heart/alps text [cordia||] AT by place")
	f(localNames, event{Text: "Herzol", PlaceCountry: "FR"})
	const mute = "mute: out of its metrics"
	f(mute, event{Text: "cordia Aktie", PlaceCountry: "AT"}, "lung/alps text AT by place")
	f(mute, event{Text: "cordia Aktie", PlaceCountry: "FR"}, "heart/gaul text [cordia||] FR by place", "lung/zz text FR by place")
	f(mute, event{Text: "Aktie", Account: "heart-at"})
	const labels = "products, competitors and topics of the node's division, sorted, each once"
	f(labels, event{Text: "Cordia or #aortin? Cordia! Venalor price", PlaceCountry: "FR"}, "heart/gaul text [aortin,cordia|venalor|access] FR by place", "lung/zz text FR by place")
	f(labels, event{Text: "palpitations: Preis, price, Berg", PlaceCountry: "AT"}, "heart/alps text [||access,local] AT by place")
	f(labels, event{Text: "palpitations: Preis, Berg", PlaceCountry: "FR"}, "heart/gaul text FR by place")
	f(labels, event{Text: "Herzol works fast", PlaceCountry: "AT"}, "heart/alps text [cordia||speed] AT by place")
	const company = `names: talk about the company itself: reserved division "company"`
	f(company, event{Text: "nimbara labs is hiring", PlaceCountry: "DE"}, "company/rhine text DE by place")
	f(company, event{Text: "Nimbara", PlaceCountry: "JP"}, "company/zz text JP by place")
	f(company, event{Text: "Nimbara makes Breezol", PlaceCountry: "AT"}, "company/alps text AT by place", "lung/alps text [breezol||] AT by place")
	const overlap = "where territories overlap, the company's own division takes the alphabetically first"
	f(overlap, event{Text: "Nimbara", PlaceCountry: "BE"}, "company/gaul text BE by place")
}

func TestMutedKeepsWhatMatchLeavesOut(t *testing.T) {
	m := load(t, routingCompany).Matcher()
	m.Match(&social.Event{Source: "facebook", Kind: social.Post, Text: "cordia Aktie", PlaceCountry: "AT"})
	if diff := cmp.Diff([]string{"heart/alps text [cordia||] AT by place"}, short(m.Muted())); diff != "" {
		t.Error(diff)
	}
	m.Match(&social.Event{Source: "facebook", Kind: social.Post, Text: "cordia", PlaceCountry: "AT"})
	if len(m.Muted()) != 0 {
		t.Errorf("muted matches of the event before: %v", m.Muted())
	}
}

func TestMatchAllocatesNothingInTheSteadyState(t *testing.T) {
	r := load(t, routingCompany)
	m := r.Matcher()
	f := func(e social.Event) {
		t.Helper()
		e.Source, e.Kind = "facebook", social.Post
		for range 3 {
			m.Match(&e)
		}
		if n := testing.AllocsPerRun(100, func() { m.Match(&e) }); n != 0 {
			t.Errorf("%q: %v allocations", e.Text, n)
		}
	}
	f(social.Event{Text: "nothing that concerns anybody"})
	f(social.Event{Text: "Cordia works fast, price is fine, #aortin", PlaceCountry: "AT", Hashtags: []string{"#Aortin"}})
	f(social.Event{Text: "Größere Übel, ｶﾞｽ, e\u0301, กินยาแล้วที่ and cordia Aktie", Lang: "de-AT"})
	f(social.Event{Text: "hello", Account: "heart-at", Author: social.Author{ID: "lung-de"}})
}

func TestRulesServeManyMatchersAtOnce(t *testing.T) {
	r := load(t, routingCompany)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			m := r.Matcher()
			for i := range 200 {
				e := &social.Event{Source: "facebook", Kind: social.Post, Text: "Cordia NEAR Müller " + strings.Repeat("é", i%7), PlaceCountry: "AT"}
				if got := len(m.Match(e)); got != 2 {
					t.Errorf("got %d matches", got)
				}
			}
		})
	}
	wg.Wait()
}

func TestALongTextOfProductNamesIsMatchedInTime(t *testing.T) {
	m := listening(t, "products NEAR/1 competitors OR nothing").Matcher()
	e := &social.Event{Source: "x", Kind: social.Post, Text: strings.Repeat("examora rash und ", 1<<16) + "rivalora examora", PlaceCountry: "FR"}
	start := time.Now()
	m.Match(e)
	// A quadratic step would take minutes; the linear one takes some 20 ms.
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("1 MiB took %v", took)
	}
}

func TestAHugeHashtagIsMatchedInTime(t *testing.T) {
	m := listening(t, "products").Matcher()
	f := func(tag string, want bool) {
		t.Helper()
		e := &social.Event{Source: "x", Kind: social.Post, Hashtags: []string{tag}, PlaceCountry: "FR"}
		start := time.Now()
		if got := len(m.Match(e)) > 0; got != want {
			t.Errorf("a hashtag of %d bytes matches: %v", len(tag), got)
		}
		// Looking through the spaces for every hit would take minutes; once takes a tenth of a second.
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("%d bytes took %v", len(tag), took)
		}
	}
	spaces := strings.Repeat(" ", 20<<20)
	f(spaces+"livingwithexamora"+spaces, true)
	f(spaces+strings.Repeat("livingwithexamora ", maxHits), false)
	f(strings.Repeat("livingwithexamora ", maxHits)+spaces, false)
}
