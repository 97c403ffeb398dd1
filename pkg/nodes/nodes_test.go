package nodes

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/rogpeppe/go-internal/txtar"
	"go.uber.org/goleak"

	lumenova "polyphony/deploy/nodes"
	"polyphony/pkg/social"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// directory makes a file system of a txtar archive.
func directory(archive string) fstest.MapFS {
	fsys := fstest.MapFS{}
	for _, f := range txtar.Parse([]byte(archive)).Files {
		fsys[f.Name] = &fstest.MapFile{Data: f.Data}
	}
	return fsys
}

// load reads a directory given as txtar; one that lacks company.yaml or territories gets the usual ones.
func load(t testing.TB, archive string) *Rules {
	t.Helper()
	fsys := directory(archive)
	for _, f := range txtar.Parse([]byte(usual)).Files {
		if _, given := fsys[f.Name]; !given {
			fsys[f.Name] = &fstest.MapFile{Data: f.Data}
		}
	}
	r, err := Load(fsys)
	if err != nil {
		t.Fatalf("loading:\n%v", err)
	}
	return r
}

const usual = `
-- company.yaml --
company: nimbara
-- territories/alps.yaml --
territory: alps
countries: [AT, CH]
languages: [de]
timezone: Europe/Vienna
-- territories/gaul.yaml --
territory: gaul
countries: [FR]
languages: [fr]
timezone: Europe/Paris
`

func TestTheExampleCompanyLoads(t *testing.T) {
	r, err := Load(lumenova.Files)
	if err != nil {
		t.Fatalf("the example company has faults:\n%v", err)
	}
	if len(r.Divisions()) != 3 || len(r.Territories()) != 6 || len(r.BusinessUnits()) < 3 {
		t.Errorf("want three divisions, six territories and a few business units, got %d, %d and %d",
			len(r.Divisions()), len(r.Territories()), len(r.BusinessUnits()))
	}
	c := r.Company()
	want := &Company{ID: "lumenova", Title: "Lumenova", Names: []string{"Lumenova", "Lumenova Pharma", "Lumenova-Gruppe"},
		Lateness: 720 * time.Hour, ThreadWait: 24 * time.Hour,
		Privacy: Privacy{SuppressBelow: 5, Retain: Retain{Raw: 72 * time.Hour, Text: 2160 * time.Hour, Mentions: 9600 * time.Hour, Metrics: 43800 * time.Hour}},
		Safety:  Safety{Lexicons: map[string]string{"en": "safety/en.txt", "de": "safety/de.txt", "fr": "safety/fr.txt"}, Handoff: 24 * time.Hour},
		Sources: map[string]SourceRules{"x": {AggregateOnly: true}}}
	if diff := cmp.Diff(want, c, cmpopts.IgnoreUnexported(Company{})); diff != "" {
		t.Error(diff)
	}
}

func TestDefaultsAreFilledIn(t *testing.T) {
	r := load(t, "-- divisions/d.yaml --\ndivision: d\nlisten: x\n")
	want := &Company{ID: "nimbara", Title: "nimbara", Lateness: 720 * time.Hour, ThreadWait: 24 * time.Hour,
		Privacy: Privacy{SuppressBelow: 5, Retain: Retain{Raw: 72 * time.Hour, Text: 2160 * time.Hour, Mentions: 9600 * time.Hour, Metrics: 43800 * time.Hour}},
		Safety:  Safety{Lexicons: map[string]string{}, Handoff: 24 * time.Hour}, Sources: map[string]SourceRules{}}
	if diff := cmp.Diff(want, r.Company(), cmpopts.IgnoreUnexported(Company{})); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"alps", "gaul"}, r.Divisions()[0].Territories); diff != "" {
		t.Errorf("a division that names no territories serves all: %s", diff)
	}
}

