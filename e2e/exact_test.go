package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestExact: what was generated is what is counted, per node and hour, once however often it is sent.
func TestExact(t *testing.T) {
	t.Parallel()
	events := 200_000
	if testing.Short() {
		events = 20_000
	}
	g := generate(t, 7, events)
	g.mustShowEveryCase(t)
	u := startUp(t)

	u.sendFile(g)
	u.mustEqual(g.truth)
	first := u.everything()

	u.sendFile(g)
	u.mustEqual(g.truth)
	if diff := cmp.Diff(first, u.everything()); diff != "" {
		t.Fatalf("sending the same again changed something (-before +after)\n%.2000s", diff)
	}

	u.drain()
	u.start()
	u.sendFile(g)
	u.mustEqual(g.truth)
	if diff := cmp.Diff(first, u.everything()); diff != "" {
		t.Fatalf("sending the same after a restart changed something (-before +after)\n%.2000s", diff)
	}
}

// mustShowEveryCase keeps the oracle honest: a truth without the hard cases would prove nothing.
func (g generated) mustShowEveryCase(t *testing.T) {
	t.Helper()
	divisions, elsewhere, first, last := map[string]bool{}, 0, int64(1<<62), int64(0)
	for b := range g.truth {
		divisions[b.Division] = true
		if b.Territory == "zz" {
			elsewhere++
		}
		first, last = min(first, b.Hour), max(last, b.Hour)
	}
	if len(divisions) < 3 || elsewhere == 0 || last-first < int64(70*time.Hour/time.Second) {
		t.Fatalf("divisions %v, %d hours elsewhere, %v in all", divisions, elsewhere, time.Duration(last-first)*time.Second)
	}
	ids, twice, broken, owned := map[string]bool{}, 0, 0, 0
	for _, piece := range g.pieces(t, 1) {
		line := string(piece)
		if ids[line] {
			twice++
		}
		ids[line] = true
		if !strings.HasPrefix(line, `{"`) || !strings.HasSuffix(line, "}\n") {
			broken++
		}
		if strings.Contains(line, `"account":"`) {
			owned++
		}
	}
	if twice < g.events/25 || broken == 0 || owned == 0 {
		t.Fatalf("of %d lines %d are repeats, %d broken, %d on accounts", g.events, twice, broken, owned)
	}
}

// sendFile sends with the command line.
func (u *up) sendFile(g generated) {
	u.t.Helper()
	out := polyphony(u.t, "send", "--http", "http://"+u.at["http"], g.file)
	var accepted, rejected int
	if _, err := fmt.Sscanf(out, "accepted %d, rejected %d", &accepted, &rejected); err != nil || accepted+rejected != g.events || rejected == 0 {
		u.t.Fatalf("%d events sent: %q, %v", g.events, out, err)
	}
}

// everything is all that readers see of the facts and the metrics, except when it was recorded.
func (u *up) everything() []map[string]any {
	u.t.Helper()
	return append(rows[map[string]any](u, `SELECT * FROM node_metrics_1h ORDER BY division, territory, bucket`),
		rows[map[string]any](u, `SELECT count() AS mentions, uniqExact(division, territory, event_key) AS different,
			sum(sipHash64(* EXCEPT (recorded_time))) AS content FROM mentions`)...)
}
