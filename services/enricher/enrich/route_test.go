package enrich

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"polyphony/pkg/bus"
	"polyphony/pkg/pseudonym"
	"polyphony/pkg/social"
	"polyphony/pkg/topology"
	"polyphony/pkg/wire"
)

// editOf makes the question that an aggregator puts about an edit of a post of heart in north.
func editOf(t *testing.T, b *bundle, change string) wire.Edit {
	t.Helper()
	keyer, err := pseudonym.New([]byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	written := recorded.Add(-time.Hour)
	line := fmt.Sprintf(`{"source":"facebook","kind":"edit","time":%q,"object":{"id":"native-1"},%s}`, written.Add(time.Minute).Format(time.RFC3339), change)
	base := social.Mention{EventKey: keyer.Key("facebook", "native-1"), AuthorKey: keyer.Key("facebook", "native-author"), Source: "facebook",
		Kind: social.Post, Time: written, RecordedTime: recorded, Via: social.ViaText, Role: social.RoleUnknown, Country: "SE",
		CountryMethod: social.CountryByAuthor, Text: "Cordia as first written", Version: social.OwnVersion(time.Time{}, written, 5)}
	return wire.Edit{RulesVersion: b.rules.Version(), RecordedTime: recorded, Version: social.EditedVersion(written.Add(time.Minute), base.Version, social.Version{}),
		Line: keyer.Seal(nil, []byte(line)), Original: keyer.Seal(nil, []byte(`{"id":"native-1","author_id":"native-author"}`)), Base: base}
}

// route puts a question to the enrichers.
func (b *bundle) route(edit *wire.Edit) (wire.Edited, error) {
	b.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		answer, err := b.bus.Request(b.t.Context(), topology.RouteSubject, wire.EncodeEdit(edit))
		if errors.Is(err, bus.ErrNobody) && time.Now().Before(deadline) {
			continue // the enricher is about to listen
		}
		if err != nil {
			b.t.Fatal(err)
		}
		return wire.DecodeEdited(answer)
	}
}

// TestDeadlyEdit: an edit that was put again and again to enrichers which never came to an end with it is routed no more, whoever
// asks; and again when what is known of that is forgotten, as a replay does.
func TestDeadlyEdit(t *testing.T) {
	b := setup(t)
	b.publishRules()
	edit := editOf(t, b, `"text":"Velurex as edited"`)
	key := topology.QuestionKey(wire.EncodeEdit(&edit))
	for n := range bus.CondemnedAfter {
		condemned, err := b.bus.Judge(t.Context(), key, func(error) {}, func(*bus.Trial) error { return errors.New("died") })
		if condemned || err == nil {
			t.Fatal("condemned after", n)
		}
	}
	b.enrich()
	for range 2 {
		if _, err := b.route(&edit); !errors.Is(err, wire.ErrUnroutable) {
			t.Error("routed once more: ", err)
		}
	}
	other := editOf(t, b, `"text":"Velurex as edited by somebody else"`)
	if _, err := b.route(&other); err != nil {
		t.Error("another one is not: ", err)
	}
	if err := b.bus.Delete(t.Context(), topology.TrialsBucket, key); err != nil {
		t.Fatal(err)
	}
	for range bus.CondemnedAfter + 1 {
		if _, err := b.route(&edit); err != nil {
			t.Error("forgotten, and not routed: ", err)
		}
	}
}

