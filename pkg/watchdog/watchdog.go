// Package watchdog notices work that does not come to an end, and ends the process: what hangs cannot be stopped otherwise, and
// whoever comes next has to know.
package watchdog

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync/atomic"
	"time"
)

// Hand is a goroutine's work that waits for nobody, so that it is noticed when it does not come to an end. The zero Hand rests.
type Hand struct{ step atomic.Uint64 } // odd while at work

// Work says that the next piece of work is begun.
func (h *Hand) Work() { h.step.Store(h.step.Load() | 1 + 2) }

// Rest says that work is done, or waits for something.
func (h *Hand) Rest() { h.step.Store((h.step.Load() | 1) + 1) }

// watchSteps is how often in a row a hand must be seen at the same piece of work: a process that was paused for longer than the
// limit sees it once or twice.
const watchSteps = 5

// Watch calls hung when h is at one piece of work for longer than limit, a little more at most, until ctx ends.
func (h *Hand) Watch(ctx context.Context, limit time.Duration, hung func()) {
	tick := time.NewTicker(limit / watchSteps)
	defer tick.Stop()
	seen, times := uint64(0), 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		switch at := h.step.Load(); {
		case at%2 == 0 || at != seen:
			seen, times = at, 0
		default:
			if times++; times >= watchSteps {
				hung()
				return
			}
		}
	}
}

// End ends the process and shows all that it was at.
func End(what string, limit time.Duration) {
	debug.SetTraceback("all")
	panic(fmt.Sprintf("BUG: %s takes longer than %v", what, limit))
}
