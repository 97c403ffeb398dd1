package nodes

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"polyphony/pkg/social"
)

// Company is company.yaml with defaults filled in.
type Company struct {
	ID    string
	Title string   // ID when not given
	Names []string // talk about any of them is talk about the company itself

	Privacy    Privacy
	Lateness   time.Duration // events older than this at acceptance are too late; 720h
	ThreadWait time.Duration // how long what refers to an unknown post waits for it; 24h
	Safety     Safety
	Sources    map[string]SourceRules // by source; a source not named has no special rules

	doc *document
}

// Privacy is what the company promises the people it listens to.
type Privacy struct {
	SuppressBelow int // cells with fewer voices are hidden from business units; 5
	Retain        Retain
}

// Retain says how long each kind of data is kept, in whole hours.
type Retain struct {
	Raw      time.Duration // frames as accepted, with native ids; 72h
	Text     time.Duration // masked text of mentions; 2160h
	Mentions time.Duration // 9600h
	Metrics  time.Duration // 43800h
}

// Safety is the locked part: no file but company.yaml can say anything about it.
type Safety struct {
	Lexicons map[string]string // file name within the nodes directory by language
	Handoff  time.Duration     // how soon a candidate must reach the safety team; 24h
}

// SourceRules are what a network demands of those who read it.
type SourceRules struct {
	// AggregateOnly forbids conclusions about health next to an identifier: they are only counted.
	AggregateOnly bool
	// NoThreads has events of the source belong to nodes by their own words and accounts alone: what refers to a mention is
	// none for that. For networks that are heard whole, where most of what refers to anything concerns nobody.
	NoThreads bool
}

// Division is a part of the company: what it makes, what it listens for.
type Division struct {
	ID          string
	Title       string   // ID when not given
	Territories []string // which it serves, in the order of the file; all of them when the file does not say
	Products    []Product
	Competitors []Product
	Listen      *Query
	Topics      []Topic

	examples []example
	doc      *document
}

// Product is something sold under one or several names. The names of a business unit add to those of its division.
type Product struct {
	ID       string
	Names    []string
	Hashtags []string // without the leading #
}

// Topic is a question that mentions of a node are put to.
type Topic struct {
	ID    string
	Query *Query
}

// Territory is a market.
type Territory struct {
	ID        string
	Title     string   // ID when not given
	Countries []string // ISO 3166-1 alpha-2
	Languages []string // primary subtags of BCP 47; a hint for events without a country
	Location  *time.Location

	doc *document
}

// BusinessUnit is the people who own nodes of one division.
type BusinessUnit struct {
	ID          string
	Title       string // ID when not given
	Division    string
	Territories []string
	Owner       Owner
	Accounts    []Account
	Listen      *Query // nil when it does not widen the division's
	Mute        *Query // nil when nothing is muted
	Products    []Product
	Topics      []Topic
	Response    Response

	examples []example
	doc      *document
}

// Owner says who answers for a business unit.
type Owner struct{ Team string }

// Account is one the company owns on a network.
type Account struct {
	Source, ID string
	Territory  string
}

// Response is how soon a business unit means to answer.
type Response struct {
	Within time.Duration // 0 when there is no target
	Hours  string        // opening hours such as "Mo-Fr 08:00-18:00", in the territory's time zone; empty means always
}

// example is a text with the verdict its author expects.
type example struct {
	path      string
	event     social.Event
	territory string // only this one; empty means any of the owner's
	country   string
	match     bool
}

// kind is one of the four kinds of YAML file.
type kind struct {
	what, home string
	keys       []string
	needs      []string
}

// The four kinds, by the key that names each. schemas/nodes says the same for editors; a test holds the two together.
var kinds = map[string]kind{
	"company": {what: "company.yaml", home: "company.yaml", needs: []string{"company"},
		keys: []string{"company", "title", "names", "privacy", "lateness", "thread_wait", "safety", "sources"}},
	"division": {what: "a division", home: "a file in divisions/", needs: []string{"division", "listen"},
		keys: []string{"division", "title", "territories", "products", "competitors", "listen", "topics", "examples"}},
	"territory": {what: "a territory", home: "a file in territories/", needs: []string{"territory", "countries"},
		keys: []string{"territory", "title", "countries", "languages", "timezone"}},
	"business_unit": {what: "a business unit", home: "a file in business-units/", needs: []string{"business_unit", "division", "territories"},
		keys: []string{"business_unit", "title", "division", "territories", "owner", "accounts", "listen", "products", "mute", "examples", "response", "topics"}},
}

