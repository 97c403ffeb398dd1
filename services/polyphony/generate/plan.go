package generate

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"polyphony/pkg/social"
)

// Plan is what the generator has to know of a company: what it may plant, and what it must never say by accident.
// It is plain configuration. Nothing that matches or routes comes with it, so that the truth is an opinion of its own.
type Plan struct {
	Lateness    time.Duration // how old an event may be at acceptance
	Divisions   []Division
	Territories []Territory
	Units       []Unit
	Reserved    []string // names of the company itself: never said
}

// Division is one division: what it listens to and where.
type Division struct {
	Name        string
	Listen      string   // its query
	Territories []string // those it serves; none means all
	Products    []string // names that can be planted in a text
	Hashtags    []string // hashtags that stand for a product
	Competitors []string // names and hashtags of competitors: never said
}

// Territory is one market.
type Territory struct {
	Name      string
	Countries []string // ISO 3166-1 alpha-2
	Languages []string
}

// Unit is one business unit: its accounts, and the queries that widen or narrow what its division hears.
type Unit struct {
	Name     string
	Division string
	Accounts []Account
	Listen   string
	Mute     string
	Local    []string // local names of products and competitors, and their hashtags: never said
}

// Account is an owned account in a node.
type Account struct{ Source, ID, Territory string }

// vetted is a plan in the form that the generator draws from: indices instead of names, and only what can be planted
// safely.
type vetted struct {
	divisions   []string
	territories []string // the last one is social.Elsewhere
	names       [][]name // by division: what to write so that this division hears it, and no other does
	countries   []country
	where       [][]int // by division, country: the territory; two territories may share a country if no division serves both
	homes       [][]int // by division: indices into countries that it serves
	nowhere     []int   // indices into countries that no territory has
	hints       [][]int // by division, language: the territory of an event without country; ambiguous when unsure
	accounts    []account
	forbidden   lexicon // everything that noise must not contain
}

type name struct {
	text    string
	hashtag bool // planted in the list of hashtags and not in the text
}

type country struct {
	code      string
	territory int // the first that has it, elsewhere when none has
}

type account struct {
	source    int
	id        string // escaped for JSON
	division  int
	territory int
}

const ambiguous = -1

// maxNodes is what fits beside an author in the key under which voices are counted.
const maxNodes = 1<<14 - 1

// strangers are countries to take those from that nobody serves.
var strangers = [...]string{"NZ", "KE", "CL", "IS", "UY", "LK", "GH", "MT", "PY", "NP", "FJ", "BW"}

// vet checks that the truth can be known for this plan, and turns names into indices.
func vet(p Plan) (*vetted, error) {
	v := &vetted{}
	if len(p.Divisions) == 0 {
		return nil, fmt.Errorf("the company has no division")
	}
	if err := v.lay(p); err != nil {
		return nil, err
	}
	if n := len(v.divisions) * len(v.territories); n > maxNodes {
		return nil, fmt.Errorf("%d nodes are more than the %d that voices are counted for", n, maxNodes)
	}
	if err := v.listen(p); err != nil {
		return nil, err
	}
	v.nameProducts(p)
	return v, nil
}

// lay fills in the map: divisions, territories, countries, languages, accounts.
func (v *vetted) lay(p Plan) error {
	for _, t := range p.Territories {
		if t.Name == social.Elsewhere {
			continue
		}
		v.territories = append(v.territories, t.Name)
		for _, c := range t.Countries {
			if c = strings.ToUpper(c); v.country(c) < 0 {
				v.countries = append(v.countries, country{c, len(v.territories) - 1})
			}
		}
	}
	elsewhere := len(v.territories)
	v.territories = append(v.territories, social.Elsewhere)
	for _, s := range strangers {
		if v.country(s) < 0 {
			v.nowhere = append(v.nowhere, len(v.countries))
			v.countries = append(v.countries, country{s, elsewhere})
		}
	}
	divisions := p.Divisions
	if slices.ContainsFunc(p.Units, func(u Unit) bool { return u.Division == social.CompanyDivision }) {
		// Accounts of the company itself; its names are reserved and never said.
		divisions = append(slices.Clone(divisions), Division{Name: social.CompanyDivision})
	}
	for _, div := range divisions {
		v.divisions = append(v.divisions, div.Name)
		serves := make([]bool, len(v.territories))
		for t, name := range v.territories[:elsewhere] {
			serves[t] = len(div.Territories) == 0 || slices.Contains(div.Territories, name)
		}
		where := slices.Repeat([]int{elsewhere}, len(v.countries))
		var homes []int
		for _, t := range p.Territories {
			for _, c := range t.Countries {
				if i := slices.Index(v.territories, t.Name); i >= 0 && serves[i] {
					c := v.country(strings.ToUpper(c))
					where[c] = i
					homes = append(homes, c)
				}
			}
		}
		v.where = append(v.where, where)
		v.homes = append(v.homes, homes)
		v.hints = append(v.hints, hints(p.Territories, v.territories, serves))
	}
	for _, u := range p.Units {
		d := slices.Index(v.divisions, u.Division)
		for _, a := range u.Accounts {
			t := slices.Index(v.territories, a.Territory)
			s := slices.IndexFunc(networks[:], func(n network) bool { return n.name == a.Source })
			if d < 0 || t < 0 {
				return fmt.Errorf("business unit %s: account %s/%s stands in no known node", u.Name, a.Source, a.ID)
			}
			if s >= 0 { // on other networks nothing is generated
				v.accounts = append(v.accounts, account{s, escape(a.ID), d, t})
			}
		}
	}
	return nil
}

