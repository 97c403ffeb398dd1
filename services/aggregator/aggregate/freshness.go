package aggregate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"polyphony/pkg/bus"
	"polyphony/pkg/topology"
	"polyphony/pkg/warehouse"
)

const (
	// freshnessPeriod is how often the watermark is looked at: as fine as anybody reads it.
	freshnessPeriod = time.Second
	// idleFreshness is how often it is stored while nothing happens.
	idleFreshness = 30 * time.Second
)

// feeds are what changes metrics, each by its consumer: mentions; originals, which have edits take effect; statements and
// references.
var feeds = [...]topology.Consumer{topology.AggregateMentions, topology.AggregateFacts, topology.AggregateThreads}

// readers are all that the metrics come from: frames, and the feeds.
var readers = append([]topology.Consumer{topology.EnrichRaw}, feeds[:]...)

// sequences are one of each of the feeds.
type sequences [len(feeds)]uint64

// watermark is a claim in the making: all frames stored before until are enriched, and what follows from them lies in each
// of the feeds at or below its last.
type watermark struct {
	epoch uint32
	until time.Time
	last  sequences
}

// reached tells whether all that the mark stands for is stored, by what is acknowledged of the feeds.
func (m watermark) reached(floor sequences) bool {
	for i := range feeds {
		if floor[i] < m.last[i] {
			return false
		}
	}
	return true
}

// followFreshness stores until when the metrics are complete: what was answered 202 before that is readable, and has had
// its effect on what was there. It takes a mark of the enrichers' progress first, then of what is published by then, and
// claims the mark when all of that is stored. Under load that takes a flush or two; the claim is late, never wrong.
//
// A claim is stored with where the streams were, and noted in NATS as well. Where these do not go together, something
// acknowledged was lost: nothing is claimed until `polyphony replay` begins another epoch.
func (ag *Aggregator) followFreshness(ctx context.Context) error {
	var mark, claimed watermark
	ticker := time.NewTicker(freshnessPeriod)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		now, err := readProgress(ctx, ag.bus)
		if err != nil {
			ag.log.Debug("reading progress", "error", err)
			continue
		}
		next, floor := now.mark(mark.epoch), now.floor()
		if !mark.reached(floor) && mark.reached(next.last) {
			continue
		}
		news := mark.last != claimed.last && mark.until.After(claimed.until) || mark.until.Sub(claimed.until) > idleFreshness
		if !mark.until.IsZero() && mark.reached(next.last) && !news {
			mark = next
			continue
		}
		held, now, err := ag.checkClaims(ctx)
		if err != nil {
			ag.log.Debug("reading until when the metrics are complete", "error", err)
			continue
		}
		next = now.mark(held.epoch)
		if held.lost || held.epoch != mark.epoch || mark.until.IsZero() || !mark.reached(next.last) {
			mark, claimed = next, watermark{epoch: held.epoch, until: held.until}
			if held.lost { // looked at every time, so that it is noted before nothing shows it any more
				mark = watermark{epoch: held.epoch}
			}
			if held.bare { // from now on it is noticed when something is lost
				_ = ag.claim(ctx, claimed, now) // if it fails, another one comes
			}
			continue
		}
		// Once: what was lost while this waited for an engine is looked for before it is tried again.
		err = ag.claim(ctx, mark, now)
		stored, bug := ag.attempt("storing freshness", err)
		if bug != nil {
			return bug
		}
		if !stored {
			ag.log.Warn("storing freshness", "error", err)
			continue
		}
		mark, claimed = next, mark
	}
}

// progress is how far the readers of each stream are that the metrics come from.
type progress map[string]bus.Progress

// readProgress looks at frames first: what follows from those that are enriched by then is published.
func readProgress(ctx context.Context, b *bus.Bus) (progress, error) {
	now := progress{}
	for _, c := range readers {
		p, err := b.Progress(ctx, c)
		if err != nil {
			return nil, err
		}
		now[c.Stream.Name] = p
	}
	return now, nil
}

// mark is what is to be reached.
func (p progress) mark(epoch uint32) watermark {
	m := watermark{epoch: epoch, until: p[topology.Raw.Name].Until.Truncate(time.Millisecond)} // as it is stored
	for i, feed := range feeds {
		m.last[i] = p[feed.Stream.Name].Last
	}
	return m
}

func (p progress) floor() (floor sequences) {
	for i, feed := range feeds {
		floor[i] = p[feed.Stream.Name].Floor
	}
	return floor
}

// claim stores a mark that was reached, with where the streams are, in ClickHouse first: what NATS alone knows of was lost
// there.
func (ag *Aggregator) claim(ctx context.Context, m watermark, now progress) error {
	positions, err := now.positions()
	if err != nil {
		return err
	}
	if err := ag.store.PutFreshness(ctx, topology.Mentions.Name, warehouse.Freshness{
		Epoch: m.epoch, CompleteUntil: m.until, Sequence: m.last[0], Positions: positions}); err != nil {
		return err
	}
	note, err := json.Marshal(Complete{Epoch: m.epoch, Until: m.until})
	if err != nil {
		return fmt.Errorf("BUG: encoding a claim: %w", err)
	}
	return ag.bus.Put(ctx, topology.MarksBucket, topology.CompleteMark, note)
}

// Complete is the last claim as it is noted in NATS.
type Complete struct {
	Epoch uint32    `json:"epoch"`
	Until time.Time `json:"until"`
}

// Noted reads the last claim that is noted in NATS, a zero one where none is.
func Noted(ctx context.Context, b *bus.Bus) (c Complete, err error) {
	note, err := b.Get(ctx, topology.MarksBucket, topology.CompleteMark)
	if errors.Is(err, bus.ErrNoKey) {
		return c, nil
	}
	if err != nil {
		return c, fmt.Errorf("reading the claim noted in NATS: %w", err)
	}
	if json.Unmarshal(note, &c) != nil {
		return Complete{}, nil // somebody else wrote it; the next claim takes its place
	}
	return c, nil
}
