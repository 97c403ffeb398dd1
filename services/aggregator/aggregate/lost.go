package aggregate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"polyphony/pkg/bus"
	"polyphony/pkg/topology"
	"polyphony/pkg/warehouse"
)

// position is where a stream was when a claim was stored.
type position struct {
	Created time.Time `json:"created"`
	Floor   uint64    `json:"floor"`   // acknowledged
	Removed int       `json:"removed"` // messages removed from between others
}

// Positions says where the streams are, as it is stored with a claim: what is lost from then on is noticed.
func Positions(ctx context.Context, b *bus.Bus) ([]byte, error) {
	now, err := readProgress(ctx, b)
	if err != nil {
		return nil, err
	}
	return now.positions()
}

func (p progress) positions() ([]byte, error) {
	all := map[string]position{}
	for stream, at := range p {
		all[stream] = position{Created: at.Created, Floor: at.Floor, Removed: at.Removed}
	}
	encoded, err := json.Marshal(all)
	if err != nil {
		return nil, fmt.Errorf("BUG: encoding positions: %w", err)
	}
	return encoded, nil
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
	now, err := readProgress(ctx, ag.bus)
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
	if len(losses) > 0 {
		held.lost, held.bare = true, false
		if why := errors.Join(losses...).Error(); ag.said != why || time.Since(ag.saidAt) > sayAgain {
			ag.said, ag.saidAt = why, time.Now()
			ag.log.Error("something that was acknowledged is lost", "what", why, "complete_until", stored.CompleteUntil,
				"remedy", "polyphony replay --from "+stored.CompleteUntil.UTC().Format(time.RFC3339),
				"besides", "what RAW lost before it was read its sources must send again")
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
	if json.Unmarshal(stored.Positions, &were) != nil && stored.Epoch > 0 {
		return losses // none are kept of the beginning of an epoch by releases before the second
	}
	if len(were) == 0 { // nothing was claimed ever: of streams as they were made
		were = map[string]position{}
		for stream, is := range now {
			were[stream] = position{Created: is.Created}
		}
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