func TestNodesListsEveryNode(t *testing.T) {
	r := load(t, `
-- divisions/d.yaml --
division: d
title: Division D
territories: [gaul]
listen: x
-- business-units/u.yaml --
business_unit: u
division: d
territories: [gaul]
`)
	var got []string
	for _, n := range r.Nodes() {
		got = append(got, strings.Join([]string{n.Node.String(), n.DivisionTitle, n.TerritoryTitle, strings.Join(n.BusinessUnits, ","), n.Location.String()}, "|"))
	}
	want := []string{
		"company/alps|nimbara|alps||Europe/Vienna", "company/gaul|nimbara|gaul||Europe/Paris", "company/zz|nimbara|Elsewhere||UTC",
		"d/gaul|Division D|gaul|u|Europe/Paris", "d/zz|Division D|Elsewhere||UTC",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestTheSameFilesGiveTheSameVersionAndOthersAnother(t *testing.T) {
	a, b := load(t, "-- divisions/d.yaml --\ndivision: d\nlisten: x\n"), load(t, "-- divisions/d.yaml --\ndivision: d\nlisten: x\n")
	if a.Version() != b.Version() || !bytes.Equal(a.Archive(), b.Archive()) {
		t.Error("the same files gave two versions or archives")
	}
	if len(a.Version()) != 16 || strings.Trim(a.Version(), "0123456789abcdef") != "" {
		t.Errorf("version %q is not 16 hexadecimal digits", a.Version())
	}
	for name, archive := range map[string]string{
		"content": "-- divisions/d.yaml --\ndivision: d\nlisten: y\n",
		"name":    "-- divisions/e.yaml --\ndivision: d\nlisten: x\n",
		"lexicon": "-- divisions/d.yaml --\ndivision: d\nlisten: x\n-- safety/en.txt --\nrash\n",
	} {
		if load(t, archive).Version() == a.Version() {
			t.Errorf("another %s gave the same version", name)
		}
	}
	if load(t, "-- divisions/d.yaml --\ndivision: d\nlisten: x\n-- README.md --\nhello\n").Version() != a.Version() {
		t.Error("a file that is no part of the rules changed their version")
	}
}

func TestOpenReadsWhatArchiveWrote(t *testing.T) {
	r, err := Load(lumenova.Files)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Open(r.Archive())
	if err != nil {
		t.Fatal(err)
	}
	if again.Version() != r.Version() || !bytes.Equal(again.Archive(), r.Archive()) {
		t.Error("an opened archive is another version")
	}
	e := &social.Event{Source: "x", Kind: social.Post, Text: "Velurex helps", PlaceCountry: "DE"}
	if diff := cmp.Diff(r.Matcher().Match(e), again.Matcher().Match(e)); diff != "" {
		t.Error(diff)
	}
}

// A version is what its name says, whatever somebody put in its place.
func TestOpenVersion(t *testing.T) {
	one, other := load(t, "-- divisions/d.yaml --\ndivision: d\nlisten: x\n"), load(t, "-- divisions/d.yaml --\ndivision: d\nlisten: y\n")
	if rules, err := OpenVersion(one.Archive(), one.Version()); err != nil || rules.Version() != one.Version() {
		t.Errorf("%v", err)
	}
	if _, err := OpenVersion(other.Archive(), one.Version()); err == nil || !strings.Contains(err.Error(), other.Version()) {
		t.Errorf("got %v", err)
	}
}

func TestOpenRefusesWhatArchiveDidNotWrite(t *testing.T) {
	good := load(t, "-- divisions/d.yaml --\ndivision: d\nlisten: x\n").Archive()
	_, bomb, err := pack([]source{{"safety/en.txt", make([]byte, 200<<20)}})
	if err != nil {
		t.Fatal(err)
	}
	_, foreign, _ := pack([]source{{"../../etc/passwd", []byte("x")}})
	_, unsorted, _ := pack([]source{{"territories/b.yaml", []byte("x")}, {"company.yaml", []byte("x")}})
	for name, archive := range map[string][]byte{
		"nothing": nil, "noise": []byte("not an archive"), "cut short": good[:len(good)-9], "a bomb": bomb, "a foreign path": foreign,
		"disorder": unsorted, "huge": make([]byte, 2<<20),
	} {
		if _, err := Open(archive); err == nil {
			t.Errorf("%s was opened", name)
		}
	}
}

func TestLoadDirNamesFilesAsTheUserDid(t *testing.T) {
	for _, dir := range []string{"testdata/nothing-here", "nodes.go"} {
		var faults Faults
		if _, err := LoadDir(dir); !errors.As(err, &faults) || len(faults) != 1 || faults[0].File != dir {
			t.Errorf("LoadDir(%q): want one fault naming it, got %v", dir, err)
		}
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, directory("-- divisions/d.yaml --\ndivision: d\n")); err != nil {
		t.Fatal(err)
	}
	_, err := LoadDir(dir)
	want := filepath.Join(dir, "company.yaml") + `:1:1: missing: every nodes directory has one, with at least the line "company: NAME"` + "\n" +
		filepath.Join(dir, "divisions", "d.yaml") + `:1:1: a division needs the key "listen"`
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
