package main

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// The limits: what is demanded of two cores with everything on them.
const (
	minPerSecond20  = 80_000
	minPerSecond100 = 40_000
	maxRawToRows    = 30.0 // us of CPU per matching event
	maxPeakMB       = 512.0
	maxIdle         = 3.0 // per cent of a core, both processes
)

// report is everything that was measured.
type report struct {
	Cores      int              `json:"cores"`
	Load       string           `json:"load_average_before"`
	Throughput []*throughputRun `json:"throughput"`
	Latency    *latencyRun      `json:"latency"`
	Idle       []*idleRun       `json:"idle"`
	Limits     []limit          `json:"limits"`
}

// exact says whether every count was right.
func (r *report) exact() bool {
	for _, t := range r.Throughput {
		if t.Inexact != "" {
			return false
		}
	}
	return r.Latency == nil || r.Latency.Inexact == ""
}

// limit is a demand and what was measured.
type limit struct {
	Name     string  `json:"name"`
	Value    float64 `json:"value"`
	Limit    float64 `json:"limit"`
	Ratio    float64 `json:"ratio"`
	Held     bool    `json:"held"`
	relation string
}

func atLeast(name string, value, demanded float64) limit {
	return limit{name, value, demanded, value / demanded, value >= demanded, "at least"}
}

func atMost(name string, value, demanded float64) limit {
	return limit{name, value, demanded, value / demanded, value <= demanded, "at most"}
}

func (l limit) String() string {
	said := "ok"
	if !l.Held {
		said = "MISSED"
	}
	return fmt.Sprintf("%s: %s %g, ratio %.2f", said, l.relation, l.Limit, l.Ratio)
}

// limits are all of them, as far as they were measured.
func (r *report) limits() []limit {
	var all []limit
	for _, t := range r.Throughput {
		if t.ReadableIn > 0 {
			all = append(all, t.rate(), t.peak())
		}
		if t.RawToRows > 0 && t.Matching == 1 {
			all = append(all, t.rawToRows())
		}
	}
	for _, i := range r.Idle {
		all = append(all, i.share())
	}
	return all
}

func (t *throughputRun) rate() limit {
	demanded := minPerSecond20
	if t.Matching == 1 {
		demanded = minPerSecond100
	}
	return atLeast(t.named("events/s end to end"), t.PerSecond, float64(demanded))
}

func (t *throughputRun) peak() limit {
	return atMost(t.named("peak MB of polyphony"), t.Processes[0].PeakMB, maxPeakMB)
}

func (t *throughputRun) rawToRows() limit {
	return atMost(t.named("us of CPU per matching event, raw stream to rows"), t.RawToRows, maxRawToRows)
}

func (t *throughputRun) named(what string) string {
	return fmt.Sprintf("%s, %.0f %% matching", what, 100*t.Matching)
}

func (i *idleRun) share() limit {
	return atMost("per cent of a core, idle after "+i.After, i.Polyphony+i.ClickHouse, maxIdle)
}

func (r *report) print(w io.Writer) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	defer table.Flush()
	row := func(name, format string, args ...any) {
		fmt.Fprintf(table, "  %s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	fmt.Fprintf(table, "%d cores, load average before: %s\n", r.Cores, r.Load)
	for _, t := range r.Throughput {
		t.print(table, row)
	}
	if r.Latency != nil {
		r.Latency.print(table, row)
	}
	for i, idle := range r.Idle {
		if i == 0 {
			fmt.Fprintf(table, "\nIdle, share of a core\n")
		}
		row("after "+idle.After, "polyphony %.2f %%, clickhouse %.2f %%\t%s", idle.Polyphony, idle.ClickHouse, idle.share())
	}
}

func (t *throughputRun) print(w io.Writer, row func(name, format string, args ...any)) {
	fmt.Fprintf(w, "\n%d events, %.0f %% matching (%d events, %d rows)\n", t.Events, 100*t.Matching, t.Concerning, t.Rows)
	if t.ReadableIn == 0 {
		row("not finished", "")
		return
	}
	row("end to end", "%.0f events/s\t%s", t.PerSecond, t.rate())
	row("accepted after", "%.2f s\tall readable after %.2f s", t.AcceptedIn, t.ReadableIn)
	for i, p := range t.Processes {
		held := ""
		if i == 0 {
			held = "\t" + t.peak().String()
		}
		row("CPU of "+p.Process, "%.2f s, %.2f s per million events\tpeak %.0f MB%s", p.CPU, p.PerMillion, p.PeakMB, held)
	}
	for _, p := range t.Ingest.Processes {
		row("ingest alone: "+p.Process, "%.2f s, %.2f s per million events\tpeak %.0f MB", p.CPU, p.PerMillion, p.PeakMB)
	}
	if t.RawToRows > 0 {
		held := "other events are read too"
		if t.Matching == 1 {
			held = t.rawToRows().String()
		}
		row("raw stream to rows", "%.1f us of CPU per matching event\t%s", t.RawToRows, held)
	}
	if b := t.Bare; b != nil {
		row("JetStream alone", "%.0f events/s, %.2f us of CPU per event\tend to end is %.2f of that rate", b.JetStream.PerSecond, b.JetStream.CPU, b.RateToJetStream)
		row("ClickHouse alone", "%.0f events/s, %.2f us of CPU per event\tend to end is %.2f of that rate", b.ClickHouse.PerSecond, b.ClickHouse.CPU, b.RateToClickHouse)
		row("CPU per event", "%.2f us of polyphony and clickhouse\t%.1f times both alone", t.Processes[0].PerMillion+t.Processes[1].PerMillion, b.CPUToBoth)
	}
	if t.AfterFor > 0 {
		row("afterwards", "%.2f s of CPU in %.0f s\tmerging and sealing", t.Afterwards.CPU, t.AfterFor)
	}
	row("meanwhile", "%.2f cores used by others, %.2f stolen\t%d requests sent again", t.OthersCores, t.Stolen, t.Repeats)
	if t.Inexact != "" {
		row("NOT EXACT", "%s", t.Inexact)
	} else {
		row("exact", "every node-hour equals the truth")
	}
}

func (l *latencyRun) print(w io.Writer, row func(name, format string, args ...any)) {
	fmt.Fprintf(w, "\n%d events/s offered for %.0f s (%d events, %d probes)\n", l.Rate, l.Seconds, l.Sent, l.Probes)
	row("accepted to readable", "p50 %.0f ms, p99 %.0f ms, max %.0f ms", l.P50, l.P99, l.Max)
	row("sent to accepted", "p50 %.1f ms, p99 %.1f ms\t%d requests late", l.AnswerP50, l.AnswerP99, l.Late)
	row("CPU", "polyphony %.2f cores, clickhouse %.2f cores", l.Polyphony, l.ClickHouse)
	if l.Inexact != "" {
		row("NOT EXACT", "%s", l.Inexact)
	}
}