// TestRoute: where an edited event belongs now, with what the edit leaves out as it was.
func TestRoute(t *testing.T) {
	b := setup(t)
	b.publishRules()
	b.enrich()
	f := func(change, text string, nodes ...string) {
		t.Helper()
		edit := editOf(t, b, change)
		edited, err := b.route(&edit)
		if err != nil {
			t.Fatalf("%.100s: %v", change, err)
		}
		var got []string
		for i := range edited.Mentions {
			m := &edited.Mentions[i]
			got = append(got, m.Node.Division+" "+m.Node.Territory)
			if m.Version != edit.Version || m.Text != edited.Self.Text || m.EventKey != edit.Base.EventKey || !m.Time.Equal(edit.Base.Time) {
				t.Errorf("%.100s: %.300v", change, m)
			}
		}
		if strings.Join(got, ", ") != strings.Join(nodes, ", ") || edited.Self.Text != text || edited.Self.Version != edit.Version {
			t.Errorf("%.100s: %.100q in %q", change, edited.Self.Text, got)
		}
	}
	f(`"text":"Airia rather"`, "Airia rather", "lung north")
	f(`"text":"Airia and Cordia"`, "Airia and Cordia", "heart north", "lung north")
	f(`"text":"nothing of ours"`, "nothing of ours")
	f(`"lang":"en"`, "Cordia as first written", "heart north")
	f(`"title":"Airia"`, "Airia\nCordia as first written", "heart north", "lung north")
	f(`"author":{"country":"DE"}`, "Cordia as first written", "heart zz")
	long := strings.Repeat("Cordia \u2028 ", 40_000) + "end"
	f(fmt.Sprintf(`"text":%q`, long), long, "heart north")
}

// TestNamesStayMasked: who was named in a post, answered by it, or wrote it, is masked in what an edit makes of it, whether the edit names them
// again or not; what of the post was masked is heard where the edit leaves it, and what it linked to.
func TestNamesStayMasked(t *testing.T) {
	b := setup(t)
	b.publishRules()
	b.enrich()
	keyer, err := pseudonym.New([]byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	f := func(change, want string, matches int) {
		t.Helper()
		edit := editOf(t, b, change)
		edit.Original = keyer.Seal(nil, []byte(`{"id":"native-1","author_id":"native-author","handle":"janedoe","mentions":[{"id":"","handle":"selfie"}],`+
			`"in_reply_to":{"id":"parent-1","author_id":"asker"},"object":{"id":"object-1","author_id":"sharer"},"root_id":"root-1","text":"Cordia, @airia and selfie"}`))
		edit.Base.Text = "Cordia, [handle] and [handle]"
		edited, err := b.route(&edit)
		if err != nil || edited.Self.Text != want || len(edited.Mentions) != matches {
			t.Errorf("%s: %q in %d nodes, %v", change, edited.Self.Text, len(edited.Mentions), err)
		}
	}
	f(`"lang":"en"`, "Cordia, [handle] and [handle]", 2)
	f(`"text":"Cordia says selfie of janedoe"`, "Cordia says [handle] of [handle]", 1)
	f(`"text":"Cordia says selfie of janedoe","author":{"handle":"other"},"mentions":[{"handle":"third"}]`, "Cordia says [handle] of [handle]", 1)
	f(`"text":"Cordia, asker, sharer and root-1"`, "Cordia, [handle], [handle] and [handle]", 1)
	f(`"text":"Cordia and other","in_reply_to":{"id":"parent-2","author_id":"other"}`, "Cordia and [handle]", 1)
	f(`"title":"Of janedoe"`, "Of [handle]\nCordia, [handle] and [handle]", 2)
}

// TestRouteNever: what can never be applied is told from what may be later, so that nobody asks for ever.
func TestRouteNever(t *testing.T) {
	b := setup(t)
	b.publishRules()
	b.enrich()
	f := func(what string, never bool, spoil func(*wire.Edit)) {
		t.Helper()
		edit := editOf(t, b, `"lang":"en"`)
		spoil(&edit)
		if _, err := b.route(&edit); err == nil || errors.Is(err, wire.ErrUnroutable) != never {
			t.Errorf("%s: %v", what, err)
		}
	}
	f("an edit sealed with another secret", true, func(e *wire.Edit) { e.Line = bytes.Repeat([]byte{7}, 64) })
	f("an original sealed with another secret", true, func(e *wire.Edit) { e.Original = bytes.Repeat([]byte{7}, 64) })
	f("a text that is no longer kept", true, func(e *wire.Edit) { e.RecordedTime = e.Base.Time.Add(91 * 24 * time.Hour) })
	f("rules that nobody has yet", false, func(e *wire.Edit) { e.RulesVersion = "ffffffffffffffff" })
}
