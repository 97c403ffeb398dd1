package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"log/slog"
	random "math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"polyphony/pkg/bus"
	"polyphony/pkg/embedded"
	"polyphony/pkg/social"
	"polyphony/pkg/topology"
	"polyphony/pkg/warehouse"
)

// bare is what the engines can do with the same bytes and rows when nothing else is done with them.
type bare struct {
	JetStream  bareRate `json:"jetstream"`
	ClickHouse bareRate `json:"clickhouse"`

	RateToJetStream  float64 `json:"end_to_end_to_jetstream"`
	RateToClickHouse float64 `json:"end_to_end_to_clickhouse"`
	CPUToBoth        float64 `json:"cpu_per_event_to_both"` // of polyphony and ClickHouse, to the sum of the two limits
}

type bareRate struct {
	PerSecond float64 `json:"events_per_second"`
	CPU       float64 `json:"cpu_us_per_event"`
}

// bareLimits measures both in processes of their own.
func (run *throughputRun) bareLimits(ctx context.Context, o options, dir, file string) error {
	say("the same messages through JetStream alone")
	cmd, err := workerCommand("nats", filepath.Join(dir, "nats"))
	if err != nil {
		return err
	}
	nats, err := start(ctx, "nats", dir, cmd)
	if err != nil {
		return err
	}
	var messages bareResult
	_, err = runWorker(ctx, &messages, "messages",
		nats.ready["nats"], strconv.Itoa(nats.cmd.Process.Pid), file, o.nodes, strconv.Itoa(o.events))
	nats.stop()
	if err != nil {
		return err
	}
	say("the same rows into ClickHouse alone")
	var rows bareResult
	if _, err := runWorker(ctx, &rows, "rows", filepath.Join(dir, "clickhouse"), file, o.nodes, strconv.Itoa(o.events)); err != nil {
		return err
	}
	if run.Inexact == "" {
		run.Inexact = rows.Inexact
	}
	b := &bare{JetStream: messages.rate(), ClickHouse: rows.rate()}
	b.RateToJetStream = run.PerSecond / b.JetStream.PerSecond
	b.RateToClickHouse = run.PerSecond / b.ClickHouse.PerSecond
	perEvent := 1e6 * (run.Processes[0].CPU + run.Processes[1].CPU) / float64(run.Events)
	b.CPUToBoth = perEvent / (b.JetStream.CPU + b.ClickHouse.CPU)
	run.Bare = b
	return nil
}

func (r bareResult) rate() bareRate {
	return bareRate{PerSecond: float64(r.Events) / r.Seconds, CPU: 1e6 * r.CPU / float64(r.Events)}
}

// inFlight is how many groups are published at once: those of the ingester.
const inFlight = 4

// messagesWorker publishes and consumes what the pipeline would: ADDR PID FILE NODES EVENTS.
func messagesWorker(ctx context.Context, args []string) error {
	pid, err1 := strconv.Atoi(args[1])
	events, err2 := strconv.Atoi(args[4])
	if err1 != nil || err2 != nil {
		return fmt.Errorf("arguments %q", args)
	}
	s, err := makeSample(args[2], args[3])
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	b, err := bus.Open(bus.Config{URL: "nats://" + args[0], Name: "bench", Storage: 64 << 30}, log)
	if err != nil {
		return err
	}
	defer b.Close()
	if err := b.Prepare(ctx); err != nil {
		return err
	}
	repeats := max(1, events/s.events)
	result, err := measured(func() ([]int, error) { return []int{pid}, nil }, repeats*s.events, func() error {
		return publishAndConsume(ctx, b, s, repeats)
	})
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}

