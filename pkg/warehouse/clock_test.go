package warehouse

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"polyphony/pkg/social"
)

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, seed)) }

var zones = []string{
	"UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Asia/Kathmandu", "Australia/Lord_Howe", "Asia/Tehran",
	"America/Sao_Paulo", // midnight did not exist when summer time began
	"Africa/Cairo", "Asia/Beirut", "America/Havana",
	"Pacific/Apia",       // had no 30 December 2011
	"Pacific/Kiritimati", // had no 31 December 1994
	"Pacific/Chatham",
}

// dayOf looks up what visible_by_day computes: the day of an instant, and when that day began.
func (c clock) dayOf(t time.Time) (day, start time.Time) {
	i := len(c.since) - 1
	for i > 0 && c.since[i].After(t) {
		i--
	}
	n := min(int(t.Sub(c.since[i])/(24*time.Hour)), int(c.days[i])-1)
	return c.firstDay[i].AddDate(0, 0, n), c.since[i].Add(time.Duration(n) * 24 * time.Hour)
}

func TestClockAgreesWithTheCalendar(t *testing.T) {
	r := newRand(31)
	for _, zone := range zones {
		location, err := time.LoadLocation(zone)
		if err != nil {
			t.Fatal(err)
		}
		c := clockOf(location)
		if len(c.since) > 600 {
			t.Errorf("%s: %d runs", zone, len(c.since))
		}
		check := func(at time.Time) {
			t.Helper()
			day, start := c.dayOf(at)
			if want := at.In(location).Format(time.DateOnly); day.Format(time.DateOnly) != want {
				t.Errorf("%s: %s is on %s, want %s", zone, at.UTC(), day.Format(time.DateOnly), want)
			}
			if start.After(at) || start.In(location).Format(time.DateOnly) != day.Format(time.DateOnly) ||
				start.Add(-time.Millisecond).In(location).Format(time.DateOnly) >= day.Format(time.DateOnly) {
				t.Errorf("%s: the day of %s begins at %s", zone, at.UTC(), start.UTC())
			}
		}
		for range 2000 {
			check(time.UnixMilli(r.Int64N(4_000_000_000_000)).UTC().Add(48 * time.Hour))
		}
		for year := 1980; year < 2030; year++ { // around all transitions
			for at := time.Date(year, 1, 1, 0, 15, 0, 0, time.UTC); at.Year() == year; at = at.Add(24 * time.Hour) {
				_, before := at.In(location).Zone()
				if _, after := at.Add(24 * time.Hour).In(location).Zone(); before != after {
					for m := range 96 {
						quarter := at.Add(time.Duration(m) * 15 * time.Minute)
						if !repeatsMidnight(quarter, location) {
							check(quarter)
						}
					}
				}
			}
		}
	}
}

// repeatsMidnight tells the hours that belong to yesterday by their name and to today by their order: clocks were set
// back over midnight, and today had begun already.
func repeatsMidnight(at time.Time, location *time.Location) bool {
	today := at.In(location).Format(time.DateOnly)
	return at.Add(-2*time.Hour).In(location).Format(time.DateOnly) > today || at.Add(-time.Hour).In(location).Format(time.DateOnly) > today
}

