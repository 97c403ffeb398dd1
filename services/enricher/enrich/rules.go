package enrich

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v4"

	"polyphony/pkg/bus"
	"polyphony/pkg/nodes"
	"polyphony/pkg/topology"
)

// ruleBook reads rules versions from the bucket, each once. Versions are immutable, so there is nothing to refresh.
type ruleBook struct {
	bus *bus.Bus
	log *slog.Logger

	mu       sync.Mutex
	versions map[string]*nodes.Rules
	raw      atomic.Int64 // retention of raw frames by the version read last, in ns; 0 before the first
}

// keepRaw is how long frames stay after they were read.
func (b *ruleBook) keepRaw() time.Duration {
	if keep := time.Duration(b.raw.Load()); keep > 0 {
		return keep
	}
	return topology.Keep
}

// keptVersions bounds the rules in memory; frames in flight name the newest two or three.
const keptVersions = 8

// matcher gives the worker's own matcher for a version.
func (w *worker) matcher(ctx context.Context, version string) (*matcher, error) {
	if m, ok := w.matchers[version]; ok {
		return m, nil
	}
	w.hand.Rest()
	w.trying.Pause(ctx) // what waits for rules is not to blame, nor what they say
	rules, err := w.rules.get(ctx, version, w.waits)
	w.waits(nil)
	if err != nil {
		return nil, err
	}
	if len(w.matchers) >= keptVersions {
		clear(w.matchers)
	}
	m := newMatcher(rules, version)
	w.matchers[version] = m
	return m, w.trying.Resume(ctx)
}

func newMatcher(rules *nodes.Rules, version string) *matcher {
	company := rules.Company()
	return &matcher{Matcher: rules.Matcher(), version: version, origin: "/polyphony/" + company.ID, threadWait: company.ThreadWait, sources: company.Sources,
		keepText: company.Privacy.Retain.Text}
}

// get reads a version, waiting for it for as long as it takes, while others go on that need another: to go on with
// another would make a repeat differ. waits is told why.
func (b *ruleBook) get(ctx context.Context, version string, waits func(error)) (*nodes.Rules, error) {
	if rules := b.known(version); rules != nil {
		return rules, nil
	}
	rules, err := backoff.RetryNotifyWithData(func() (*nodes.Rules, error) {
		archive, err := b.bus.Get(ctx, topology.RulesBucket, topology.RulesKey(version))
		if err != nil {
			return nil, err
		}
		return nodes.OpenVersion(archive, version)
	}, backoff.WithContext(bus.Forever(), ctx), func(err error, wait time.Duration) {
		waits(fmt.Errorf("rules %s: %w", version, err))
		if errors.Is(err, bus.ErrNoKey) {
			b.log.Error("frames wait for a rules version that is not in the bucket; start an ingester with that nodes directory, "+
				"or restore the bucket", "version", version, "bucket", topology.RulesBucket)
			return
		}
		b.log.Warn("reading rules; where somebody overwrote them, an ingester with that nodes directory puts them back", "version", version, "error", err, "wait", wait)
	})
	if err != nil {
		return nil, fmt.Errorf("reading rules %s: %w", version, err)
	}
	b.keep(version, rules)
	return rules, nil
}

func (b *ruleBook) known(version string) *nodes.Rules {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.versions[version]
}

func (b *ruleBook) keep(version string, rules *nodes.Rules) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.versions == nil || len(b.versions) >= keptVersions {
		b.versions = map[string]*nodes.Rules{}
	}
	b.versions[version] = rules
	b.raw.Store(int64(rules.Company().Privacy.Retain.Raw))
}
