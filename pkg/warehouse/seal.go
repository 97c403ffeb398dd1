package warehouse

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/ext"

	"polyphony/pkg/seam"
	"polyphony/pkg/social"
)

// SealOptions say how much is sealed and how eagerly. Zero values mean the defaults named.
type SealOptions struct {
	Max      int           // node-hours in one round: 2000, well under a second of work at 100 mentions each
	Quiet    time.Duration // an hour is left alone until nothing touched it for so long: 10 s
	MaxStale time.Duration // but not longer than this: 5 min
	Sweep    time.Duration // how often all stale hours are looked for, also those that other processes touched: 5 min
	Eager    bool          // seal everything stale now
}

func (o SealOptions) withDefaults() SealOptions {
	o.Max = cmp.Or(o.Max, 2000)
	o.Quiet = cmp.Or(o.Quiet, 10*time.Second)
	o.MaxStale = cmp.Or(o.MaxStale, 5*time.Minute)
	o.Sweep = cmp.Or(o.Sweep, 5*time.Minute)
	return o
}

// Seal makes the metrics of stale node-hours from their facts and stores them, the oldest hours first, one round at a
// time; more says whether another round would find work now. Any number of processes may seal at once, and any of them
// may stop at any point: at worst work is wasted.
//
// Readers get the right numbers for stale hours too, from the facts. So an hour that is still being written is not
// worth sealing: it would be stale again a second later. Seal waits until an hour has been quiet for a while. What it
// remembers for that is this process's own and decides nothing but the order of work.
//
// A round that fails, because ctx ends or ClickHouse has not enough memory for it, has the next one try half as many
// hours, down to one; rounds that succeed double that again. Looking for stale hours takes at most half of the time that
// ctx leaves; where that fails, what is known is sealed all the same and the error comes beside it. So a caller that
// repeats what failed always gets on.
func (w *Warehouse) Seal(ctx context.Context, options SealOptions) (sealed int, more bool, err error) {
	options = options.withDefaults()
	now := time.Now()
	unseen := false // stale hours that the sweep did not bring
	var unswept error
	if options.Eager || w.dirty.sweepIsDue(now, options.Sweep) {
		if unseen, unswept = w.sweepInTime(ctx, now); unswept != nil {
			w.dirty.postpone(now, options.Sweep)
			unswept = fmt.Errorf("looking for stale node-hours: %w", unswept)
		}
	}
	due, more := w.dirty.due(now, options)
	if len(due) == 0 {
		return 0, false, unswept
	}
	sealed, err = w.round(ctx, due)
	if err != nil {
		w.dirty.failed(len(due))
		return 0, true, errors.Join(unswept, err)
	}
	w.dirty.clean(due, now)
	return sealed, more || unseen, unswept
}

// sweepInTime sweeps within half of the time that is left, so that there is some for sealing.
func (w *Warehouse) sweepInTime(ctx context.Context, now time.Time) (more bool, err error) {
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, now.Add(deadline.Sub(now)/2))
		defer cancel()
	}
	return w.sweep(ctx, now)
}

// round seals those of the hours that are stale.
func (w *Warehouse) round(ctx context.Context, hours []nodeHour) (sealed int, err error) {
	touched, err := w.touched(ctx, hours)
	if err != nil {
		return 0, fmt.Errorf("reading touches of %d node-hours: %w", len(hours), err)
	}
	if err := w.seal(ctx, touched); err != nil {
		return 0, fmt.Errorf("sealing %d node-hours: %w", len(touched), err)
	}
	return len(touched), nil
}

// maxSweep bounds what one sweep brings, oldest first; the next one brings the rest.
const maxSweep = 100_000

// sweep learns from ClickHouse which hours are stale; more says that it did not get all of them.
func (w *Warehouse) sweep(ctx context.Context, now time.Time) (more bool, err error) {
	rows, err := w.conn.Query(ctx, `SELECT division, territory, toInt64(toUnixTimestamp(hour)) FROM stale_hours
		ORDER BY hour LIMIT ?`, maxSweep)
	if err != nil {
		return false, err
	}
	defer rows.Close()
	var stale []nodeHour
	for rows.Next() {
		var h nodeHour
		if err := rows.Scan(&h.Division, &h.Territory, &h.hour); err != nil {
			return false, err
		}
		stale = append(stale, h)
	}
	if err := rows.Err(); err != nil {
		return false, err
	}
	more = len(stale) == maxSweep
	w.dirty.found(stale, now, more)
	return more, nil
}

// touchedHour is a node-hour and what its touches summed up to before its facts were read.
type touchedHour struct {
	nodeHour
	sum uint64
}

// formula is the version of the metrics that this binary knows. A schema with another is sealed by another binary: this
// one would leave out what it has no column for.
const formula = 1

