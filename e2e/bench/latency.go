package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"polyphony/pkg/nodes"
	"polyphony/pkg/social"
)

const (
	// beat is how often the paced client sends what is due, as one request.
	beat = 10 * time.Millisecond
	// probeBeats: every so many requests carry a probe, so twenty seconds give a thousand.
	probeBeats = 2
	// maxOpen bounds the requests without an answer; a client that waits longer no longer offers the rate, and says so.
	maxOpen = 64
	// probeSource names the probes; their author's followers number them.
	probeSource = "bench-probe"
	// pacedMatching is the share of matching events beside the probes.
	pacedMatching = 0.2
	// lookForProbes bounds what a look adds to a latency.
	lookForProbes = 10 * time.Millisecond
)

// latencyRun is a steady stream of small requests.
type latencyRun struct {
	Rate       int     `json:"offered_events_per_second"`
	Seconds    float64 `json:"seconds"`
	Sent       int     `json:"events"`
	Late       int     `json:"requests_late"` // the client could not keep the rate
	Probes     int     `json:"probes"`
	AnswerP50  float64 `json:"sent_to_accepted_p50_ms"`
	AnswerP99  float64 `json:"sent_to_accepted_p99_ms"`
	P50        float64 `json:"accepted_to_readable_p50_ms"`
	P99        float64 `json:"accepted_to_readable_p99_ms"`
	Max        float64 `json:"accepted_to_readable_max_ms"`
	Polyphony  float64 `json:"polyphony_cores"`
	ClickHouse float64 `json:"clickhouse_cores"`
	Inexact    string  `json:"inexact,omitempty"`
}

// idleRun is an `up` that nobody talks to.
type idleRun struct {
	After      string  `json:"after"`
	Polyphony  float64 `json:"polyphony_percent_of_a_core"`
	ClickHouse float64 `json:"clickhouse_percent_of_a_core"`
}

// steady measures one `up`: idle while empty, then the latency at a fixed rate, then idle with what that left.
func steady(ctx context.Context, o options, dir string, r *report) error {
	file := filepath.Join(dir, "events.ndjson")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if _, err := generateFile(ctx, o, file, o.rate*int(o.duration.Seconds()), pacedMatching); err != nil {
		return err
	}
	up, err := startUp(ctx, o, filepath.Join(dir, "up"), "")
	if err != nil {
		return err
	}
	defer up.stop()
	idle, err := measureIdle(ctx, o, up, "a start")
	if err != nil {
		return err
	}
	r.Idle = append(r.Idle, idle)
	if r.Latency, err = latency(ctx, o, up, file); err != nil {
		return err
	}
	idle, err = measureIdle(ctx, o, up, "that load")
	if err != nil {
		return err
	}
	r.Idle = append(r.Idle, idle)
	return nil
}

// idlePause lets a start, or merging and sealing after a load, come to an end.
const idlePause = 20 * time.Second

