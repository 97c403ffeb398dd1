package warehouse

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/ClickHouse/ch-go/proto"

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

// TouchSince marks every node-hour as changed that holds a mention recorded at from or later. It is for the start after
// a crash of ClickHouse's machine, when rows that were acknowledged may be gone or torn from their touches.
func (w *Warehouse) TouchSince(ctx context.Context, from time.Time) error {
	err := w.conn.Exec(ctx, `INSERT INTO touches (division, territory, hour, stamp)
		SELECT division, territory, toStartOfHour(time) AS hour, any(rand64()) AS stamp
		FROM mentions_store
		WHERE recorded_time >= fromUnixTimestamp64Milli(?, 'UTC')
		GROUP BY division, territory, hour`, from.UnixMilli())
	if err != nil {
		return fmt.Errorf("touching node-hours since %s: %w", from.UTC().Format(time.RFC3339), err)
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
