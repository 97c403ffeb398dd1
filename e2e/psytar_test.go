package e2e

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"polyphony/e2e/psytar"
)

// TestPsytar: real posts of patients, of 2001 to 2016, are each in the node of their medicine, once, however often
// they are sent.
func TestPsytar(t *testing.T) {
	t.Parallel()
	const corpus = "../../shared/data/psytar/posts.ndjson"
	posts, err := os.ReadFile(corpus)
	if errors.Is(err, fs.ErrNotExist) {
		t.Skipf("no corpus at %s: its posts stay where they are and are no part of the repository", corpus)
	}
	if err != nil {
		t.Fatal(err)
	}
	var events bytes.Buffer
	if _, err := psytar.Convert(&events, bytes.NewReader(posts)); err != nil {
		t.Fatal(err)
	}
	file, directory := filepath.Join(t.TempDir(), "events.ndjson"), t.TempDir()
	if err := os.WriteFile(file, events.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(directory, psytar.Nodes); err != nil {
		t.Fatal(err)
	}
	u := startUp(t, "--nodes", filepath.Join(directory, "nodes"))

	want := saidByCorpus(t, posts, u.data)
	for range 3 {
		sent := fmt.Sprintf("accepted %d, rejected 0\n", len(want))
		if out := polyphony(t, "send", "--http", u.at["http"], file); out != sent {
			t.Fatalf("got %q, want %q", out, sent)
		}
		u.settle()
		got, all := map[string]place{}, map[string]int{}
		for _, row := range rows[struct {
			Key string
			place
			Rows int
		}](u, "SELECT event_key AS key, division, territory, toString(toDate(time)) AS day, count() AS rows FROM mentions GROUP BY ALL") {
			if row.Rows != 1 {
				t.Errorf("%v", row)
			}
			all[row.Division]++
			if row.Division == want[row.Key].Division { // a post may name a second medicine, and is a mention there, too
				got[row.Key] = row.place
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("(-corpus +mentions)\n%.2000s", diff)
		}
		counted := map[string]int{}
		for _, row := range rows[struct {
			Division string
			N        int
		}](u, "SELECT division, sum(mentions) AS n FROM node_metrics_1d GROUP BY division") {
			counted[row.Division] = row.N
		}
		if diff := cmp.Diff(all, counted); diff != "" {
			t.Fatalf("(-mentions +node_metrics_1d)\n%s", diff)
		}
	}
}

// place is where and when a post is a mention.
type place struct{ Division, Territory, Day string }

// saidByCorpus is, by event key, what the corpus itself says of each post.
func saidByCorpus(t *testing.T, posts []byte, data string) map[string]place {
	t.Helper()
	secret, err := os.ReadFile(filepath.Join(data, "author.key"))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]place{}
	for _, p := range decodeLines[struct{ ID, Drug, Date string }](t, posts) {
		key := hmac.New(sha256.New, bytes.TrimSpace(secret))
		key.Write([]byte(psytar.Source + "|" + p.ID))
		division := strings.TrimSuffix(strings.ToLower(p.Drug), "xr")
		want[hex.EncodeToString(key.Sum(nil)[:16])] = place{division, "us", p.Date}
	}
	if len(want) < 600 {
		t.Fatalf("only %d posts", len(want))
	}
	return want
}