// publishAndConsume returns when every message has been published and consumed.
func publishAndConsume(ctx context.Context, b *bus.Bus, s *sample, repeats int) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var missing atomic.Int64
	for _, group := range s.groups {
		missing.Add(int64(repeats * len(group)))
	}
	all := make(chan struct{})
	seen := func(_ context.Context, batch []bus.Delivery) error {
		if missing.Add(-int64(len(batch))) == 0 {
			close(all)
		}
		return nil
	}
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel(nil)
	consume := func(c topology.Consumer) {
		running.Go(func() {
			// A short wait, because the last messages wait for company that does not come.
			if err := b.Consume(ctx, c, bus.Limit{Bytes: 4 << 20, Messages: 1000, Wait: 20 * time.Millisecond}, seen); err != nil {
				cancel(err)
			}
		})
	}
	for range runtime.GOMAXPROCS(0) { // as many readers as the services have
		consume(topology.EnrichRaw)
	}
	consume(topology.AggregateMentions)
	consume(topology.AggregateFacts)
	groups := make(chan []bus.Message)
	for range inFlight {
		running.Go(func() {
			for group := range groups {
				if err := b.Publish(ctx, group); err != nil {
					cancel(err)
				}
			}
		})
	}
	for range repeats {
		for _, group := range s.groups {
			group = slices.Clone(group)
			for i := range group {
				if group[i].ID != "" {
					group[i].ID = rand.Text() // or else it would be a repeat
				}
			}
			groups <- group
		}
	}
	close(groups)
	select {
	case <-all:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// insertRows is how many rows one insert has, about what a flush of the aggregator holds under load.
const insertRows = 20_000

// rowsWorker inserts the rows that the pipeline would, into a ClickHouse of its own: DIR FILE NODES EVENTS.
func rowsWorker(ctx context.Context, args []string) error {
	events, err := strconv.Atoi(args[3])
	if err != nil {
		return err
	}
	s, err := makeSample(args[1], args[2])
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	engine, err := embedded.StartClickHouse(ctx, embedded.ClickHouseConfig{
		Dir: args[0], Addr: "127.0.0.1:0", HTTPAddr: "127.0.0.1:0", Log: log})
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), stopTime)
		defer cancel()
		_ = engine.Close(ctx)
	}()
	store, err := warehouse.Open(warehouse.Config{Addr: engine.Addr()})
	if err != nil {
		return err
	}
	defer store.Close()
	if err := store.Migrate(ctx, func(string) {}); err != nil {
		return err
	}
	repeats := max(1, events/s.events)
	result, err := measured(func() ([]int, error) { return descendants(os.Getpid()) }, repeats*s.events, func() error {
		return insertAll(ctx, store, s, repeats)
	})
	if err != nil {
		return err
	}
	text, err := fetch(ctx, http.MethodPost, "http://"+engine.HTTPAddr()+"/?database=polyphony", "SELECT count() FROM mentions")
	if err != nil {
		return err
	}
	if want := strconv.Itoa(repeats * len(s.mentions)); strings.TrimSpace(text) != want {
		result.Inexact = fmt.Sprintf("ClickHouse alone holds %s rows, want %s", strings.TrimSpace(text), want)
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}

// insertAll inserts mentions and originals beside each other, as the aggregator does, each time under new keys.
func insertAll(ctx context.Context, store *warehouse.Warehouse, s *sample, repeats int) error {
	originals := make(chan error, 1)
	go func() {
		originals <- insertRepeated(repeats, s.originals, func(o *social.Original) *social.Key { return &o.EventKey },
			func(rows []social.Original) error { return store.InsertOriginals(ctx, rows) })
	}()
	err := insertRepeated(repeats, s.mentions, func(m *social.Mention) *social.Key { return &m.EventKey },
		func(rows []social.Mention) error { return store.InsertMentions(ctx, rows) })
	if originalsErr := <-originals; err == nil {
		err = originalsErr
	}
	return err
}

func insertRepeated[Row any](repeats int, rows []Row, key func(*Row) *social.Key, insert func([]Row) error) error {
	for range repeats {
		flip := random.Uint64()
		for i := range rows {
			k := key(&rows[i])
			binary.BigEndian.PutUint64(k[:8], binary.BigEndian.Uint64(k[:8])^flip)
		}
		for chunk := range slices.Chunk(rows, insertRows) {
			if err := insert(chunk); err != nil {
				return err
			}
		}
	}
	return nil
}
