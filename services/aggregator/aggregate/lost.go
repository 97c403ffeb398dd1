package aggregate

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"polyphony/pkg/topology"
	"polyphony/pkg/warehouse"
)

// position is where a stream was when a claim was stored.
type position struct {
	Created time.Time `json:"created"`
	Floor   uint64    `json:"floor"`   // acknowledged
	Removed int       `json:"removed"` // messages removed from between others
}

func (p progress) positions() map[string]position {
	all := map[string]position{}
	for stream, at := range p {
		all[stream] = position{Created: at.Created, Floor: at.Floor, Removed: at.Removed}
	}
	return all
}

// holds is the claim that holds, and whether something is lost that it rests on.
type holds struct {
	epoch uint32
	until time.Time
	lost  bool
	bare  bool // at the beginning of an epoch: it does not say where the streams were
}

// checkClaims reads what is claimed, and says what was lost since, by where the streams are now. Claims go first: what is claimed
// meanwhile, by another aggregator or by a replay that sets the readers back, rests on what comes later. Of claims the one noted in
// NATS goes first: it is stored before it is noted.
func (ag *Aggregator) checkClaims(ctx context.Context) (holds, progress, error) {
	noted, err := Noted(ctx, ag.bus)
	if err != nil {
		return holds{}, nil, err
	}
	stored, err := ag.store.Freshness(ctx, topology.Mentions.Name)
	if err != nil {
		return holds{}, nil, err
	}
	now, err := ag.progress(ctx)
	if err != nil {
		return holds{}, nil, err
	}
	tidied := map[string]uint64{}
	for _, c := range append([]topology.Consumer{topology.EnrichRaw}, feeds[:]...) {
		if tidied[c.Stream.Name], err = ag.bus.Tidied(ctx, c.Stream, now[c.Stream.Name].Created); err != nil {
			return holds{}, nil, err
		}
	}
	held := holds{epoch: stored.Epoch, until: stored.CompleteUntil, bare: len(stored.Positions) == 0}
	losses := lost(stored, noted, now, tidied)
	ag.metrics.lost.Set(float64(len(losses)))
	for _, loss := range losses {
		held.lost, held.bare = true, false
		if why := loss.Error(); ag.said != why || time.Since(ag.saidAt) > sayAgain {
			ag.said, ag.saidAt = why, time.Now()
			ag.log.Error("something that was acknowledged is lost", "what", why, "complete_until", stored.CompleteUntil,
				"remedy", "polyphony replay --from "+stored.CompleteUntil.UTC().Format(time.RFC3339))
		}
	}
	return held, now, nil
}

// sayAgain is how often it is said that something is lost, until it is made good.
const sayAgain = 5 * time.Minute

// lost says what is missing of what a claim rested on: by the claim that ClickHouse holds, the last one noted in NATS, where
// the streams are now, and up to where our own janitors removed messages.
func lost(stored warehouse.Freshness, noted Complete, now progress, tidied map[string]uint64) (losses []error) {
	if noted.Epoch > stored.Epoch || noted.Epoch == stored.Epoch && noted.Until.After(stored.CompleteUntil) {
		losses = append(losses, fmt.Errorf("ClickHouse is older than it was: it was complete until %s and says %s",
			noted.Until.UTC().Format(time.RFC3339Nano), stored.CompleteUntil.UTC().Format(time.RFC3339Nano)))
	}
	var were map[string]position
	if json.Unmarshal(stored.Positions, &were) != nil {
		return losses // none are kept of the beginning of an epoch
	}
	for _, stream := range slices.Sorted(maps.Keys(were)) {
		was, is := were[stream], now[stream]
		switch {
		case !is.Created.Equal(was.Created):
			losses = append(losses, fmt.Errorf("stream %s was deleted and made anew at %s", stream, is.Created.UTC().Format(time.RFC3339)))
		case is.Last < was.Floor:
			losses = append(losses, fmt.Errorf("stream %s is older than it was: it ends at message %d, and %d was read", stream, is.Last, was.Floor))
		case is.First > max(was.Floor+1, tidied[stream]):
			losses = append(losses, fmt.Errorf("messages %d to %d of stream %s were removed before they were known to be read", was.Floor+1, is.First-1, stream))
		case is.Removed > was.Removed:
			losses = append(losses, fmt.Errorf("%d messages were removed from within stream %s", is.Removed-was.Removed, stream))
		}
	}
	return losses
}
