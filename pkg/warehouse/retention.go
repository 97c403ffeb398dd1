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
	Text     time.Duration // the words of mentions, and the sealed originals, edits among them
	Mentions time.Duration // mentions and statements themselves; sealed metrics outlive them, see Freeze
	Metrics  time.Duration // sealed metrics
}

// freezeSlack lies between the freezing of an hour and the removal of its facts, so that no sealed hour is ever made
// anew from facts of which some are gone already.
const freezeSlack = 7 * 24 * time.Hour

// SetRetention makes ClickHouse remove what is older. It changes tables only where the retention differs from the one
// in force, so it may be called as often as one likes. Words, and what leads back to people, vanish within a day of their
// time; mentions by whole months, when their last day is due.
//
// First it freezes the hours whose mentions may go. Where one of them is stale, mentions stay for as long as they did
// before, or for ever where nothing was in force, all else is set, and the error is ErrStale: seal, and call again.
func (w *Warehouse) SetRetention(ctx context.Context, r Retention) error {
	inForce, any, err := w.retention(ctx)
	if err != nil {
		return fmt.Errorf("reading the retention in force: %w", err)
	}
	var stale error
	if r.Mentions > 0 {
		if stale = w.Freeze(ctx, time.Now().Add(-r.Mentions)); errors.Is(stale, ErrStale) {
			r.Mentions = longer(r.Mentions, inForce.Mentions)
		} else if stale != nil {
			return stale
		}
	}
	if any && r == inForce {
		return stale
	}
	if err := w.setRetention(ctx, r); err != nil {
		return err
	}
	return stale
}

// retention reads the one in force, if any.
func (w *Warehouse) retention(ctx context.Context) (r Retention, any bool, err error) {
	var rows []struct {
		Text     uint32 `ch:"text"`
		Mentions uint32 `ch:"mentions"`
		Metrics  uint32 `ch:"metrics"`
	}
	if err := w.conn.Select(ctx, &rows, `SELECT text, mentions, metrics FROM retention FINAL`); err != nil || len(rows) == 0 {
		return Retention{}, false, err
	}
	of := func(hours uint32) time.Duration { return time.Duration(hours) * time.Hour }
	return Retention{Text: of(rows[0].Text), Mentions: of(rows[0].Mentions), Metrics: of(rows[0].Metrics)}, true, nil
}

// longer is the longer of two retentions, of which 0 is for ever.
func longer(a, b time.Duration) time.Duration {
	if a == 0 || b == 0 {
		return 0
	}
	return max(a, b)
}

func (w *Warehouse) setRetention(ctx context.Context, r Retention) error {
	text, mentions, metrics := hours(r.Text), hours(r.Mentions), hours(r.Metrics)
	slack := uint32(0)
	if mentions > 0 {
		slack = hours(freezeSlack)
	}
	statements := []string{
		columnTTL("mentions_store", "text String", "time", text),
		tableTTL("originals", "recorded_time", text),
		monthTTL("mentions_store", "time", mentions+slack),
		monthTTL("locations", "time", mentions+slack),
		monthTTL("counters", "observed", mentions+slack),
		monthTTL("gains", "time", mentions+slack),
		monthTTL("statements", "time", mentions+slack),
		keptTTL("selves", mentions+slack),
		keptTTL("edges", mentions+slack),
		keptTTL("notes", mentions+slack),
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

// monthTTL has all rows of a monthly partition expire at one instant, when the last may: dropping parts costs nothing,
// making them anew without the rows of another day, day by day, would cost as much as the month did.
func monthTTL(table, time string, hours uint32) string {
	if hours == 0 {
		return tableTTL(table, time, hours)
	}
	return fmt.Sprintf("ALTER TABLE %s MODIFY TTL %s", table, endOfMonth(time, hours))
}

func endOfMonth(time string, hours uint32) string {
	return fmt.Sprintf("toDateTime(addMonths(toStartOfMonth(%s), 1), 'UTC') + INTERVAL %d HOUR", time, hours)
}

// keptTTL lets go what waited for nothing with the day on which it expires, and what is kept with the mentions.
func keptTTL(table string, hours uint32) string {
	end := "toDateTime(4294944000, 'UTC')"
	if hours > 0 {
		end = endOfMonth("expires", hours)
	}
	return fmt.Sprintf("ALTER TABLE %s MODIFY TTL if(kept, %s, toStartOfDay(expires) + INTERVAL 1 DAY)", table, end)
}

// nothingToRemove recognises what ClickHouse says when a TTL that shall go is not there.
func nothingToRemove(err error) bool {
	var e *clickhouse.Exception
	return errors.As(err, &e) && proto.Error(e.Code) == proto.ErrBadArguments && strings.Contains(e.Message, "cannot remove")
}

// ErrStale is that node-hours have to be sealed first.
var ErrStale = errors.New("stale: seal them before freezing")

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
		return fmt.Errorf("%d node-hours before %s are %w", stale, before.Format(time.RFC3339), ErrStale)
	}
	if err := w.conn.Exec(ctx, `INSERT INTO frozen (one, before) VALUES (1, toDateTime(?, 'UTC'))`, seconds(before)); err != nil {
		return fmt.Errorf("freezing node-hours: %w", err)
	}
	return nil
}