func TestDaysFollowTheTerritorysClock(t *testing.T) {
	w := start(t)
	territories := map[string]string{"in": "Asia/Kolkata", "np": "Asia/Kathmandu", "dach": "Europe/Berlin", "br": "America/Sao_Paulo", "utc": ""}
	rules := Rules{Version: "v1", RecordedTime: epoch, Document: "a document"}
	for name, zone := range territories {
		rules.Territories = append(rules.Territories, Territory{Name: name, Timezone: zone})
		rules.Nodes = append(rules.Nodes, Node{Division: "oncology", Territory: name, Timezone: zone, BusinessUnits: []string{"a"}})
	}
	if err := w.PutRules(t.Context(), rules); err != nil {
		t.Fatal(err)
	}
	r := newRand(32)
	var facts []social.Mention
	around := []time.Time{
		time.Date(2025, 3, 30, 0, 0, 0, 0, time.UTC),  // Berlin: 23 hours
		time.Date(2025, 10, 26, 0, 0, 0, 0, time.UTC), // Berlin: 25 hours
		time.Date(2018, 11, 4, 3, 0, 0, 0, time.UTC),  // Sao Paulo: no midnight
		epoch,
	}
	for territory := range territories {
		for _, day := range around {
			for _, m := range history(r, 60) {
				m.Node = social.Node{Division: "oncology", Territory: territory}
				m.Time = day.Add(time.Duration(r.Int64N(int64(72*time.Hour))) - 36*time.Hour).Truncate(time.Millisecond)
				facts = append(facts, m)
			}
		}
	}
	insert(t, w, facts...)
	location := func(territory string) *time.Location {
		location, err := time.LoadLocation(territories[territory])
		if err != nil {
			t.Fatal(err)
		}
		return location
	}
	localDay := func(m social.Mention) time.Time {
		at := m.Time.In(location(m.Node.Territory))
		return time.Unix(startOf(dayAt(at.Unix(), at.Location()), at.Location()), 0).UTC()
	}
	want := counted(facts, localDay)
	same(t, "days", want, readMetrics(t, w, "node_metrics_1d"))
	same(t, "days of all", want, readMetrics(t, w, "node_metrics_1d_of(division='%', territory='%', from='2000-01-01 00:00:00', to='2030-01-01 00:00:00')"))
	for _, line := range query(t, w, "SELECT territory || ' ' || toString(day) || ' ' || toString(toUnixTimestamp(bucket)) FROM node_metrics_1d") {
		var territory, day string
		var bucket int64
		if _, err := fmt.Sscan(line, &territory, &day, &bucket); err != nil {
			t.Fatal(err)
		}
		if got := time.Unix(bucket, 0).In(location(territory)).Format(time.DateOnly); got != day {
			t.Errorf("%s: the bucket is on %s", line, got)
		}
	}

	// One day asked for by its edges.
	from, to := time.Date(2025, 3, 29, 23, 0, 0, 0, time.UTC), time.Date(2025, 3, 30, 22, 0, 0, 0, time.UTC)
	one := map[string]NodeRow{}
	for name, row := range want {
		if row.Territory == "dach" && !row.Bucket.Before(from) && row.Bucket.Before(to) {
			one[name] = row
		}
	}
	if len(one) != 1 {
		t.Fatalf("%d days between the midnights of Berlin", len(one))
	}
	same(t, "one day", one, readMetrics(t, w, "node_metrics_1d_of(division='oncology', territory='dach', from=?, to=?)", seconds(from), seconds(to)))

	// Another clock moves the days at once; who has none lives in UTC.
	rules.RecordedTime = epoch.Add(time.Hour)
	rules.Territories = []Territory{{Name: "in", Timezone: "UTC"}}
	if err := w.PutRules(t.Context(), rules); err != nil {
		t.Fatal(err)
	}
	same(t, "days in UTC", counted(facts, func(m social.Mention) time.Time { return m.Time.Truncate(24 * time.Hour) }), readMetrics(t, w, "node_metrics_1d"))

	rules.Territories[0].Timezone = "Mars/Olympus"
	if err := w.PutRules(t.Context(), rules); err == nil {
		t.Error("a time zone on Mars was taken")
	}
	same(t, "nodes", []string{"oncology br America/Sao_Paulo"}, query(t, w, "SELECT division || ' ' || territory || ' ' || timezone FROM nodes WHERE territory = 'br'"))
	same(t, "rules", []string{"v1 a document"}, query(t, w, "SELECT rules_version || ' ' || document FROM rules"))
}

