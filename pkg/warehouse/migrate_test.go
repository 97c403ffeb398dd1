package warehouse

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/ch-go/proto"
	"github.com/ClickHouse/clickhouse-go/v2"
	"golang.org/x/sync/errgroup"

	"polyphony/pkg/embedded"
	"polyphony/pkg/embedded/enginetest"
	"polyphony/schemas"
)

func TestMigrateAgain(t *testing.T) {
	w := start(t)
	same := func(what string) {
		t.Helper()
		if err := w.Migrate(t.Context(), func(line string) { t.Errorf("%s: %s", what, line) }); err != nil {
			t.Fatal(err)
		}
	}
	same("a second time")

	// Every statement may run again: that is what makes two migrations at once, or one that was killed, harmless.
	insert(t, w, history(newRand(1), 10)...)
	exec(t, w, "TRUNCATE TABLE migrations")
	if err := w.Migrate(t.Context(), func(string) {}); err != nil {
		t.Fatal(err)
	}
	if got := query(t, w, "SELECT toString(count()) FROM mentions"); got[0] != "10" {
		t.Errorf("%s mentions are left of 10", got[0])
	}
}

func TestMigrateConcurrently(t *testing.T) {
	engine := enginetest.ClickHouse(t)
	var group errgroup.Group
	for range 4 {
		w, err := Open(Config{Addr: engine.Addr()})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		group.Go(func() error { return w.Migrate(t.Context(), func(string) {}) })
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
}

func TestMigrateRefusesANewerSchema(t *testing.T) {
	w := start(t)
	exec(t, w, "INSERT INTO migrations VALUES (9999, 'from the future', now64(3))")
	err := w.Migrate(t.Context(), func(string) {})
	if err == nil || !strings.Contains(err.Error(), "newer binary") {
		t.Errorf("Migrate: %v", err)
	}
}

func TestMigrationsAreNumbered(t *testing.T) {
	migrations, err := readMigrations(schemas.ClickHouseFS)
	if err != nil || len(migrations) == 0 {
		t.Fatalf("%d migrations, %v", len(migrations), err)
	}
	for _, m := range migrations {
		for _, s := range m.statements {
			if !regexp.MustCompile(`(?m)^(CREATE TABLE IF NOT EXISTS|CREATE OR REPLACE VIEW|CREATE VIEW IF NOT EXISTS|ALTER TABLE .* IF (NOT )?EXISTS)`).MatchString(s) {
				t.Errorf("%s: not repeatable: %.80s", m.name, s)
			}
		}
	}
}

// TestFormulaComesLast: while a file is applied, others seal by what they find. Of two statements that the last one tells
// apart, the first was made by old views, whatever number is new.
func TestFormulaComesLast(t *testing.T) {
	migrations, err := readMigrations(schemas.ClickHouseFS)
	if err != nil {
		t.Fatal(err)
	}
	raised := regexp.MustCompile(`(?m)^CREATE OR REPLACE VIEW formula AS SELECT toUInt16\((\d+)\) AS version$`)
	last := ""
	for _, m := range migrations {
		for i, s := range m.statements {
			if version := raised.FindStringSubmatch(s); version != nil {
				last = version[1]
				if i != len(m.statements)-1 {
					t.Errorf("%s raises formula in statement %d of %d", m.name, i+1, len(m.statements))
				}
			} else if strings.Contains(s, "REPLACE VIEW formula") || strings.Contains(s, "VIEW IF NOT EXISTS formula") && !strings.Contains(s, "toUInt16(0)") {
				t.Errorf("%s: not understood: %s", m.name, s)
			}
		}
	}
	if last != strconv.Itoa(formula) {
		t.Errorf("the schema's formula is %q, this binary's %d", last, formula)
	}
}

// TestMetricsAreThoseOfTheViews: what is sealed and read is all that the views have.
func TestMetricsAreThoseOfTheViews(t *testing.T) {
	w := start(t)
	for view, others := range map[string]string{"made_hours": "division, territory, hour, events, ", "node_hours": "division, territory, hour, touched, formula, made, events, ",
		"node_metrics_1h": "division, territory, bucket, "} {
		has := query(t, w, "SELECT name FROM system.columns WHERE database = currentDatabase() AND table = ? ORDER BY position", view)
		same(t, view, others+metrics, strings.Join(has, ", "))
	}
}

// TestInsertsNameTheirColumns: a statement must not go by positions, which another version of the schema may change.
func TestInsertsNameTheirColumns(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range regexp.MustCompile(`INSERT INTO (\w+)\s*(.)`).FindAllSubmatch(text, -1) {
			if string(found[2]) != "(" {
				t.Errorf("%s: INSERT INTO %s goes by position", file, found[1])
			}
		}
	}
}

// TestFormulasAreOne holds the five places that count equal, word by word. They are five because a shared view with
// another GROUP BY on top could not count voices.
func TestFormulasAreOne(t *testing.T) {
	migrations, err := readMigrations(schemas.ClickHouseFS)
	if err != nil {
		t.Fatal(err)
	}
	latest := map[string]string{} // formulas by view; a later file replaces a view of an earlier one
	for _, m := range migrations {
		for _, s := range m.statements {
			view := regexp.MustCompile(`(?m)^CREATE OR REPLACE VIEW (\w+)`).FindStringSubmatch(s)
			from, to := strings.Index(s, "countIf(is_mention) AS mentions,"), strings.Index(s, "\nFROM counted")
			switch {
			case view == nil:
			case from >= 0 && to > from:
				latest[view[1]] = s[from:to]
			case strings.Contains(s, "uniqExact") || strings.Contains(s, "countIf("):
				t.Errorf("%s counts, and not as the others do", view[1])
			default:
				delete(latest, view[1])
			}
		}
	}
	want := latest["made_hours"]
	for _, view := range []string{"made_hours", "node_metrics_1m", "node_metrics_1d", "node_metrics_1d_of", "node_window"} {
		if got := latest[view]; got == "" || got != want {
			t.Errorf("%s counts\n%s\nand made_hours\n%s", view, got, want)
		}
		delete(latest, view)
	}
	for view := range latest {
		t.Errorf("%s counts too: name it here and in the README", view)
	}
}