func measureIdle(ctx context.Context, o options, up *process, after string) (*idleRun, error) {
	say("idle for %s, after %s", o.idle, after)
	if err := sleep(ctx, o.pause); err != nil {
		return nil, err
	}
	before, err := snapshot(up)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	if err := sleep(ctx, o.idle); err != nil {
		return nil, err
	}
	now, err := snapshot(up)
	if err != nil {
		return nil, err
	}
	took := time.Since(began).Seconds()
	return &idleRun{After: after,
		Polyphony:  100 * (now.polyphony.cpu - before.polyphony.cpu).Seconds() / took,
		ClickHouse: 100 * (now.clickhouse.cpu - before.clickhouse.cpu).Seconds() / took,
	}, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// latency offers a fixed rate, and watches from outside for when each probe can be read.
func latency(ctx context.Context, o options, up *process, file string) (*latencyRun, error) {
	say("offering %d events/s for %s", o.rate, o.duration)
	template, node, err := probeTemplate(o.nodes)
	if err != nil {
		return nil, err
	}
	watch := &probeWatch{up: up, seen: map[int]time.Time{}, sql: fmt.Sprintf(
		"SELECT followers FROM mentions WHERE division = '%s' AND territory = '%s' AND source = '%s' AND time >= toDateTime64(%d, 3) FORMAT TSV",
		node.Division, node.Territory, probeSource, time.Now().Unix()-1)}
	watching, stop := context.WithCancel(ctx)
	watched := make(chan error, 1)
	go func() { watched <- watch.run(watching) }()
	defer stop()

	before, err := snapshot(up)
	if err != nil {
		return nil, err
	}
	var p paced
	_, err = runWorker(ctx, &p, "pace", up.ready["http"], file, strconv.Itoa(o.rate), template)
	if err != nil {
		return nil, err
	}
	after, err := snapshot(up)
	if err != nil {
		return nil, err
	}
	watch.await(len(p.Probes), o.timeout)
	stop()
	if err := <-watched; err != nil {
		return nil, err
	}
	run := &latencyRun{Rate: o.rate, Seconds: p.Seconds, Sent: p.Sent, Late: p.Late, Probes: len(p.Probes),
		Polyphony:  (after.polyphony.cpu - before.polyphony.cpu).Seconds() / p.Seconds,
		ClickHouse: (after.clickhouse.cpu - before.clickhouse.cpu).Seconds() / p.Seconds,
	}
	var answered, readable []time.Duration
	for _, probe := range p.Probes {
		answered = append(answered, probe.Accepted.Sub(probe.Sent))
		if at, ok := watch.seen[probe.Number]; ok {
			readable = append(readable, at.Sub(probe.Accepted))
		}
	}
	run.AnswerP50, run.AnswerP99 = percentile(answered, 50), percentile(answered, 99)
	run.P50, run.P99, run.Max = percentile(readable, 50), percentile(readable, 99), percentile(readable, 100)
	if missing := len(p.Probes) - len(readable); missing > 0 || p.Accepted != p.Sent {
		run.Inexact = fmt.Sprintf("%d of %d probes never became readable; %d of %d events accepted", missing, len(p.Probes), p.Accepted, p.Sent)
	}
	return run, nil
}

// percentile gives the smallest value that so many per cent do not exceed, in ms; 0 of nothing.
func percentile(values []time.Duration, p int) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	at := max(0, (len(sorted)*p+99)/100-1)
	return float64(sorted[at]) / float64(time.Millisecond)
}

// probeWatch notes when each probe is first read.
type probeWatch struct {
	up   *process
	sql  string
	mu   sync.Mutex
	seen map[int]time.Time
}

// run looks whether the table has grown, which costs ClickHouse next to nothing, and reads the probes when it has.
func (w *probeWatch) run(ctx context.Context) error {
	ticker := time.NewTicker(lookForProbes)
	defer ticker.Stop()
	for known := -1; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		rows, err := queryInt(ctx, w.up, "SELECT count() FROM mentions_store")
		if err == nil && rows != known {
			known = rows
			err = w.read(ctx)
		}
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("looking for probes: %w", err)
		}
	}
}

func (w *probeWatch) read(ctx context.Context) error {
	text, err := query(ctx, w.up, w.sql)
	if err != nil {
		return err
	}
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	for line := range strings.Lines(text) {
		number, err := strconv.Atoi(strings.TrimSpace(line))
		if err != nil {
			return err
		}
		if _, ok := w.seen[number]; !ok {
			w.seen[number] = now
		}
	}
	return nil
}

// await returns when so many probes have been seen, or after a while.
func (w *probeWatch) await(n int, patience time.Duration) {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(lookForProbes) {
		w.mu.Lock()
		all := len(w.seen) >= n
		w.mu.Unlock()
		if all {
			return
		}
	}
}

