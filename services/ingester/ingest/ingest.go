// Package ingest accepts events over HTTP and stores them as raw frames in JetStream. It alone reads the clock: it
// judges lateness once and stamps each frame with its time and the rules version in force. It enriches nothing and
// keeps no state.
package ingest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/prometheus/client_golang/prometheus"

	"polyphony/pkg/bus"
	"polyphony/pkg/nodes"
	"polyphony/pkg/topology"
)

// Ingester is the service. Its Handler answers 503 until Run has published the rules.
type Ingester struct {
	bus     *bus.Bus
	log     *slog.Logger
	rules   atomic.Pointer[nodes.Rules] // in force: in the bucket before it is here
	adopts  sync.Mutex                  // held while that changes, or is put back
	tokens  *Tokens
	commits *committer
	budget  budget
	full    atomic.Int64            // since when the streams refuse, Unix ms, 0 while they do not
	failed  atomic.Pointer[failure] // why the last request was not stored, nil when it was
	metrics *metrics
}

// watchPeriod is how soon a change of the nodes directory is seen; looking costs a few microseconds.
const watchPeriod = time.Second

// New builds an ingester and starts nothing. tokens may be nil: then everybody may send everything.
func New(tokens *Tokens, b *bus.Bus, log *slog.Logger, registry prometheus.Registerer) *Ingester {
	m := newMetrics(registry)
	return &Ingester{bus: b, log: log, tokens: tokens, metrics: m, commits: newCommitter(b, log, m)}
}

// Run puts rules in force, follows the directory they came from (none when dir is empty), and commits what the
// handlers accept, until ctx ends. Then it refuses new requests and commits what it has.
func (in *Ingester) Run(ctx context.Context, rules *nodes.Rules, dir string) error {
	if in.bus.Prepare(ctx) != nil || in.insist(ctx, rules) != nil {
		return nil // ctx ended
	}
	if dir != "" {
		go nodes.Watch(ctx, dir, watchPeriod, func(changed *nodes.Rules) { in.follow(ctx, changed) }, func(err error) {
			in.metrics.rulesRefused.Inc()
			in.log.Error("the nodes directory is broken, the last good version stays in force", "error", err)
		})
	}
	go in.guard(ctx)
	in.commits.run(ctx, func() string { return in.rules.Load().Version() })
	return nil
}

// LastGood gives the rules in force to an ingester whose nodes directory is broken when it starts. Where none are, the error is broken,
// which says how to mend it; neither when ctx ends.
func (in *Ingester) LastGood(ctx context.Context, broken error) (rules *nodes.Rules, err error) {
	if in.bus.Prepare(ctx) != nil {
		return nil, nil
	}
	err = backoff.RetryNotify(func() error {
		version, err := in.bus.Get(ctx, topology.RulesBucket, topology.RulesCurrent)
		if errors.Is(err, bus.ErrNoKey) {
			return backoff.Permanent(broken)
		}
		if err != nil {
			return err
		}
		archive, err := in.bus.Get(ctx, topology.RulesBucket, topology.RulesKey(string(version)))
		if err != nil {
			return err
		}
		rules, err = nodes.OpenVersion(archive, string(version))
		return err
	}, backoff.WithContext(bus.Forever(), ctx), func(err error, wait time.Duration) {
		in.log.Warn("the nodes directory is broken, and the rules in force cannot be read", "broken", broken, "error", err, "wait", wait)
	})
	if ctx.Err() != nil {
		return nil, nil
	}
	return rules, err
}

// guardPeriod is how soon it is noticed that the rules in force are gone from where enrichers look for them.
const guardPeriod = 5 * time.Second

// guard puts the rules back that somebody removed: frames of theirs wait until they can be had.
func (in *Ingester) guard(ctx context.Context) {
	tick := time.NewTicker(guardPeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := in.look(ctx); err != nil && ctx.Err() == nil {
			in.log.Warn("looking after the rules in force", "error", err)
		}
	}
}

