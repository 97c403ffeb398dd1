package polyphony

import (
	"bufio"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// pkg is what `go list` says of one of our packages.
type pkg struct {
	ImportPath, Name, Dir, Doc         string
	Imports, TestImports, XTestImports []string
	GoFiles                            []string
}

func packages(t *testing.T) map[string]pkg {
	t.Helper()
	out, err := exec.Command("go", "list", "-json", "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	all := map[string]pkg{}
	for d := json.NewDecoder(strings.NewReader(string(out))); d.More(); {
		var p pkg
		if err := d.Decode(&p); err != nil {
			t.Fatal(err)
		}
		all[strings.TrimPrefix(p.ImportPath, "polyphony/")] = p
	}
	if len(all) < 10 {
		t.Fatalf("go list found %d packages only", len(all))
	}
	return all
}

// Imports run one way. What is not listed may be imported by whoever a rule does not keep out.
func TestImportDirection(t *testing.T) {
	all := packages(t)
	allowed := map[string][]string{ // of ours
		"pkg/social": {}, "pkg/topology": {}, "schemas": {}, "deploy/nodes": {},
		"pkg/wire": {"pkg/social"}, "pkg/nodes": {"pkg/social"}, "pkg/pseudonym": {"pkg/social"},
		"pkg/bus":       {"pkg/seam", "pkg/topology"},
		"pkg/warehouse": {"pkg/seam", "pkg/social", "schemas"},
		"pkg/seam":      {},
		"pkg/service":   {}, "pkg/embedded": {}, "pkg/watchdog": {},
		"services/ingester/ingest":      {"pkg/bus", "pkg/nodes", "pkg/social", "pkg/topology", "pkg/wire"},
		"services/enricher/enrich":      {"pkg/bus", "pkg/nodes", "pkg/pseudonym", "pkg/seam", "pkg/social", "pkg/topology", "pkg/watchdog", "pkg/wire"},
		"services/aggregator/aggregate": {"pkg/bus", "pkg/nodes", "pkg/seam", "pkg/social", "pkg/topology", "pkg/warehouse", "pkg/watchdog", "pkg/wire"},
		"services/polyphony/generate":   {"pkg/social"},
	}
	for path, may := range allowed {
		p, ok := all[path]
		if !ok {
			t.Errorf("%s: no such package", path)
		}
		for _, imported := range p.Imports {
			if ours, ok := strings.CutPrefix(imported, "polyphony/"); ok && !slices.Contains(may, ours) {
				t.Errorf("%s imports %s", path, ours)
			}
		}
	}
	for _, imported := range all["pkg/social"].Imports {
		if strings.Contains(strings.Split(imported, "/")[0], ".") {
			t.Errorf("pkg/social imports %s, it may import the standard library only", imported)
		}
	}
}

// Some things have one door.
func TestSingleImporters(t *testing.T) {
	only := map[string]string{
		"github.com/nats-io/nats.go":         "pkg/bus",
		"github.com/ClickHouse/":             "pkg/warehouse",
		"github.com/nats-io/nats-server/":    "pkg/embedded",
		"github.com/ebitengine/purego":       "pkg/embedded",
		"github.com/goccy/go-yaml":           "pkg/nodes",
		"github.com/segmentio/encoding/json": "pkg/wire",
	}
	for path, p := range packages(t) {
		example := strings.HasPrefix(path, "deploy/examples/") // stands for foreign code: has NATS as others have it, and nothing of ours
		for _, imported := range p.Imports {
			if example && strings.HasPrefix(imported, "polyphony/") {
				t.Errorf("%s imports %s: an example is to be copied", path, imported)
			}
			for prefix, owner := range only {
				if strings.HasPrefix(imported, prefix) && path != owner && !(example && owner == "pkg/bus") {
					t.Errorf("%s imports %s: that is the business of %s", path, imported, owner)
				}
			}
		}
		for _, test := range []string{"pkg/embedded/enginetest"} {
			if slices.Contains(p.Imports, "polyphony/"+test) {
				t.Errorf("%s imports %s outside of its tests", path, test)
			}
		}
	}
}

// Every package says what it owns.
func TestPackageDocs(t *testing.T) {
	for path, p := range packages(t) {
		if len(p.GoFiles) == 0 {
			continue // tests only
		}
		if p.Name == "main" && !strings.HasPrefix(p.Doc, "Command ") && !strings.HasPrefix(p.Doc, "Program ") {
			t.Errorf("%s: the doc of a program begins with its name: %q", path, p.Doc)
		}
		if p.Name != "main" && !strings.HasPrefix(p.Doc, "Package "+p.Name+" ") {
			t.Errorf("%s: the package doc is missing or unusual: %q", path, p.Doc)
		}
	}
}

// Only pkg/service reads the environment, and in no program that people run, what carries out a test's plans.
func TestEnvironmentHasOneReader(t *testing.T) {
	eachFile(t, func(path string, file *ast.File) {
		if strings.HasSuffix(path, "_test.go") || strings.HasPrefix(path, "pkg/service/") || path == "pkg/seam/faults.go" {
			return
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok {
				if x, ok := s.X.(*ast.Ident); ok && x.Name == "os" && slices.Contains([]string{"Getenv", "LookupEnv", "Environ", "ExpandEnv"}, s.Sel.Name) {
					t.Errorf("%s reads the environment: os.%s", path, s.Sel.Name)
				}
			}
			return true
		})
	})
}

// The symbols that the documents name exist, and so do the files.
func TestDocumentsNameWhatExists(t *testing.T) {
	declared := map[string]bool{}
	eachFile(t, func(path string, file *ast.File) {
		prefix := file.Name.Name + "."
		for _, d := range file.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				name := d.Name.Name
				if d.Recv != nil {
					name = receiver(d.Recv.List[0].Type) + "." + name
				}
				declared[prefix+name] = true
				if strings.HasPrefix(name, "Test") || strings.HasPrefix(name, "Fuzz") || strings.HasPrefix(name, "Benchmark") {
					declared[name] = true
				}
			case *ast.GenDecl:
				for _, s := range d.Specs {
					switch s := s.(type) {
					case *ast.TypeSpec:
						declared[prefix+s.Name.Name] = true
					case *ast.ValueSpec:
						for _, n := range s.Names {
							declared[prefix+n.Name] = true
						}
					}
				}
			}
		}
	})
	code := regexp.MustCompile("`([^`\n]+)`")
	symbol := regexp.MustCompile(`^[a-z]+(\.[A-Za-z][A-Za-z0-9]*){1,2}$`)
	test := regexp.MustCompile(`^(Test|Fuzz|Benchmark)[A-Z]\w+$`)
	file := regexp.MustCompile(`^[\w.-]+(/[\w.-]+)+/?$`)
	for _, document := range []string{"README.md", "ARCHITECTURE.md", "INVARIANTS.md", "CONTRIBUTING.md", "docs/operations.md"} {
		text, err := os.ReadFile(document)
		if err != nil {
			t.Error(err)
			continue
		}
		named := 0
		for _, m := range code.FindAllStringSubmatch(string(text), -1) {
			name := m[1]
			switch {
			case test.MatchString(name), symbol.MatchString(name) && !strings.HasPrefix(name, "social."+"raw") && isGoSymbol(name):
				named++
				if !declared[name] {
					t.Errorf("%s names %s, which does not exist", document, name)
				}
			case file.MatchString(name) && isOurs(name):
				named++
				if _, err := os.Stat(name); err != nil {
					t.Errorf("%s names %s: %v", document, name, err)
				}
			}
		}
		if named == 0 {
			t.Errorf("%s names nothing that can be checked", document)
		}
	}
}

