package aggregate

import (
	"context"
	"time"

	"polyphony/pkg/topology"
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

// sequences are one of each of the feeds.
type sequences [len(feeds)]uint64

// watermark is a claim in the making: all frames stored before until are enriched, and what follows from them lies in each
// of the feeds at or below its last.
type watermark struct {
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
		next, floor, err := ag.progress(ctx)
		if err != nil {
			ag.log.Debug("reading progress", "error", err)
			continue
		}
		if !mark.reached(floor) {
			continue
		}
		if mark.last != claimed.last && mark.until.After(claimed.until) || mark.until.Sub(claimed.until) > idleFreshness {
			if err := ag.insist(ctx, "storing freshness", func(ctx context.Context) error {
				return ag.store.PutFreshness(ctx, topology.Mentions.Name, mark.until, mark.last[0])
			}); err != nil {
				return err
			}
			claimed = mark
		}
		mark = next
	}
}

// progress gives a mark to be reached, and how far the feeds are. Frames come first: what follows from those that are
// enriched by then is published.
func (ag *Aggregator) progress(ctx context.Context) (mark watermark, floor sequences, err error) {
	frames, err := ag.bus.Progress(ctx, topology.EnrichRaw)
	if err != nil {
		return mark, floor, err
	}
	mark.until = frames.Until
	for i, feed := range feeds {
		progress, err := ag.bus.Progress(ctx, feed)
		if err != nil {
			return mark, floor, err
		}
		mark.last[i], floor[i] = progress.Last, progress.Floor
	}
	return mark, floor, nil
}
