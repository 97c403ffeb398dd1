package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"polyphony/pkg/nodes"
	"polyphony/pkg/social"
	"polyphony/pkg/wire"
	"polyphony/services/polyphony/generate"
)

// TestMatchingAgreesWithTruth decodes and matches generated events in process. Two opinions that share no code, the
// generator's and the pipeline's, have to be the same for the example company.
func TestMatchingAgreesWithTruth(t *testing.T) {
	rules, err := nodes.LoadDir("../../deploy/nodes")
	if err != nil {
		t.Fatal(err)
	}
	plan := planOf(rules)
	end := time.Date(2026, 5, 25, 14, 30, 0, 0, time.UTC)
	for seed := range uint64(3) {
		const events = 30_000
		cfg := generate.Default(seed, events, end)
		if seed == 2 { // the rare cases, often
			cfg.Matching, cfg.Owned, cfg.Both, cfg.Unknown = 1, 0.4, 0.4, 0.5
		}
		g, err := generate.New(plan, cfg)
		if err != nil {
			t.Fatal(err)
		}
		var lines bytes.Buffer
		if err := g.Write(t.Context(), &lines, events, 0, false); err != nil {
			t.Fatal(err)
		}
		rejected, got := matchAll(t, rules, lines.Bytes(), end)
		if want := g.Tally().Invalid; rejected != want {
			t.Errorf("seed %d: %d lines rejected, want %d", seed, rejected, want)
		}
		if diff := cmp.Diff(slices.Collect(g.Truth()), got); diff != "" {
			t.Errorf("seed %d: (-truth +matched)\n%.3000s", seed, diff)
		}
	}
}

// matchAll counts what the matcher says, as contract section 4 defines mentions and voices.
func matchAll(t *testing.T, rules *nodes.Rules, lines []byte, now time.Time) (rejected int, rows []generate.Row) {
	t.Helper()
	type bucket struct {
		node social.Node
		hour time.Time
	}
	mentions, voices, seen := map[bucket]int{}, map[bucket]map[string]bool{}, map[string]bool{}
	var decoder wire.EventDecoder
	matcher := rules.Matcher()
	for line := range bytes.Lines(lines) {
		e, err := decoder.Decode(bytes.TrimSpace(line))
		var invalid *social.Invalid
		switch {
		case errors.As(err, &invalid):
			rejected++
			continue
		case err != nil:
			t.Fatal(err)
		case e.Time.Before(now.Add(-rules.Company().Lateness)) || e.Time.After(now.Add(10*time.Minute)):
			rejected++
			continue
		}
		id := strings.Clone(e.Source + "|" + e.ID)
		if seen[id] {
			continue
		}
		seen[id] = true
		for _, m := range matcher.Match(e) {
			if m.ByCompany || e.Kind != social.Post && e.Kind != social.Reply {
				continue
			}
			b := bucket{m.Node, e.Time.UTC().Truncate(time.Hour)}
			mentions[b]++
			if voices[b] == nil {
				voices[b] = map[string]bool{}
			}
			if !e.Author.Bot {
				voices[b][strings.Clone(e.Source+"|"+e.Author.ID)] = true
			}
		}
	}
	for b, n := range mentions {
		rows = append(rows, generate.Row{Division: b.node.Division, Territory: b.node.Territory, Bucket: b.hour, Mentions: n, Voices: len(voices[b])})
	}
	slices.SortFunc(rows, func(a, b generate.Row) int {
		x, y := social.Node{Division: a.Division, Territory: a.Territory}, social.Node{Division: b.Division, Territory: b.Territory}
		if c := x.Compare(y); c != 0 {
			return c
		}
		return a.Bucket.Compare(b.Bucket)
	})
	return rejected, rows
}

func TestGenerateRefusesWhatItCannotKnow(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("../../deploy/nodes")); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "divisions", "neurology.yaml")
	if err := os.WriteFile(file, []byte("division: neurology\nterritories: [dach, france, united-kingdom, north-america]\nlisten: headache\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	rules, err := nodes.LoadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	_, err = generate.New(planOf(rules), generate.Default(1, 10, time.Now()))
	if err == nil || !strings.Contains(err.Error(), "division neurology: listen lacks `products`") {
		t.Errorf("got %v", err)
	}
}
