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
	Last    uint64    `json:"last"`    // the last message
	LastAt  time.Time `json:"last_at"` // when that was stored
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
		all[stream] = position{Created: at.Created, Floor: at.Floor, Last: at.Last, LastAt: at.LastAt, Removed: at.Removed}
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
	were := positionsOf(stored, now)
	tidied, stand := map[string]uint64{}, map[string]time.Time{}
	for _, c := range readers {
		stream := c.Stream.Name
		if tidied[stream], err = ag.bus.Tidied(ctx, c.Stream, now[stream].Created); err != nil {
			return holds{}, nil, err
		}
		if stand[stream], err = ag.bus.StoredAt(ctx, c.Stream, were[stream].Last); err != nil && !errors.Is(err, bus.ErrGone) {
			return holds{}, nil, err
		}
	}
	held := holds{epoch: stored.Epoch, until: stored.CompleteUntil, bare: len(stored.Positions) == 0}
	losses := lost(stored, noted, were, now, tidied, stand)
	if losses, err = ag.remembered(ctx, stored.Epoch, losses); err != nil {
		return holds{}, nil, err
	}
	ag.metrics.lost.Set(float64(len(losses)))
	if len(losses) > 0 {
		held.lost, held.bare = true, false
		if len(losses) != ag.said || time.Since(ag.saidAt) > sayAgain {
			ag.said, ag.saidAt = len(losses), time.Now()
			ag.log.Error("something that was acknowledged is lost", "what", errors.Join(losses...), "complete_until", stored.CompleteUntil,
				"remedy", "polyphony replay --from "+stored.CompleteUntil.UTC().Format(time.RFC3339),
				"besides", "what RAW lost before it was read its sources must send again")
		}
	} else {
		ag.said = 0
	}
	return held, now, nil
}

// loss is what was lost, as it is noted in NATS.
type loss struct {
	Epoch uint32   `json:"epoch"`
	What  []string `json:"what"`
}

// remembered notes what is lost when it is seen for the second time, and when it is more than was noted, and gives what was noted in
// this epoch where nothing shows it any more: streams grow, and are tidied.
func (ag *Aggregator) remembered(ctx context.Context, epoch uint32, losses []error) ([]error, error) {
	var known loss
	note, err := ag.bus.Get(ctx, topology.MarksBucket, topology.LossMark)
	if err != nil && !errors.Is(err, bus.ErrNoKey) {
		return nil, fmt.Errorf("reading what was lost: %w", err)
	}
	noted := 0
	if json.Unmarshal(note, &known) == nil && known.Epoch == epoch {
		noted = len(known.What)
	}
	switch {
	case noted > 0 && len(losses) == 0:
		for _, what := range known.What {
			losses = append(losses, errors.New(what))
		}
	case len(losses) > noted && ag.said > 0:
		known = loss{Epoch: epoch}
		for _, l := range losses {
			known.What = append(known.What, l.Error())
		}
		if note, err = json.Marshal(known); err != nil {
			return nil, fmt.Errorf("BUG: encoding what was lost: %w", err)
		}
		if err := ag.bus.Put(ctx, topology.MarksBucket, topology.LossMark, note); err != nil {
			return nil, fmt.Errorf("noting what was lost: %w", err)
		}
	}
	return losses, nil
}

// sayAgain is how often it is said that something is lost, until it is made good.
const sayAgain = 5 * time.Minute

// positionsOf says where the streams were when a claim was stored. Where nothing was claimed ever, that is streams as they were made;
// of the beginning of an epoch nothing is known by releases before the second.
func positionsOf(claim warehouse.Freshness, now progress) map[string]position {
	were := map[string]position{}
	if json.Unmarshal(claim.Positions, &were) != nil && claim.Epoch > 0 {
		return nil
	}
	if len(were) == 0 {
		were = map[string]position{}
		for stream, is := range now {
			were[stream] = position{Created: is.Created}
		}
	}
	return were
}

// lost says what is missing of what a claim rested on: by the claim that ClickHouse holds, the last one noted in NATS, where the streams
// were and are now, up to where our own janitors removed messages, and when the messages were stored that stand where the last ones
// were: a stream that lost its end may be longer by now than it was.
func lost(stored warehouse.Freshness, noted Complete, were map[string]position, now progress, tidied map[string]uint64, stand map[string]time.Time) (losses []error) {
	if noted.Epoch > stored.Epoch || noted.Epoch == stored.Epoch && noted.Until.After(stored.CompleteUntil) {
		losses = append(losses, fmt.Errorf("ClickHouse is older than it was: it was complete until %s and says %s",
			noted.Until.UTC().Format(time.RFC3339Nano), stored.CompleteUntil.UTC().Format(time.RFC3339Nano)))
	}
	for _, stream := range slices.Sorted(maps.Keys(were)) {
		was, is := were[stream], now[stream]
		switch {
		case !is.Created.Equal(was.Created):
			losses = append(losses, fmt.Errorf("stream %s was deleted and made anew at %s", stream, is.Created.UTC().Format(time.RFC3339)))
		case is.Last < max(was.Floor, was.Last):
			losses = append(losses, fmt.Errorf("stream %s is older than it was: it ends at message %d, and had %d", stream, is.Last, max(was.Floor, was.Last)))
		case !stand[stream].IsZero() && !stand[stream].Equal(was.LastAt):
			losses = append(losses, fmt.Errorf("stream %s is older than it was: message %d is another than it was", stream, was.Last))
		case is.First > max(was.Floor+1, tidied[stream]):
			losses = append(losses, fmt.Errorf("messages %d to %d of stream %s were removed before they were known to be read", was.Floor+1, is.First-1, stream))
		case is.Removed > was.Removed:
			losses = append(losses, fmt.Errorf("%d messages were removed from within stream %s", is.Removed-was.Removed, stream))
		}
	}
	return losses
}
