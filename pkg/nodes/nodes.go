// Package nodes turns a nodes directory, the YAML files in which a company says what it listens to and who owns what,
// into immutable rules that say which nodes an event belongs to.
//
// It owns the meaning of these files: their form, the query language, how texts are compared, and the routing of an
// event by its account, its words and its country. Threads, roles, sentiment and safety are not its business. Apart
// from reading the directory it does no I/O.
package nodes

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // days follow the clocks of territories, also where the system has no time zones

	"polyphony/pkg/social"
)

// Rules is one version of a nodes directory. It never changes and is safe for concurrent use.
type Rules struct {
	version string
	archive []byte

	company     *Company
	divisions   []*Division
	territories []*Territory
	units       []*BusinessUnit
	nodes       []NodeInfo
	engine      *engine
}

// NodeInfo describes a node for people.
type NodeInfo struct {
	Node           social.Node
	DivisionTitle  string
	TerritoryTitle string
	BusinessUnits  []string       // ids of those that own it, sorted; often none
	Location       *time.Location // whose midnights cut its days; UTC for the territory zz
}

// Load reads a nodes directory. When anything is wrong with it the error is Faults, all of them.
func Load(fsys fs.FS) (*Rules, error) {
	files, faults := readSources(fsys)
	return build(files, faults)
}

// LoadDir reads the nodes directory dir; file names in faults begin with dir as given.
func LoadDir(dir string) (*Rules, error) {
	if info, err := os.Stat(dir); err != nil {
		return nil, Faults{{File: dir, Message: "cannot read the nodes directory: " + plain(err).Error()}}
	} else if !info.IsDir() {
		return nil, Faults{{File: dir, Message: "not a directory"}}
	}
	r, err := Load(os.DirFS(dir))
	var faults Faults
	if errors.As(err, &faults) {
		for i := range faults {
			faults[i].File = filepath.Join(dir, filepath.FromSlash(faults[i].File))
		}
		return nil, faults
	}
	return r, err
}

// Open reads what Archive gave, possibly in another process.
func Open(archive []byte) (*Rules, error) {
	files, err := unpack(archive)
	if err != nil {
		return nil, err
	}
	return build(files, nil)
}

// OpenVersion is Open of what is kept as a version; under its name somebody else may have put another one.
func OpenVersion(archive []byte, version string) (*Rules, error) {
	rules, err := Open(archive)
	if err == nil && rules.Version() != version {
		return nil, fmt.Errorf("it holds version %s", rules.Version())
	}
	return rules, err
}

// build makes rules of files, or says everything that is wrong with them.
func build(files []source, faults Faults) (*Rules, error) {
	r := &Rules{}
	if len(files) == 0 && len(faults) == 0 {
		return nil, Faults{{File: ".", Message: "no nodes here: a nodes directory has a company.yaml, and files in divisions/, territories/ and business-units/"}}
	}
	lexicons := map[string]bool{}
	for _, f := range files {
		dir, _, _ := strings.Cut(f.name, "/")
		if dir == "safety" {
			lexicons[f.name] = true
			continue
		}
		doc, root, ok := parseDocument(f.name, f.data, &faults)
		if !ok {
			if f.name == "company.yaml" {
				r.company = &Company{doc: doc}
			}
			continue
		}
		switch folders[dir] {
		case "division":
			r.divisions = append(r.divisions, readDivision(root))
		case "territory":
			r.territories = append(r.territories, readTerritory(root))
		case "business_unit":
			r.units = append(r.units, readBusinessUnit(root))
		default:
			r.company = readCompany(root)
		}
	}
	faults = append(faults, r.check(lexicons)...)
	if len(faults) > 0 {
		return nil, faults.sorted()
	}

	var err error
	if r.version, r.archive, err = pack(files); err != nil {
		return nil, err
	}
	if len(r.archive) > maxArchive {
		return nil, Faults{{File: ".", Message: fmt.Sprintf("all files together take more than %d KiB compressed", maxArchive>>10)}}
	}
	r.fill()
	if r.engine, err = newEngine(r); err != nil {
		return nil, Faults{{File: ".", Message: err.Error()}}
	}
	if faults = r.runExamples(); len(faults) > 0 {
		return nil, faults.sorted()
	}
	return r, nil
}

