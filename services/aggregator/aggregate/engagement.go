package aggregate

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"polyphony/pkg/social"
	"polyphony/pkg/warehouse"
)

// engage makes the gains of events stand as the facts say: how their totals changed from one observation to the next, in
// every node where they are mentions, and that no share, reaction or view is counted beside a total of these, be they
// single events themselves or such events' posts. It is called after every new fact about one of the events, once that is
// stored, and looks again until nothing changes, as resolve does. Targets are what they refer to: of those nothing is new,
// and what else refers to them is not looked at.
func (r *resolver) engage(ctx context.Context, events, targets []social.Key) error {
	var changes []warehouse.DecidedGain
	for range maxRounds {
		e, err := r.engagement(ctx, events, targets)
		if err != nil {
			return err
		}
		if changes = e.changes(); len(changes) == 0 && r.again {
			return r.store.TouchGains(ctx, slices.Collect(maps.Keys(e.decided))) // whoever decided may not have come to that
		}
		if len(changes) == 0 {
			return nil
		}
		if err := r.store.InsertGains(ctx, changes); err != nil {
			return err
		}
	}
	return fmt.Errorf("gains of %d events did not settle in %d rounds: %s in %s and others", len(events), maxRounds, changes[0].EventKey, changes[0].Node)
}

// engagement gathers what is known about those of the events that have totals, and about the single events beside them.
func (r *resolver) engagement(ctx context.Context, events, targets []social.Key) (*engagement, error) {
	posts := social.Distinct(slices.Concat(events, targets))
	e := &engagement{asked: map[social.Key]bool{}}
	for _, post := range posts {
		e.asked[post] = true
	}
	told, err := r.store.Observations(ctx, posts)
	if err != nil {
		return nil, err
	}
	standing, err := r.store.Standing(ctx, posts)
	if err != nil {
		return nil, err
	}
	if e.observations = observations(told, standing); len(e.observations) == 0 {
		return e, nil
	}
	for i := range standing {
		if len(e.observations[standing[i].EventKey]) > 0 {
			e.standing = append(e.standing, standing[i])
		}
	}
	if e.shown, err = r.store.Shown(ctx, placesOf(e.standing, warehouse.TotalGain)); err != nil {
		return nil, err
	}
	_, from, err := r.store.Edges(ctx, events)
	if err != nil {
		return nil, err
	}
	near := slices.Clone(events)
	for _, edge := range from {
		near = append(near, edge.Event)
	}
	if e.near, err = r.store.Standing(ctx, social.Distinct(near)); err != nil {
		return nil, err
	}
	if e.singles, err = r.store.Singles(ctx, placesOf(e.near, warehouse.SingleGain)); err != nil {
		return nil, err
	}
	e.decided, err = r.store.Gains(ctx, e.places())
	return e, err
}

// placesOf are the places of mentions.
func placesOf(mentions []social.Mention, part warehouse.GainPart) []warehouse.GainPlace {
	places := make([]warehouse.GainPlace, len(mentions))
	for i := range mentions {
		m := &mentions[i]
		places[i] = warehouse.GainPlace{Node: m.Node, Time: m.Time.UnixMilli(), EventKey: m.EventKey, Part: part}
	}
	return places
}

// observations are those that were told and those that mentions ever carried, of each post in the order of time and of
// each time the greatest.
func observations(told map[social.Key][]social.Counters, standing []social.Mention) map[social.Key][]social.Counters {
	all := maps.Clone(told)
	for i := range standing {
		if m := &standing[i]; m.Counters != nil {
			all[m.EventKey] = append(all[m.EventKey], *m.Counters)
		}
	}
	for event, list := range all {
		slices.SortFunc(list, func(a, b social.Counters) int { return a.ObservedAt.Compare(b.ObservedAt) })
		kept := list[:0]
		for _, c := range list {
			if n := len(kept); n > 0 && kept[n-1].ObservedAt.Equal(c.ObservedAt) {
				was := &kept[n-1]
				was.Likes, was.Shares, was.Views = max(was.Likes, c.Likes), max(was.Shares, c.Shares), max(was.Views, c.Views)
				continue
			}
			kept = append(kept, c)
		}
		all[event] = kept
	}
	return all
}

