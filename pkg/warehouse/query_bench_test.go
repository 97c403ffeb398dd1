package warehouse

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"polyphony/pkg/embedded/enginetest"
)

// POLYPHONY_BENCH_MENTIONS=50000000 go test -run '^$' -bench Queries -benchtime 41x -timeout 30m ./pkg/warehouse
//
// What readers wait for: two million mentions, or as many as one says, of 320 nodes over 60 days, a fifth of them with
// totals, all hours sealed but one in a hundred. The figures are milliseconds: the median and the slowest tenth.
func BenchmarkQueries(b *testing.B) {
	mentions := 2_000_000
	if text := os.Getenv("POLYPHONY_BENCH_MENTIONS"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			b.Fatal(err)
		}
		mentions = n
	}
	w := open(b, Config{Addr: enginetest.ClickHouse(b).Addr()})
	const days = 60
	first := time.Now().UTC().Truncate(24*time.Hour).AddDate(0, 0, -days)
	fill(b, w, first, days, mentions)
	begin := time.Now()
	for more := true; more; {
		var err error
		if _, more, err = w.Seal(b.Context(), SealOptions{Eager: true, Max: 20_000}); err != nil {
			b.Fatal(err)
		}
	}
	b.Logf("sealed in %s", time.Since(begin).Round(time.Second))
	exec(b, w, `INSERT INTO touches SELECT division, territory, hour, rand64() FROM
		(SELECT DISTINCT division, territory, hour FROM node_hours WHERE cityHash64(division, territory, hour) % 100 = 0)`)
	at := func(days int) string { return "'" + first.AddDate(0, 0, days).Format(time.DateTime) + "'" }
	for _, q := range []struct{ name, sql string }{
		{"node's day by hour", "node_metrics_1h_of(division = 'd3', territory = 't5', from = " + at(days-2) + ", to = " + at(days-1) + ")"},
		{"node's day", "node_metrics_1d_of(division = 'd3', territory = 't5', from = " + at(days-2) + ", to = " + at(days-1) + ")"},
		{"node's day by minute", "node_metrics_1m_of(division = 'd3', territory = 't5', from = " + at(days-2) + ", to = " + at(days-1) + ")"},
		{"node's month by hour", "node_metrics_1h_of(division = 'd3', territory = 't5', from = " + at(days-30) + ", to = " + at(days) + ")"},
		{"company's 7 days by hour", "node_metrics_1h_of(division = '%', territory = '%', from = " + at(days-7) + ", to = " + at(days) + ")"},
		{"company's 7 days, plain view", "node_metrics_1h WHERE bucket >= " + at(days-7)},
		{"node's day, plain view", "node_metrics_1h WHERE division = 'd3' AND territory = 't5' AND bucket >= " + at(days-2) + " AND bucket < " + at(days-1)},
	} {
		b.Run(q.name, func(b *testing.B) {
			var took []float64
			rows := 0
			for b.Loop() {
				begin := time.Now()
				list, err := w.nodeRows(b.Context(), "SELECT division, territory, bucket, "+metrics+" FROM "+q.sql)
				if err != nil {
					b.Fatal(err)
				}
				took, rows = append(took, float64(time.Since(begin).Microseconds())/1000), len(list)
			}
			if rows == 0 {
				b.Fatal("no rows")
			}
			slices.Sort(took)
			b.ReportMetric(took[len(took)/2], "median-ms")
			b.ReportMetric(took[len(took)*9/10], "p90-ms")
			b.ReportMetric(float64(rows), "rows")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// fill makes mentions inside ClickHouse, and touches for all of their hours.
func fill(b *testing.B, w *Warehouse, first time.Time, days, mentions int) {
	b.Helper()
	const piece = 2_000_000
	for from := 0; from < mentions; from += piece {
		n := min(piece, mentions-from)
		// Each piece is of all nodes and a time of its own, as mentions come.
		exec(b, w, fmt.Sprintf(`INSERT INTO mentions_store (division, territory, time, event_key, author_key, version, recorded_time, source, kind, via,
				by_company, bot, lang, likes, shares, views, text, rules_version)
			SELECT 'd' || toString(h %% 10) AS division, 't' || toString(intDiv(h, 10) %% 32) AS territory,
				toDateTime64(%[1]d + intDiv((number + %[2]d) * %[3]d, %[4]d), 3, 'UTC') + (h %% 1000) / 1000 AS time,
				sipHash128(number + %[2]d) AS event_key,
				sipHash128(h %% 3000000) AS author_key, 1, time, ['bluesky', 'reddit', 'facebook'][1 + h %% 3],
				['post', 'post', 'reply', 'share'][1 + intDiv(h, 7) %% 4], 'text', h %% 50 = 0, h %% 20 = 0, 'de', if(h %% 5 = 0, h %% 9, 0),
				if(h %% 5 = 0, h %% 3, 0), 0, repeat('some words of about the usual length, ', 1 + h %% 8), 'v1'
			FROM (SELECT number, cityHash64(number + %[2]d) AS h FROM numbers(%[5]d))
			ORDER BY division, territory, time, event_key`, first.Unix(), from, days*86400, mentions, n))
	}
	exec(b, w, `INSERT INTO gains SELECT division, territory, time, event_key, 'total', 4294967296, 0, 1, 0, 5 FROM mentions_store WHERE cityHash64(event_key) % 20 = 0`)
	exec(b, w, `INSERT INTO touches SELECT division, territory, toStartOfHour(time) AS hour, any(rand64()) FROM mentions_store GROUP BY ALL`)
}