// probeTemplate is an event that belongs to one node, %[1]d is its number and %[2]s its time.
func probeTemplate(nodesDir string) (string, social.Node, error) {
	rules, err := nodes.LoadDir(nodesDir)
	if err != nil {
		return "", social.Node{}, err
	}
	matcher := rules.Matcher()
	for _, division := range rules.Divisions() {
		for _, product := range division.Products {
			for _, territory := range rules.Territories() {
				e := &social.Event{Source: probeSource, ID: "0", Kind: social.Post, Time: time.Now(),
					Text: product.Names[0], PlaceCountry: territory.Countries[0]}
				if matches := matcher.Match(e); len(matches) == 1 {
					text, err := json.Marshal(e.Text)
					if err != nil {
						return "", social.Node{}, err
					}
					return `{"id":"%[1]d","source":"` + probeSource + `","kind":"post","time":"%[2]s","text":` + strings.ReplaceAll(string(text), "%", "%%") +
						`,"author":{"id":"probe","followers":%[1]d},"place":{"country":"` + e.PlaceCountry + `"}}` + "\n", matches[0].Node, nil
				}
			}
		}
	}
	return "", social.Node{}, errors.New("no product name of the nodes directory belongs to one node")
}

// paced is what the paced client says.
type paced struct {
	Seconds  float64
	Sent     int
	Accepted int
	Late     int
	Probes   []probe
	Peak     int64
}

type probe struct {
	Number         int
	Sent, Accepted time.Time
}

// paceWorker sends a file at a fixed rate: URL FILE RATE TEMPLATE.
func paceWorker(ctx context.Context, args []string) error {
	rate, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	file, err := os.Open(args[1])
	if err != nil {
		return err
	}
	defer file.Close()
	p := &pacer{client: newClient(args[0], maxOpen), template: args[3], open: make(chan struct{}, maxOpen)}
	if err := p.send(ctx, bufio.NewReaderSize(file, 64<<10), rate); err != nil {
		return err
	}
	p.said.Accepted, p.said.Peak = p.client.sent.Accepted, ownPeak()
	return json.NewEncoder(os.Stdout).Encode(&p.said)
}

// pacer sends a request every beat, whether or not earlier ones have been answered.
type pacer struct {
	client   *client
	template string
	open     chan struct{}
	sending  sync.WaitGroup
	mu       sync.Mutex
	said     paced
	fault    error
}

func (p *pacer) send(ctx context.Context, r *bufio.Reader, rate int) error {
	ticker := time.NewTicker(beat)
	defer ticker.Stop()
	began := time.Now()
	sent, number := 0, 0
	for beats, more := 0, true; more; beats++ {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		var body []byte
		for due := int(time.Since(began).Seconds() * float64(rate)); more && sent < due; {
			line, err := r.ReadBytes('\n')
			if err == io.EOF {
				more = false
			} else if err != nil {
				return err
			}
			if body = append(body, line...); len(line) > 0 {
				sent, p.said.Sent = sent+1, p.said.Sent+1
			}
		}
		probed := 0
		if beats%probeBeats == 0 {
			number++
			probed = number
			p.said.Sent++
			body = fmt.Appendf(body, p.template, number, time.Now().UTC().Format("2006-01-02T15:04:05.000Z"))
		}
		if len(body) > 0 {
			p.post(ctx, body, probed)
		}
	}
	p.sending.Wait()
	p.said.Seconds = time.Since(began).Seconds()
	return p.fault
}

// post sends a body beside others; probed is the number of its probe, 0 for none.
func (p *pacer) post(ctx context.Context, body []byte, probed int) {
	select {
	case p.open <- struct{}{}:
	default:
		p.said.Late++
		p.open <- struct{}{}
	}
	p.sending.Go(func() {
		defer func() { <-p.open }()
		sent := time.Now()
		err := p.client.post(ctx, body)
		accepted := time.Now()
		p.mu.Lock()
		defer p.mu.Unlock()
		if err != nil {
			p.fault = err
		} else if probed > 0 {
			p.said.Probes = append(p.said.Probes, probe{probed, sent, accepted})
		}
	})
}
