package nodes_test

import (
	"testing"

	example "polyphony/deploy/nodes"
	"polyphony/pkg/nodes"
	"polyphony/pkg/social"
)

func loadExample(t testing.TB) *nodes.Rules {
	t.Helper()
	r, err := nodes.Load(example.FS)
	if err != nil {
		t.Fatalf("the example company has faults:\n%v", err)
	}
	return r
}

func TestExampleCompanyRoutesItsOwnProducts(t *testing.T) {
	m := loadExample(t).Matcher()
	got := m.Match(&social.Event{Source: "x", Kind: social.Post, Text: "Velurex and #aerilan", PlaceCountry: "DE"})
	t.Log(got)
	if len(got) != 2 {
		t.Fatal(got)
	}
}
