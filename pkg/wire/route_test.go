package wire

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"polyphony/pkg/social"
)

func exampleEdit() Edit {
	base := exampleMention()
	base.Node = social.Node{}
	return Edit{RulesVersion: "0123456789abcdef", RecordedTime: base.Time.Add(2 * time.Hour), Version: social.OwnVersion(base.Time.Add(time.Hour), base.Time, 9),
		Line: []byte{0, 1, 0xff}, Original: []byte("sealed"), Base: base}
}

func TestRouteRoundTrip(t *testing.T) {
	edit := exampleEdit()
	back, err := DecodeEdit(EncodeEdit(&edit))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(edit, back); diff != "" {
		t.Errorf("a question (-want +got):\n%s", diff)
	}
	edited := Edited{Self: edit.Base, Mentions: []social.Mention{exampleMention(), exampleMention()}}
	edited.Mentions[1].Node.Territory, edited.Mentions[1].Topics = "nordics", []string{"cost"}
	answer, err := DecodeEdited(EncodeEdited(&edited, nil))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(edited, answer); diff != "" {
		t.Errorf("an answer (-want +got):\n%s", diff)
	}
}

// TestRouteSaysWordsOnce: what is answered does not grow with the nodes that a long text concerns.
func TestRouteSaysWordsOnce(t *testing.T) {
	edited := Edited{Self: exampleMention()}
	edited.Self.Text = strings.Repeat("x", 1<<20)
	for range 100 {
		edited.Mentions = append(edited.Mentions, edited.Self)
	}
	if n := len(EncodeEdited(&edited, nil)); n > 2<<20 {
		t.Errorf("%d bytes", n)
	}
}

func TestRouteFaults(t *testing.T) {
	_, err := DecodeEdited(EncodeEdited(&Edited{}, errors.New("rules are missing")))
	if err == nil || errors.Is(err, ErrUnroutable) || !strings.Contains(err.Error(), "rules are missing") {
		t.Errorf("a fault that passes: %v", err)
	}
	_, err = DecodeEdited(EncodeEdited(&Edited{}, fmt.Errorf("%w: sealed with another secret", ErrUnroutable)))
	if !errors.Is(err, ErrUnroutable) || err.Error() != "unroutable: sealed with another secret" {
		t.Errorf("a fault that stays: %v", err)
	}
}

func FuzzDecodeEdit(f *testing.F) {
	edit := exampleEdit()
	f.Add(EncodeEdit(&edit))
	f.Add([]byte(`{"version":"00000000000000000000000000000000","base":{}}`))
	f.Fuzz(func(_ *testing.T, question []byte) { _, _ = DecodeEdit(question) })
}

func FuzzDecodeEdited(f *testing.F) {
	f.Add(EncodeEdited(&Edited{Self: exampleMention(), Mentions: []social.Mention{exampleMention()}}, nil))
	f.Add(EncodeEdited(nil, ErrUnroutable))
	f.Fuzz(func(_ *testing.T, answer []byte) { _, _ = DecodeEdited(answer) })
}

func FuzzDecodeReferences(f *testing.F) {
	m := exampleMention()
	f.Add(AppendReference(nil, &social.Reference{Mention: m, Targets: []social.Key{{1}}, Until: m.Time, Sealed: []byte("sealed")}))
	f.Add(AppendReference(nil, &social.Reference{Mention: m, Targets: []social.Key{{1}, {2}}, Until: m.Time, Kept: true}))
	f.Fuzz(func(t *testing.T, lines []byte) {
		references, _ := DecodeReferences(nil, lines)
		for i := range references {
			again, err := DecodeReferences(nil, AppendReference(nil, &references[i]))
			if err != nil || len(again) != 1 {
				t.Fatalf("what was read cannot be read again: %v", err)
			}
		}
	})
}