// open reads the top of a file of the named kind. A file of another kind in this folder gets one fault that says so,
// not one for each of its keys.
func open(name string, root value) object {
	k := kinds[name]
	if other := kindOf(root.node); other != "" && other != name {
		root.doc.fault(position(root.node), "this is %s, but %s belongs here: move it to %s", kinds[other].what, k.what, kinds[other].home)
		return object{value: root}
	}
	o := root.object(k.what, k.keys...)
	if len(o.members) > 0 {
		o.required(k.what, k.needs...)
	}
	return o
}

// kindOf tells the kind of a file by the key that names it, "" when it has none.
func kindOf(node ast.Node) string {
	mapping, ok := node.(*ast.MappingNode)
	if !ok {
		return ""
	}
	// A business unit names its division too, so it is looked for first.
	for _, name := range []string{"business_unit", "company", "territory", "division"} {
		for _, pair := range mapping.Values {
			if pair.Key.GetToken().Value == name {
				return name
			}
		}
	}
	return ""
}

// maxThreadWait is a year: replies to what is older are rare, and all that replies to nobody known waits as long.
const maxThreadWait = 365 * 24 * time.Hour

func readCompany(root value) *Company {
	o := open("company", root)
	c := &Company{ID: o.id("company"), Title: o.text("title"), Names: o.texts("names"), doc: root.doc}
	c.Lateness = o.duration("lateness", 720*time.Hour)
	if c.ThreadWait = o.duration("thread_wait", 24*time.Hour); c.ThreadWait > maxThreadWait {
		m, _ := o.get("thread_wait")
		m.fault("thread_wait: at most %dd, what waits is stored for three times as long", maxThreadWait/(24*time.Hour))
	}
	if c.Title == "" {
		c.Title = c.ID
	}
	for i, name := range c.Names {
		checkTerm(root.doc, fmt.Sprintf("names[%d]", i), name)
	}

	privacy := o.child("privacy", "suppress_below", "retain")
	// A thousand voices is more than most nodes have in a day: a higher bar would hide everything.
	c.Privacy.SuppressBelow = privacy.count("suppress_below", 5, 1000)
	retain := privacy.child("retain", "raw", "text", "mentions", "metrics")
	c.Privacy.Retain = Retain{
		Raw:      retain.hours("raw", 72*time.Hour),
		Text:     retain.hours("text", 2160*time.Hour),
		Mentions: retain.hours("mentions", 9600*time.Hour),
		Metrics:  retain.hours("metrics", 43800*time.Hour),
	}

	safety := o.child("safety", "lexicons", "handoff")
	c.Safety.Handoff = safety.duration("handoff", 24*time.Hour)
	c.Safety.Lexicons = map[string]string{}
	if m, ok := safety.get("lexicons"); ok {
		lexicons := m.object("lexicons")
		for lang := range lexicons.members {
			if !language.MatchString(lang) {
				lexicons.members[lang].fault("%q is not a language: write its code, such as de", lang)
			}
			c.Safety.Lexicons[lang] = lexicons.text(lang)
		}
	}

	c.Sources = map[string]SourceRules{}
	if m, ok := o.get("sources"); ok {
		sources := m.object("sources")
		for source, v := range sources.members {
			if !social.ValidName(source) {
				v.fault("source %q: %s", source, nameRule)
			}
			rules := v.object("a source", "health_inference", "threads")
			c.Sources[source] = SourceRules{
				AggregateOnly: rules.oneOf("health_inference", "allowed", "aggregate-only") == "aggregate-only",
				NoThreads:     rules.oneOf("threads", "on", "off") == "off",
			}
		}
	}
	return c
}

func readDivision(root value) *Division {
	o := open("division", root)
	d := &Division{ID: o.id("division"), Title: o.text("title"), doc: root.doc}
	d.Territories = o.ids("territories")
	d.Products = o.products("products")
	d.Competitors = o.products("competitors")
	d.Listen = o.query("listen")
	d.Topics = o.topics()
	d.examples = o.examples()
	if d.Title == "" {
		d.Title = d.ID
	}
	if d.ID == social.CompanyDivision {
		o.members["division"].fault("%q is reserved: it is the division of talk about the company itself, see names in company.yaml", d.ID)
	}
	return d
}

