package psytar

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"polyphony/pkg/nodes"
	"polyphony/pkg/social"
	"polyphony/pkg/wire"
)

func TestConvert(t *testing.T) {
	f := func(post, want string) {
		t.Helper()
		var out bytes.Buffer
		n, err := Convert(&out, strings.NewReader(post+"\n\n"))
		if err != nil || n != 1 {
			t.Fatalf("converted %d posts: %v", n, err)
		}
		if diff := cmp.Diff(want+"\n", out.String()); diff != "" {
			t.Error(diff)
		}
	}
	f(`{"id":"a.1","drug":"exampline","rating":4,"disorder":"low mood","side_effect":" dry mouth ","comment":"it helped","gender":"F","age":"41","duration":"2 weeks","date":"2003-02-01"}`,
		`{"id":"a.1","source":"askapatient","kind":"post","time":"2003-02-01T12:00:00Z","title":"Exampline for low mood","text":"dry mouth\n\nit helped","lang":"en","author":{"id":"reviewer-a.1","bio":"F, 41"}}`)
	f(`{"id":"a.2","drug":"ExamplineXR","disorder":"","side_effect":"","comment":"none so far","gender":"","age":"","date":"2016-12-31"}`,
		`{"id":"a.2","source":"askapatient","kind":"post","time":"2016-12-31T12:00:00Z","title":"ExamplineXR","text":"none so far","lang":"en","author":{"id":"reviewer-a.2"}}`)
}

func TestConvertRefuses(t *testing.T) {
	f := func(posts, want string) {
		t.Helper()
		_, err := Convert(new(bytes.Buffer), strings.NewReader(posts))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	f("not json", "line 1")
	f("\n{\"id\":\"a\",\"drug\":\"b\",\"date\":\"yesterday\"}", "line 2: date")
	f(`{"drug":"b","date":"2001-01-01"}`, "needs an id")
	f(`{"id":"b","date":"2001-01-01"}`, "needs an id and a drug")
}

func loadRules(t *testing.T) *nodes.Rules {
	t.Helper()
	dir, err := fs.Sub(Nodes, "nodes")
	if err != nil {
		t.Fatal(err)
	}
	rules, err := nodes.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

// TestNodesKeepOldPosts: a post of 2001 is accepted, and still there afterwards.
func TestNodesKeepOldPosts(t *testing.T) {
	company := loadRules(t).Company()
	age := time.Since(time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC))
	for what, d := range map[string]time.Duration{
		"lateness": company.Lateness, "text": company.Privacy.Retain.Text, "mentions": company.Privacy.Retain.Mentions, "metrics": company.Privacy.Retain.Metrics,
	} {
		if d < age {
			t.Errorf("%s of %v is less than the %v since the first posts", what, d, age)
		}
	}
}

// TestCorpus converts the real posts where they are to be had.
func TestCorpus(t *testing.T) {
	posts, err := os.ReadFile("../../../shared/data/psytar/posts.ndjson")
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("no corpus beside the repository")
	}
	if err != nil {
		t.Fatal(err)
	}
	var first, second bytes.Buffer
	n, err := Convert(&first, bytes.NewReader(posts))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Convert(&second, bytes.NewReader(posts)); err != nil || !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("the same posts gave different events")
	}
	if lines := bytes.Count(posts, []byte("\n")); n < 600 || n != lines {
		t.Errorf("%d events of %d posts", n, lines)
	}
	rules := loadRules(t)
	var decoder wire.EventDecoder
	matcher := rules.Matcher()
	ids, divisions := map[string]bool{}, map[string]int{}
	for line := range bytes.Lines(first.Bytes()) {
		var e Event
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatal(err)
		}
		at, err := time.Parse(time.RFC3339, e.Time)
		if err != nil || at.Year() < 2001 || at.Year() > 2016 || !social.ValidName(e.Source) || e.Author.ID == "" || e.Title == "" {
			t.Errorf("event %s is not as it should be", e.ID)
		}
		ids[e.ID] = true
		decoded, err := decoder.Decode(bytes.TrimSpace(line))
		if err != nil {
			t.Fatalf("event %s: %v", e.ID, err)
		}
		own := 0
		for _, m := range matcher.Match(decoded) {
			if m.Node.Territory != "us" {
				t.Errorf("event %s belongs to %v", e.ID, m.Node)
			}
			if strings.HasPrefix(strings.ToLower(e.Title), m.Node.Division) {
				own++
			}
		}
		if own != 1 {
			t.Errorf("event %s is %d times in the division of its drug", e.ID, own)
		}
		title := strings.ToLower(e.Title)
		for _, drug := range []string{"lexapro", "cymbalta", "zoloft", "effexor"} {
			if strings.HasPrefix(title, drug) {
				divisions[drug]++
			}
		}
	}
	total := 0
	for _, n := range divisions {
		total += n
	}
	if len(ids) != n || len(divisions) != 4 || total != n {
		t.Errorf("%d ids, %v by drug, of %d posts", len(ids), divisions, n)
	}
}
