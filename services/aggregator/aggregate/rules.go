package aggregate

import (
	"context"
	"errors"
	"strings"
	"time"

	"polyphony/pkg/nodes"
	"polyphony/pkg/topology"
	"polyphony/pkg/warehouse"
)

// freezePeriod is how often hours are frozen that have reached their age; where any of them is stale, that is soon mended.
const freezePeriod = 10 * time.Minute

// announcement is a rules version that came in force.
type announcement struct {
	version string
	since   time.Time
}

// followRules stores each rules version that comes in force: which nodes there are and on whose clock their days run,
// what the version said, how long things are kept. Hours whose mentions are due to go are frozen: their sealed metrics
// outlive their facts.
func (ag *Aggregator) followRules(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	announced, failed := make(chan announcement), make(chan error, 1)
	go func() {
		failed <- ag.bus.Watch(ctx, topology.RulesBucket, topology.RulesCurrent, func(version []byte, since time.Time) {
			select {
			case announced <- announcement{string(version), since}:
			case <-ctx.Done():
			}
		})
	}()
	rounds := time.NewTicker(freezePeriod)
	defer rounds.Stop()
	var current announcement
	for {
		select {
		case err := <-failed:
			return err
		case current = <-announced:
		case <-rounds.C: // more hours have reached their age
			if current.version == "" {
				continue
			}
		}
		if err := ag.storeRules(ctx, current); err != nil {
			return err
		}
		if err := ag.storeMissed(ctx); err != nil {
			return err
		}
	}
}

func (ag *Aggregator) storeRules(ctx context.Context, a announcement) error {
	var rules *nodes.Rules
	err := ag.insist(ctx, "reading rules", func(ctx context.Context) error {
		archive, err := ag.bus.Get(ctx, topology.RulesBucket, topology.RulesKey(a.version))
		if err == nil {
			rules, err = nodes.Open(archive) // of what somebody overwrote, until an ingester has put it back
		}
		return err
	})
	if err != nil {
		return err
	}
	origin := "/polyphony/" + rules.Company().ID
	ag.origin.Store(&origin)
	ag.raw.Store(int64(rules.Company().Privacy.Retain.Raw))
	err = ag.insist(ctx, "storing rules", func(ctx context.Context) error { return ag.store.PutRules(ctx, describe(rules, a.since)) })
	if err != nil {
		return err
	}
	keep := rules.Company().Privacy.Retain
	return ag.insist(ctx, "setting the retention", func(ctx context.Context) error {
		err := ag.store.SetRetention(ctx, warehouse.Retention{Text: keep.Text, Mentions: keep.Mentions, Metrics: keep.Metrics})
		if errors.Is(err, warehouse.ErrStale) {
			ag.log.Warn("the retention of mentions waits for sealing", "error", err, "next", freezePeriod)
			return nil
		}
		return err
	})
}

// storeMissed stores what versions said that were in force only while no aggregator looked: mentions may name them.
func (ag *Aggregator) storeMissed(ctx context.Context) error {
	return ag.insist(ctx, "storing rules", func(ctx context.Context) error {
		known, err := ag.store.KnownRules(ctx)
		if err != nil {
			return err
		}
		keys, err := ag.bus.Keys(ctx, topology.RulesBucket, topology.RulesKey(""))
		if err != nil {
			return err
		}
		for _, key := range keys {
			if known[strings.TrimPrefix(key, topology.RulesKey(""))] {
				continue
			}
			archive, since, err := ag.bus.Written(ctx, topology.RulesBucket, key)
			if err != nil {
				return err
			}
			rules, err := nodes.Open(archive)
			if err != nil {
				ag.log.Error("rules cannot be read, somebody else wrote them", "key", key, "error", err)
				continue
			}
			if err := ag.store.PutVersion(ctx, describe(rules, since)); err != nil {
				return err
			}
		}
		return nil
	})
}

// describe puts rules into the rows that analysts see.
func describe(rules *nodes.Rules, since time.Time) warehouse.Rules {
	out := warehouse.Rules{Version: rules.Version(), RecordedTime: since, Document: rules.Document()}
	for _, n := range rules.Nodes() {
		out.Nodes = append(out.Nodes, warehouse.Node{
			Division: n.Node.Division, Territory: n.Node.Territory, DivisionTitle: n.DivisionTitle, TerritoryTitle: n.TerritoryTitle,
			Timezone: n.Location.String(), BusinessUnits: n.BusinessUnits,
		})
	}
	for _, t := range rules.Territories() {
		out.Territories = append(out.Territories, warehouse.Territory{Name: t.ID, Timezone: t.Location.String()})
	}
	return out
}
