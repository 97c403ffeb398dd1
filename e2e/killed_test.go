package e2e

import "testing"

// TestKilled: whatever ends the process, and whenever, nothing that was answered 202 is lost and nothing is counted
// twice. Senders repeat what was not answered.
func TestKilled(t *testing.T) {
	t.Parallel()
	events := 60_000
	if testing.Short() {
		events = 30_000
	}
	g := generate(t, 8, events)
	u := startUp(t)
	pieces := g.pieces(t, 250)
	s := newSender(u.at["http"], len(pieces)/10)
	sent := make(chan error, 1)
	go func() { sent <- s.send(t.Context(), pieces) }()
	reach := func(percent int) {
		t.Helper()
		for done := range s.answered {
			if done*100 >= percent*len(pieces) {
				return
			}
		}
		t.Fatalf("the sender ended before %d %%: %v", percent, <-sent)
	}
	moreRows := func() {
		t.Helper()
		const rowsWritten = "SELECT count() AS n FROM mentions_store"
		before := rows[struct{ N int }](u, rowsWritten)[0].N
		u.await("rows to arrive", func() error {
			if rows[struct{ N int }](u, rowsWritten)[0].N != before {
				return nil
			}
			select { // so that the sender goes on
			case <-s.answered:
			default:
			}
			return errNone
		})
	}

	t.Log("kill under load, before anything was flushed")
	reach(10)
	u.kill()
	u.start()

	t.Log("kill just when rows were written: touches and acknowledgements may be missing")
	reach(25)
	moreRows()
	u.kill()

	t.Log("kill a start before it is ready")
	u.launch()
	u.awaitEngine()
	u.kill()

	t.Log("drain a start before it is ready")
	u.launch()
	u.awaitEngine()
	u.drain()
	u.start()

	t.Log("drain under load")
	reach(40)
	u.drain()
	u.start()

	t.Log("kill ClickHouse alone: another takes its place")
	reach(55)
	u.killEngine()

	t.Log("drain twice in a row, the second at once")
	reach(70)
	u.drain()
	u.start()
	u.drain()
	u.start()

	t.Log("kill with the last events accepted and not yet counted")
	reach(100)
	u.kill()
	u.start()
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	u.mustEqual(g.truth)

	t.Log("send everything once more")
	if err := newSender(u.at["http"], len(pieces)).send(t.Context(), pieces); err != nil {
		t.Fatal(err)
	}
	u.mustEqual(g.truth)
}
