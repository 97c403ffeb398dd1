package nodes

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"unicode"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/text/unicode/norm"
	"pgregory.net/rapid"

	"polyphony/pkg/social"
)

// The model says again, slowly and with other means, what the contract says about matching and routing. It shares no
// code with the package: texts become lists of words by way of regular expressions, queries are trees of closures.

type modelWord struct {
	text  string
	glued bool // nothing stands between this character and the one before; only in scripts without spaces
}

var (
	modelWords   = regexp.MustCompile(`\p{Han}|\p{Hiragana}|\p{Katakana}|[^\P{L}\p{Han}\p{Hiragana}\p{Katakana}]([\p{N}\p{M}_]|[^\P{L}\p{Han}\p{Hiragana}\p{Katakana}])*|[\p{N}_]+`)
	modelAccents = regexp.MustCompile(`(\p{Latin}|\p{Greek}|\p{Cyrillic})\p{Mn}+`)
	modelNoSpace = regexp.MustCompile(`^(\p{Han}|\p{Hiragana}|\p{Katakana})`)
)

func modelSplit(text string) []modelWord {
	text = norm.NFD.String(strings.ToLower(strings.ReplaceAll(strings.ReplaceAll(norm.NFKC.String(text), "ß", "ss"), "ẞ", "ss")))
	text = norm.NFC.String(modelAccents.ReplaceAllString(text, "$1"))
	var words []modelWord
	end := -1
	for _, at := range modelWords.FindAllStringIndex(text, -1) {
		w := text[at[0]:at[1]]
		glued := at[0] == end && modelNoSpace.MatchString(w) && len(words) > 0 && modelNoSpace.MatchString(words[len(words)-1].text)
		words = append(words, modelWord{w, glued})
		end = at[1]
	}
	return words
}

// modelSpellings writes every umlaut as it is and with an e.
func modelSpellings(term string) []string {
	at := strings.IndexAny(term, "äöü")
	if at < 0 {
		return []string{term}
	}
	var all []string
	for _, rest := range modelSpellings(term[at+2:]) {
		all = append(all, term[:at+2]+rest, term[:at]+map[string]string{"ä": "ae", "ö": "oe", "ü": "ue"}[term[at:at+2]]+rest)
	}
	return all
}

// modelFind gives every place where term stands in words, as first and last word.
func modelFind(words []modelWord, term string, s shape) [][2]int {
	var found [][2]int
	for _, variant := range modelSpellings(norm.NFC.String(strings.ToLower(term))) {
		want := modelSplit(variant)
		for i := 0; i+len(want) <= len(words) && len(want) > 0; i++ {
			ok := true
			for j := range want {
				w, have := want[j].text, words[i+j].text
				same := have == w
				if first, last := j == 0, j == len(want)-1; s == prefix && last {
					same = strings.HasPrefix(have, w)
				} else if s == stem && first && last {
					same = strings.Contains(have, w)
				}
				if !same || j > 0 && want[j].glued != words[i+j].glued {
					ok = false
				}
			}
			if ok {
				found = append(found, [2]int{i, i + len(want) - 1})
			}
		}
	}
	return found
}

type modelEvent struct {
	fields [][]modelWord
	event  *social.Event
	node   *modelNode
}

type modelNode struct {
	node                  social.Node
	products, competitors []Product
	mutes                 []modelQuery
	listens               []modelQuery
}

type modelQuery struct {
	text  string
	holds func(modelEvent) bool
	terms []modelTerm // for NEAR; nil when it has no places
}

type modelTerm struct {
	text  string
	shape shape
}

var modelVocabulary = []string{"alpha", "Beta", "gämma", "Müller", "Mueller", "straße", "STRASSE", "naïve", "naive", "新薬", "副作用", "薬", "exa-mora", "mora", "Ω", "ёлка", "x1", "a_b", "ﬁne", "alphabet", "ガ", "ｶﾞ"}

func drawTerm(t *rapid.T) modelQuery {
	word := rapid.SampledFrom(modelVocabulary).Draw(t, "word")
	term := modelTerm{word, whole}
	text := word
	switch rapid.IntRange(0, 5).Draw(t, "shape") {
	case 0:
		term.text = word + " " + rapid.SampledFrom(modelVocabulary).Draw(t, "second")
		text = `"` + term.text + `"`
	case 1:
		if modelNoSpace.MatchString(norm.NFKC.String(word)) {
			break
		}
		term.shape, text = prefix, word+"*"
	case 2:
		if len([]rune(word)) < 4 || strings.Contains(word, "-") {
			break
		}
		term.shape, text = stem, "*"+word+"*"
	}
	return modelQuery{text: text, terms: []modelTerm{term}, holds: func(e modelEvent) bool {
		return slices.ContainsFunc(e.fields, func(f []modelWord) bool { return len(modelFind(f, term.text, term.shape)) > 0 })
	}}
}

