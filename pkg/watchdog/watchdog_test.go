package watchdog

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// TestWatch: who stays at one piece of work is noticed soon after the limit; who rests, or does one after the other, never is.
func TestWatch(t *testing.T) {
	const limit = 10 * time.Second
	f := func(noticed bool, work func(context.Context, *Hand)) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			ctx, stop := context.WithTimeout(t.Context(), time.Hour)
			defer stop()
			var h Hand
			began, hung := time.Now(), time.Duration(0)
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				h.Watch(ctx, limit, func() { hung = time.Since(began) })
			}()
			work(ctx, &h)
			<-ended
			if noticed && (hung < limit || hung > limit+limit/2) || !noticed && hung > 0 {
				t.Errorf("noticed after %v", hung)
			}
		})
	}
	f(false, func(context.Context, *Hand) {})
	f(true, func(_ context.Context, h *Hand) { h.Work() })
	f(false, func(_ context.Context, h *Hand) { h.Work(); h.Rest() })
	f(true, func(_ context.Context, h *Hand) { h.Work(); h.Rest(); h.Work() })
	f(false, func(ctx context.Context, h *Hand) {
		for ctx.Err() == nil {
			h.Work()
			time.Sleep(limit - time.Second)
		}
	})
}
