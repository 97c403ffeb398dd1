package warehouse

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"polyphony/pkg/social"
)

// TestOneOfTwoSeesTheOther has events be deleted, by themselves or with all that their author wrote, at every moment while they are
// stored: between any two of the pieces that go to ClickHouse. Either whoever deletes them finds where they are, and takes
// them back, or they are stored as taken back.
func TestOneOfTwoSeesTheOther(t *testing.T) {
	w := start(t)
	r := newRand(57)
	base := history(r, 1)[0]
	var mu sync.Mutex
	var meanwhile func() // what happens before a piece goes to ClickHouse
	other := open(t, Config{Addr: before(t, w.config.Addr, func([]byte) {
		mu.Lock()
		defer mu.Unlock()
		if meanwhile != nil {
			meanwhile()
		}
	})})
	during := func(do func()) {
		mu.Lock()
		defer mu.Unlock()
		meanwhile = do
	}
	ctx := context.Background()
	check := func(err error) {
		if err != nil {
			t.Error(err)
		}
	}
	// f stores event after event, and has each deleted one piece later than the one before, until that is too late.
	f := func(what string, store func(*social.Mention) error, remove func(*social.Mention), stays func(*social.Mention) bool) {
		t.Helper()
		for step := 0; ; step++ {
			m := base
			m.EventKey, m.AuthorKey = key(r), key(r)
			pieces := 0
			during(func() {
				if pieces == step {
					remove(&m)
				}
				pieces++
			})
			check(store(&m))
			during(nil)
			if pieces <= step {
				if step < 5 {
					t.Errorf("%s: stored in %d pieces", what, step)
				}
				return
			}
			if stays(&m) {
				t.Errorf("%s: deleted before piece %d, it stays", what, step+1)
			}
		}
	}
	found := map[social.Key]bool{} // by whoever deleted them
	byKey := func(m *social.Mention) {
		check(w.PutHeads(ctx, map[social.Key]social.Version{m.EventKey: social.Deleted()}))
		located, err := w.Located(ctx, []social.Key{m.EventKey})
		check(err)
		found[m.EventKey] = located[m.EventKey]
		check(w.DropSelves(ctx, []social.Key{m.EventKey}))
	}
	byAuthor := func(m *social.Mention) {
		until := map[social.Key]time.Time{m.AuthorKey: m.Time}
		check(w.PutAuthorHeads(ctx, until))
		written, err := w.WrittenBy(ctx, until)
		check(err)
		if found[m.EventKey] = slices.Contains(written, m.EventKey); found[m.EventKey] {
			check(w.DropSelves(ctx, written))
		}
	}
	mention := func(m *social.Mention) error { return other.InsertMentions(ctx, []social.Mention{*m}) }
	shown := func(m *social.Mention) bool {
		return !found[m.EventKey] && query(t, w, "SELECT toString(count()) FROM mentions WHERE event_key = ?", m.EventKey.String())[0] != "0"
	}
	f("a mention", mention, byKey, shown)
	f("a mention of an author", mention, byAuthor, shown)

	self := func(m *social.Mention) error {
		return other.InsertSelves(ctx, []social.Reference{{Mention: *m, Until: m.RecordedTime.Add(time.Hour)}}, Waiting)
	}
	kept := func(m *social.Mention) bool {
		selves, err := w.Selves(ctx, []social.Key{m.EventKey})
		check(err)
		return len(selves) > 0
	}
	f("what waits", self, byKey, kept)
	f("what waits, of an author", self, byAuthor, kept)
}