func modelHasAny(e modelEvent, products []Product) []string {
	var ids []string
	for _, p := range products {
		named := slices.ContainsFunc(p.Names, func(n string) bool {
			return slices.ContainsFunc(e.fields, func(f []modelWord) bool { return len(modelFind(f, n, whole)) > 0 })
		})
		if named && !slices.Contains(ids, p.ID) {
			ids = append(ids, p.ID)
		}
	}
	slices.Sort(ids)
	return ids
}

func drawQuery(t *rapid.T, depth int) modelQuery {
	choice := rapid.IntRange(0, 9).Draw(t, "operator")
	if depth == 0 && choice < 6 {
		choice = 9
	}
	switch choice {
	case 0, 1, 2, 3:
		kids := []modelQuery{drawQuery(t, depth-1), drawQuery(t, depth-1)}
		and := choice < 2
		q := modelQuery{text: "(" + kids[0].text + " OR " + kids[1].text + ")"}
		if and {
			q.text = "(" + kids[0].text + " AND " + kids[1].text + ")"
		} else if kids[0].terms != nil && kids[1].terms != nil {
			q.terms = slices.Concat(kids[0].terms, kids[1].terms)
		}
		q.holds = func(e modelEvent) bool {
			if and {
				return kids[0].holds(e) && kids[1].holds(e)
			}
			return kids[0].holds(e) || kids[1].holds(e)
		}
		return q
	case 4:
		kid := drawQuery(t, depth-1)
		positive := drawTerm(t)
		return modelQuery{text: "(" + positive.text + " AND NOT " + kid.text + ")", holds: func(e modelEvent) bool { return positive.holds(e) && !kid.holds(e) }}
	case 5:
		left, right := drawTerm(t), drawTerm(t)
		n := rapid.IntRange(0, 3).Draw(t, "distance")
		return modelQuery{text: fmt.Sprintf("(%s NEAR/%d %s)", left.text, n, right.text), holds: func(e modelEvent) bool {
			for _, f := range e.fields {
				for _, a := range modelFind(f, left.terms[0].text, left.terms[0].shape) {
					for _, b := range modelFind(f, right.terms[0].text, right.terms[0].shape) {
						if b[0] > a[1] && b[0]-a[1]-1 <= n || a[0] > b[1] && a[0]-b[1]-1 <= n {
							return true
						}
					}
				}
			}
			return false
		}}
	case 6:
		lang := rapid.SampledFrom([]string{"de", "fr"}).Draw(t, "lang")
		return modelQuery{text: "lang:" + lang, holds: func(e modelEvent) bool { return strings.HasPrefix(e.event.Lang, lang) }}
	case 7:
		return modelQuery{text: "products", holds: func(e modelEvent) bool { return len(modelHasAny(e, e.node.products)) > 0 }}
	case 8:
		return modelQuery{text: "competitors", holds: func(e modelEvent) bool { return len(modelHasAny(e, e.node.competitors)) > 0 }}
	default:
		return drawTerm(t)
	}
}

type modelCompany struct {
	files       fstest.MapFS
	territories map[string][2][]string // countries, languages
	divisions   []modelDivision
	accounts    map[string]social.Node // by id, on the source "net"
}

type modelDivision struct {
	id          string
	territories []string
	nodes       map[string]*modelNode
}

var modelCountries = []string{"DE", "AT", "FR", "JP"}

