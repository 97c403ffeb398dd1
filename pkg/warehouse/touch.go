package warehouse

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/ClickHouse/ch-go/proto"

	"polyphony/pkg/seam"
	"polyphony/pkg/social"
)

// nodeHour is one hour of one node, the unit of touching and sealing.
type nodeHour struct {
	social.Node
	hour int64 // seconds since 1970, a multiple of 3600
}

// hoursOf lists the node-hours of sorted rows.
func hoursOf(mentions []social.Mention, rows []row) []nodeHour {
	var hours []nodeHour
	for i := range rows {
		hour := floorHour(rows[i].ms)
		if n := len(hours); n > 0 && hours[n-1].hour == hour && rows[i].node == rows[i-1].node {
			continue
		}
		hours = append(hours, nodeHour{mentions[rows[i].index].Node, hour})
	}
	return hours
}

// floorHour rounds down as toStartOfHour does; ms is not negative.
func floorHour(ms int64) int64 { return ms / 3_600_000 * 3600 }

// touch marks node-hours as changed: whatever is sealed of them no longer holds. A touch is random, so that no sequence
// of touches ever sums up to what an earlier one did.
func (s *sender) touch(ctx context.Context, hours []nodeHour) error {
	division, territory := newLow(), newLow()
	var hour proto.ColDateTime
	var stamp proto.ColUInt64
	for _, h := range hours {
		division.Append(h.Division)
		territory.Append(h.Territory)
		hour.AppendRaw(proto.DateTime(h.hour))
		stamp.Append(rand.Uint64())
	}
	return s.insert(ctx, "touches", proto.Input{
		{Name: "division", Data: division},
		{Name: "territory", Data: territory},
		{Name: "hour", Data: &hour},
		{Name: "stamp", Data: &stamp},
	})
}

// unsettled is how long before its last sign of life a machine that lost its power may have forgotten what ClickHouse had
// acknowledged: nobody waits for the disk. Kernels write within a minute what they are given, busy ones within some.
const unsettled = time.Hour

// Settle makes up for what ClickHouse may have lost when its machine went down: of a node-hour's facts, touches and sealed
// row, each on its own. It marks as changed whatever was written shortly before the last end, so that it is sealed from
// the facts there are. It does so once for each start of ClickHouse, clean or not, whoever asks first; two at once do no
// harm. Then, and at every other time, it costs one small question. Where ClickHouse itself was killed, or any of ours,
// nothing needs it: what was not acknowledged is repeated.
//
// When something was written is known of parts, of a merged one the time of the merge: so more may be marked than was
// written, sometimes much more, never less.
func (w *Warehouse) Settle(ctx context.Context) error {
	var done uint64
	if err := w.conn.QueryRow(ctx, `SELECT count() FROM settled`).Scan(&done); err != nil {
		return fmt.Errorf("asking whether ClickHouse started anew: %w", err)
	}
	if done > 0 {
		return nil
	}
	// The start is known to a second; what was written so soon after it would pass for a sign of life before.
	var last int64
	err := w.conn.QueryRow(ctx, `SELECT toInt64(toUnixTimestamp(max(modification_time))) FROM system.parts
		WHERE database = currentDatabase() AND modification_time < now() - uptime() - 5`).Scan(&last)
	if err != nil {
		return fmt.Errorf("looking for the last write before ClickHouse started: %w", err)
	}
	if err := w.touchWritten(ctx, time.Unix(max(0, last-int64(unsettled/time.Second)), 0)); err != nil {
		return err
	}
	seam.Before(seam.Insert, "settled")
	if err := w.conn.Exec(ctx, `INSERT INTO settled (at) SELECT now()`); err != nil {
		return fmt.Errorf("noting that ClickHouse started: %w", err)
	}
	seam.After(seam.Insert, "settled")
	return nil
}

// touchWritten marks every node-hour as changed of which facts or metrics were written at from or later. It leaves out
// the parts that are older, not takes those that are younger: a merge may put one in their place at any moment.
func (w *Warehouse) touchWritten(ctx context.Context, from time.Time) error {
	err := w.conn.Exec(ctx, `INSERT INTO touches (division, territory, hour, stamp)
		SELECT division, territory, hour, any(rand64()) AS stamp
		FROM
		(
			SELECT division, territory, toStartOfHour(time) AS hour FROM mentions_store
			WHERE _part NOT IN (SELECT name FROM system.parts
				WHERE database = currentDatabase() AND table = 'mentions_store' AND modification_time < fromUnixTimestamp(?))
			UNION ALL
			SELECT division, territory, toStartOfHour(time) AS hour FROM gains
			WHERE _part NOT IN (SELECT name FROM system.parts
				WHERE database = currentDatabase() AND table = 'gains' AND modification_time < fromUnixTimestamp(?))
			UNION ALL
			SELECT division, territory, hour FROM node_hours WHERE made >= fromUnixTimestamp(?)
		)
		GROUP BY division, territory, hour`, from.Unix(), from.Unix(), from.Unix())
	if err != nil {
		return fmt.Errorf("touching node-hours written since %s: %w", from.UTC().Format(time.RFC3339), err)
	}
	w.dirty.forget()
	return nil
}

// dirtyHours is what this process knows about stale node-hours. It only says where to look and when: whether an hour is
// stale is read from ClickHouse every time.
type dirtyHours struct {
	mu    sync.Mutex
	hours map[nodeHour]dirt
	swept time.Time // when ClickHouse was last asked for all stale hours
	most  int       // node-hours in the next round of sealing, 0 when no round failed yet
}

// dirt is when an hour was first and last touched since it was sealed.
type dirt struct{ first, last time.Time }

// maxDirty bounds the hours remembered, some 30 MB. What does not fit is found by a later sweep.
const maxDirty = 200_000

func (d *dirtyHours) touch(hours []nodeHour, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.hours == nil {
		d.hours = map[nodeHour]dirt{}
	}
	for _, h := range hours {
		known, ok := d.hours[h]
		switch {
		case ok:
			d.hours[h] = dirt{known.first, now}
		case len(d.hours) < maxDirty:
			d.hours[h] = dirt{now, now}
		}
	}
}

// forget has the next round of sealing ask ClickHouse.
func (d *dirtyHours) forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.swept = time.Time{}
}
