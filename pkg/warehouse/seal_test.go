package warehouse

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"

	"polyphony/pkg/embedded"
	"polyphony/pkg/embedded/enginetest"
	"polyphony/pkg/social"
)

func TestSealedEqualsComputed(t *testing.T) {
	w := start(t)
	facts := history(rand.New(rand.NewPCG(11, 1)), 500)
	insert(t, w, facts...)
	want := counted(facts, hourOf)
	same(t, "computed", want, readMetrics(t, w, "node_metrics_1h"))
	if n := sealAll(t, w); n != len(want) {
		t.Errorf("sealed %d hours, want %d", n, len(want))
	}
	same(t, "sealed", want, readMetrics(t, w, "node_metrics_1h"))
	same(t, "stale hours", []string{"0"}, query(t, w, "SELECT toString(countIf(balance != 0)) FROM hours"))
	if n := sealAll(t, w); n != 0 {
		t.Errorf("sealed %d hours that were fresh", n)
	}
	// The sealed rows are really what is read: without facts the numbers stay.
	exec(t, w, "TRUNCATE TABLE mentions_store")
	same(t, "sealed, facts gone", want, readMetrics(t, w, "node_metrics_1h"))
}

func TestOneTouchMakesOneHourStale(t *testing.T) {
	w := start(t)
	facts := history(rand.New(rand.NewPCG(12, 1)), 300)
	insert(t, w, facts...)
	sealAll(t, w)
	more := history(rand.New(rand.NewPCG(13, 1)), 1)
	insert(t, w, more...)
	same(t, "stale hours", []string{"1"}, query(t, w, "SELECT toString(countIf(balance != 0)) FROM hours"))
	same(t, "hours", counted(append(facts, more...), hourOf), readMetrics(t, w, "node_metrics_1h"))
}

func TestOtherFormulaIsStale(t *testing.T) {
	w := start(t)
	facts := history(rand.New(rand.NewPCG(14, 1)), 100)
	insert(t, w, facts...)
	sealAll(t, w)
	exec(t, w, "INSERT INTO node_hours SELECT * REPLACE(0 AS formula, 999 AS mentions) FROM node_hours")
	want := counted(facts, hourOf)
	same(t, "hours", want, readMetrics(t, w, "node_metrics_1h"))
	if n := sealAll(t, w); n != len(want) {
		t.Errorf("sealed %d hours, want %d", n, len(want))
	}
}

// TestOtherFormulaIsSealedByOthers: after a newer binary has migrated, this one lacks columns.
func TestOtherFormulaIsSealedByOthers(t *testing.T) {
	w := start(t)
	facts := history(rand.New(rand.NewPCG(28, 1)), 100)
	insert(t, w, facts...)
	exec(t, w, "CREATE OR REPLACE VIEW formula AS SELECT toUInt16("+strconv.Itoa(formula+1)+") AS version")
	if n := sealAll(t, w); n != 0 {
		t.Errorf("sealed %d hours", n)
	}
	same(t, "hours", counted(facts, hourOf), readMetrics(t, w, "node_metrics_1h"))
}

func TestEmptyHourIsSealedAndNotShown(t *testing.T) {
	w := start(t)
	facts := history(rand.New(rand.NewPCG(15, 1)), 20)
	insert(t, w, facts...)
	sealAll(t, w)
	for i := range facts {
		facts[i].Version, facts[i].Retracted = social.Deleted(), true
	}
	insert(t, w, facts...)
	none := map[string]NodeRow{}
	same(t, "computed", none, readMetrics(t, w, "node_metrics_1h"))
	if n := sealAll(t, w); n == 0 {
		t.Error("the empty hours were not sealed")
	}
	same(t, "sealed", none, readMetrics(t, w, "node_metrics_1h"))
	if n := sealAll(t, w); n != 0 {
		t.Errorf("%d empty hours are stale for ever", n)
	}
}

func TestSealOldestFirstWithinItsBounds(t *testing.T) {
	w := start(t)
	facts := history(rand.New(rand.NewPCG(16, 1)), 200)
	insert(t, w, facts...)
	n, more, err := w.Seal(t.Context(), SealOptions{Eager: true, Max: 5})
	if n != 5 || !more || err != nil {
		t.Fatalf("Seal = %d, %v, %v", n, more, err)
	}
	same(t, "sealed before stale", []string{"1"}, query(t, w, `SELECT toString(
		(SELECT max(hour) FROM hours WHERE balance = 0) <= (SELECT min(hour) FROM hours WHERE balance != 0))`))
}

