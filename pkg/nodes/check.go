package nodes

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"polyphony/pkg/social"
)

// check finds what is wrong between files, each of which was read without regard to the others.
func (r *Rules) check(lexicons map[string]bool) Faults {
	c := &checker{rules: r, divisions: map[string]*Division{}, territories: map[string]*Territory{}}
	if r.company == nil {
		c.faults = append(c.faults, Fault{File: "company.yaml", Message: "missing: every nodes directory has one, with at least the line \"company: NAME\""})
	} else {
		c.lexicons(lexicons)
		c.retention()
	}
	c.names()
	for _, d := range r.divisions {
		c.division(d)
	}
	accounts := map[accountKey]*BusinessUnit{}
	for _, u := range r.units {
		c.businessUnit(u, accounts)
	}
	return c.faults
}

type checker struct {
	rules       *Rules
	divisions   map[string]*Division
	territories map[string]*Territory
	faults      Faults
}

func (c *checker) fault(doc *document, path, format string, args ...any) {
	at := doc.at(path)
	c.faults = append(c.faults, Fault{File: doc.file, Line: at.line, Column: at.column, Message: fmt.Sprintf(format, args...)})
}

func (c *checker) lexicons(files map[string]bool) {
	names := keysOf(files)
	for lang, name := range c.rules.company.Safety.Lexicons {
		if name != "" && !files[name] {
			c.fault(c.rules.company.doc, "safety.lexicons."+lang, "there is no file %q in the nodes directory, where lexicons stand in safety/%s", name, didYouMean(name, names))
		}
	}
}

// retention checks that what is accepted is also kept: mentions older than their retention are dropped before they count.
func (c *checker) retention() {
	company := c.rules.company
	if company.Lateness <= company.Privacy.Retain.Mentions {
		return
	}
	path := "lateness"
	if _, written := company.doc.places[path]; !written {
		path = "privacy.retain.mentions"
	}
	c.fault(company.doc, path, "mentions are kept for %dh, but events may be %dh late, of which the older ones would never count: set lateness to %[1]dh or privacy.retain.mentions to %[2]dh",
		company.Privacy.Retain.Mentions/time.Hour, (company.Lateness+time.Hour-1)/time.Hour)
}

// names checks that an id is given once; the second file gets the fault.
func (c *checker) names() {
	for _, t := range c.rules.territories {
		if first := c.territories[t.ID]; first != nil && t.ID != "" {
			c.fault(t.doc, "territory", "territory %q is in %s already", t.ID, first.doc.file)
		} else {
			c.territories[t.ID] = t
		}
	}
	for _, d := range c.rules.divisions {
		if first := c.divisions[d.ID]; first != nil && d.ID != "" {
			c.fault(d.doc, "division", "division %q is in %s already", d.ID, first.doc.file)
		} else {
			c.divisions[d.ID] = d
		}
	}
	units := map[string]*BusinessUnit{}
	for _, u := range c.rules.units {
		if first := units[u.ID]; first != nil && u.ID != "" {
			c.fault(u.doc, "business_unit", "business unit %q is in %s already", u.ID, first.doc.file)
		}
		units[u.ID] = u
	}
}

// division checks what it serves: territories that exist, every country in one of them only, and its products and
// competitors under one id each.
func (c *checker) division(d *Division) {
	served, path := d.Territories, func(i int) string { return fmt.Sprintf("territories[%d]", i) }
	if served == nil {
		served, path = c.rules.allTerritories(), func(int) string { return "division" }
	}
	by := map[string]string{} // territory by country
	for i, id := range served {
		t := c.territories[id]
		if t == nil {
			if id != "" {
				c.fault(d.doc, path(i), "%s", c.unknownTerritory(id))
			}
			continue
		}
		for _, country := range t.Countries {
			if first, taken := by[country]; taken && first != id {
				c.fault(d.doc, path(i), "country %s is in two territories of division %s: %s and %s", country, d.ID, first, id)
			}
			by[country] = id
		}
	}
	for i, k := range d.Competitors {
		if slices.ContainsFunc(d.Products, func(p Product) bool { return p.ID == k.ID && p.ID != "" }) {
			c.fault(d.doc, fmt.Sprintf("competitors[%d].id", i), "%q is a product of this division already", k.ID)
		}
	}
	c.examples(d.doc, d.examples, d.Territories)
}

func (c *checker) unknownTerritory(id string) string {
	if id == social.Elsewhere {
		return fmt.Sprintf("territory %q is reserved: every division has it, nobody lists it", id)
	}
	return fmt.Sprintf("there is no territory %q%s", id, didYouMean(id, keysOf(c.territories)))
}

