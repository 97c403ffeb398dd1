package main

import (
	"os"
	"slices"
	"strings"
	"testing"
)

func TestGeneratedIsCurrent(t *testing.T) {
	want, err := render(metrics)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../" + file)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("%s is not what the list of metrics and the template come to: run `make generate`", file)
	}
}

// TestOneMoreMetric adds one to the list: each place that names those it has names it too.
func TestOneMoreMetric(t *testing.T) {
	count := func(list []metric, name string) int {
		t.Helper()
		text, err := render(list)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(text), " "+name+",") + strings.Count(string(text), " "+name+"\n") + strings.Count(string(text), "\n"+name+" ")
	}
	posts := count(metrics, "posts")
	if posts < 10 {
		t.Fatalf("posts is named %d times", posts)
	}
	more := slices.Insert(slices.Clone(metrics), 3, metric{"more", "countIf(bot)", number})
	if got := count(more, "more"); got != posts {
		t.Errorf("a new metric is named %d times, posts %d times", got, posts)
	}
}

func TestWrap(t *testing.T) {
	f := func(n int, want ...int) {
		t.Helper()
		items := slices.Repeat([]string{strings.Repeat("x", 20)}, n)
		var lines []int
		for line := range strings.SplitSeq(wrap(4, items), "\n") {
			lines = append(lines, strings.Count(line, "x")/20)
			if len(line) > 118 {
				t.Errorf("a line of %d characters", len(line))
			}
		}
		if !slices.Equal(lines, want) {
			t.Errorf("%d items: %v a line, want %v", n, lines, want)
		}
	}
	f(1, 1)
	f(5, 5)
	f(6, 5, 1)
	f(11, 5, 5, 1)
}
