package aggregate

import (
	"context"
	"strings"
	"time"
)

// forgetPeriod keeps the promise that what deleted events said is on no disk of ClickHouse's after a day, with room for
// the work itself and for a few hours of outage.
const forgetPeriod = 6 * time.Hour

// forget has ClickHouse remove what is left of deleted events, now and then until ctx ends. The streams keep no message
// for longer than their retention, whatever is in it.
func (ag *Aggregator) forget(ctx context.Context) error {
	rounds := time.NewTicker(forgetPeriod)
	defer rounds.Stop()
	for {
		var tables []string
		err := ag.insist(ctx, "forgetting deleted events", func(ctx context.Context) (err error) {
			tables, err = ag.store.Forget(ctx)
			return err
		})
		if err != nil {
			return err
		}
		if len(tables) > 0 {
			ag.log.Info("what is left of deleted events is being removed", "tables", strings.Join(tables, ", "))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-rounds.C:
		}
	}
}
