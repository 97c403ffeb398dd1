package warehouse

import (
	"context"
	"fmt"
	"time"

	"polyphony/pkg/social"
)

// NodeRow is a row of node_metrics_* or node_window, see schemas/clickhouse/README.md for what is counted.
type NodeRow struct {
	Division         string            `ch:"division"`
	Territory        string            `ch:"territory"`
	Bucket           time.Time         `ch:"bucket"` // start of the bucket or window
	Mentions         uint64            `ch:"mentions"`
	Voices           uint64            `ch:"voices"`
	Posts            uint64            `ch:"posts"`
	Replies          uint64            `ch:"replies"`
	Broadcasts       uint64            `ch:"broadcasts"`
	Answers          uint64            `ch:"answers"`
	Shares           int64             `ch:"shares"`
	Reactions        int64             `ch:"reactions"`
	Views            int64             `ch:"views"`
	MentionsBySource map[string]uint64 `ch:"mentions_by_source"`
}

// metrics are the columns of NodeRow that are counted, as formula has them; the list that makes the views is in
// schemas/clickhouse/generate.
const metrics = "mentions, voices, posts, replies, broadcasts, answers, shares, reactions, views, mentions_by_source"

// Busiest gives the n nodes with the most mentions in the last 24 hours by event time, the busiest first.
func (w *Warehouse) Busiest(ctx context.Context, n int) ([]NodeRow, error) {
	to := time.Now().UTC().Truncate(time.Millisecond)
	from := to.Add(-24 * time.Hour)
	rows, err := w.nodeRows(ctx, `SELECT division, territory, toDateTime(?, 'UTC') AS bucket, `+metrics+`
		FROM node_window(from = ?, to = ?)
		ORDER BY mentions DESC, division, territory
		LIMIT ?`, seconds(from), milliseconds(from), milliseconds(to), n)
	if err != nil {
		return nil, fmt.Errorf("reading the busiest nodes: %w", err)
	}
	return rows, nil
}

// NodeHours gives the hours of a node with from <= bucket < to, the oldest first. Hours without events have no row.
func (w *Warehouse) NodeHours(ctx context.Context, node social.Node, from, to time.Time) ([]NodeRow, error) {
	rows, err := w.nodeRows(ctx, `SELECT division, territory, bucket, `+metrics+`
		FROM node_metrics_1h_of(division = ?, territory = ?, from = ?, to = ?)
		ORDER BY bucket`, node.Division, node.Territory, seconds(from), seconds(to))
	if err != nil {
		return nil, fmt.Errorf("reading hours of %s: %w", node, err)
	}
	return rows, nil
}

func (w *Warehouse) nodeRows(ctx context.Context, sql string, args ...any) ([]NodeRow, error) {
	var list []NodeRow
	err := w.conn.Select(ctx, &list, sql, args...)
	return list, err
}

// seconds and milliseconds write times as the parameters of the views take them.
func seconds(t time.Time) string      { return t.UTC().Format(time.DateTime) }
func milliseconds(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.000") }