func readTerritory(root value) *Territory {
	o := open("territory", root)
	t := &Territory{ID: o.id("territory"), Title: o.text("title"), Countries: o.texts("countries"), Languages: o.texts("languages"), doc: root.doc}
	if t.Title == "" {
		t.Title = t.ID
	}
	if t.ID == social.Elsewhere {
		o.members["territory"].fault("%q is reserved: it is where events of countries without a territory go", t.ID)
	}
	seen := map[string]bool{}
	for i, c := range t.Countries {
		path := fmt.Sprintf("countries[%d]", i)
		switch upper := strings.ToUpper(c); {
		case c == "":
		case !isCountry(upper):
			hint := ""
			if upper == "UK" {
				hint = `, did you mean "GB"?`
			}
			root.doc.faultAt(path, "%q is not a country code of ISO 3166-1%s", c, hint)
		case c != upper:
			root.doc.faultAt(path, "country codes are written in capitals: %s", upper)
		case seen[c]:
			root.doc.faultAt(path, "country %s stands here twice", c)
		}
		seen[c] = true
	}
	for i, l := range t.Languages {
		if l != "" && !language.MatchString(l) {
			root.doc.faultAt(fmt.Sprintf("languages[%d]", i), "%q is not a language: write its code, such as de", l)
		}
	}
	t.Location = time.UTC
	if zone := o.text("timezone"); zone != "" {
		location, err := time.LoadLocation(zone)
		if err != nil || zone == "Local" {
			o.members["timezone"].fault("%q is not a time zone: write a name such as Europe/Berlin%s", zone, didYouMean(zone, commonZones))
		} else {
			t.Location = location
		}
	}
	return t
}

func readBusinessUnit(root value) *BusinessUnit {
	o := open("business_unit", root)
	u := &BusinessUnit{ID: o.id("business_unit"), Title: o.text("title"), Division: o.id("division"), Territories: o.ids("territories"), doc: root.doc}
	u.Owner.Team = o.child("owner", "team").text("team")
	u.Listen = o.query("listen")
	u.Mute = o.query("mute")
	u.Products = o.products("products")
	u.Topics = o.topics()
	u.examples = o.examples()
	if u.Title == "" {
		u.Title = u.ID
	}
	for _, v := range o.list("accounts") {
		a := v.object("an account", "source", "id", "territory")
		if a.members == nil {
			continue
		}
		a.required("an account", "source", "id")
		account := Account{Source: a.id("source"), ID: a.text("id"), Territory: a.id("territory")}
		if len(account.ID) > social.MaxID {
			a.members["id"].fault("an id has at most %d bytes", social.MaxID)
		}
		u.Accounts = append(u.Accounts, account)
	}
	response := o.child("response", "within", "hours")
	u.Response = Response{Within: response.duration("within", 0), Hours: response.text("hours")}
	if h := u.Response.Hours; h != "" && !openingHours.MatchString(h) {
		response.members["hours"].fault(`%q is not a list of opening hours such as "Mo-Fr 08:00-18:00; Sa 09:00-12:00"`, h)
	}
	return u
}

const nameRule = "names begin with a letter a-z, then letters a-z, digits and -, 32 at most"

var (
	language     = regexp.MustCompile(`^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$`)
	openingHours = regexp.MustCompile(`^(24/7|` + openingDays + openingTimes + `(; ?` + openingDays + openingTimes + `)*)$`)
	// commonZones are what a misspelt time zone is compared with; any zone of the tz database is accepted.
	commonZones = []string{"Europe/Berlin", "Europe/Paris", "Europe/London", "Europe/Madrid", "Europe/Rome", "Europe/Zurich", "Europe/Vienna", "Europe/Warsaw",
		"Europe/Stockholm", "Europe/Istanbul", "America/New_York", "America/Chicago", "America/Denver", "America/Los_Angeles", "America/Toronto",
		"America/Sao_Paulo", "America/Mexico_City", "America/Argentina/Buenos_Aires", "Asia/Tokyo", "Asia/Seoul", "Asia/Shanghai", "Asia/Kolkata",
		"Asia/Singapore", "Asia/Bangkok", "Asia/Dubai", "Australia/Sydney", "Africa/Johannesburg", "Africa/Cairo", "UTC"}
)

const (
	openingDays  = `((Mo|Tu|We|Th|Fr|Sa|Su)(-(Mo|Tu|We|Th|Fr|Sa|Su))?(,(Mo|Tu|We|Th|Fr|Sa|Su)(-(Mo|Tu|We|Th|Fr|Sa|Su))?)* )?`
	openingTimes = `([01][0-9]|2[0-4]):[0-5][0-9]-([01][0-9]|2[0-4]):[0-5][0-9](, ?([01][0-9]|2[0-4]):[0-5][0-9]-([01][0-9]|2[0-4]):[0-5][0-9])*`
)

