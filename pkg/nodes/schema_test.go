package nodes

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	lumenova "polyphony/deploy/nodes"
	"polyphony/schemas"
)

var schemaFiles = map[string]string{"company": "company", "division": "division", "territory": "territory", "business_unit": "business-unit"}

func compileSchemas(t *testing.T) map[string]*jsonschema.Schema {
	t.Helper()
	compiled := map[string]*jsonschema.Schema{}
	compiler := jsonschema.NewCompiler()
	for kind, file := range schemaFiles {
		data, err := schemas.NodesFS.ReadFile("nodes/" + file + ".schema.json")
		if err != nil {
			t.Fatal(err)
		}
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		if err := compiler.AddResource(file, doc); err != nil {
			t.Fatal(err)
		}
		if compiled[kind], err = compiler.Compile(file); err != nil {
			t.Fatal(err)
		}
	}
	return compiled
}

func validate(schema *jsonschema.Schema, data []byte) error {
	asJSON, err := yaml.YAMLToJSON(data)
	if err != nil {
		return fmt.Errorf("converting: %w", err)
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(asJSON))
	if err != nil {
		return fmt.Errorf("converting: %w", err)
	}
	return schema.Validate(value)
}

func TestTheExampleCompanyIsValidBySchema(t *testing.T) {
	compiled := compileSchemas(t)
	checked := 0
	err := fs.WalkDir(lumenova.Files, ".", func(name string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(name, ".yaml") {
			return err
		}
		data, err := fs.ReadFile(lumenova.Files, name)
		if err != nil {
			return err
		}
		dir, _, _ := strings.Cut(name, "/")
		kind := folders[dir]
		if kind == "" {
			kind = "company"
		}
		if err := validate(compiled[kind], data); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		checked++
		return nil
	})
	if err != nil || checked < 10 {
		t.Errorf("checked %d files: %v", checked, err)
	}
}

func TestSchemasAndLoaderKnowTheSameKeys(t *testing.T) {
	for kind, file := range schemaFiles {
		data, err := schemas.NodesFS.ReadFile("nodes/" + file + ".schema.json")
		if err != nil {
			t.Fatal(err)
		}
		var schema struct {
			Properties map[string]any
			Required   []string
		}
		if err := json.Unmarshal(data, &schema); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(slices.Sorted(slices.Values(kinds[kind].keys)), keysOf(schema.Properties)); diff != "" {
			t.Errorf("keys of %s: %s", kind, diff)
		}
		if diff := cmp.Diff(kinds[kind].needs, schema.Required); diff != "" {
			t.Errorf("required keys of %s: %s", kind, diff)
		}
	}
}

