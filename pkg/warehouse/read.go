package warehouse

import (
	"context"
	"fmt"
	"time"

	"polyphony/pkg/social"
)

// NodeRow is a row of node_metrics_* or node_window, see schemas/clickhouse/README.md for what is counted.
type NodeRow struct {
	Division, Territory string
	Bucket              time.Time // start of the bucket or window
	Mentions            uint64
	Voices              uint64
	Posts               uint64
	Replies             uint64
	Broadcasts          uint64
	Answers             uint64
	Shares              uint64
	Reactions           uint64
	MentionsBySource    map[string]uint64
}

// Busiest gives the n nodes with the most mentions in the last 24 hours by event time, the busiest first.
func (w *Warehouse) Busiest(ctx context.Context, n int) ([]NodeRow, error) {
	to := time.Now().UTC().Truncate(time.Millisecond)
	from := to.Add(-24 * time.Hour)
	rows, err := w.nodeRows(ctx, `SELECT division, territory, toDateTime(?, 'UTC'), mentions, voices, posts, replies, broadcasts, answers,
			shares, reactions, mentions_by_source
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
	rows, err := w.nodeRows(ctx, `SELECT division, territory, bucket, mentions, voices, posts, replies, broadcasts, answers,
			shares, reactions, mentions_by_source
		FROM node_metrics_1h_of(division = ?, territory = ?, from = ?, to = ?)
		ORDER BY bucket`, node.Division, node.Territory, seconds(from), seconds(to))
	if err != nil {
		return nil, fmt.Errorf("reading hours of %s: %w", node, err)
	}
	return rows, nil
}

func (w *Warehouse) nodeRows(ctx context.Context, sql string, args ...any) ([]NodeRow, error) {
	rows, err := w.conn.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []NodeRow
	for rows.Next() {
		var r NodeRow
		err := rows.Scan(&r.Division, &r.Territory, &r.Bucket, &r.Mentions, &r.Voices, &r.Posts, &r.Replies, &r.Broadcasts,
			&r.Answers, &r.Shares, &r.Reactions, &r.MentionsBySource)
		if err != nil {
			return nil, err
		}
		list = append(list, r)
	}
	return list, rows.Err()
}

// seconds and milliseconds write times as the parameters of the views take them.
func seconds(t time.Time) string      { return t.UTC().Format(time.DateTime) }
func milliseconds(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.000") }