// The metrics that operators are told to watch, and those that alarms are made of, are ones that somebody shows.
func TestOperationsNameMetricsThatExist(t *testing.T) {
	var text []byte
	for _, name := range []string{"docs/operations.md", alerts} {
		file, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, file...)
	}
	var code strings.Builder
	eachFile(t, func(path string, _ *ast.File) {
		source, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(path, "_test.go") {
			code.Write(source)
		}
	})
	named := regexp.MustCompile(`polyphony_[a-z_]+`).FindAllString(string(text), -1)
	for _, metric := range named {
		if !strings.Contains(code.String(), `"`+metric+`"`) {
			t.Errorf("nobody shows %s", metric)
		}
	}
	if len(named) == 0 {
		t.Error("no metric is named")
	}
}

const alerts = "deploy/prometheus/alerts.yml"

// Whoever is woken by an alarm finds what it means and what to do.
func TestAlarmsAreExplained(t *testing.T) {
	operations, err := os.ReadFile("docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(alerts)
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct {
			Rules []struct {
				Alert, Expr string
				Annotations struct{ Summary, Section string }
			}
		}
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Groups) != 1 || len(file.Groups[0].Rules) == 0 {
		t.Fatalf("no rules in %s", alerts)
	}
	for _, rule := range file.Groups[0].Rules {
		if rule.Alert == "" || rule.Expr == "" || rule.Annotations.Summary == "" {
			t.Errorf("%+v is not whole", rule)
		}
		if !strings.Contains(string(operations), "\n## "+rule.Annotations.Section+"\n") {
			t.Errorf("%s: docs/operations.md has no section %q", rule.Alert, rule.Annotations.Section)
		}
	}
}

// isGoSymbol tells package.Symbol from file names and subjects: its last part has an upper-case letter.
func isGoSymbol(name string) bool {
	return strings.ToLower(name) != name && !strings.HasSuffix(name, ".md")
}

func isOurs(name string) bool {
	first, _, _ := strings.Cut(name, "/")
	return slices.Contains([]string{"pkg", "services", "schemas", "deploy", "e2e"}, first)
}

func receiver(t ast.Expr) string {
	switch t := t.(type) {
	case *ast.StarExpr:
		return receiver(t.X)
	case *ast.IndexExpr:
		return receiver(t.X)
	case *ast.Ident:
		return t.Name
	}
	return "?"
}

func eachFile(t *testing.T, do func(path string, file *ast.File)) {
	t.Helper()
	set := token.NewFileSet()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "node_modules" || d.Name() == ".git" || d.Name() == "bin" || d.Name() == ".polyphony"):
			return fs.SkipDir
		case !strings.HasSuffix(path, ".go"):
			return nil
		}
		file, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		do(filepath.ToSlash(path), file)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// The project builds anywhere: no lock file says where its packages were downloaded, no file names this or that host.
func TestNoDownloadAddresses(t *testing.T) {
	file, err := os.Open("deploy/embedded/package-lock.json")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	lines := 0
	for scanner := bufio.NewScanner(file); scanner.Scan(); lines++ {
		if strings.Contains(scanner.Text(), "://") || strings.Contains(scanner.Text(), `"resolved"`) {
			t.Errorf("the lock file holds an address: %s", scanner.Text())
		}
	}
	if lines == 0 {
		t.Error("the lock file is empty")
	}
}

// CI runs what the README tells a newcomer to run.
func TestCIRunsTheReadme(t *testing.T) {
	ci, err := os.ReadFile(".ci/run")
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(ci), "\nmake test\n") || !strings.Contains(string(ci), "git diff --exit-code") {
		t.Error(".ci/run does not call `make test` and then git diff --exit-code")
	}
	if !strings.Contains(string(readme), "make run\nmake test\n") {
		t.Error("README.md does not show the two commands")
	}
}
