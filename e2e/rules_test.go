package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestLiveRules: changes of the nodes directory take effect while events flow, without a restart and without losing or
// repeating an event. A broken file is refused, and the last good version stays in force.
func TestLiveRules(t *testing.T) {
	t.Parallel()
	directory := t.TempDir()
	if err := os.CopyFS(directory, os.DirFS(filepath.Join(root, "deploy/nodes"))); err != nil {
		t.Fatal(err)
	}
	u := startUp(t, "--nodes", directory)
	flow := u.flow()

	first := u.versionOf("respiratory", "")
	rare := filepath.Join(directory, "divisions", "rare.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(rare, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	const division = "division: rare\ntitle: Rare diseases\nterritories: [dach]\nproducts: [{id: novaflux, names: [Novaflux]}]\nlisten: products\n"

	// A new division: who named its product belongs to it from now on, and to whom they belonged before.
	write(division)
	second := u.versionOf("rare", first)

	// A typo: said in the log with its place, and nothing else happens.
	write(strings.Replace(division, "listen: products", "listen: products AND OR", 1))
	u.await("the log to name the fault", func() error {
		if text, _ := os.ReadFile(u.log.Name()); !bytes.Contains(text, []byte("divisions/rare.yaml:5:")) {
			return errNone
		}
		return nil
	})
	u.await("events accepted after the fault", flow.next)
	if status, body := u.get("/readyz"); status != http.StatusOK {
		t.Errorf("readyz: %d %s", status, body)
	}
	since := time.Now().UnixMilli()
	u.await("a mention accepted after the fault", func() error {
		if u.mentionsSince("rare", since)[second] == 0 {
			return errNone
		}
		return nil
	})
	if got := u.mentionsSince("rare", since); len(got) != 1 {
		t.Errorf("versions after the fault: %v, want %s", got, second)
	}

	// The product has another name.
	write(strings.Replace(division, "Novaflux]", "Novaflux forte]", 1))
	third := u.versionOf("respiratory", second)
	u.await("the next events", flow.next)
	lines := flow.stop(t)
	u.settle()
	u.mustHoldOnce(len(lines), first, second, third)

	// All again: now under the third version. Nobody is counted twice.
	var all []byte
	for _, line := range lines {
		all = append(all, line...)
	}
	u.post(all, "application/x-ndjson", nil)
	u.settle()
	u.mustHoldOnce(len(lines), first, second, third)
}

// versionOf waits for a mention in a division under another version than before, and names the version.
func (u *up) versionOf(division, before string) (version string) {
	u.t.Helper()
	u.await("a new version in "+division, func() error {
		found := rows[struct{ Version string }](u, fmt.Sprintf(`SELECT argMax(rules_version, recorded_time) AS version
			FROM mentions WHERE division = '%s' HAVING version NOT IN ('', '%s')`, division, before))
		if len(found) == 0 {
			return errNone
		}
		version = found[0].Version
		return nil
	})
	return version
}

// mentionsSince counts a division's mentions accepted since, by rules version.
func (u *up) mentionsSince(division string, since int64) map[string]int {
	u.t.Helper()
	counted := map[string]int{}
	for _, row := range rows[struct {
		Version string
		N       int
	}](u, fmt.Sprintf(`SELECT rules_version AS version, count() AS n FROM mentions
		WHERE division = '%s' AND toUnixTimestamp64Milli(recorded_time) >= %d GROUP BY version`, division, since)) {
		counted[row.Version] = row.N
	}
	return counted
}

// mustHoldOnce: every event is a mention of respiratory.dach once, those of the second version were one of rare.dach,
// and the table of rules knows each version that a mention was made with.
func (u *up) mustHoldOnce(events int, versions ...string) {
	u.t.Helper()
	got := rows[struct{ Mentions, Different, Strange, Rare, Metrics int }](u, fmt.Sprintf(`SELECT
		countIf(division = 'respiratory') AS mentions, uniqExactIf(event_key, division = 'respiratory') AS different,
		countIf(rules_version NOT IN ('%s') OR rules_version NOT IN (SELECT rules_version FROM rules)) AS strange,
		countIf(division = 'rare') AS rare,
		(SELECT sum(mentions) FROM node_metrics_1h WHERE division = 'respiratory' AND territory = 'dach') AS metrics
		FROM mentions WHERE territory = 'dach'`, strings.Join(versions, "', '")))[0]
	if got.Mentions != events || got.Different != events || got.Metrics != events || got.Strange != 0 || got.Rare == 0 || got.Rare >= events {
		u.t.Fatalf("of %d events: %+v", events, got)
	}
	if known := rows[struct{ N int }](u, "SELECT uniqExact(rules_version) AS n FROM rules")[0].N; known != len(versions) {
		u.t.Errorf("%d versions in rules, want %d", known, len(versions))
	}
}

// flow sends events until it is stopped, a few at a time.
type flow struct {
	cancel context.CancelFunc
	ended  chan error
	lines  [][]byte
	sent   atomic.Int64
	seen   int64
}

func (u *up) flow() *flow {
	ctx, cancel := context.WithCancel(u.t.Context())
	f := &flow{cancel: cancel, ended: make(chan error, 1)}
	u.t.Cleanup(cancel)
	s := newSender(u.at["http"], 0)
	go func() {
		defer s.client.CloseIdleConnections()
		for ctx.Err() == nil {
			var piece []byte
			for range 5 {
				n := len(f.lines)
				at := time.Now().UTC().Add(-time.Duration(n%7200) * time.Second)
				line := fmt.Appendf(nil, `{"id":"%d","source":"forum","kind":"post","time":"%s","text":"Aerilan or Novaflux?","place":{"country":"DE"},"author":{"id":"a%d"}}`+"\n",
					n, at.Format(time.RFC3339), n%97)
				f.lines = append(f.lines, line)
				piece = append(piece, line...)
			}
			if _, err := s.insist(context.Background(), piece); err != nil { // what was begun is finished
				f.ended <- err
				return
			}
			f.sent.Add(1)
		}
		f.ended <- nil
	}()
	return f
}

// next is nil when a piece was accepted that was begun after the last call.
func (f *flow) next() error {
	now := f.sent.Load()
	if now < f.seen+2 {
		return errors.New("nothing was accepted")
	}
	f.seen = now
	return nil
}

// stop gives the lines that were accepted.
func (f *flow) stop(t *testing.T) [][]byte {
	t.Helper()
	f.cancel()
	if err := <-f.ended; err != nil {
		t.Fatal(err)
	}
	return f.lines
}
