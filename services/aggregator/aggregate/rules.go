package aggregate

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"polyphony/pkg/bus"
	"polyphony/pkg/nodes"
	"polyphony/pkg/topology"
	"polyphony/pkg/warehouse"
)

// freezePeriod is how often hours are frozen that have reached their age; where any of them is stale, that is soon mended.
const freezePeriod = 10 * time.Minute

// rulesPeriod is how soon it is noticed that other rules came in force. Asked for, not told of: who is told hears nothing any more of a
// bucket that was made anew.
const rulesPeriod = time.Second

// followRules stores each rules version that comes in force: which nodes there are and on whose clock their days run,
// what the version said, how long things are kept. Hours whose mentions are due to go are frozen: their sealed metrics
// outlive their facts. Of a version that cannot be read yet it waits for the next one as well.
func (ag *Aggregator) followRules(ctx context.Context) error {
	var stored string
	var storedAt time.Time
	pace := bus.Forever()
	for wait := time.Duration(0); ; {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		version, since, err := ag.bus.Written(ctx, topology.RulesBucket, topology.RulesCurrent)
		isNew := string(version) != stored || time.Since(storedAt) > freezePeriod // or more hours have reached their age
		if err == nil && isNew {
			err = ag.storeRules(ctx, string(version), since)
		}
		if errors.Is(err, bus.ErrNoKey) && version == nil { // no ingester was here yet
			err, isNew = nil, false
		}
		done, bug := ag.attempt("storing rules", err)
		if bug != nil {
			return bug
		}
		if !done {
			wait = pace.NextBackOff()
			ag.log.Warn("trying again", "doing", "storing rules", "error", err, "wait", wait)
			continue
		}
		if isNew {
			stored, storedAt = string(version), time.Now()
		}
		pace.Reset()
		wait = rulesPeriod
	}
}

// storeRules stores what a version says that is in force since a time, and what those said that were in between.
func (ag *Aggregator) storeRules(ctx context.Context, version string, since time.Time) error {
	archive, err := ag.bus.Get(ctx, topology.RulesBucket, topology.RulesKey(version))
	if err != nil {
		return err
	}
	rules, err := nodes.OpenVersion(archive, version) // which an ingester puts back when somebody overwrote it
	if err != nil {
		return fmt.Errorf("reading rules %s: %w", version, err)
	}
	origin := "/polyphony/" + rules.Company().ID
	ag.origin.Store(&origin)
	ag.raw.Store(int64(rules.Company().Privacy.Retain.Raw))
	if err := ag.store.PutRules(ctx, describe(rules, since)); err != nil {
		return err
	}
	keep := rules.Company().Privacy.Retain
	err = ag.store.SetRetention(ctx, warehouse.Retention{Text: keep.Text, Mentions: keep.Mentions, Metrics: keep.Metrics})
	if errors.Is(err, warehouse.ErrStale) {
		ag.log.Warn("the retention of mentions waits for sealing", "error", err, "next", freezePeriod)
		err = nil
	}
	if err != nil {
		return err
	}
	return ag.storeMissed(ctx)
}

// storeMissed stores what versions said that were in force only while no aggregator looked: mentions may name them.
func (ag *Aggregator) storeMissed(ctx context.Context) error {
	known, err := ag.store.KnownRules(ctx)
	if err != nil {
		return err
	}
	keys, err := ag.bus.Keys(ctx, topology.RulesBucket, topology.RulesKey(""))
	if err != nil {
		return err
	}
	for _, key := range keys {
		version := strings.TrimPrefix(key, topology.RulesKey(""))
		if known[version] {
			continue
		}
		archive, since, err := ag.bus.Written(ctx, topology.RulesBucket, key)
		if err != nil {
			return err
		}
		rules, err := nodes.OpenVersion(archive, version)
		if err != nil {
			ag.log.Error("rules cannot be read, somebody else wrote them", "key", key, "error", err)
			continue
		}
		if err := ag.store.PutVersion(ctx, describe(rules, since)); err != nil {
			return err
		}
	}
	return nil
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
