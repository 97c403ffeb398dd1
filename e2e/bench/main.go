// Program bench measures Polyphony end to end on one machine: events over HTTP to rows readable in ClickHouse, beside
// the bare limits of JetStream and ClickHouse in the same run. It fails when a single event is counted wrongly; a
// missed limit is shown and does not fail, since other work on the machine can cause it.
//
// Run it from the checkout after `make build`; the second form is for tuning, the third for knowing what to tune:
//
//	go run ./e2e/bench
//	go run ./e2e/bench --quick --events 300000 --matching 1
//	go run ./e2e/bench --quick --cpuprofile /tmp/profiles && go tool pprof -top bin/polyphony /tmp/profiles/matching-100/cpu.pprof
//
// Where each number comes from:
//
//   - All data stay until the end, some 15 GB: a file system may make new files slowly when many were just deleted.
//   - Events are generated to files before anything is measured, without duplicates and bad lines, 700 bytes on average.
//   - The clock of a run starts with the first request and stops when the rows can be read: all expected rows are counted
//     in ClickHouse, and then, with the clock stopped, node_metrics_1h is held against the generator's truth, node by
//     node and hour by hour.
//   - CPU is user and system time of whole processes, from /proc or their exit status; the polyphony process contains
//     the embedded NATS, ClickHouse is its child, the client is a process of its own.
//   - CPU from the raw stream to the rows is that of polyphony and ClickHouse until the rows are readable, less what the
//     same file costs an ingester binary and a NATS of its own with nobody reading. Merging and sealing that go on after
//     the rows are readable are shown apart.
//   - The bare limits use the bytes and rows that the pipeline makes of the same file, prepared in memory: raw frames,
//     public messages and fact frames are published and consumed through pkg/bus and a NATS of its own; mentions and
//     originals are inserted through pkg/warehouse. CPU is that of both sides.
//   - Latency is from the 202 of a request with a probe, an event of its own number, to the moment at which a query has
//     returned it; the table is looked at every 10 ms, which a latency includes.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"polyphony/pkg/embedded"
)

// options are the flags.
type options struct {
	bin, nodes, tmp string
	events          int
	connections     int
	rate            int
	duration, idle  time.Duration
	timeout         time.Duration
	profile         string
	quick, json     bool
	references      bool    // events refer to each other
	only            float64 // the one share of matching events, 0 for all of them

	settle, pause time.Duration // see settleTime and idlePause; tests have less time
}

func main() {
	embedded.RunChildIfAsked()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C kills
	if len(os.Args) > 2 && os.Args[1] == workerArg {
		os.Exit(work(ctx, os.Args[2], os.Args[3:]))
	}
	o := options{settle: settleTime, pause: idlePause}
	flag.StringVar(&o.bin, "bin", "bin", "directory of the programs that make build made")
	flag.StringVar(&o.nodes, "nodes", "deploy/nodes", "nodes directory")
	flag.StringVar(&o.tmp, "tmp", "", "where a directory for data and events is made, and removed again (default: the system's)")
	flag.IntVar(&o.events, "events", 1_000_000, "events of each throughput run")
	flag.IntVar(&o.connections, "connections", 8, "connections of the client")
	flag.IntVar(&o.rate, "rate", 5000, "events per second of the latency run")
	flag.DurationVar(&o.duration, "for", 20*time.Second, "how long that rate is offered")
	flag.DurationVar(&o.idle, "idle", 20*time.Second, "how long an idle up is watched")
	flag.DurationVar(&o.timeout, "timeout", 2*time.Minute, "how long one run may take to become readable")
	flag.StringVar(&o.profile, "cpuprofile", "", "directory for CPU profiles of the polyphony process, one directory a run")
	flag.BoolVar(&o.quick, "quick", false, "throughput only: no bare limits, no latency, no idling")
	flag.BoolVar(&o.references, "references", false, "events as they come, a third of which are replies and shares; without it all are posts")
	flag.Float64Var(&o.only, "matching", 0, "the share of matching events, from 0 to 1; 0 measures 0.2 and then 1")
	flag.BoolVar(&o.json, "json", false, "write the report as JSON to standard output, the tables to standard error")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "bench: unknown argument %q; see --help\n", flag.Arg(0))
		os.Exit(2)
	}
	if err := bench(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// errInexact is why a run whose numbers are printed fails nevertheless.
var errInexact = errors.New("events were lost or counted twice")

// bench runs everything, in a directory that it removes again.
func bench(ctx context.Context, o options) error {
	for _, program := range []string{"polyphony", "ingester"} {
		if _, err := os.Stat(filepath.Join(o.bin, program)); err != nil {
			return fmt.Errorf("%w: run `make build` first, in the checkout", err)
		}
	}
	dir, err := os.MkdirTemp(o.tmp, "polyphony-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	r := report{Cores: runtime.NumCPU(), Load: loadAverage()}
	err = measure(ctx, o, dir, &r)
	out := os.Stdout
	if o.json {
		out = os.Stderr
		r.Limits = r.limits()
		if jsonErr := json.NewEncoder(os.Stdout).Encode(&r); jsonErr != nil {
			return jsonErr
		}
	}
	r.print(out)
	switch {
	case ctx.Err() != nil:
		return errors.New("interrupted")
	case err == nil && !r.exact():
		return errInexact
	}
	return err
}

func (o options) matching() []float64 {
	if o.only > 0 {
		return []float64{o.only}
	}
	return []float64{0.2, 1}
}

// measure fills in the report, part after part; what an error leaves out is missing from it.
func measure(ctx context.Context, o options, dir string, r *report) error {
	for _, matching := range o.matching() {
		runDir := filepath.Join(dir, fmt.Sprintf("matching-%.0f", 100*matching))
		defer os.RemoveAll(runDir) // not before all runs are over
		t, err := throughput(ctx, o, runDir, matching)
		if t != nil {
			r.Throughput = append(r.Throughput, t)
		}
		if err != nil {
			return fmt.Errorf("throughput at %.0f %%: %w", 100*matching, err)
		}
	}
	if o.quick {
		return nil
	}
	return steady(ctx, o, filepath.Join(dir, "steady"), r)
}

// say tells what is being done now.
func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...)
}

func loadAverage() string {
	content, _ := os.ReadFile("/proc/loadavg")
	return strings.Join(strings.Fields(string(content))[:min(3, len(strings.Fields(string(content))))], " ")
}