func TestSchemasAndLoaderAgree(t *testing.T) {
	compiled := compileSchemas(t)
	f := func(kind, file string, good bool) {
		t.Helper()
		name := map[string]string{"company": "company.yaml", "division": "divisions/d.yaml", "territory": "territories/x.yaml", "business_unit": "business-units/u.yaml"}[kind]
		fsys := directory(usual)
		if kind != "division" {
			fsys["divisions/d.yaml"] = &fstest.MapFile{Data: []byte("division: d\nlisten: one\nterritories: [alps, gaul]\nproducts: [{id: p}]\n")}
		}
		fsys["safety/en.txt"] = &fstest.MapFile{Data: []byte("rash\n")}
		fsys[name] = &fstest.MapFile{Data: []byte(file)}
		_, loading := Load(fsys)
		schema := validate(compiled[kind], []byte(file))
		if (loading == nil) != good || (schema == nil) != good {
			t.Errorf("want good: %v\n%sloader: %v\nschema: %v", good, file, loading, schema)
		}
	}
	f("company", "company: a\n", true)
	f("company", "company: a\nnames: []\nlateness: 30d\nthread_wait: 1h30m\n", true)
	f("company", "company: a\nprivacy: {suppress_below: 0, retain: {raw: 1h}}\nsafety: {lexicons: {en: safety/en.txt}, handoff: 1h}\nsources: {x: {health_inference: allowed, threads: off}, y: {threads: on}, z: {}}\n", true)
	f("company", "title: a\n", false)
	f("company", "company: A\n", false)
	f("company", "company: 1\n", false)
	f("company", "company: a\ncolour: b\n", false)
	f("company", "company: a\nlateness: 5\n", false)
	f("company", "company: a\nlateness: soon\n", false)
	f("company", "company: a\nprivacy: {suppress_below: -1}\n", false)
	f("company", "company: a\nprivacy: {suppress_below: 5000}\n", false)
	f("company", "company: a\nprivacy: {retain: {emails: 1h}}\n", false)
	f("company", "company: a\nprivacy: {retain: {raw: 1h, text: 010h, mentions: 1d, metrics: 876000h}}\nlateness: 1d\n", true)
	for _, bad := range []string{"30m", "90m", "60m", "1h0m", "1.5h", "1.0h", "0h", "0d", "00h", "h", "d", "''", "+2h", "-2h", "2", "2 h"} {
		f("company", "company: a\nprivacy: {retain: {text: "+bad+"}}\n", false)
	}
	f("company", "company: a\nsources: {X: {}}\n", false)
	f("company", "company: a\nsources: {x: {health_inference: maybe}}\n", false)
	f("company", "company: a\nsources: {x: {threads: sometimes}}\n", false)
	f("company", "company: a\nsafety: {lexicons: {english: safety/en.txt}}\n", false)
	f("company", "company: a\nsafety: {lexicons: {en: en.txt}}\n", false)
	f("company", "company: a\nnames: a\n", false)
	f("division", "division: d\nlisten: a\n", true)
	f("division", "division: d\nlisten: a\nproducts: [{id: p, names: [], hashtags: ['#x', y]}]\ncompetitors: []\ntopics: [{id: t, query: a}]\nexamples: [{text: a, match: true, country: FR, lang: fr, title: b, territory: gaul}]\n", true)
	f("division", "division: d\n", false)
	f("division", "listen: a\n", false)
	f("division", "division: company\nlisten: a\n", false)
	f("division", "division: d\nlisten: ''\n", false)
	f("division", "division: d\nlisten: a\nterritories: [zz]\n", false)
	f("division", "division: d\nlisten: a\nterritories: [alps, alps]\n", false)
	f("division", "division: d\nlisten: a\nproducts: [{names: [x]}]\n", false)
	f("division", "division: d\nlisten: a\nproducts: [{id: x, hashtags: [two words]}]\n", false)
	f("division", "division: d\nlisten: a\nproducts: [{id: x, colour: red}]\n", false)
	f("division", "division: d\nlisten: a\ntopics: [{id: x}]\n", false)
	f("division", "division: d\nlisten: a\nexamples: [{text: a}]\n", false)
	f("division", "division: d\nlisten: a\nexamples: [{text: a, match: perhaps}]\n", false)
	f("division", "division: d\nlisten: a\nmute: b\n", false)
	f("territory", "territory: x\ncountries: [JP]\nlanguages: [ja, pt-BR]\ntimezone: Asia/Tokyo\n", true)
	f("territory", "territory: x\ncountries: []\n", true)
	f("territory", "territory: x\n", false)
	f("territory", "territory: zz\ncountries: []\n", false)
	f("territory", "territory: x\ncountries: [jp]\n", false)
	f("territory", "territory: x\ncountries: [JP, JP]\n", false)
	f("territory", "territory: x\ncountries: [JP]\nlanguages: [Japanese]\n", false)
	f("territory", "territory: x\ncountries: [JP]\ntimezone: 9\n", false)
	f("business_unit", "business_unit: u\ndivision: d\nterritories: [alps]\n", true)
	f("business_unit", "business_unit: u\ndivision: d\nterritories: [alps]\nowner: {team: x}\naccounts: [{source: x, id: '1', territory: alps}]\nlisten: a\nproducts: [{id: p, names: [b]}]\nmute: c\nresponse: {within: 4h, hours: 'Mo-Fr 08:00-18:00'}\ntopics: []\nexamples: []\n", true)
	f("business_unit", "business_unit: u\ndivision: d\nterritories: []\n", true)
	f("business_unit", "business_unit: u\ndivision: d\n", false)
	f("business_unit", "business_unit: u\nterritories: [alps]\n", false)
	f("business_unit", "business_unit: u\ndivision: d\nterritories: [alps]\naccounts: [{source: x, id: 1}]\n", false)
	f("business_unit", "business_unit: u\ndivision: d\nterritories: [alps]\naccounts: [{source: x}]\n", false)
	f("business_unit", "business_unit: u\ndivision: d\nterritories: [alps]\nowner: x\n", false)
	f("business_unit", "business_unit: u\ndivision: d\nterritories: [alps]\nowner: {name: x}\n", false)
	f("business_unit", "business_unit: u\ndivision: d\nterritories: [alps]\nresponse: {within: never}\n", false)
	f("business_unit", "business_unit: u\ndivision: d\nterritories: [alps]\nsafety: {}\n", false)
	f("business_unit", "business_unit: u\ndivision: d\nterritories: [zz]\n", false)
	f("business_unit", "business_unit: u\ndivision: d\nterritories: [alps]\ncompetitors: []\n", false)
}
