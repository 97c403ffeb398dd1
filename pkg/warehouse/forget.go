package warehouse

import (
	"context"
	"fmt"

	"github.com/ClickHouse/clickhouse-go/v2"
)

// isForgotten are the events that are deleted, by themselves or with all that their author wrote.
const isForgotten = `event_key IN (SELECT event_key FROM heads WHERE version = bitNot(toUInt128(0)))`

// leftovers is where words of events, and what leads back to people, may still lie when the events are deleted. From the
// moment on no reader sees them: rows that say so stand above them. But those take their place only where ClickHouse
// happens to merge the two.
var leftovers = []struct{ table, rows, quick string }{
	{"mentions_store", "NOT is_deleted AND " + isForgotten, // quick looks at a few granules instead of all keys
		"NOT is_deleted AND (division, territory, time, event_key) IN (SELECT division, territory, time, event_key FROM locations WHERE " + isForgotten + ")"},
	{"selves", "NOT is_deleted AND " + isForgotten, ""},
	{"originals", isForgotten + ` OR event_key IN (SELECT statement_key FROM statements WHERE object_key IN
		(SELECT event_key FROM heads WHERE version = bitNot(toUInt128(0))))`, ""},
}

// Forget has ClickHouse remove from its disk what deleted events said, and what leads back to who said it; keyed hashes
// stay, so that nothing brings them back. It gives the tables in which there was any. ClickHouse does the work in the
// background, part by part; a table in which it is at work still is left for the next time. Any number of processes may
// call it.
func (w *Warehouse) Forget(ctx context.Context) (tables []string, err error) {
	for _, l := range leftovers {
		rows := l.rows
		if l.quick != "" {
			rows = l.quick
		}
		var left, busy uint64
		err := w.conn.QueryRow(ctx, `SELECT (SELECT count() FROM `+l.table+` WHERE `+rows+`),
			(SELECT count() FROM system.mutations WHERE database = currentDatabase() AND table = ? AND NOT is_done)`, l.table).Scan(&left, &busy)
		if err != nil {
			return tables, fmt.Errorf("looking for what is left of deleted events in %s: %w", l.table, err)
		}
		if left == 0 || busy > 0 {
			continue
		}
		later := clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{"mutations_sync": 0}))
		if err := w.conn.Exec(later, `ALTER TABLE `+l.table+` DELETE WHERE `+l.rows); err != nil {
			return tables, fmt.Errorf("removing what is left of deleted events from %s: %w", l.table, err)
		}
		tables = append(tables, l.table)
	}
	return tables, nil
}
