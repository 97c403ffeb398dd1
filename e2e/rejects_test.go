package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"polyphony/pkg/social"
)

// TestRejects: what could not be processed is listed without a word of what people wrote, shown with its bytes, and replayed
// after a fix, however often, counted once.
func TestRejects(t *testing.T) {
	t.Parallel()
	directory := t.TempDir()
	if err := os.CopyFS(directory, os.DirFS(filepath.Join(root, "deploy/nodes"))); err != nil {
		t.Fatal(err)
	}
	lateness := func(is string) {
		t.Helper()
		path := filepath.Join(directory, "company.yaml")
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		text = regexp.MustCompile(`(?m)^lateness: \S+`).ReplaceAll(text, []byte("lateness: "+is))
		if err := os.WriteFile(path, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	lateness("24h")
	u := startUp(t, "--nodes", directory)
	at := time.Now().UTC().Truncate(time.Hour)
	late, fresh := at.Add(-60*time.Hour).Format(time.RFC3339), at.Add(-2*time.Hour).Format(time.RFC3339)
	event := func(id, at string) string {
		return fmt.Sprintf(`{"id":%q,"source":"reddit","kind":"post","time":%q,"text":"Velurex, says Quillfeather","author":{"id":"quill","handle":"quillfeather","country":"DE"}}`, id, at)
	}
	broken := `{"source":"reddit","author":{"handle":"quillfeather"}`
	u.post([]byte(strings.Join([]string{event("fresh", fresh), broken, event("late", late)}, "\n")), "application/x-ndjson", nil)
	u.post([]byte("["+strings.ReplaceAll(event("lines", late), `,"`, ",\n\"")+"]"), "application/json", nil) // an event of several lines
	u.settle()
	stored := rows[struct{ Key, Rules string }](u, "SELECT event_key AS Key, rules_version AS Rules FROM mentions LIMIT 1")[0]
	key, err := social.ParseKey(stored.Key)
	if err != nil {
		t.Fatal(err)
	}
	u.publishStatement(social.Statement{Key: social.Key{1}, Source: "reddit", Kind: social.Edit, ObjectKey: key, Time: at, RecordedTime: at,
		RulesVersion: stored.Rules, Sealed: make([]byte, 100)})
	u.settle()

	inTable := func() string {
		t.Helper()
		u.settle()
		var b strings.Builder
		for _, r := range rows[struct {
			Stage, Code, Source, Origin string
			N, Rules                    int
		}](u, `SELECT stage AS Stage, code AS Code, source AS Source, origin AS Origin, count() AS N, uniqExact(rules_version) AS Rules FROM rejects GROUP BY ALL ORDER BY ALL`) {
			fmt.Fprintf(&b, "%d %s %s %s %q by %d\n", r.N, r.Stage, r.Code, r.Source, r.Origin, r.Rules)
		}
		return b.String()
	}
	if diff := cmp.Diff("1 aggregate unroutable_edit reddit \"THREADS:0:1\" by 1\n1 ingest invalid_json reddit \"\" by 1\n2 ingest too_late reddit \"\" by 1\n", inTable()); diff != "" {
		t.Error(diff)
	}

	rejects := func(args ...string) string {
		t.Helper()
		all := append([]string{"rejects", args[0], "--nats", u.at["nats"]}, args[1:]...)
		if args[0] == "replay" {
			all = append(all, "--http", u.at["http"])
		}
		return polyphony(t, all...)
	}
	list := rejects("list")
	if strings.Count(list, "\n") != 4 || strings.Contains(strings.ToLower(list), "quill") {
		t.Errorf("listed\n%s", list)
	}
	f := func(n int, filters ...string) {
		t.Helper()
		if got := strings.Count(rejects(append([]string{"list"}, filters...)...), "\n"); got != n {
			t.Errorf("%v: %d rejects, want %d", filters, got, n)
		}
	}
	f(3, "--stage", "ingest")
	f(4, "--stage", "ingest,aggregate", "--source", "reddit,x")
	f(2, "--code", "too_late,in_future")
	f(0, "--source", "x")
	f(4, "--since", "1h")
	f(0, "--until", at.Add(-time.Hour).Format(time.RFC3339))
	var row struct{ Name, Origin string }
	if err := json.Unmarshal([]byte(rejects("list", "--code", "invalid_json", "--json")), &row); err != nil || row.Origin != "a request" {
		t.Fatalf("%+v %v", row, err)
	}
	if got := rejects("show", row.Name, "--bytes"); got != broken+"\n" {
		t.Errorf("shown %q", got)
	}
	if got := rejects("show", row.Name); !strings.Contains(got, "invalid_json") || !strings.HasSuffix(got, "\n\n"+broken+"\n") {
		t.Errorf("shown %q", got)
	}

	replayed := func(want string, args ...string) {
		t.Helper()
		if got := rejects(append([]string{"replay"}, args...)...); strings.TrimSpace(got) != want {
			t.Errorf("replay %v printed %q, want %q", args, got, want)
		}
	}
	counted := func(late, fresh int) {
		t.Helper()
		u.settle()
		got := rows[struct{ Late, Fresh int }](u, fmt.Sprintf(`SELECT toInt64(sumIf(mentions, bucket < toDateTime('%[1]s', 'UTC'))) AS Late,
			toInt64(sumIf(mentions, bucket >= toDateTime('%[1]s', 'UTC'))) AS Fresh FROM node_metrics_1h`, at.Add(-48*time.Hour).Format(time.DateTime)))[0]
		if got.Late != late || got.Fresh != fresh {
			t.Errorf("%+v, want %d late ones and %d fresh", got, late, fresh)
		}
	}
	perNode := rows[struct{ N int }](u, "SELECT count() AS N FROM mentions")[0].N // of one event
	replayed("sent again 2: accepted 0, rejected 2; put back into streams 0; cannot be replayed 0", "--code", "too_late")
	replayed("sent again 1: accepted 0, rejected 1; put back into streams 0; cannot be replayed 0", row.Name)
	replayed("sent again 0: accepted 0, rejected 0; put back into streams 1; cannot be replayed 0", "--stage", "aggregate")
	counted(0, perNode)
	lateness("30d")
	u.await("the new lateness", func() error {
		if a := u.post([]byte(event("late", late)), "application/json", nil); a.Accepted == 0 {
			return errors.New("still too late")
		}
		return nil
	})
	replayed("sent again 2: accepted 2, rejected 0; put back into streams 0; cannot be replayed 0", "--code", "too_late") // though each is there more than once
	counted(2*perNode, perNode)
	replayed("sent again 2: accepted 2, rejected 0; put back into streams 0; cannot be replayed 0", "--code", "too_late") // though each is there more than once
	counted(2*perNode, perNode)
	if got := rows[struct{ N int }](u, "SELECT count() AS N FROM rejects WHERE code = 'unroutable_edit'")[0].N; got != 1 {
		t.Errorf("%d unroutable edits after one was put back", got)
	}
}