func drawCompany(t *rapid.T) modelCompany {
	c := modelCompany{files: fstest.MapFS{}, territories: map[string][2][]string{}, accounts: map[string]social.Node{}}
	file := func(name, format string, args ...any) {
		c.files[name] = &fstest.MapFile{Data: fmt.Appendf(nil, format, args...)}
	}
	file("company.yaml", "company: model\n")
	var all []string
	for i := range 3 {
		id := fmt.Sprintf("t%d", i)
		languages := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"de", "fr", "ja"}), 0, 2, rapid.ID).Draw(t, "languages")
		countries := []string{modelCountries[i]}
		c.territories[id] = [2][]string{countries, languages}
		file("territories/"+id+".yaml", "territory: %s\ncountries: [%s]\nlanguages: [%s]\n", id, strings.Join(countries, ", "), strings.Join(languages, ", "))
		all = append(all, id)
	}
	drawNames := func(what string) []string {
		return rapid.SliceOfN(rapid.SampledFrom(modelVocabulary), 1, 2).Draw(t, what)
	}
	quoted := func(names []string) string { return `"` + strings.Join(names, `", "`) + `"` }
	for i := range 2 {
		d := modelDivision{id: fmt.Sprintf("d%d", i), nodes: map[string]*modelNode{}}
		d.territories = rapid.SliceOfNDistinct(rapid.SampledFrom(all), 1, 3, rapid.ID).Draw(t, "serves")
		products, competitors := drawNames("product"), drawNames("competitor")
		listen := drawQuery(t, 2)
		file("divisions/"+d.id+".yaml", "division: %s\nterritories: [%s]\nproducts: [{id: p, names: [%s]}]\ncompetitors: [{id: k, names: [%s]}]\nlisten: '%s'\n",
			d.id, strings.Join(d.territories, ", "), quoted(products), quoted(competitors), listen.text)
		for _, id := range append(slices.Clone(d.territories), "zz") {
			d.nodes[id] = &modelNode{node: social.Node{Division: d.id, Territory: id}, listens: []modelQuery{listen},
				products: []Product{{ID: "p", Names: products}}, competitors: []Product{{ID: "k", Names: competitors}}}
		}
		for j := range rapid.IntRange(0, 2).Draw(t, "units") {
			id, account := fmt.Sprintf("u%d%d", i, j), fmt.Sprintf("a%d%d", i, j)
			owned := rapid.SampledFrom(d.territories).Draw(t, "owned")
			own, mute, local := drawQuery(t, 1), drawQuery(t, 0), drawNames("local")
			file("business-units/"+id+".yaml", "business_unit: %s\ndivision: %s\nterritories: [%s]\naccounts: [{source: net, id: %s}]\nlisten: '%s'\nmute: '%s'\nproducts: [{id: p, names: [%s]}]\n",
				id, d.id, owned, account, own.text, mute.text, quoted(local))
			n := d.nodes[owned]
			n.listens, n.mutes = append(n.listens, own), append(n.mutes, mute)
			n.products = append(n.products, Product{ID: "p", Names: local})
			c.accounts[account] = n.node
		}
		c.divisions = append(c.divisions, d)
	}
	return c
}

func drawText(t *rapid.T, label string) string {
	var b strings.Builder
	for range rapid.IntRange(0, 8).Draw(t, label) {
		word := rapid.SampledFrom(modelVocabulary).Draw(t, "word")
		switch rapid.IntRange(0, 3).Draw(t, "case") {
		case 0:
			word = strings.ToUpper(word)
		case 1:
			word = norm.NFD.String(word)
		}
		b.WriteString(word)
		b.WriteString(rapid.SampledFrom([]string{" ", " ", " ", ", ", " #", "-", "", "💊", "\n"}).Draw(t, "between"))
	}
	return b.String()
}

// route is the contract's paragraph on routing.
func (c modelCompany) route(e *social.Event) (matches, muted []string) {
	me := modelEvent{event: e}
	for _, text := range append([]string{e.Title, e.Text}, e.Hashtags...) {
		me.fields = append(me.fields, modelSplit(text))
	}
	country, method := strings.ToUpper(e.PlaceCountry), "place"
	if country == "" {
		country, method = e.Author.Country, "author"
	}
	on, isOn := c.accounts[e.Account]
	by, isBy := c.accounts[e.Author.ID]
	if e.Source != "net" {
		isOn, isBy = false, false
	}
	for _, d := range c.divisions {
		emit := func(n *modelNode, via, account string, owned bool, method string) {
			me.node = n
			line := fmt.Sprintf("%s %s", n.node, via)
			if account != "" {
				line += " on " + account
			}
			if owned {
				line += " owned"
			}
			if isBy {
				line += " company"
			}
			products, competitors := modelHasAny(me, n.products), modelHasAny(me, n.competitors)
			if len(products)+len(competitors) > 0 {
				line += fmt.Sprintf(" [%s|%s|]", strings.Join(products, ","), strings.Join(competitors, ","))
			}
			line += fmt.Sprintf(" %s by %s", country, method)
			if slices.ContainsFunc(n.mutes, func(q modelQuery) bool { return q.holds(me) }) {
				muted = append(muted, line)
			} else {
				matches = append(matches, line)
			}
		}
		accountMethod := method
		if country == "" {
			accountMethod = "account"
		}
		onHere, byHere := isOn && on.Division == d.id, isBy && by.Division == d.id
		if onHere {
			emit(d.nodes[on.Territory], "account", e.Account, true, accountMethod)
		}
		if byHere && !(onHere && on == by) {
			if onHere {
				emit(d.nodes[by.Territory], "account", e.Account, true, accountMethod)
			} else {
				emit(d.nodes[by.Territory], "account", e.Author.ID, !isOn && e.Kind == social.Post, accountMethod)
			}
		}
		if onHere || byHere {
			continue
		}
		where, how := "zz", method
		if country != "" {
			for _, id := range d.territories {
				if slices.Contains(c.territories[id][0], country) {
					where = id
				}
			}
		} else {
			how = "none"
			var fit []string
			for _, id := range d.territories {
				if e.Lang != "" && slices.Contains(c.territories[id][1], strings.Split(e.Lang, "-")[0]) {
					fit = append(fit, id)
				}
			}
			if len(fit) == 1 {
				where, how = fit[0], "language"
			}
		}
		n := d.nodes[where]
		me.node = n
		if slices.ContainsFunc(n.listens, func(q modelQuery) bool { return q.holds(me) }) {
			emit(n, "text", "", false, how)
		}
	}
	slices.Sort(matches)
	slices.Sort(muted)
	return matches, muted
}

