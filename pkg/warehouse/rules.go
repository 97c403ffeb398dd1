package warehouse

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	_ "time/tzdata" // the days of a territory must not depend on what is installed

	"polyphony/pkg/seam"
)

// Rules is one version of the nodes directory, for analysts and for the clocks of the territories.
type Rules struct {
	Version      string
	RecordedTime time.Time // since when it is in force; of several versions the latest rules
	Document     string    // what it says
	Nodes        []Node
	Territories  []Territory
}

// Node is a configured node.
type Node struct {
	Division, Territory           string
	DivisionTitle, TerritoryTitle string
	Timezone                      string
	BusinessUnits                 []string
}

// Territory has a clock, which cuts its days.
type Territory struct {
	Name     string
	Timezone string // IANA name; empty is UTC
}

// PutRules stores a version. From then on the days of each territory follow the clocks of the latest version stored.
// Repeats are harmless. An unknown time zone is an error and stores nothing.
func (w *Warehouse) PutRules(ctx context.Context, rules Rules) error {
	clocks := make([]clock, len(rules.Territories))
	for i, t := range rules.Territories {
		location, err := time.LoadLocation(t.Timezone)
		if err != nil {
			return fmt.Errorf("territory %s: %w", t.Name, err)
		}
		clocks[i] = clockOf(location)
	}
	generation := uint64(rules.RecordedTime.UnixMilli())
	return errors.Join(
		w.putClocks(ctx, generation, rules.Territories, clocks),
		w.putNodes(ctx, generation, rules),
		w.PutVersion(ctx, rules),
	)
}

func (w *Warehouse) putClocks(ctx context.Context, generation uint64, territories []Territory, clocks []clock) error {
	return w.put(ctx, "clocks_store (generation, territory, timezone, since, first_day, days)", len(territories), func(i int) []any {
		t, c := territories[i], clocks[i]
		return []any{generation, t.Name, t.Timezone, c.since, c.firstDay, c.days}
	})
}

func (w *Warehouse) putNodes(ctx context.Context, generation uint64, rules Rules) error {
	const columns = "nodes_store (generation, division, territory, division_title, territory_title, timezone, business_units, rules_version)"
	return w.put(ctx, columns, len(rules.Nodes), func(i int) []any {
		n := rules.Nodes[i]
		return []any{generation, n.Division, n.Territory, n.DivisionTitle, n.TerritoryTitle, n.Timezone, n.BusinessUnits, rules.Version}
	})
}

// PutVersion stores what a version said and since when, and nothing that depends on which is in force.
func (w *Warehouse) PutVersion(ctx context.Context, rules Rules) error {
	return w.put(ctx, "rules_store (rules_version, generation, recorded_time, document)", 1, func(int) []any {
		return []any{rules.Version, uint64(rules.RecordedTime.UnixMilli()), rules.RecordedTime, rules.Document}
	})
}

// KnownRules tells which versions are stored.
func (w *Warehouse) KnownRules(ctx context.Context) (map[string]bool, error) {
	rows, err := w.conn.Query(ctx, "SELECT rules_version FROM rules_store")
	if err != nil {
		return nil, fmt.Errorf("reading which rules are known: %w", err)
	}
	defer rows.Close()
	known := map[string]bool{}
	for rows.Next() {
		var version string
		if err := rows.Scan(&version); err != nil {
			return nil, fmt.Errorf("reading which rules are known: %w", err)
		}
		known[version] = true
	}
	return known, rows.Err()
}

// put inserts n small rows.
func (w *Warehouse) put(ctx context.Context, into string, n int, row func(i int) []any) error {
	if n == 0 {
		return nil
	}
	batch, err := w.conn.PrepareBatch(ctx, "INSERT INTO "+into)
	if err != nil {
		return fmt.Errorf("inserting into %s: %w", into, err)
	}
	defer batch.Close()
	for i := range n {
		if err := batch.Append(row(i)...); err != nil {
			return fmt.Errorf("BUG: inserting into %s: %w", into, err)
		}
	}
	table, _, _ := strings.Cut(into, " ")
	seam.Before(seam.Insert, table)
	if err := batch.Send(); err != nil {
		return fmt.Errorf("inserting into %s: %w", into, err)
	}
	seam.After(seam.Insert, table)
	return nil
}

// clock is the calendar of a time zone in runs of local days, see clocks_store.
type clock struct {
	since    []time.Time
	firstDay []time.Time
	days     []uint32
}

// lastDay is 2106-02-06, counted from 1970-01-01: the last whole day of ClickHouse's DateTime.
const lastDay = 49_709

// clockOf cuts the calendar of a location into runs of days. Within a run each day begins 24 hours after the one
// before; a day that is longer or shorter ends its run. A date that the location skipped has no day.
func clockOf(location *time.Location) clock {
	var c clock
	previous := int64(0)
	for day := int64(0); day <= lastDay; day++ {
		start := startOf(day, location)
		n := len(c.days)
		if n > 0 && start == previous {
			if c.days[n-1]--; c.days[n-1] == 0 {
				n--
				c.since, c.firstDay, c.days = c.since[:n], c.firstDay[:n], c.days[:n]
			}
		}
		if n > 0 && start-previous == 86400 {
			c.days[n-1]++
		} else {
			c.since = append(c.since, time.Unix(start, 0).UTC())
			c.firstDay = append(c.firstDay, time.Unix(day*86400, 0).UTC())
			c.days = append(c.days, 1)
		}
		previous = start
	}
	return c
}

// startOf is the instant, in seconds since 1970, at which a local date begins: midnight, or the end of the hours that
// the location skipped.
func startOf(day int64, location *time.Location) int64 {
	_, offset := time.Unix(day*86400, 0).In(location).Zone()
	start := day*86400 - int64(offset)
	if dayAt(start, location) == day && dayAt(start-1, location) < day {
		return start
	}
	// A transition is near: offsets change by less than 24 hours.
	before, after := start-2*86400, start+2*86400
	for after-before > 1 {
		if middle := (before + after) / 2; dayAt(middle, location) < day {
			before = middle
		} else {
			after = middle
		}
	}
	return after
}

func dayAt(unix int64, location *time.Location) int64 {
	_, offset := time.Unix(unix, 0).In(location).Zone()
	local := unix + int64(offset)
	return (local - (local%86400+86400)%86400) / 86400
}
