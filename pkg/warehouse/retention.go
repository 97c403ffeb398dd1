package warehouse

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ClickHouse/ch-go/proto"
	"github.com/ClickHouse/clickhouse-go/v2"
)

// Retention says how long things are kept, counted from the event's time. Zero is for ever.
type Retention struct {
	Text     time.Duration // the words of mentions and statements, and the sealed originals
	Mentions time.Duration // mentions and statements themselves; sealed metrics outlive them, see Freeze
	Metrics  time.Duration // sealed metrics
}

// freezeSlack lies between the freezing of an hour and the removal of its facts, so that no sealed hour is ever made
// anew from facts of which some are gone already.
const freezeSlack = 7 * 24 * time.Hour

// SetRetention makes ClickHouse remove what is older. It changes tables only where the retention differs from the one
// in force, so it may be called at every start. Text vanishes within a day of its time, whole months of mentions when
// their last day is due.
func (w *Warehouse) SetRetention(ctx context.Context, r Retention) error {
	text, mentions, metrics := hours(r.Text), hours(r.Mentions), hours(r.Metrics)
	var same uint64
	err := w.conn.QueryRow(ctx, `SELECT countIf((text, mentions, metrics) = (?, ?, ?)) FROM retention FINAL`, text, mentions, metrics).Scan(&same)
	if err != nil {
		return fmt.Errorf("reading the retention in force: %w", err)
	}
	if same == 1 {
		return nil
	}
	slack := uint32(0)
	if mentions > 0 {
		slack = hours(freezeSlack)
	}
	statements := []string{
		columnTTL("mentions_store", "text String", "time", text),
		tableTTL("originals", "recorded_time", text),
		tableTTL("mentions_store", "time", mentions+slack),
		tableTTL("locations", "time", mentions+slack),
		tableTTL("statements", "time", mentions+slack),
		keptTTL("selves", mentions+slack),
		keptTTL("edges", mentions+slack),
		columnTTL("selves", "text String", "time", text),
		columnTTL("selves", "sealed String", "time", text),
		tableTTL("node_hours", "hour", metrics),
		tableTTL("touches", "hour", metrics),
	}
	for _, sql := range statements {
		if err := w.conn.Exec(ctx, sql); err != nil && !nothingToRemove(err) {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	if err := w.conn.Exec(ctx, `INSERT INTO retention (one, text, mentions, metrics) VALUES (1, ?, ?, ?)`, text, mentions, metrics); err != nil {
		return fmt.Errorf("recording the retention: %w", err)
	}
	return nil
}

func hours(d time.Duration) uint32 { return uint32(d / time.Hour) }

func columnTTL(table, column, time string, hours uint32) string {
	name, _, _ := strings.Cut(column, " ")
	if hours == 0 {
		return fmt.Sprintf("ALTER TABLE %s MODIFY COLUMN %s REMOVE TTL", table, name)
	}
	return fmt.Sprintf("ALTER TABLE %s MODIFY COLUMN %s TTL toDateTime(%s) + INTERVAL %d HOUR", table, column, time, hours)
}

func tableTTL(table, time string, hours uint32) string {
	if hours == 0 {
		return fmt.Sprintf("ALTER TABLE %s REMOVE TTL", table)
	}
	return fmt.Sprintf("ALTER TABLE %s MODIFY TTL toDateTime(%s) + INTERVAL %d HOUR", table, time, hours)
}

// keptTTL lets go what waited for nothing when it expires, and what is kept with the mentions.
func keptTTL(table string, hours uint32) string {
	end := fmt.Sprintf("expires + INTERVAL %d HOUR", hours)
	if hours == 0 {
		end = "toDateTime(4294944000, 'UTC')"
	}
	return fmt.Sprintf("ALTER TABLE %s MODIFY TTL if(kept, %s, expires)", table, end)
}

// nothingToRemove recognises what ClickHouse says when a TTL that shall go is not there.
func nothingToRemove(err error) bool {
	var e *clickhouse.Exception
	return errors.As(err, &e) && proto.Error(e.Code) == proto.ErrBadArguments && strings.Contains(e.Message, "cannot remove")
}

// Freeze declares the node-hours before an instant final: their sealed metrics hold from then on, whatever touches
// them. It must happen before retention removes their facts, and is refused while any of them is stale; seal first.
// Frozen hours never thaw.
func (w *Warehouse) Freeze(ctx context.Context, before time.Time) error {
	before = before.UTC().Truncate(time.Hour)
	var stale uint64
	err := w.conn.QueryRow(ctx, `SELECT count() FROM hours
		WHERE balance != 0 AND hour < toDateTime(?, 'UTC') AND hour >= (SELECT max(before) FROM frozen)`, seconds(before)).Scan(&stale)
	if err != nil {
		return fmt.Errorf("looking for stale node-hours: %w", err)
	}
	if stale > 0 {
		return fmt.Errorf("%d node-hours before %s are stale: seal them before freezing", stale, before.Format(time.RFC3339))
	}
	if err := w.conn.Exec(ctx, `INSERT INTO frozen (one, before) VALUES (1, toDateTime(?, 'UTC'))`, seconds(before)); err != nil {
		return fmt.Errorf("freezing node-hours: %w", err)
	}
	return nil
}