// TestDaysAtTheEdges: a range that reaches to where the tables end leaves nothing out, nor does a day that began before
// they do.
func TestDaysAtTheEdges(t *testing.T) {
	w := start(t)
	rules := Rules{Version: "v1", RecordedTime: epoch, Territories: []Territory{{Name: "dach", Timezone: "Europe/Berlin"}, {Name: "fj", Timezone: "Pacific/Fiji"}, {Name: "br", Timezone: "America/Sao_Paulo"}}}
	if err := w.PutRules(t.Context(), rules); err != nil {
		t.Fatal(err)
	}
	facts := history(newRand(35), 12)
	for i := range facts {
		facts[i].Node = social.Node{Division: "oncology", Territory: []string{"utc", "dach", "fj", "br"}[i%4]}
		facts[i].Kind, facts[i].ByCompany = social.Post, false
		facts[i].Time = []time.Time{time.Unix(30*60, 0), time.Unix(60*86400+12*3600, 0), time.Date(2106, 2, 5, 12, 0, 0, 0, time.UTC)}[i/4].UTC()
	}
	insert(t, w, facts...)
	want := []string{
		"br 1970-01-01 1970-01-01 00:00:00", "br 1970-03-02 1970-03-02 03:00:00", "br 2106-02-05 2106-02-05 03:00:00",
		"dach 1970-01-01 1970-01-01 00:00:00", "dach 1970-03-02 1970-03-01 23:00:00", "dach 2106-02-05 2106-02-04 23:00:00",
		"fj 1970-01-01 1970-01-01 00:00:00", "fj 1970-03-03 1970-03-02 12:00:00", "fj 2106-02-06 2106-02-05 12:00:00",
		"utc 1970-01-01 1970-01-01 00:00:00", "utc 1970-03-02 1970-03-02 00:00:00", "utc 2106-02-05 2106-02-05 00:00:00",
	}
	const columns = "SELECT territory || ' ' || toString(day) || ' ' || toString(bucket) FROM "
	same(t, "days", want, query(t, w, columns+"node_metrics_1d ORDER BY territory, day"))
	for _, to := range []string{"2106-02-06 00:00:00", "2106-02-07 06:28:15"} {
		same(t, "days to "+to, want, query(t, w, columns+"node_metrics_1d_of(division='%', territory='%', from='1970-01-01 00:00:00', to='"+to+"') ORDER BY territory, day"))
	}
}

func TestMinutesAndWindows(t *testing.T) {
	w := start(t)
	facts := history(newRand(33), 500)
	insert(t, w, facts...)
	want := counted(facts, func(m social.Mention) time.Time { return m.Time.Truncate(time.Minute) })
	same(t, "minutes", want, readMetrics(t, w, "node_metrics_1m"))
	same(t, "minutes of all", want, readMetrics(t, w, "node_metrics_1m_of(division='%', territory='%', from='2026-01-01 00:00:00', to='2027-01-01 00:00:00')"))

	from, to := epoch.Add(-150*time.Minute), epoch.Add(-31*time.Minute)
	var within []social.Mention
	for _, m := range facts {
		if !m.Time.Before(from) && m.Time.Before(to) {
			within = append(within, m)
		}
	}
	same(t, "window", counted(within, func(social.Mention) time.Time { return time.Unix(0, 0).UTC() }),
		readMetrics(t, w, "(SELECT *, toDateTime(0, 'UTC') AS bucket FROM node_window(from=?, to=?))", milliseconds(from), milliseconds(to)))

	// Plain views, parameterised views and NodeHours agree; half of the hours sealed, half stale.
	if _, _, err := w.Seal(t.Context(), SealOptions{Eager: true, Max: 18}); err != nil {
		t.Fatal(err)
	}
	hours := counted(facts, hourOf)
	same(t, "hours", hours, readMetrics(t, w, "node_metrics_1h"))
	node := social.Node{Division: "oncology", Territory: "dach"}
	some := map[string]NodeRow{}
	for name, row := range hours {
		if row.Division == node.Division && row.Territory == node.Territory && !row.Bucket.Before(epoch.Add(-3*time.Hour)) && row.Bucket.Before(epoch) {
			some[name] = row
		}
	}
	where := "node_metrics_1h WHERE division = ? AND territory = ? AND bucket >= ? AND bucket < ?"
	same(t, "hours of a node", some, readMetrics(t, w, where, node.Division, node.Territory, seconds(epoch.Add(-3*time.Hour)), seconds(epoch)))
	rows, err := w.NodeHours(t.Context(), node, epoch.Add(-3*time.Hour), epoch)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]NodeRow{}
	for _, row := range rows {
		got[fmt.Sprint(node, row.Bucket.Unix())] = row
	}
	same(t, "NodeHours", some, got)
}

func TestBusiest(t *testing.T) {
	w := start(t)
	facts := history(newRand(34), 300)
	for i := range facts {
		facts[i].Time = time.Now().UTC().Add(-time.Duration(i) * time.Minute).Truncate(time.Millisecond)
	}
	insert(t, w, facts...)
	rows, err := w.Busiest(t.Context(), 3)
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != 3 || rows[0].Mentions < rows[1].Mentions || rows[1].Mentions < rows[2].Mentions {
		t.Errorf("Busiest = %+v", rows)
	}
	want := counted(facts, func(social.Mention) time.Time { return rows[0].Bucket })
	same(t, "the busiest", want[fmt.Sprint(social.Node{Division: rows[0].Division, Territory: rows[0].Territory}, rows[0].Bucket.Unix())], rows[0])
}