// fill sorts everything by id, fills in what files may leave out, and lists the nodes.
func (r *Rules) fill() {
	slices.SortFunc(r.divisions, func(a, b *Division) int { return strings.Compare(a.ID, b.ID) })
	slices.SortFunc(r.territories, func(a, b *Territory) int { return strings.Compare(a.ID, b.ID) })
	slices.SortFunc(r.units, func(a, b *BusinessUnit) int { return strings.Compare(a.ID, b.ID) })
	for _, d := range r.divisions {
		if d.Territories == nil {
			d.Territories = r.allTerritories()
		}
	}
	for _, u := range r.units {
		for i := range u.Accounts {
			if u.Accounts[i].Territory == "" {
				u.Accounts[i].Territory = u.Territories[0]
			}
		}
	}
	for _, d := range append(slices.Clone(r.divisions), r.companyDivision()) {
		for _, id := range append(slices.Clone(d.Territories), social.Elsewhere) {
			n := NodeInfo{Node: social.Node{Division: d.ID, Territory: id}, DivisionTitle: d.Title, TerritoryTitle: "Elsewhere", Location: time.UTC}
			if t := r.territory(id); t != nil {
				n.TerritoryTitle, n.Location = t.Title, t.Location
			}
			for _, u := range r.units {
				if u.Division == d.ID && slices.Contains(u.Territories, id) {
					n.BusinessUnits = append(n.BusinessUnits, u.ID)
				}
			}
			r.nodes = append(r.nodes, n)
		}
	}
	slices.SortFunc(r.nodes, func(a, b NodeInfo) int { return a.Node.Compare(b.Node) })
}

func (r *Rules) allTerritories() []string {
	ids := make([]string, len(r.territories))
	for i, t := range r.territories {
		ids[i] = t.ID
	}
	slices.Sort(ids)
	return ids
}

// companyDivision is the division that listens to the names of the company itself, everywhere. Where territories
// overlap, a country belongs to the alphabetically first.
func (r *Rules) companyDivision() *Division {
	d := &Division{ID: social.CompanyDivision, Title: r.company.Title, Territories: r.allTerritories(), doc: r.company.doc}
	if len(r.company.Names) > 0 {
		any := &expr{op: opOr}
		for _, name := range r.company.Names {
			any.kids = append(any.kids, &expr{op: opTerm, text: name})
		}
		d.Listen = &Query{any}
	}
	return d
}

func (r *Rules) territory(id string) *Territory {
	for _, t := range r.territories {
		if t.ID == id {
			return t
		}
	}
	return nil
}

// Version names these rules: 16 hexadecimal digits made from the files and nothing else.
func (r *Rules) Version() string { return r.version }

// Archive is all files the rules were made from, lexicons too, as a gzipped tar; the same files give the same bytes.
func (r *Rules) Archive() []byte { return r.archive }

// Document is the text of all files, each under a line "-- name --", for people who ask what a version said.
func (r *Rules) Document() string {
	files, err := unpack(r.archive)
	if err != nil {
		panic("BUG: an archive that was packed here: " + err.Error())
	}
	var text strings.Builder
	for _, f := range files {
		fmt.Fprintf(&text, "-- %s --\n%s\n", f.name, f.data)
	}
	return text.String()
}

// Company is company.yaml with defaults filled in.
func (r *Rules) Company() *Company { return r.company }

// Divisions lists the divisions by id, without the reserved division "company".
func (r *Rules) Divisions() []*Division { return r.divisions }

// Territories lists the territories by id, without "zz".
func (r *Rules) Territories() []*Territory { return r.territories }

// BusinessUnits lists the business units by id.
func (r *Rules) BusinessUnits() []*BusinessUnit { return r.units }

// Nodes lists every node an event can belong to, sorted: each division in each territory it serves and in "zz",
// the division "company" included.
func (r *Rules) Nodes() []NodeInfo { return r.nodes }
