package nodes

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"polyphony/pkg/social"
)

// told writes reasons as "effect node: rule (file:line:column): term 'what stands there' in field at start; note".
func told(e *social.Event, reasons []Reason) []string {
	var out []string
	for _, r := range reasons {
		s := string(r.Effect)
		if r.Division != "" {
			s += " " + r.Division + "/" + r.Territory
		}
		if r.Rule != "" {
			s += fmt.Sprintf(": %s (%s:%d:%d)", r.Rule, r.File, r.Line, r.Column)
		}
		if r.Term != "" {
			s += ": " + r.Term
		}
		if r.Field != "" {
			text := map[string]string{"text": e.Text, "title": e.Title}[r.Field]
			if strings.HasPrefix(r.Field, "hashtags") {
				text = e.Hashtags[0]
			}
			if r.End > 0 {
				s += fmt.Sprintf(" '%s'", text[r.Start:r.End])
			}
			s += " in " + r.Field
			if r.End > 0 {
				s += fmt.Sprintf(" at %d", r.Start)
			}
		}
		if r.Note != "" {
			s += "; " + r.Note
		}
		out = append(out, s)
	}
	return out
}

func TestExplain(t *testing.T) {
	r := load(t, routingCompany)
	m := r.Matcher()
	f := func(e social.Event, want ...string) {
		t.Helper()
		e.Source, e.Kind = "facebook", social.Post
		if diff := cmp.Diff(want, told(&e, m.Explain(&e))); diff != "" {
			t.Errorf("%q: %s", e.Text, diff)
		}
	}
	f(social.Event{Text: "weather"},
		"unmatched; no account of the event is the company's, and nothing any division or business unit listens for is in its words")
	f(social.Event{Text: "Oh, CORDIA,, is fast. Ünd Cordia!", Title: "x", PlaceCountry: "FR"},
		"routed heart/gaul: listen of division heart (divisions/heart.yaml:5:9): Cordia 'CORDIA' in text at 4",
		"routed heart/gaul: listen of division heart (divisions/heart.yaml:5:9): Cordia 'Cordia' in text at 27",
		"located heart/gaul: FR in place.country; country FR is in territory gaul",
		"labelled heart/gaul: product cordia of division heart (divisions/heart.yaml:3:33): Cordia 'CORDIA' in text at 4",
		"labelled heart/gaul: product cordia of division heart (divisions/heart.yaml:3:33): Cordia 'Cordia' in text at 27",
		"labelled heart/gaul: topic speed of division heart (divisions/heart.yaml:6:65): Cordia 'CORDIA' in text at 4",
		"labelled heart/gaul: topic speed of division heart (divisions/heart.yaml:6:65): Cordia 'Cordia' in text at 27",
		"labelled heart/gaul: topic speed of division heart (divisions/heart.yaml:6:65): fast 'fast' in text at 16",
		"routed lung/zz: listen of division lung (divisions/lung.yaml:4:9): cordia 'CORDIA' in text at 4",
		"routed lung/zz: listen of division lung (divisions/lung.yaml:4:9): cordia 'Cordia' in text at 27",
		"located lung/zz: FR in place.country; no territory of division lung has country FR")
	f(social.Event{Account: "heart-at"},
		"routed heart/alps: account facebook:heart-at of business unit heart-alps (business-units/heart-alps.yaml:4:12) in account; it stands on an account of this node")
	f(social.Event{Author: social.Author{ID: "heart-at"}},
		"routed heart/alps: account facebook:heart-at of business unit heart-alps (business-units/heart-alps.yaml:4:12) in author.id; an account of this node wrote it")
	f(social.Event{Hashtags: []string{"#Aortin"}, Lang: "fr"},
		"routed heart/gaul: listen of division heart (divisions/heart.yaml:5:9): Aortin 'Aortin' in hashtags[0] at 1",
		"routed heart/gaul: listen of division heart (divisions/heart.yaml:5:9): #aortin 'Aortin' in hashtags[0] at 1",
		"located heart/gaul: fr in lang; no country is known, and gaul is the one territory of the division with this language",
		"labelled heart/gaul: product aortin of division heart (divisions/heart.yaml:3:64): Aortin 'Aortin' in hashtags[0] at 1",
		"labelled heart/gaul: product aortin of division heart (divisions/heart.yaml:3:84): #aortin 'Aortin' in hashtags[0] at 1")
	f(social.Event{Text: "Jodler Aktie", PlaceCountry: "AT"},
		"muted heart/alps: listen of business unit heart-alps (business-units/heart-alps.yaml:6:9): Jodler 'Jodler' in text at 0",
		"located heart/alps: AT in place.country; country AT is in territory alps",
		"muted heart/alps: mute of business unit heart-alps (business-units/heart-alps.yaml:7:7): Aktie 'Aktie' in text at 7")
}

func TestExplainTellsWhyARuleThatFoundSomethingDoesNotHold(t *testing.T) {
	m := listening(t, "(rash AND lang:fr) OR (rash NEAR/1 strong)").Matcher()
	e := &social.Event{Source: "x", Kind: social.Post, Text: "a rash, not so very strong", Lang: "de", PlaceCountry: "FR"}
	want := []string{
		"unrouted d/gaul: listen of division d (divisions/d.yaml:7:9): rash 'rash' in text at 2; found, but the query as a whole does not hold",
		"unrouted d/gaul: listen of division d (divisions/d.yaml:7:9): rash 'rash' in text at 2; found, but the query as a whole does not hold",
		"unrouted d/gaul: listen of division d (divisions/d.yaml:7:9): strong 'strong' in text at 20; found, but the query as a whole does not hold",
	}
	if diff := cmp.Diff(want, told(e, m.Explain(e))); diff != "" {
		t.Error(diff)
	}
}

func TestExplainPointsIntoTheTextAsItCame(t *testing.T) {
	m := listening(t, `"side effect" OR Müller OR 副作用 OR straße* OR finance OR ガス`).Matcher()
	f := func(text, want string) {
		t.Helper()
		e := &social.Event{Source: "x", Kind: social.Post, Text: text, PlaceCountry: "FR"}
		for _, r := range m.Explain(e) {
			if r.Effect == Routed {
				if got := text[r.Start:r.End]; got != want {
					t.Errorf("%q: points to %q, want %q", text, got, want)
				}
				return
			}
		}
		t.Errorf("%q: not routed", text)
	}
	f("é side ,, effect!", "side ,, effect")
	f("side\n\neffect", "side\n\neffect")
	f("Hr. Mu\u0308ller.", "Mu\u0308ller")
	f("Hr. MÜLLER", "MÜLLER")
	f("ひどい副作用が", "副作用")
	f("die Straßen", "Straße")
	f("ﬁnance é", "ﬁnance")
	f("é ｶﾞｽ", "ｶﾞｽ")
}
