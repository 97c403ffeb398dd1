package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// eventBytes is the length of a line, on average.
const eventBytes = 700

// throughputRun is one file, sent as fast as it is taken.
type throughputRun struct {
	Matching    float64 `json:"matching"`
	Events      int     `json:"events"`
	Concerning  int     `json:"matching_events"` // as the enricher counted them
	Rows        int     `json:"rows"`
	AcceptedIn  float64 `json:"accepted_seconds"`
	ReadableIn  float64 `json:"readable_seconds"`
	PerSecond   float64 `json:"events_per_second"`
	Repeats     int     `json:"repeated_requests"`
	Processes   []used  `json:"processes"`
	Ingest      ingest  `json:"ingest_alone"`
	RawToRows   float64 `json:"raw_to_rows_us_per_matching_event"`
	Afterwards  used    `json:"afterwards"` // merging and sealing that went on after the rows were readable
	AfterFor    float64 `json:"afterwards_seconds"`
	OthersCores float64 `json:"other_load_cores"` // what else ran on the machine meanwhile
	Stolen      float64 `json:"stolen_cores"`
	Bare        *bare   `json:"bare_limits"`
	Inexact     string  `json:"inexact,omitempty"`
}

// used is a process's share of a run.
type used struct {
	Process    string  `json:"process"`
	CPU        float64 `json:"cpu_seconds"`
	PerMillion float64 `json:"cpu_seconds_per_million_events"`
	PeakMB     float64 `json:"peak_mb"`
}

// ingest is what the same file costs when nobody reads the raw stream.
type ingest struct {
	Seconds   float64 `json:"accepted_seconds"`
	Processes []used  `json:"processes"`
}

// throughput measures one share of matching events, in dir.
func throughput(ctx context.Context, o options, dir string, matching float64) (*throughputRun, error) {
	say("generating %d events, %.0f %% matching", o.events, 100*matching)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "events.ndjson")
	truth, err := generateFile(ctx, o, file, o.events, matching)
	if err != nil {
		return nil, err
	}
	run := &throughputRun{Matching: matching, Events: o.events}
	if err := run.endToEnd(ctx, o, dir, file, truth); err != nil {
		return run, err
	}
	if err := run.ingestAlone(ctx, o, filepath.Join(dir, "ingest"), file); err != nil {
		return run, err
	}
	var pipeline float64
	for _, p := range run.Processes[:2] {
		pipeline += p.CPU
	}
	for _, p := range run.Ingest.Processes[:2] {
		pipeline -= p.CPU
	}
	run.RawToRows = 1e6 * pipeline / float64(max(1, run.Concerning))
	if o.quick {
		return run, nil
	}
	return run, run.bareLimits(ctx, o, filepath.Join(dir, "bare"), file)
}

// truth is what node_metrics_1h must say: mentions and voices by division, territory and hour.
type truth map[string]string

// mentions is the sum over all.
func (t truth) mentions() (sum int) {
	for _, counts := range t {
		mentions, _, _ := strings.Cut(counts, "\t")
		n, _ := strconv.Atoi(mentions)
		sum += n
	}
	return sum
}

// generateFile writes events without duplicates and bad lines, and gives what they must be counted as.
func generateFile(ctx context.Context, o options, file string, events int, matching float64) (truth, error) {
	args := []string{"generate", "--nodes", o.nodes, "--events", strconv.Itoa(events), "--matching", fmt.Sprint(matching), "--duplicates", "0",
		"--invalid", "0", "--line-bytes", strconv.Itoa(eventBytes), "--out", file, "--truth", file + ".truth"}
	if !o.references {
		args = append(args, "--posts-only")
	}
	cmd := exec.CommandContext(ctx, filepath.Join(o.bin, "polyphony"), args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("generating events: %w: %s", err, out)
	}
	rows, err := os.Open(file + ".truth")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	t := truth{}
	for scanner := bufio.NewScanner(rows); scanner.Scan(); {
		var row struct {
			Division, Territory string
			Bucket              time.Time
			Mentions, Voices    int
		}
		if err := json.Unmarshal(scanner.Bytes(), &row); err != nil {
			return nil, fmt.Errorf("reading the truth: %w", err)
		}
		t[fmt.Sprintf("%s\t%s\t%d", row.Division, row.Territory, row.Bucket.Unix())] = fmt.Sprintf("%d\t%d", row.Mentions, row.Voices)
	}
	return t, nil
}