// child reads a mapping below key; when it is not there, an object without members, so that defaults apply.
func (o object) child(key string, keys ...string) object {
	if m, ok := o.get(key); ok {
		return m.object(key, keys...)
	}
	return object{value: o.value}
}

// id reads a name of the form that becomes a subject token.
func (o object) id(key string) string {
	m, ok := o.get(key)
	if !ok {
		return ""
	}
	return m.id()
}

func (v value) id() string {
	s := v.text()
	if s != "" && !social.ValidName(s) {
		v.fault("%s %q: %s", v.name(), s, nameRule)
	}
	return s
}

// ids reads a list of such names, each once.
func (o object) ids(key string) []string {
	var out []string
	for _, v := range o.list(key) {
		s := v.id()
		if s != "" && slices.Contains(out, s) {
			v.fault("%q stands here twice", s)
		}
		out = append(out, s)
	}
	return out
}

func (o object) query(key string) *Query {
	m, ok := o.get(key)
	if !ok {
		return nil
	}
	return m.query()
}

// query parses a query, pointing its faults into the text of the file.
func (v value) query() *Query {
	text := v.text()
	if text == "" {
		return nil
	}
	q, errs := parseQuery(text)
	for _, e := range errs {
		v.doc.fault(v.doc.within(v.path, text, e.Offset), "%s", e.Message)
	}
	if len(errs) > 0 {
		return nil
	}
	return q
}

func (o object) products(key string) []Product {
	var out []Product
	seen := map[string]bool{}
	for _, v := range o.list(key) {
		m := v.object("a product", "id", "names", "hashtags")
		if m.members == nil {
			continue
		}
		m.required("a product", "id")
		p := Product{ID: m.id("id"), Names: m.texts("names")}
		for i, name := range p.Names {
			checkTerm(v.doc, fmt.Sprintf("%s.names[%d]", v.path, i), name)
		}
		for i, tag := range m.texts("hashtags") {
			tag = strings.TrimPrefix(tag, "#")
			if !isTag(tag) {
				v.doc.faultAt(fmt.Sprintf("%s.hashtags[%d]", v.path, i), "%q is not a hashtag: one word of letters, digits and _", tag)
			}
			p.Hashtags = append(p.Hashtags, tag)
		}
		if p.ID != "" && seen[p.ID] {
			m.members["id"].fault("product %q stands here twice", p.ID)
		}
		seen[p.ID] = true
		out = append(out, p)
	}
	return out
}

func (o object) topics() []Topic {
	var out []Topic
	seen := map[string]bool{}
	for _, v := range o.list("topics") {
		m := v.object("a topic", "id", "query")
		if m.members == nil {
			continue
		}
		m.required("a topic", "id", "query")
		t := Topic{ID: m.id("id"), Query: m.query("query")}
		if t.ID != "" && seen[t.ID] {
			m.members["id"].fault("topic %q stands here twice", t.ID)
		}
		seen[t.ID] = true
		out = append(out, t)
	}
	return out
}

func (o object) examples() []example {
	var out []example
	for _, v := range o.list("examples") {
		m := v.object("an example", "text", "match", "title", "lang", "country", "territory")
		if m.members == nil {
			continue
		}
		m.required("an example", "text", "match")
		x := example{path: v.path, territory: m.id("territory"), country: m.text("country"), match: m.boolean("match", true)}
		if x.country != "" && !isCountry(x.country) {
			m.members["country"].fault("%q is not a country code of ISO 3166-1", x.country)
		}
		x.event = social.Event{Source: "example", ID: v.path, Kind: social.Post, Title: m.text("title"), Text: m.text("text"), Lang: m.text("lang")}
		out = append(out, x)
	}
	return out
}

// checkTerm reports a name that no text could ever contain.
func checkTerm(doc *document, path, name string) {
	if name == "" {
		return
	}
	if strings.Contains(name, "*") {
		doc.faultAt(path, "a name is searched for as it is, so it has no *: patterns belong in listen")
	} else if message := termFault(name); message != "" {
		doc.faultAt(path, "%s", message)
	}
}

// isCountry reports whether code is one of ISO 3166-1 alpha-2, or XK, which is in use for Kosovo.
func isCountry(code string) bool {
	if len(code) != 2 {
		return false
	}
	for i := 0; i < len(countries); i += 3 {
		if countries[i:i+2] == code {
			return true
		}
	}
	return false
}

const countries = "AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ " +
	"CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO FR " +
	"GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP " +
	"KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ " +
	"NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ " +
	"TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS XK YE YT ZA ZM ZW"