// businessUnit checks that it owns nodes that exist, and accounts that nobody else owns.
func (c *checker) businessUnit(u *BusinessUnit, accounts map[accountKey]*BusinessUnit) {
	d := c.divisions[u.Division]
	if d == nil && u.Division != "" && u.Division != social.CompanyDivision {
		c.fault(u.doc, "division", "there is no division %q%s", u.Division, didYouMean(u.Division, keysOf(c.divisions)))
	}
	if _, listed := u.doc.places["territories"]; listed && len(u.Territories) == 0 && len(u.Accounts) > 0 {
		c.fault(u.doc, "territories", "a business unit with accounts needs a territory that they belong to")
	}
	for i, id := range u.Territories {
		path := fmt.Sprintf("territories[%d]", i)
		switch {
		case id == "":
		case c.territories[id] == nil:
			c.fault(u.doc, path, "%s", c.unknownTerritory(id))
		case d != nil && d.Territories != nil && !slices.Contains(d.Territories, id):
			c.fault(u.doc, path, "division %s does not serve territory %q, only %s", d.ID, id, strings.Join(d.Territories, ", "))
		}
	}
	for i, p := range u.Products {
		if p.ID == "" || d == nil && u.Division != social.CompanyDivision {
			continue
		}
		var known []string
		if d != nil {
			for _, k := range d.Products {
				known = append(known, k.ID)
			}
		}
		if !slices.Contains(known, p.ID) {
			c.fault(u.doc, fmt.Sprintf("products[%d].id", i), "division %s has no product %q%s", u.Division, p.ID, didYouMean(p.ID, known))
		}
	}
	for i, a := range u.Accounts {
		path := fmt.Sprintf("accounts[%d]", i)
		switch {
		case a.Territory == "" && len(u.Territories) > 1:
			c.fault(u.doc, path, "an account needs its territory here, as the business unit has several: %s", strings.Join(u.Territories, ", "))
		case a.Territory != "" && !slices.Contains(u.Territories, a.Territory):
			c.fault(u.doc, path+".territory", "%q is not a territory of this business unit%s", a.Territory, didYouMean(a.Territory, u.Territories))
		}
		key := accountKey{a.Source, a.ID}
		if first := accounts[key]; first != nil && a.ID != "" && a.Source != "" {
			c.fault(u.doc, path, "account %s:%s is owned by business unit %s already", a.Source, a.ID, first.ID)
		} else {
			accounts[key] = u
		}
	}
	c.examples(u.doc, u.examples, u.Territories)
}

func (c *checker) examples(doc *document, examples []example, territories []string) {
	for _, x := range examples {
		if x.territory == "" {
			continue
		}
		if path := x.path + ".territory"; c.territories[x.territory] == nil {
			c.fault(doc, path, "%s", c.unknownTerritory(x.territory))
		} else if territories != nil && !slices.Contains(territories, x.territory) {
			c.fault(doc, path, "%q is not one of the territories of this file%s", x.territory, didYouMean(x.territory, territories))
		}
	}
}

func keysOf[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// runExamples matches the examples that files carry and reports those whose verdict is not the expected one.
func (r *Rules) runExamples() Faults {
	var faults Faults
	m := r.Matcher()
	run := func(doc *document, division string, territories []string, examples []example) {
		for _, x := range examples {
			where := territories
			if x.territory != "" {
				where = []string{x.territory}
			}
			matched := slices.ContainsFunc(where, func(id string) bool { return r.matches(m, x, social.Node{Division: division, Territory: id}) })
			if matched == x.match {
				continue
			}
			at := doc.at(x.path)
			message := fmt.Sprintf("this example should match, but does not in %s of division %s", strings.Join(where, ", "), division)
			if matched {
				message = "this example should not match, but does"
			}
			faults = append(faults, Fault{doc.file, at.line, at.column, message})
		}
	}
	for _, d := range r.divisions {
		run(d.doc, d.ID, d.Territories, d.examples)
	}
	for _, u := range r.units {
		run(u.doc, u.Division, u.Territories, u.examples)
	}
	return faults
}

// matches reports whether an example is a mention of node. What it does not say is filled in so that it reaches the
// node's territory: the country, and the language spoken there.
func (r *Rules) matches(m *Matcher, x example, node social.Node) bool {
	e := x.event
	t := r.territory(node.Territory)
	e.PlaceCountry = x.country
	if e.PlaceCountry == "" && len(t.Countries) > 0 {
		e.PlaceCountry = t.Countries[0]
	}
	if e.Lang == "" && len(t.Languages) > 0 {
		e.Lang = t.Languages[0]
	}
	return slices.ContainsFunc(m.Match(&e), func(match Match) bool { return match.Node == node })
}
