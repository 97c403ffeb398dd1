// Package aggregate turns mentions and facts into rows of ClickHouse, and stale node-hours into sealed metrics. It
// counts nothing itself: metrics are recomputed from the facts, so a batch that comes twice changes nothing.
package aggregate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"polyphony/pkg/bus"
	"polyphony/pkg/topology"
	"polyphony/pkg/warehouse"
	"polyphony/pkg/watchdog"
)

const (
	// flushWait is how long the first mention of a flush waits for others: readers are at most about this far behind,
	// and ClickHouse gets a few inserts a second, not hundreds.
	flushWait = 500 * time.Millisecond
	// flushBytes of public messages are about 11,000 mentions: rows enough for a good insert, and memory that a small
	// machine has.
	flushBytes = 16 << 20
	// flushMessages is half a second of several hundred quiet nodes.
	flushMessages = 8192
	// factsBytes of sealed originals are some 60,000: each insert makes a part that must be merged later, and an insert
	// of a third of the rows costs ClickHouse twice as much a row.
	factsBytes = 12 << 20
	// factsFrames bounds what very compressible frames unpack to, at most 1.5 MiB each.
	factsFrames = 64
	// threadsBytes of compressed frames are some ten thousand references and statements.
	threadsBytes = 2 << 20
	// rejectsBytes: rejects are few, and stored without their bytes.
	rejectsBytes = 4 << 20
	// factsWait: nobody waits for originals and statements as they do for metrics.
	factsWait = 3 * time.Second
	// longest is how long a message may take to be read, of which the largest is in some ms.
	longest = 10 * time.Second
)

// Aggregator is the service.
type Aggregator struct {
	bus     *bus.Bus
	store   *warehouse.Warehouse
	log     *slog.Logger
	metrics *metrics
	waiting sync.Map               // by what is being done: why it must wait
	origin  atomic.Pointer[string] // CloudEvents source of all mentions, nil before the first rules
	said    int                    // how many losses, by followFreshness alone
	saidAt  time.Time
	raw     atomic.Int64 // retention of raw data by the rules in force, in ns; 0 before the first
}

// New builds an aggregator and starts nothing.
func New(b *bus.Bus, store *warehouse.Warehouse, log *slog.Logger, registry prometheus.Registerer) *Aggregator {
	ag := &Aggregator{bus: b, store: store, log: log, metrics: newMetrics(registry)}
	ag.waiting.Store(preparing, errors.New("not yet"))
	return ag
}

const preparing = "preparing the tables"

// Run brings the schema up to date, then stores and seals until ctx ends. It returns an error for a bug, and for a
// ClickHouse that only its operator can mend.
func (ag *Aggregator) Run(ctx context.Context) error {
	if err := ag.bus.Prepare(ctx); err != nil {
		return nil // ctx ended
	}
	err := ag.insist(ctx, preparing, func(ctx context.Context) error {
		return ag.store.Migrate(ctx, func(line string) { ag.log.Info(line) })
	})
	if err != nil {
		return err
	}
	running, ctx := errgroup.WithContext(ctx)
	start := func(what string, run func(context.Context) error) {
		running.Go(func() error {
			if err := run(ctx); err != nil && !errors.Is(err, context.Canceled) {
				return fmt.Errorf("%s: %w", what, err)
			}
			return nil
		})
	}
	store := func(what string, from topology.Consumer, limit bus.Limit, handle func(*flush, context.Context, []bus.Delivery) error) {
		f := &flush{Aggregator: ag, of: what}
		start("watching", func(ctx context.Context) error {
			f.hand.Watch(ctx, longest, func() { watchdog.End("reading a message", longest) })
			return nil
		})
		start("storing "+what, func(ctx context.Context) error {
			return ag.bus.Consume(ctx, from, limit, f.guarded(func(ctx context.Context, batch []bus.Delivery) error { return handle(f, ctx, batch) }))
		})
	}
	// One flow of each: a second would double the memory for little.
	store("mentions", topology.AggregateMentions, bus.Limit{Bytes: flushBytes, Messages: flushMessages, Wait: flushWait}, (*flush).mentions)
	store("facts", topology.AggregateFacts, bus.Limit{Bytes: factsBytes, Messages: factsFrames, Wait: factsWait}, (*flush).facts)
	store("threads", topology.AggregateThreads, bus.Limit{Bytes: threadsBytes, Messages: factsFrames, Wait: flushWait}, (*flush).threads)
	store("rejects", topology.AggregateRejects, bus.Limit{Bytes: rejectsBytes, Messages: factsFrames, Wait: factsWait}, (*flush).rejects)
	start("storing rules", ag.followRules)
	start("sealing", ag.seal)
	start("storing freshness", ag.followFreshness)
	start("forgetting", ag.forget)
	start("tidying streams", func(ctx context.Context) error {
		return ag.bus.Janitor(ctx, func() time.Duration { return topology.Keep }, ag.metrics.fill, topology.AggregateMentions)
	})
	start("tidying internal streams", func(ctx context.Context) error {
		return ag.bus.Janitor(ctx, ag.keepRaw, ag.metrics.fill, topology.AggregateFacts, topology.AggregateThreads, topology.AggregateRejects)
	})
	return running.Wait()
}

// Ready says what is missing, nil when rows can be stored.
func (ag *Aggregator) Ready() error {
	var waits error
	ag.waiting.Range(func(what, why any) bool {
		waits = fmt.Errorf("%s: %w", what, why.(error))
		return false
	})
	return errors.Join(waits, ag.bus.Ready())
}

// keepRaw is how long rejects and facts stay in their streams after they were read.
func (ag *Aggregator) keepRaw() time.Duration {
	if keep := time.Duration(ag.raw.Load()); keep > 0 {
		return keep
	}
	return topology.Keep
}

// insist repeats what ClickHouse or NATS could not do yet, for as long as it takes. All of it may be repeated whole.
func (ag *Aggregator) insist(ctx context.Context, what string, do func(context.Context) error) error {
	return backoff.RetryNotify(func() error {
		waits := do(ctx)
		done, err := ag.attempt(what, waits)
		if err != nil {
			return backoff.Permanent(err)
		}
		if done {
			return nil
		}
		return waits
	}, backoff.WithContext(bus.Forever(), ctx), func(err error, wait time.Duration) {
		ag.log.Warn("trying again", "doing", what, "error", err, "wait", wait)
	})
}

// attempt tells by what came of something whether it is done. When it is not, Ready says why until it is; an error is what waiting
// does not mend.
func (ag *Aggregator) attempt(what string, err error) (done bool, _ error) {
	switch {
	case err == nil:
		ag.waiting.Delete(what)
		return true, nil
	case errors.Is(err, warehouse.ErrUnfit):
		return false, err
	case !warehouse.Retry(err):
		return false, fmt.Errorf("BUG: %s: %w", what, err)
	}
	ag.waiting.Store(what, err)
	ag.metrics.retries.Inc()
	return false, nil
}