// engagement is what totals make of the metrics of nodes. It is pure.
type engagement struct {
	asked        map[social.Key]bool                    // the posts
	observations map[social.Key][]social.Counters       // of posts, in the order of time
	shown        map[warehouse.GainPlace]warehouse.Gain // what counts of them without a gain
	standing     []social.Mention                       // where those posts ever were mentions
	near         []social.Mention                       // where events that may be single ones of those posts ever were mentions
	singles      []warehouse.Single                     // which of them count as single events
	decided      map[warehouse.GainPlace]warehouse.DecidedGain
}

// places are all in which a gain may stand.
func (e *engagement) places() []warehouse.GainPlace {
	all := map[warehouse.GainPlace]bool{}
	for i := range e.standing {
		m := &e.standing[i]
		for _, c := range e.observations[m.EventKey] {
			all[warehouse.GainPlace{Node: m.Node, Time: c.ObservedAt.UnixMilli(), EventKey: m.EventKey, Part: warehouse.TotalGain}] = true
		}
	}
	for i := range e.near {
		m := &e.near[i]
		all[warehouse.GainPlace{Node: m.Node, Time: m.Time.UnixMilli(), EventKey: m.EventKey, Part: warehouse.SingleGain}] = true
	}
	return slices.Collect(maps.Keys(all))
}

// wanted gives the gains, as far as mentions do not show them.
func (e *engagement) wanted() map[warehouse.GainPlace]warehouse.Gain {
	type stand struct {
		event social.Key
		node  social.Node
	}
	wanted, stands := map[warehouse.GainPlace]warehouse.Gain{}, map[stand]bool{}
	for i := range e.standing {
		m := &e.standing[i]
		if m.Retracted {
			continue
		}
		stands[stand{m.EventKey, m.Node}] = true
		var before warehouse.Gain
		for _, c := range e.observations[m.EventKey] {
			now := total(c, before)
			wanted[warehouse.GainPlace{Node: m.Node, Time: c.ObservedAt.UnixMilli(), EventKey: m.EventKey, Part: warehouse.TotalGain}] =
				warehouse.Gain{Shares: now.Shares - before.Shares, Reactions: now.Reactions - before.Reactions, Views: now.Views - before.Views}
			before = now
		}
	}
	for _, single := range e.singles {
		if single.Parent != single.EventKey && stands[stand{single.Parent, single.Node}] {
			wanted[single.GainPlace] = beside(single.Kind, e.observations[single.Parent])
		}
	}
	for place, shown := range e.shown {
		g := wanted[place]
		wanted[place] = warehouse.Gain{Shares: g.Shares - shown.Shares, Reactions: g.Reactions - shown.Reactions, Views: g.Views - shown.Views}
	}
	maps.DeleteFunc(wanted, func(_ warehouse.GainPlace, g warehouse.Gain) bool { return g == (warehouse.Gain{}) })
	return wanted
}

// total is what a post has as of an observation; what that does not tell stays as it was.
func total(c social.Counters, before warehouse.Gain) warehouse.Gain {
	for _, t := range [...]struct {
		told int64
		is   *int64
	}{{c.Shares, &before.Shares}, {c.Likes, &before.Reactions}, {c.Views, &before.Views}} {
		if t.told != social.Unreported {
			*t.is = t.told
		}
	}
	return before
}

// beside takes away the one that a single event would count, when its post ever had a total of its kind.
func beside(kind social.Kind, observations []social.Counters) (g warehouse.Gain) {
	for _, c := range observations {
		switch {
		case kind == social.Share && c.Shares != social.Unreported:
			g.Shares = -1
		case kind == social.Reaction && c.Likes != social.Unreported:
			g.Reactions = -1
		case kind == social.View && c.Views != social.Unreported:
			g.Views = -1
		}
	}
	return g
}

// changes are the decisions that differ from those that stand. A single event of a post that is not asked for is left to
// whoever asks for that.
func (e *engagement) changes() []warehouse.DecidedGain {
	elsewhere := map[warehouse.GainPlace]bool{}
	for _, single := range e.singles {
		elsewhere[single.GainPlace] = !e.asked[single.Parent]
	}
	wanted := e.wanted()
	var changes []warehouse.DecidedGain
	for _, place := range e.places() {
		gain, counts := wanted[place]
		was, known := e.decided[place]
		stood := known && !was.Gone
		if elsewhere[place] || counts == stood && gain == was.Gain || !counts && !stood {
			continue
		}
		change := warehouse.DecidedGain{GainPlace: place, Gain: gain, Gone: !counts}
		change.Version = change.After(was.Version)
		changes = append(changes, change)
	}
	return changes
}
