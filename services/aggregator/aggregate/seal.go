package aggregate

import (
	"context"
	"time"

	"polyphony/pkg/topology"
	"polyphony/pkg/warehouse"
)

const (
	// sealPeriod is the pause after a round that left nothing stale.
	sealPeriod = time.Second
	// sealHours bounds one round, so that an insert never waits long behind it.
	sealHours = 5000
	// sealTime bounds one round's time.
	sealTime = 30 * time.Second
)

// seal recomputes stale node-hours, the oldest first, round after round. Readers do not depend on it: what is stale
// they compute themselves. Touching everything that streams may still redeliver makes up for whatever an unclean end
// left without its touch.
func (ag *Aggregator) seal(ctx context.Context) error {
	err := ag.insist(ctx, "touching what may be stale", func(ctx context.Context) error {
		return ag.store.TouchSince(ctx, time.Now().Add(-topology.Keep))
	})
	if err != nil {
		return err
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
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
