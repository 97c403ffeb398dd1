package warehouse

import (
	"context"
	"testing"
	"time"

	"polyphony/pkg/social"
)

// TestForget: what deleted events said is on no disk any more, nor what leads back to who said it, while the deletion
// itself stays, and all else.
func TestForget(t *testing.T) {
	w := start(t)
	r := newRand(81)
	facts := history(r, 40)
	var originals []social.Original
	var selves []social.Reference
	for i := range facts {
		m := &facts[i]
		m.Text = "words"
		originals = append(originals, social.Original{EventKey: m.EventKey, Source: "x", RecordedTime: epoch, Sealed: []byte("who")})
		selves = append(selves, social.Reference{Mention: *m, Sealed: []byte("who"), Kept: true})
	}
	edit := social.Statement{Key: key(r), Source: "x", Kind: social.Edit, ObjectKey: facts[0].EventKey, Time: epoch, RecordedTime: epoch, Sealed: []byte("who")}
	other := social.Statement{Key: key(r), Source: "x", Kind: social.Edit, ObjectKey: facts[39].EventKey, Time: epoch, RecordedTime: epoch, Sealed: []byte("who")}
	store := func() {
		t.Helper()
		insert(t, w, facts...)
		for _, err := range []error{
			w.InsertOriginals(t.Context(), originals), w.InsertSelves(t.Context(), selves, Before), w.InsertStatements(t.Context(), []social.Statement{edit, other}),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	left := func() string {
		t.Helper()
		return query(t, w, `SELECT toString((
			(SELECT countIf(text != '') FROM mentions_store), (SELECT countIf(text != '' OR sealed != '') FROM selves), (SELECT count() FROM originals),
			(SELECT uniqExact(event_key) FROM mentions_store), (SELECT count() FROM mentions)))`)[0]
	}
	forget := func(want ...string) {
		t.Helper()
		tables, err := w.Forget(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		same(t, "tables", want, tables)
		await(t, func(ctx context.Context) bool {
			return query(t, w, "SELECT toString(count()) FROM system.mutations WHERE database = currentDatabase() AND NOT is_done")[0] == "0"
		})
	}
	store()
	same(t, "all of it", "(40,40,42,40,40)", left())
	forget()
	heads := map[social.Key]social.Version{}
	var gone []social.Mention
	for i := range 10 {
		heads[facts[i].EventKey] = social.Deleted()
		m := facts[i]
		m.Retracted, m.Version = true, social.Deleted()
		gone = append(gone, m)
	}
	if err := w.PutHeads(t.Context(), heads); err != nil {
		t.Fatal(err)
	}
	insert(t, w, gone...)
	forget("mentions_store", "selves", "originals")
	same(t, "ten deleted", "(30,30,31,40,30)", left())
	forget()
	store()
	forget("selves", "originals") // where mentions are stored, words that come again are not
	same(t, "sent again", "(30,30,31,40,30)", query(t, w, `SELECT toString((
			(SELECT uniqExactIf(event_key, text != '') FROM mentions_store), (SELECT uniqExactIf(event_key, text != '' OR sealed != '') FROM selves),
			(SELECT uniqExact(event_key) FROM originals), (SELECT uniqExact(event_key) FROM mentions_store), (SELECT count() FROM mentions)))`)[0])
}

func await(t *testing.T, done func(context.Context) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !done(ctx) {
		select {
		case <-ctx.Done():
			t.Fatal("not within a minute")
		case <-tick.C:
		}
	}
}
