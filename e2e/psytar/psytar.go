// Package psytar turns the posts of the PsyTAR corpus, reviews of four medicines by patients, into canonical events, and
// brings a nodes directory in which each medicine is a division.
//
// It owns the conversion only: the corpus itself stays where it is and is read by whoever has it.
package psytar

import (
	"bufio"
	"embed"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

// Source is the network that the events name.
const Source = "askapatient"

// Nodes is a nodes directory, below "nodes", that accepts and keeps events of thirty years.
//
//go:embed nodes
var Nodes embed.FS

// Post is one line of the corpus.
type Post struct {
	ID         string `json:"id"`
	Drug       string `json:"drug"`
	Rating     int    `json:"rating"`
	Disorder   string `json:"disorder"`
	SideEffect string `json:"side_effect"`
	Comment    string `json:"comment"`
	Gender     string `json:"gender"`
	Age        string `json:"age"`
	Duration   string `json:"duration"`
	Date       string `json:"date"` // YYYY-MM-DD
}

// Event is the canonical event of a post, as JSON.
type Event struct {
	ID     string `json:"id"`
	Source string `json:"source"`
	Kind   string `json:"kind"`
	Time   string `json:"time"`
	Title  string `json:"title"`
	Text   string `json:"text"`
	Lang   string `json:"lang"`
	Author Author `json:"author"`
}

// Author is the reviewer of one post: the corpus does not say who wrote several.
type Author struct {
	ID  string `json:"id"`
	Bio string `json:"bio,omitempty"` // gender and age as far as given
}

// maxLine bounds a line of the corpus; its longest have some 3 KB.
const maxLine = 1 << 20

// Convert writes one event for each post that it reads, line by line. The same posts give the same bytes.
func Convert(w io.Writer, posts io.Reader) (events int, err error) {
	in := bufio.NewScanner(posts)
	in.Buffer(nil, maxLine)
	out := bufio.NewWriter(w)
	encode := json.NewEncoder(out)
	for line := 1; in.Scan(); line++ {
		if len(strings.TrimSpace(in.Text())) == 0 {
			continue
		}
		var p Post
		if err := json.Unmarshal(in.Bytes(), &p); err != nil {
			return events, fmt.Errorf("line %d: %w", line, err)
		}
		e, err := p.Event()
		if err != nil {
			return events, fmt.Errorf("line %d: %w", line, err)
		}
		if err := encode.Encode(e); err != nil {
			return events, fmt.Errorf("line %d: %w", line, err)
		}
		events++
	}
	if err := in.Err(); err != nil {
		return events, fmt.Errorf("reading posts: %w", err)
	}
	return events, out.Flush()
}

// Event makes the event of p. The title names the drug, as the page of a review does: the review itself rarely says it.
func (p Post) Event() (Event, error) {
	if p.ID == "" || p.Drug == "" {
		return Event{}, fmt.Errorf("a post needs an id and a drug")
	}
	day, err := time.Parse(time.DateOnly, p.Date)
	if err != nil {
		return Event{}, fmt.Errorf("date: %w", err)
	}
	return Event{
		ID: p.ID, Source: Source, Kind: "post", Lang: "en",
		// The corpus knows the day only. At noon it is the same day in UTC and in America.
		Time:   day.Add(12 * time.Hour).Format(time.RFC3339),
		Title:  p.title(),
		Text:   join("\n\n", p.SideEffect, p.Comment),
		Author: Author{ID: "reviewer-" + p.ID, Bio: join(", ", p.Gender, p.Age)},
	}, nil
}

func (p Post) title() string {
	// The corpus spells one drug in two ways, and first letters small.
	r, n := utf8.DecodeRuneInString(p.Drug)
	title := strings.ToUpper(string(r)) + p.Drug[n:]
	if p.Disorder != "" {
		title += " for " + p.Disorder
	}
	return title
}

// join puts sep between those parts that say something.
func join(sep string, parts ...string) string {
	var said []string
	for _, p := range parts {
		if p = strings.TrimSpace(p); p != "" {
			said = append(said, p)
		}
	}
	return strings.Join(said, sep)
}