// country is the index of a code, or -1.
func (v *vetted) country(code string) int {
	return slices.IndexFunc(v.countries, func(c country) bool { return c.code == code })
}

// hints says for each language where an event without country belongs in a division. A language that fits several
// territories, or fits one only roughly (pt and pt-BR), is ambiguous: no event relies on it.
func hints(ts []Territory, names []string, serves []bool) []int {
	elsewhere := len(names) - 1
	hints := make([]int, len(tongues))
	for l, tongue := range tongues {
		hint, fits := elsewhere, 0
		for _, t := range ts {
			for _, lang := range t.Languages {
				base, _, region := strings.Cut(strings.ToLower(lang), "-")
				if base != tongue.code {
					continue
				}
				fits++
				if i := slices.Index(names, t.Name); i >= 0 && serves[i] {
					hint = i
				}
				if region {
					fits++
				}
			}
		}
		if fits > 1 {
			hint = ambiguous
		}
		hints[l] = hint
	}
	return hints
}

// listen makes sure that every query of the plan is decided by product names alone, and collects what must not be said.
func (v *vetted) listen(p Plan) error {
	take := func(where, query string, check func(with, without verdict) error) error {
		if strings.TrimSpace(query) == "" {
			return nil
		}
		q, err := parseQuery(query)
		if err == nil {
			err = check(q.eval(yes), q.eval(no))
		}
		if err != nil {
			return fmt.Errorf("%s: %w", where, err)
		}
		q.terms(func(t term) { v.forbidden = append(v.forbidden, t) })
		return nil
	}
	for _, d := range p.Divisions {
		if !saysProducts(d.Listen) {
			return fmt.Errorf("division %s: listen lacks `products`, so no event can be planted for it and no truth be known", d.Name)
		}
		err := take("division "+d.Name+": listen", d.Listen, func(with, without verdict) error {
			if with != yes || without != no {
				return fmt.Errorf("is not decided by `products` and other terms alone, so the truth is not known from what is planted")
			}
			return nil
		})
		if err != nil {
			return err
		}
		v.forbidden = append(v.forbidden, words(d.Competitors)...)
	}
	for _, u := range p.Units {
		err := take("business unit "+u.Name+": listen", u.Listen, func(_, without verdict) error {
			if without != no {
				return fmt.Errorf("is not decided by terms alone, so the truth is not known from what is planted")
			}
			return nil
		})
		if err != nil {
			return err
		}
		err = take("business unit "+u.Name+": mute", u.Mute, func(with, without verdict) error {
			if with != no || without != no {
				return fmt.Errorf("is not decided by terms alone, so the truth is not known from what is planted")
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	v.forbidden = append(v.forbidden, words(p.Reserved)...)
	return nil
}

// nameProducts keeps those product names that one division alone hears and no query term touches, and completes what
// must not be said with all of them.
func (v *vetted) nameProducts(p Plan) {
	said := make([]lexicon, len(p.Divisions)) // what makes a division hear, by its names
	for d, div := range p.Divisions {
		said[d] = words(slices.Concat(div.Products, div.Hashtags))
		for _, u := range p.Units {
			if u.Division == div.Name {
				said[d] = append(said[d], words(u.Local)...)
			}
		}
	}
	queried := slices.Clone(v.forbidden)
	v.names = make([][]name, len(v.divisions))
	for d, div := range p.Divisions {
		others := slices.Clone(queried)
		for i := range said {
			if i != d {
				others = append(others, said[i]...)
			}
		}
		var names []name
		for _, n := range div.Products {
			if !others.hit(n) {
				names = append(names, spellings(n)...)
			}
		}
		for _, h := range div.Hashtags {
			if h = strings.TrimPrefix(h, "#"); !others.hit(h) {
				names = append(names, name{h, true})
			}
		}
		v.names[d] = names
		v.forbidden = append(v.forbidden, said[d]...)
	}
}

// spellings are the ways people write a name; matching ignores case, so they are all the same.
func spellings(s string) []name {
	names := []name{{text: s}}
	for _, other := range []string{strings.ToLower(s), strings.ToUpper(s), "#" + s} {
		// Letters outside ASCII change length or meaning with their case, and a hashtag ends at the first blank.
		if other != s && isWord(s) {
			names = append(names, name{text: other})
		}
	}
	return names
}

func isWord(s string) bool {
	for i := range len(s) {
		if c := s[i] | 0x20; (c < 'a' || c > 'z') && (s[i] < '0' || s[i] > '9') {
			return false
		}
	}
	return s != ""
}

func (v *vetted) plantable() bool {
	return slices.ContainsFunc(v.names, func(n []name) bool { return len(n) > 0 })
}