// endToEnd sends the file to a fresh `up` and waits until its rows are readable.
func (run *throughputRun) endToEnd(ctx context.Context, o options, dir, file string, t truth) error {
	say("sending them to polyphony up")
	profile := o.profile
	if profile != "" {
		profile = filepath.Join(profile, filepath.Base(dir))
	}
	up, err := startUp(ctx, o, filepath.Join(dir, "up"), profile)
	if err != nil {
		return err
	}
	defer up.stop()
	before, err := snapshot(up)
	if err != nil {
		return err
	}
	busy, stolen := machine()
	self, _ := usageOf(os.Getpid())
	began := time.Now()

	type clientResult struct {
		sent
		usage
		error
	}
	client := make(chan clientResult, 1)
	go func() {
		var r clientResult
		r.usage, r.error = runWorker(ctx, &r.sent, "client", up.ready["http"], file, strconv.Itoa(o.connections))
		client <- r
	}()
	seen := awaitReadable(ctx, o, up, t)
	after := seen.usage
	busyAfter, stolenAfter := machine()
	selfAfter, _ := usageOf(os.Getpid())
	took := time.Since(began).Seconds()
	c := <-client
	if c.error != nil {
		return c.error
	}
	if seen.err != nil {
		return seen.err
	}
	run.AcceptedIn, run.Repeats = c.Seconds, c.Repeats
	run.ReadableIn = seen.at.Sub(c.Start).Seconds()
	run.PerSecond = float64(run.Events) / run.ReadableIn
	run.Processes = []used{
		run.used("polyphony", before.polyphony, after.polyphony), run.used("clickhouse", before.clickhouse, after.clickhouse),
		run.used("client", usage{}, c.usage),
	}
	ours := selfAfter.cpu.Seconds() - self.cpu.Seconds()
	for _, p := range run.Processes {
		ours += p.CPU
	}
	run.OthersCores = ((busyAfter - busy).Seconds() - ours) / took
	run.Stolen = (stolenAfter - stolen).Seconds() / took
	if c.Accepted != run.Events || c.Rejected != 0 {
		run.Inexact = fmt.Sprintf("%d events accepted and %d rejected of %d", c.Accepted, c.Rejected, run.Events)
	} else {
		run.Inexact = seen.inexact
	}
	if !o.quick {
		if err := run.afterwards(ctx, o, up, after); err != nil {
			return err
		}
	}
	return run.counted(ctx, up)
}

// both is what the two processes of an `up` have used.
type both struct{ polyphony, clickhouse usage }

func snapshot(up *process) (b both, err error) {
	if b.polyphony, err = up.usage(); err != nil {
		return b, err
	}
	b.clickhouse, err = up.childUsage()
	return b, err
}

func (run *throughputRun) used(name string, before, after usage) used {
	cpu := (after.cpu - before.cpu).Seconds()
	return used{Process: name, CPU: cpu, PerMillion: cpu / float64(run.Events) * 1e6, PeakMB: float64(after.peak) / (1 << 20)}
}

// readable says when the rows could be read, and what had been used by then.
type readable struct {
	at      time.Time
	usage   both
	inexact string
	err     error
}

// lookEvery is how often ClickHouse is asked. A look takes milliseconds of its processor time, which the run pays for;
// the end is noticed late by at most this, which the run pays for too.
const lookEvery = 250 * time.Millisecond

// awaitReadable asks for the number of rows, which ClickHouse knows without reading, and when there are enough, counts
// those that the truth counts. When these are all there the clock stops and everything is compared; if that fails, such
// as for a row that came twice, the wait goes on.
func awaitReadable(ctx context.Context, o options, up *process, t truth) readable {
	want := t.mentions()
	deadline := time.Now().Add(o.timeout)
	difference := "nothing compared"
	for time.Now().Before(deadline) {
		rows, err := queryInt(ctx, up, "SELECT count() FROM mentions_store")
		if err == nil && rows >= want {
			rows, err = queryInt(ctx, up, "SELECT countIf(kind IN ('post', 'reply') AND NOT by_company) FROM mentions_store")
		}
		if err != nil {
			return readable{err: err}
		}
		if rows >= want {
			r := readable{at: time.Now()}
			if r.usage, r.err = snapshot(up); r.err != nil {
				return r
			}
			if difference, r.err = compare(ctx, up, t); r.err != nil || difference == "" {
				return r
			}
		} else {
			difference = fmt.Sprintf("%d of %d mentions readable", rows, want)
		}
		select {
		case <-time.After(lookEvery):
		case <-up.ended:
			return readable{err: fmt.Errorf("polyphony ended by itself: %s", tail(up.log))}
		case <-ctx.Done():
			return readable{err: context.Cause(ctx)}
		}
	}
	r := readable{at: time.Now(), inexact: fmt.Sprintf("after %s: %s", o.timeout, difference)}
	r.usage, r.err = snapshot(up)
	return r
}