func TestSealLeavesAHotHourAlone(t *testing.T) {
	w := start(t)
	fact := history(rand.New(rand.NewPCG(17, 1)), 1)[0]
	insert(t, w, fact)
	seal := func(options SealOptions, want int) {
		t.Helper()
		if n, _, err := w.Seal(t.Context(), options); n != want || err != nil {
			t.Errorf("Seal(%+v) = %d, %v, want %d", options, n, err, want)
		}
	}
	seal(SealOptions{Quiet: time.Hour}, 0)
	seal(SealOptions{Quiet: time.Hour, MaxStale: time.Nanosecond}, 1)
	insert(t, w, fact)
	seal(SealOptions{Quiet: time.Nanosecond}, 1)
	seal(SealOptions{Quiet: time.Nanosecond}, 0)
}

func TestSweepFindsWhatOthersTouched(t *testing.T) {
	w := start(t)
	other := open(t, w.config)
	insert(t, w, history(rand.New(rand.NewPCG(18, 1)), 1)...)
	if n, _, err := other.Seal(t.Context(), SealOptions{Quiet: time.Nanosecond}); n != 1 || err != nil {
		t.Errorf("Seal = %d, %v, want 1: the first round sweeps", n, err)
	}
}

// TestSettle starts ClickHouse twice. What the first one wrote last is sealed anew, and what it sealed last: its facts may
// be gone. What was written long before is not, whatever time its events have.
func TestSettle(t *testing.T) {
	config := embedded.ClickHouseConfig{Dir: t.TempDir(), Addr: "127.0.0.1:0", HTTPAddr: "127.0.0.1:0", Log: enginetest.Log(t)}
	run := func(do func(w *Warehouse)) {
		t.Helper()
		engine, err := embedded.StartClickHouse(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		do(open(t, Config{Addr: engine.Addr()}))
		if err := engine.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	facts := history(rand.New(rand.NewPCG(19, 1)), 3)
	for i := range facts {
		facts[i].Time = epoch.AddDate(0, -i, 0) // so each is a part of its own
	}
	old, lost, torn := &facts[0], &facts[1], &facts[2]
	settle := func(w *Warehouse, want ...*social.Mention) {
		t.Helper()
		if err := w.Settle(t.Context()); err != nil {
			t.Fatal(err)
		}
		var hours []string
		for _, m := range want {
			hours = append(hours, seconds(m.Time.Truncate(time.Hour)))
		}
		slices.Sort(hours)
		same(t, "stale", strings.Join(hours, " "), strings.Join(query(t, w, "SELECT toString(hour) FROM stale_hours ORDER BY hour"), " "))
		sealAll(t, w)
	}
	var written map[string]time.Duration // by path of a part: how long before the second start
	run(func(w *Warehouse) {
		settle(w)
		insert(t, w, facts...)
		sealAll(t, w)
		settle(w)
		exec(t, w, "ALTER TABLE mentions_store DELETE WHERE event_key = unhex('"+lost.EventKey.String()+"') SETTINGS mutations_sync = 2")
		exec(t, w, "ALTER TABLE node_hours UPDATE made = made - 90000 WHERE hour != '"+seconds(lost.Time.Truncate(time.Hour))+"' SETTINGS mutations_sync = 2")
		written = map[string]time.Duration{}
		for m, ago := range map[*social.Mention]time.Duration{old: 25 * time.Hour, torn: 10 * time.Second} {
			for _, path := range query(t, w, `SELECT path FROM system.parts
					WHERE database = currentDatabase() AND table = 'mentions_store' AND partition = ?`, m.Time.Format("200601")) {
				written[path] = ago
			}
		}
		same(t, "fresh", []string{"0"}, query(t, w, "SELECT toString(count()) FROM stale_hours"))
	})
	for range 2 {
		for path, ago := range written {
			at := time.Now().Add(-ago)
			if err := os.Chtimes(path, at, at); err != nil && !errors.Is(err, os.ErrNotExist) { // outdated ones are removed in time
				t.Fatal(err)
			}
		}
		run(func(w *Warehouse) {
			settle(w, lost, torn)
			settle(w)
			settle(open(t, w.config))
			same(t, "hours", counted([]social.Mention{*old, *torn}, hourOf), readMetrics(t, w, "node_metrics_1h"))
			exec(t, w, "ALTER TABLE node_hours UPDATE made = made - 90000 WHERE hour != '"+seconds(lost.Time.Truncate(time.Hour))+"' SETTINGS mutations_sync = 2")
		})
	}
}

func TestFrozenHoursHold(t *testing.T) {
	w := start(t)
	facts := history(rand.New(rand.NewPCG(20, 1)), 200)
	insert(t, w, facts...)
	noon := epoch.Add(-3 * time.Hour)
	if err := w.Freeze(t.Context(), noon); err == nil {
		t.Error("stale hours were frozen")
	}
	sealAll(t, w)
	if err := w.Freeze(t.Context(), noon); err != nil {
		t.Fatal(err)
	}
	if err := w.Freeze(t.Context(), noon.Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	late := history(rand.New(rand.NewPCG(21, 1)), 200)
	insert(t, w, late...)
	exec(t, w, "ALTER TABLE mentions_store DELETE WHERE time < toDateTime('"+seconds(noon)+"') SETTINGS mutations_sync = 1")
	want := counted(facts, hourOf)
	for name, r := range counted(append(facts, late...), hourOf) {
		if !r.Bucket.Before(noon) {
			want[name] = r
		}
	}
	same(t, "computed", want, readMetrics(t, w, "node_metrics_1h"))
	sealAll(t, w)
	same(t, "sealed", want, readMetrics(t, w, "node_metrics_1h"))
	exec(t, w, "CREATE OR REPLACE VIEW formula AS SELECT toUInt16(2) AS version") // other formulas from now on
	same(t, "computed by other formulas", want, readMetrics(t, w, "node_metrics_1h"))
	sealAll(t, w)
	same(t, "sealed by other formulas", want, readMetrics(t, w, "node_metrics_1h"))
}

// TestReadersNeverSeeStaleNumbers has writers, two sealers and readers at work at once. What a reader sees holds at
// least all that was acknowledged before it asked, and nothing that was not begun when it got its answer.
func TestReadersNeverSeeStaleNumbers(t *testing.T) {
	w := start(t)
	other := open(t, w.config)
	const batch = 40
	facts := history(rand.New(rand.NewPCG(22, 1)), 2400)
	for i := range facts {
		facts[i].Kind, facts[i].ByCompany = social.Post, false
		if i/batch%2 == 0 {
			// Every other batch falls into an hour that nothing touches again: sealed wrong once, it stays wrong.
			facts[i].Time = facts[i].Time.Truncate(time.Hour).AddDate(0, 0, -1-i/batch)
		}
	}
	var begun, done atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	var helpers sync.WaitGroup
	for _, sealer := range []*Warehouse{w, other} {
		helpers.Go(func() {
			for ctx.Err() == nil {
				if _, _, err := sealer.Seal(ctx, SealOptions{Eager: true, Max: 7}); err != nil && ctx.Err() == nil {
					t.Errorf("sealing: %v", err)
					return
				}
			}
		})
	}
	var reads atomic.Int64
	for _, view := range []string{"node_metrics_1h", "node_metrics_1h_of(division='%', territory='%', from='2026-01-01 00:00:00', to='2027-01-01 00:00:00')"} {
		helpers.Go(func() {
			var last uint64
			for ctx.Err() == nil {
				least := done.Load()
				var got uint64
				err := w.conn.QueryRow(ctx, "SELECT sum(mentions) FROM "+view).Scan(&got)
				if ctx.Err() != nil {
					return
				}
				if err != nil {
					t.Errorf("reading: %v", err)
					return
				}
				if most := begun.Load(); int64(got) < least || int64(got) > most || got < last {
					t.Errorf("%s: %d mentions, want %d to %d and no fewer than %d", view, got, least, most, last)
				}
				last = got
				reads.Add(1)
			}
		})
	}
	for some := range slices.Chunk(facts, batch) {
		begun.Add(batch)
		insert(t, w, some...)
		done.Add(batch)
	}
	stop()
	helpers.Wait()
	if reads.Load() < 10 {
		t.Errorf("only %d reads", reads.Load())
	}
	t.Logf("%d reads", reads.Load())
	want := counted(facts, hourOf)
	same(t, "at the end", want, readMetrics(t, w, "node_metrics_1h"))
	sealAll(t, w)
	same(t, "all sealed", want, readMetrics(t, w, "node_metrics_1h"))
}

// TestSealHoldsForTheTouchesReadFirst has facts arrive between the two statements of sealing, and an older sealer finish
// after a newer one: neither may pass for fresh.
func TestSealHoldsForTheTouchesReadFirst(t *testing.T) {
	w := start(t)
	facts := history(rand.New(rand.NewPCG(25, 1)), 60)
	insert(t, w, facts[:20]...)
	rows, _ := sortRows(facts)
	hours := hoursOf(facts, rows)
	touched := func() []touchedHour {
		t.Helper()
		list, err := w.touched(t.Context(), hours)
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	seal := func(list []touchedHour) {
		t.Helper()
		if err := w.seal(t.Context(), list); err != nil {
			t.Fatal(err)
		}
	}
	older := touched()
	insert(t, w, facts[20:40]...)
	newer := touched()
	seal(newer)
	insert(t, w, facts[40:]...)
	seal(older)
	same(t, "hours", counted(facts, hourOf), readMetrics(t, w, "node_metrics_1h"))
	sealAll(t, w)
	same(t, "sealed", counted(facts, hourOf), readMetrics(t, w, "node_metrics_1h"))
	same(t, "stale", []string{"0"}, query(t, w, "SELECT toString(count()) FROM stale_hours"))
}

// TestSealWhileFactsArrive has a fact stored before every statement of a sealer: whatever it reads when, what it seals without
// one of them does not pass for fresh, and it knows by itself that there is more to seal.
func TestSealWhileFactsArrive(t *testing.T) {
	w := start(t)
	facts := history(rand.New(rand.NewPCG(30, 1)), 20)
	for i := range facts {
		facts[i].Node, facts[i].Time = facts[0].Node, epoch.Add(time.Duration(i)*time.Millisecond)
		facts[i].Kind, facts[i].ByCompany = social.Post, false
	}
	insert(t, w, facts[0])
	var arrived atomic.Int64
	var arriving atomic.Bool
	var sealer *Warehouse
	sealer = open(t, Config{Addr: before(t, w.config.Addr, func(sent []byte) {
		if !arriving.Load() || !bytes.Contains(sent, []byte("hours")) {
			return
		}
		n := arrived.Add(1)
		if err := sealer.InsertMentions(context.Background(), facts[n:n+1]); err != nil {
			t.Error(err)
		}
	})})
	arriving.Store(true)
	if n, _, err := sealer.Seal(t.Context(), SealOptions{Eager: true}); n != 1 || err != nil {
		t.Fatalf("Seal = %d, %v, want 1", n, err)
	}
	arriving.Store(false)
	facts = facts[:1+arrived.Load()]
	if len(facts) < 4 {
		t.Fatalf("%d facts came while it looked for stale hours, read touches and sealed", len(facts)-1)
	}
	same(t, "hours", counted(facts, hourOf), readMetrics(t, w, "node_metrics_1h"))
	for _, want := range []int{1, 0} {
		if n, _, err := sealer.Seal(t.Context(), SealOptions{Quiet: time.Nanosecond}); n != want || err != nil {
			t.Errorf("Seal = %d, %v, want %d", n, err, want)
		}
	}
	same(t, "sealed", counted(facts, hourOf), readMetrics(t, w, "node_metrics_1h"))
	same(t, "stale", []string{"0"}, query(t, w, "SELECT toString(count()) FROM stale_hours"))
}

func TestViewsRefuseMixedSnapshots(t *testing.T) {
	w := start(t)
	insert(t, w, history(rand.New(rand.NewPCG(24, 1)), 10)...)
	for _, view := range []string{"node_metrics_1h", "node_metrics_1h_of(division='%', territory='%', from='2026-01-01 00:00:00', to='2027-01-01 00:00:00')"} {
		err := w.conn.Exec(t.Context(), "SELECT * FROM "+view+" SETTINGS enable_shared_storage_snapshot_in_query = 0")
		if err == nil || !strings.Contains(err.Error(), "needs enable_shared_storage_snapshot_in_query") {
			t.Errorf("%s: %v", view, err)
		}
	}
}

func TestSealKeepsItsTime(t *testing.T) {
	w := start(t)
	insert(t, w, history(rand.New(rand.NewPCG(23, 1)), 10)...)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := w.Seal(ctx, SealOptions{Eager: true}); !errors.Is(err, context.Canceled) {
		t.Errorf("Seal with a context that ended: %v", err)
	}
}

// TestSealGetsOnWithLittleTime has rounds fail whose context ends in the middle: the next ones try less, and when they
// succeed more again.
func TestSealGetsOnWithLittleTime(t *testing.T) {
	w := start(t)
	if _, _, err := w.Seal(t.Context(), SealOptions{}); err != nil { // has swept
		t.Fatal(err)
	}
	facts := history(rand.New(rand.NewPCG(26, 1)), 64)
	for i := range facts {
		facts[i].Time = epoch.Add(-time.Duration(i) * time.Hour)
	}
	insert(t, w, facts...)
	seal := func(ctx context.Context, wantSealed int, wantMore bool, wantErr error) {
		t.Helper()
		n, more, err := w.Seal(ctx, SealOptions{Quiet: time.Nanosecond})
		if n != wantSealed || more != wantMore || !errors.Is(err, wantErr) {
			t.Fatalf("Seal = %d, %v, %v, want %d, %v, %v", n, more, err, wantSealed, wantMore, wantErr)
		}
	}
	late, cancel := context.WithDeadline(t.Context(), time.Now())
	defer cancel()
	for range 3 { // 64, 32, 16
		seal(late, 0, true, context.DeadlineExceeded)
	}
	seal(t.Context(), 8, true, nil)
	seal(t.Context(), 16, true, nil)
	for range 10 { // 32, 16, 8, 4, 2, 1
		seal(late, 0, true, context.DeadlineExceeded)
	}
	for _, n := range []int{1, 2, 4, 8, 16} {
		seal(t.Context(), n, true, nil)
	}
	seal(t.Context(), 9, false, nil)
	same(t, "hours", counted(facts, hourOf), readMetrics(t, w, "node_metrics_1h"))
	same(t, "stale", []string{"0"}, query(t, w, "SELECT toString(count()) FROM stale_hours"))
}

// TestFailedSweepHoldsNobody has looking for stale hours fail again and again, at once and by waiting: those that this
// process touched are sealed all the same, and the error is told.
func TestFailedSweepHoldsNobody(t *testing.T) {
	w := start(t)
	facts := history(rand.New(rand.NewPCG(27, 1)), 16)
	for i := range facts {
		facts[i].Time = epoch.Add(-time.Duration(i) * time.Hour)
	}
	other := open(t, w.config)
	f := func(view string, ctx context.Context, want func(error) bool) {
		t.Helper()
		exec(t, w, "CREATE OR REPLACE VIEW stale_hours AS "+view)
		insert(t, w, facts...)
		w.dirty.forget()
		n, more, err := w.Seal(ctx, SealOptions{Quiet: time.Nanosecond, Max: 10})
		if n != 10 || !more || !want(err) {
			t.Errorf("Seal = %d, %v, %v, want 10 of 16 and an error", n, more, err)
		}
		n, more, err = w.Seal(t.Context(), SealOptions{Quiet: time.Nanosecond, Max: 10})
		if n != 6 || more || err != nil {
			t.Errorf("Seal again = %d, %v, %v, want the other 6, the next sweep is not due", n, more, err)
		}
	}
	f("SELECT throwIf(true) AS division, '' AS territory, now() AS hour", t.Context(), func(err error) bool { return err != nil && Retry(err) })
	short, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	f("SELECT '' AS division, '' AS territory, now() AS hour FROM system.numbers WHERE sleepEachRow(0.05) SETTINGS max_block_size = 1", short, func(err error) bool {
		return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded)
	})
	same(t, "stale", []string{"0"}, query(t, other, "SELECT toString(countIf(balance != 0)) FROM hours"))
}

// TestSealGetsOnWithLittleMemory has ClickHouse refuse every statement about more than a hundred hours.
func TestSealGetsOnWithLittleMemory(t *testing.T) {
	w := start(t)
	if _, _, err := w.Seal(t.Context(), SealOptions{}); err != nil { // has swept
		t.Fatal(err)
	}
	const hours, most = 1000, 100
	facts := history(rand.New(rand.NewPCG(29, 1)), hours)
	for i := range facts {
		facts[i].Time = epoch.Add(-time.Duration(i) * time.Hour)
	}
	insert(t, w, facts...)
	little := clickhouse.Context(t.Context(), clickhouse.WithSettings(clickhouse.Settings{"max_rows_in_set": most}))
	sealed, failed := 0, 0
	for rounds, more := 0, true; more; rounds++ {
		if rounds == 60 { // 1000, 500, 250, 125 fail; then of 62 and 124 every other one
			t.Fatalf("%d of %d hours in %d rounds", sealed, hours, rounds)
		}
		var n int
		var err error
		if n, more, err = w.Seal(little, SealOptions{Quiet: time.Nanosecond}); err != nil {
			if !Retry(err) {
				t.Fatal(err)
			}
			failed++
		}
		sealed += n
	}
	if sealed != hours || failed < 4 {
		t.Errorf("sealed %d hours of %d, %d rounds failed", sealed, hours, failed)
	}
	same(t, "stale", []string{"0"}, query(t, w, "SELECT toString(count()) FROM stale_hours"))
}