func TestStatements(t *testing.T) {
	f := func(text string, want ...string) {
		t.Helper()
		if got := statements(text); fmt.Sprint(got) != fmt.Sprint(want) || len(got) != len(want) {
			t.Errorf("statements(%q) = %q, want %q", text, got, want)
		}
	}
	f("")
	f("\n\n")
	f("A;\n", "A")
	f("A;\n-- it's; fine\nB;", "A", "-- it's; fine\nB")
	f("A\n;\nB\n", "A", "B")
}

func TestMigrateSaysWhatIsWrong(t *testing.T) {
	f := func(config Config, want string) {
		t.Helper()
		w, err := Open(config)
		if err == nil {
			defer w.Close()
			err = w.Migrate(t.Context(), func(string) {})
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", config, err, want)
		}
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := free.Addr().String()
	free.Close()
	f(Config{Addr: closed}, "is it running")

	engine := enginetest.ClickHouse(t)
	f(Config{Addr: engine.HTTPAddr()}, "native port")
	f(Config{Addr: engine.Addr(), User: "nobody"}, "turned user nobody away")
	f(Config{Addr: engine.Addr(), Database: "Robert'; DROP"}, "database name")
}

func TestMigrateRefusesAServerThatForgets(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "config.d"), 0o755); err != nil {
		t.Fatal(err)
	}
	const forgets = `<clickhouse><merge_tree><allow_experimental_replacing_merge_with_cleanup>1</allow_experimental_replacing_merge_with_cleanup></merge_tree></clickhouse>`
	if err := os.WriteFile(filepath.Join(dir, "config.d", "forgets.xml"), []byte(forgets), 0o644); err != nil {
		t.Fatal(err)
	}
	engine, err := embedded.StartClickHouse(t.Context(), embedded.ClickHouseConfig{
		Dir: dir, Addr: "127.0.0.1:0", HTTPAddr: "127.0.0.1:0", Log: enginetest.Log(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer engine.Close(context.Background())
	w, err := Open(Config{Addr: engine.Addr()})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := w.Migrate(t.Context(), func(string) {}); !errors.Is(err, ErrUnfit) || !strings.Contains(err.Error(), "forgets deletions") {
		t.Errorf("%v", err)
	}
}

func TestRetry(t *testing.T) {
	f := func(err error, want bool) {
		t.Helper()
		if got := Retry(err); got != want {
			t.Errorf("Retry(%v) = %v, want %v", err, got, want)
		}
	}
	f(nil, false)
	f(errors.New("something new"), true)
	f(context.DeadlineExceeded, true)
	f(&net.OpError{Op: "dial", Err: errors.New("refused")}, true)
	for _, passes := range []proto.Error{proto.ErrTooManyParts, proto.ErrMemoryLimitExceeded, proto.ErrUnknownStatusOfInsert, proto.ErrNotEnoughSpace,
		proto.ErrReadonly, proto.ErrAccessDenied, proto.ErrAuthenticationFailed, proto.ErrTooManySimultaneousQueries, proto.ErrTimeoutExceeded, proto.ErrUnknownException} {
		f(fmt.Errorf("inserting: %w", &ch.Exception{Code: passes}), true)
		f(fmt.Errorf("reading: %w", &clickhouse.Exception{Code: int32(passes)}), true)
	}
	f(fmt.Errorf("inserting: %w", &ch.Exception{Code: proto.ErrUnknownTable}), true)
	f(fmt.Errorf("inserting: %w", &ch.Exception{Code: proto.ErrTypeMismatch}), false)
	f(fmt.Errorf("reading: %w", &clickhouse.Exception{Code: int32(proto.ErrUnknownIdentifier)}), false)
	f(errors.Join(errors.New("a"), &clickhouse.Exception{Code: int32(proto.ErrSyntaxError)}), false)
}

// TestRetryOnTheRealServer checks that both halves of the driver tell their errors in the form that Retry reads.
func TestRetryOnTheRealServer(t *testing.T) {
	w := start(t)
	asked := w.conn.Exec(t.Context(), "SELECT no_such_column FROM touches")
	sent := w.send(t.Context(), w.recordSenders, func(s *sender) error {
		return s.insert(t.Context(), "touches", proto.Input{{Name: "no_such_column", Data: proto.ColUInt64{1}}})
	})
	missing := w.send(t.Context(), w.recordSenders, func(s *sender) error {
		return s.insert(t.Context(), "no_such_table", proto.Input{{Name: "a", Data: proto.ColUInt64{1}}})
	})
	if Retry(asked) || Retry(sent) || !Retry(missing) {
		t.Errorf("Retry(%v) = %v, Retry(%v) = %v, Retry(%v) = %v", asked, Retry(asked), sent, Retry(sent), missing, Retry(missing))
	}
}