// touched reads, for those of the hours that are stale, the sum of their touches. It must be a statement of its own:
// facts are read afterwards, so they hold at least everything that these touches stand for. By its answer the schema had
// our formula: what is made afterwards is made by it or by a later one, and then is stale at once.
func (w *Warehouse) touched(ctx context.Context, hours []nodeHour) ([]touchedHour, error) {
	list := make([]touchedHour, len(hours))
	for i, h := range hours {
		list[i].nodeHour = h
	}
	sealing, err := sealingTable(list)
	if err != nil {
		return nil, err
	}
	ctx = clickhouse.Context(ctx, clickhouse.WithExternalTable(sealing))
	rows, err := w.conn.Query(ctx, `SELECT division, territory, toInt64(toUnixTimestamp(hour)), touched FROM hours
		WHERE (division, territory, hour) IN (SELECT division, territory, hour FROM sealing)
			AND balance != 0 AND hour >= (SELECT max(before) FROM frozen) AND (SELECT version FROM formula) = ?`, formula)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	list = list[:0]
	for rows.Next() {
		var h touchedHour
		if err := rows.Scan(&h.Division, &h.Territory, &h.hour, &h.sum); err != nil {
			return nil, err
		}
		list = append(list, h)
	}
	return list, rows.Err()
}

// seal makes the metrics of hours, also of those that have no facts any more.
func (w *Warehouse) seal(ctx context.Context, hours []touchedHour) error {
	if len(hours) == 0 {
		return nil
	}
	sealing, err := sealingTable(hours)
	if err != nil {
		return err
	}
	ctx = clickhouse.Context(ctx, clickhouse.WithExternalTable(sealing))
	const columns = "division, territory, hour, touched, formula, made, events, " + metrics
	seam.Before(seam.Insert, "node_hours")
	err = w.conn.Exec(ctx, `INSERT INTO node_hours (`+columns+`)
		SELECT s.division AS division, s.territory AS territory, s.hour AS hour, touched, toUInt16(?) AS formula, now() AS made, events, `+metrics+`
		FROM sealing AS s
		LEFT JOIN (
			SELECT * FROM made_hours
			WHERE (division, territory, hour) IN (SELECT division, territory, hour FROM sealing)
		) AS m ON s.division = m.division AND s.territory = m.territory AND s.hour = m.hour`, formula)
	if err == nil {
		seam.After(seam.Insert, "node_hours")
	}
	return err
}

// sealingTable travels with a statement and tells it which hours it is about.
func sealingTable(hours []touchedHour) (*ext.Table, error) {
	table, err := ext.NewTable("sealing",
		ext.Column("division", "LowCardinality(String)"),
		ext.Column("territory", "LowCardinality(String)"),
		ext.Column("hour", "DateTime('UTC')"),
		ext.Column("touched", "UInt64"))
	if err != nil {
		return nil, err
	}
	for _, h := range hours {
		if err := table.Append(h.Division, h.Territory, time.Unix(h.hour, 0).UTC(), h.sum); err != nil {
			return nil, err
		}
	}
	return table, nil
}

func (d *dirtyHours) sweepIsDue(now time.Time, every time.Duration) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return now.Sub(d.swept) >= every
}

// postpone has the next sweep wait a tenth of its period after one that failed.
func (d *dirtyHours) postpone(now time.Time, period time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.swept = now.Add(-period + period/10)
}

// found notes the outcome of a sweep; after one that left something out the next is due at once.
func (d *dirtyHours) found(stale []nodeHour, now time.Time, more bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.hours == nil {
		d.hours = map[nodeHour]dirt{}
	}
	for _, h := range stale {
		if _, ok := d.hours[h]; !ok {
			d.hours[h] = dirt{first: now} // touched by others or long ago: due at once
		}
	}
	d.swept = now
	if more {
		d.swept = time.Time{}
	}
}

// due gives the oldest hours that are worth sealing now, and whether there are more.
func (d *dirtyHours) due(now time.Time, options SealOptions) (due []nodeHour, more bool) {
	d.mu.Lock()
	most := options.Max
	if d.most > 0 {
		most = min(most, d.most)
	}
	for h, dirt := range d.hours {
		if options.Eager || now.Sub(dirt.last) >= options.Quiet || now.Sub(dirt.first) >= options.MaxStale {
			due = append(due, h)
		}
	}
	d.mu.Unlock()
	slices.SortFunc(due, func(a, b nodeHour) int {
		return cmp.Or(cmp.Compare(a.hour, b.hour), social.Node.Compare(a.Node, b.Node))
	})
	if len(due) > most {
		return due[:most], true
	}
	return due, false
}

// failed halves the hours of the next round.
func (d *dirtyHours) failed(hours int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.most = max(1, hours/2)
}

// clean forgets hours that were sealed, unless they were touched again since. A round as large as failures left it has
// the next one be twice as large.
func (d *dirtyHours) clean(hours []nodeHour, since time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(hours) == d.most {
		d.most *= 2
	}
	for _, h := range hours {
		if dirt, ok := d.hours[h]; ok && !dirt.last.After(since) {
			delete(d.hours, h)
		}
	}
}