// look is one round of guard.
func (in *Ingester) look(ctx context.Context) error {
	in.adopts.Lock()
	defer in.adopts.Unlock()
	rules := in.rules.Load()
	announced, err := in.bus.Get(ctx, topology.RulesBucket, topology.RulesCurrent)
	switch {
	case err == nil && string(announced) == rules.Version():
		err = in.intact(ctx, rules)
	case err == nil: // another ingester's, or an older copy of the bucket
		err = in.bus.PutOnce(ctx, topology.RulesBucket, topology.RulesKey(rules.Version()), rules.Archive())
	}
	if errors.Is(err, bus.ErrNoKey) {
		in.log.Error("the rules in force were removed from NATS, they are put back", "version", rules.Version())
		err = in.adopt(ctx, rules)
	}
	return err
}

// follow puts a changed version in force: the watcher tells of a change once.
func (in *Ingester) follow(ctx context.Context, changed *nodes.Rules) {
	if changed.Version() == in.rules.Load().Version() {
		return // what Run began with
	}
	_ = in.insist(ctx, changed) // the only other end is that of the service
}

// insist adopts a version, trying for as long as that takes. It fails only when ctx ends.
func (in *Ingester) insist(ctx context.Context, rules *nodes.Rules) error {
	return backoff.RetryNotify(func() error {
		in.adopts.Lock()
		defer in.adopts.Unlock()
		return in.adopt(ctx, rules)
	}, backoff.WithContext(bus.Forever(), ctx),
		func(err error, wait time.Duration) {
			in.log.Warn("the rules are not in force yet", "version", rules.Version(), "error", err, "wait", wait)
		})
}

// adopt makes a version known to everybody, then puts it in force here: no frame names a version that cannot be had. adopts is held.
func (in *Ingester) adopt(ctx context.Context, rules *nodes.Rules) error {
	version := rules.Version()
	if err := in.bus.PutOnce(ctx, topology.RulesBucket, topology.RulesKey(version), rules.Archive()); err != nil {
		return fmt.Errorf("publishing rules %s: %w", version, err)
	}
	if err := in.intact(ctx, rules); err != nil {
		return err
	}
	// Announced once: when it was written is since when it is in force.
	if current, err := in.bus.Get(ctx, topology.RulesBucket, topology.RulesCurrent); err != nil || string(current) != version {
		if err := in.bus.Put(ctx, topology.RulesBucket, topology.RulesCurrent, []byte(version)); err != nil {
			return fmt.Errorf("announcing rules %s: %w", version, err)
		}
	}
	in.rules.Store(rules)
	in.log.Info("rules in force", "version", version)
	return nil
}

// intact puts a version right that somebody overwrote: it never changes.
func (in *Ingester) intact(ctx context.Context, rules *nodes.Rules) error {
	version := rules.Version()
	archive, err := in.bus.Get(ctx, topology.RulesBucket, topology.RulesKey(version))
	if err != nil || bytes.Equal(archive, rules.Archive()) {
		return err
	}
	if _, err := nodes.OpenVersion(archive, version); err == nil {
		return nil // another release packs it otherwise
	}
	in.log.Error("the rules in force were overwritten in NATS, they are put right", "version", version)
	return in.bus.Put(ctx, topology.RulesBucket, topology.RulesKey(version), rules.Archive())
}

// Ready says what is missing, nil when events can be taken.
func (in *Ingester) Ready() error {
	if err := in.bus.Ready(); err != nil {
		return err
	}
	if in.rules.Load() == nil {
		return errors.New("rules: not published yet")
	}
	if last := in.failed.Load(); last != nil && time.Since(last.at) < failureHolds {
		return fmt.Errorf("storing events: %w", last.why)
	}
	return nil
}

// failure is why a request was not stored, and when.
type failure struct {
	why error
	at  time.Time
}

// failureHolds is how long a failure speaks: who is asked for nothing meanwhile must not be left out for ever.
const failureHolds = 15 * time.Second

// Handler serves POST /v1/events.
func (in *Ingester) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/events", in.serve)
	return mux
}