func TestMatchAgreesWithTheModel(t *testing.T) {
	matched := 0
	rapid.Check(t, func(t *rapid.T) {
		c := drawCompany(t)
		r, err := Load(c.files)
		if err != nil {
			t.Fatalf("loading: %v", err)
		}
		m := r.Matcher()
		for range 20 {
			e := &social.Event{
				Source: rapid.SampledFrom([]string{"net", "net", "net", "other"}).Draw(t, "source"),
				Kind:   rapid.SampledFrom([]social.Kind{social.Post, social.Reply, social.Share}).Draw(t, "kind"),
				Title:  drawText(t, "title"), Text: drawText(t, "text"),
				Lang:         rapid.SampledFrom([]string{"", "de", "fr-CA", "es"}).Draw(t, "lang"),
				PlaceCountry: rapid.SampledFrom([]string{"", "", "DE", "fr", "JP", "US"}).Draw(t, "place"),
				Account:      rapid.SampledFrom([]string{"", "", "", "a00", "a01", "a10", "stranger"}).Draw(t, "account"),
				Author: social.Author{ID: rapid.SampledFrom([]string{"u", "u", "u", "a00", "a10", "a11"}).Draw(t, "author"),
					Country: rapid.SampledFrom([]string{"", "AT", "FR"}).Draw(t, "home")},
			}
			for _, tag := range strings.Fields(drawText(t, "tags")) {
				e.Hashtags = append(e.Hashtags, "#"+strings.TrimPrefix(tag, "#"))
			}
			wantMatches, wantMuted := c.route(e)
			matches := short(m.Match(e))
			matched += len(matches)
			slices.Sort(matches)
			if diff := cmp.Diff(wantMatches, matches, cmpopts.EquateEmpty()); diff != "" {
				t.Fatalf("%+v\n%s\n%s", *e, dump(c.files), diff)
			}
			if diff := cmp.Diff(wantMuted, short(m.Muted()), cmpopts.EquateEmpty()); diff != "" {
				t.Fatalf("muted: %+v\n%s\n%s", *e, dump(c.files), diff)
			}
		}
	})
	if matched < 100 {
		t.Errorf("only %d matches in all: the model says little", matched)
	}
}

func dump(files fstest.MapFS) string {
	var b strings.Builder
	for _, name := range keysOf(files) {
		fmt.Fprintf(&b, "-- %s --\n%s", name, files[name].Data)
	}
	return b.String()
}

// TestEveryCharacterHasOneNormalForm goes through all of Unicode.
func TestEveryCharacterHasOneNormalForm(t *testing.T) {
	n := normaliser{table: theRunes()}
	for r := rune(0); r <= unicode.MaxRune; r++ {
		if r >= 0xd800 && r < 0xe000 {
			continue
		}
		one := string(n.normalise(string(r)))
		if again := string(n.normalise(one)); one != again {
			t.Errorf("%U: %q is normalised once more to %q", r, one, again)
		}
		if composed, decomposed := string(n.normalise(norm.NFC.String(string(r)))), string(n.normalise(norm.NFD.String(string(r)))); composed != decomposed {
			t.Errorf("%U: composed it is %q, decomposed %q", r, composed, decomposed)
		}
	}
}
