package nodes

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	lumenova "polyphony/deploy/nodes"
	"polyphony/pkg/social"
)

var writeRelease = flag.String("write-release", "", "write the archive of rules of this release into testdata/NAME, which must not be there")

// TestEveryReleaseIsOpened: frames that wait in a stream name the rules by which an earlier release accepted them. Those are opened as
// the version that they were, and they route as they did. A release's archive is written once, when it is made, and never again:
//
//	go test ./pkg/nodes -run TestEveryReleaseIsOpened -write-release release-1
func TestEveryReleaseIsOpened(t *testing.T) {
	if *writeRelease != "" {
		writeArchive(t, filepath.Join("testdata", *writeRelease))
	}
	releases, err := filepath.Glob("testdata/release-*")
	if err != nil || len(releases) == 0 {
		t.Fatal("no release: ", err)
	}
	for _, dir := range releases {
		text, err := os.ReadFile(filepath.Join(dir, "rules.base64"))
		if err != nil {
			t.Fatal(err)
		}
		archive, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(text)))
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(filepath.Join(dir, "rules.json"))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), routes(t, archive)); diff != "" {
			t.Errorf("%s (-want +got)\n%s", dir, diff)
		}
	}
}

// routes is an archive's version, and where it routes some events.
func routes(t *testing.T, archive []byte) string {
	t.Helper()
	r, err := Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	shown := struct {
		Version string
		Routes  map[string]any
	}{r.Version(), map[string]any{}}
	matcher := r.Matcher()
	for _, e := range []social.Event{
		{Text: "Velurex helps", PlaceCountry: "DE"},
		{Text: "Velurex helps", PlaceCountry: "JP", Lang: "ja"},
		{Text: "my asthma got worse, and so did my migraine", PlaceCountry: "FR", Lang: "en"},
		{Text: "Lumenova hires", PlaceCountry: "US"},
		{Text: "nothing that concerns anybody", PlaceCountry: "GB"},
	} {
		e.Source, e.Kind = "forum", social.Post
		matches, err := json.Marshal(matcher.Match(&e)) // now: they are good until the next
		if err != nil {
			t.Fatal(err)
		}
		shown.Routes[e.PlaceCountry+" "+e.Text] = json.RawMessage(matches)
	}
	text, err := json.MarshalIndent(shown, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(text) + "\n"
}

func writeArchive(t *testing.T, dir string) {
	t.Helper()
	r, err := Load(lumenova.Files)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"rules.base64": base64.StdEncoding.EncodeToString(r.Archive()) + "\n", "rules.json": routes(t, r.Archive()),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
