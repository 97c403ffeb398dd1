package aggregate

import (
	"context"
	"time"

	"polyphony/pkg/warehouse"
)

const (
	// sealPeriod is the pause after a round that left nothing stale.
	sealPeriod = time.Second
	// sealHours bounds one round, so that an insert never waits long behind it.
	sealHours = 5000
	// sealTime bounds one round's time.
	sealTime = 30 * time.Second
	// settlePeriod is how often we look whether ClickHouse started anew: until then sealed hours may lack what it lost.
	settlePeriod = time.Minute
)

// seal recomputes stale node-hours, the oldest first, round after round. Readers do not depend on it: what is stale
// they compute themselves.
func (ag *Aggregator) seal(ctx context.Context) error {
	var settled time.Time
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		if time.Since(settled) >= settlePeriod {
			if err := ag.insist(ctx, "making up for ClickHouse's last end", ag.store.Settle); err != nil {
				return err
			}
			settled = time.Now()
		}
		more, err := ag.sealRound(ctx)
		if err != nil {
			return err
		}
		if more {
			timer.Reset(0)
		} else {
			timer.Reset(sealPeriod)
		}
	}
}

func (ag *Aggregator) sealRound(ctx context.Context) (more bool, err error) {
	err = ag.insist(ctx, "sealing node-hours", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, sealTime)
		defer cancel()
		sealed, left, err := ag.store.Seal(ctx, warehouse.SealOptions{Max: sealHours})
		ag.metrics.sealed.Add(float64(sealed))
		more = left
		return err
	})
	return more, err
}
