package bus

import (
	"context"
	"errors"
	"testing"
	"time"

	"polyphony/pkg/topology"
)

// TestJudge: what was begun five times and never ended is condemned; what ended once is not, nor what was paused, excused or stopped.
func TestJudge(t *testing.T) {
	b := setup(t, 64<<20)
	died := errors.New("died")
	f := func(key string, condemned bool, do func(*Trial) error) {
		t.Helper()
		for range CondemnedAfter + 1 {
			_, _ = b.Judge(t.Context(), key, func(error) {}, do)
		}
		if got, err := b.Judge(t.Context(), key, func(error) {}, func(*Trial) error { return nil }); err != nil || got != condemned {
			t.Errorf("%s: condemned %v (%v)", key, got, err)
		}
	}
	f("dies", true, func(*Trial) error { return died })
	f("pauses-and-dies", true, func(trial *Trial) error {
		trial.Pause(t.Context())
		if err := trial.Resume(t.Context()); err != nil {
			return err
		}
		return died
	})
	f("pauses", false, func(trial *Trial) error { trial.Pause(t.Context()); return died })
	f("is-excused", false, func(trial *Trial) error {
		trial.Excuse(t.Context())
		if err := trial.Resume(t.Context()); err != nil {
			return err
		}
		return died
	})
	n := 0
	f("ends-once", false, func(*Trial) error {
		if n++; n == CondemnedAfter {
			return nil
		}
		return died
	})
	condemned := time.Now()
	if got, err := b.Judge(t.Context(), "dies", func(error) {}, func(*Trial) error { return nil }); err != nil || !got {
		t.Errorf("condemned %v (%v)", got, err)
	}
	if _, at, err := b.Written(t.Context(), topology.TrialsBucket, "dies"); err != nil || at.Before(condemned) {
		t.Errorf("what is condemned is forgotten before it is done with: noted %v, found condemned %v (%v)", at, condemned, err)
	}
	var stop context.CancelFunc
	stopped := func() (condemned bool, err error) {
		var ctx context.Context
		ctx, stop = context.WithCancel(t.Context())
		return b.Judge(ctx, "is-stopped", func(error) {}, func(*Trial) error { stop(); return ctx.Err() })
	}
	for range CondemnedAfter + 1 {
		if condemned, err := stopped(); condemned || !errors.Is(err, context.Canceled) {
			t.Errorf("stopped: condemned %v, %v", condemned, err)
		}
	}
}

// TestOneTrialAtATime: a trial waits for the one under way, and not for one that waits itself.
func TestOneTrialAtATime(t *testing.T) {
	b := setup(t, 64<<20)
	other := func(ctx context.Context) error {
		_, err := b.Judge(ctx, "other", func(error) {}, func(*Trial) error { return nil })
		return err
	}
	if _, err := b.Judge(t.Context(), "one", func(error) {}, func(one *Trial) error {
		soon, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer stop()
		if err := other(soon); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("two at a time: %v", err)
		}
		one.Pause(t.Context())
		if err := other(t.Context()); err != nil {
			t.Error(err)
		}
		return one.Resume(t.Context())
	}); err != nil {
		t.Fatal(err)
	}
	if err := other(t.Context()); err != nil {
		t.Error(err)
	}
}
