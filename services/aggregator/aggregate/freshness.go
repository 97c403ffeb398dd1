package aggregate

import (
	"context"
	"time"

	"polyphony/pkg/bus"
	"polyphony/pkg/topology"
)

const (
	// freshnessPeriod is how often the watermark is looked at: as fine as anybody reads it.
	freshnessPeriod = time.Second
	// idleFreshness is how often it is stored while nothing happens.
	idleFreshness = 30 * time.Second
)

// watermark is a claim in the making: all frames stored before until are enriched, and what follows from them lies in
// MENTIONS at or below sequence.
type watermark struct {
	until    time.Time
	sequence uint64
}

// followFreshness stores until when the metrics are complete: what was answered 202 before that is readable. It takes a mark
// of the enrichers' progress first, then of the mentions published by then, and claims the mark when all of those are
// stored. Under load that takes a flush or two; the claim is late, never wrong.
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
		mentions, err := ag.bus.Progress(ctx, topology.AggregateMentions)
		if err != nil {
			ag.log.Debug("reading progress", "error", err)
			continue
		}
		if mentions.Floor < mark.sequence {
			continue
		}
		if mark.sequence > claimed.sequence && mark.until.After(claimed.until) || mark.until.Sub(claimed.until) > idleFreshness {
			if err := ag.insist(ctx, "storing freshness", func(ctx context.Context) error {
				return ag.store.PutFreshness(ctx, topology.Mentions.Name, mark.until, mark.sequence)
			}); err != nil {
				return err
			}
			claimed = mark
		}
		if mark, err = ag.mark(ctx); err != nil {
			ag.log.Debug("reading progress", "error", err)
		}
	}
}

func (ag *Aggregator) mark(ctx context.Context) (watermark, error) {
	frames, err := ag.bus.Progress(ctx, topology.EnrichRaw)
	if err != nil {
		return watermark{}, err
	}
	var mentions bus.Progress
	if mentions, err = ag.bus.Progress(ctx, topology.AggregateMentions); err != nil {
		return watermark{}, err
	}
	return watermark{until: frames.Until, sequence: mentions.Last}, nil
}