// compare holds node_metrics_1h against the truth and describes the first difference, "" for none.
func compare(ctx context.Context, up *process, t truth) (string, error) {
	text, err := query(ctx, up, "SELECT division, territory, toUnixTimestamp(bucket), mentions, voices FROM node_metrics_1h WHERE mentions > 0 FORMAT TSV")
	if err != nil {
		return "", err
	}
	got := truth{}
	for line := range strings.Lines(text) {
		fields := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		got[strings.Join(fields[:3], "\t")] = strings.Join(fields[3:], "\t")
	}
	return difference(t, got), nil
}

func difference(want, got truth) string {
	differ, first := 0, ""
	all := maps.Clone(want)
	maps.Copy(all, got)
	for _, key := range slices.Sorted(maps.Keys(all)) {
		if want[key] != got[key] {
			if differ++; differ == 1 {
				first = fmt.Sprintf("%q: want mentions and voices %q, got %q", key, want[key], got[key])
			}
		}
	}
	if differ == 0 {
		return ""
	}
	return fmt.Sprintf("%d of %d node-hours differ, first %s", differ, len(all), first)
}

func queryInt(ctx context.Context, up *process, sql string) (int, error) {
	text, err := query(ctx, up, sql)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(text))
}

// query asks over HTTP, as any analyst might.
func query(ctx context.Context, up *process, sql string) (string, error) {
	return fetch(ctx, http.MethodPost, "http://"+up.ready["clickhouse-http"]+"/?database=polyphony", sql)
}

func fetch(ctx context.Context, method, url, body string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %.300s", response.Status, text)
	}
	return string(text), err
}

// settleTime is how long merging and sealing may go on: an hour is sealed when nothing touched it for ten seconds.
const settleTime = 15 * time.Second

// afterwards adds up what is used after the rows were readable.
func (run *throughputRun) afterwards(ctx context.Context, o options, up *process, since both) error {
	if err := sleep(ctx, o.settle); err != nil {
		return err
	}
	now, err := snapshot(up)
	run.Afterwards = run.used("both", usage{cpu: since.total()}, usage{cpu: now.total()})
	run.AfterFor = o.settle.Seconds()
	return err
}

func (b both) total() time.Duration { return b.polyphony.cpu + b.clickhouse.cpu }

// counted reads how many events concerned a node, by their share of those that the enricher has read, and how many rows
// came of them. Whether all are there, and once, is what compare checks.
func (run *throughputRun) counted(ctx context.Context, up *process) error {
	page, err := fetch(ctx, http.MethodGet, "http://"+up.ready["http"]+"/metrics", "")
	if err != nil {
		return fmt.Errorf("reading metrics: %w", err)
	}
	read, none := counter(page, "polyphony_enricher_events_total"), counter(page, "polyphony_enricher_events_unmatched_total")
	run.Concerning = (read - none) * run.Events / max(1, read) // repeats read twice are not counted twice
	run.Rows, err = queryInt(ctx, up, "SELECT count() FROM mentions")
	return err
}

// counter reads a value from a page of Prometheus metrics.
func counter(page, name string) int {
	for line := range strings.Lines(page) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			f, _ := strconv.ParseFloat(strings.TrimSpace(value), 64)
			return int(f)
		}
	}
	return 0
}

// ingestAlone sends the same file to an ingester binary and a NATS of its own.
func (run *throughputRun) ingestAlone(ctx context.Context, o options, dir, file string) error {
	say("sending them to an ingester alone")
	cmd, err := workerCommand("nats", filepath.Join(dir, "nats"))
	if err != nil {
		return err
	}
	nats, err := start(ctx, "nats", dir, cmd)
	if err != nil {
		return err
	}
	defer nats.stop()
	ingester, err := startIngester(ctx, o, dir, nats.ready["nats"])
	if err != nil {
		return err
	}
	defer ingester.stop()
	ingesterBefore, err1 := ingester.usage()
	natsBefore, err2 := nats.usage()
	var c sent
	client, err3 := runWorker(ctx, &c, "client", ingester.ready["http"], file, strconv.Itoa(o.connections))
	ingesterAfter, err4 := ingester.usage()
	natsAfter, err5 := nats.usage()
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		return err
	}
	run.Ingest.Seconds = c.Seconds
	run.Ingest.Processes = []used{
		run.used("ingester", ingesterBefore, ingesterAfter), run.used("nats", natsBefore, natsAfter),
		run.used("client", usage{}, client),
	}
	return nil
}
