package bus

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/cenkalti/backoff/v4"

	"polyphony/pkg/topology"
)

const (
	// SuspectAfter deliveries of a message, something in it may be what kills its readers. It need not be: stops and outages
	// cost a delivery too, and so does the company of another message that kills. From then on it is watched.
	SuspectAfter = 3
	// CondemnedAfter trials that were begun and never ended, a message does kill its readers. One alone may be a coincidence:
	// what is not suspect yet runs beside a trial, and may kill the process SuspectAfter times.
	CondemnedAfter = 5
	// pauseTime is how long an end of a trial may take to be noted. A note that fails counts against the message, once.
	pauseTime = 5 * time.Second
)

// Suspect says that a message is to be handled under trial: it comes again and again.
func (d *Delivery) Suspect() bool { return d.Deliveries > SuspectAfter }

// Trial counts how often something was begun and not ended, where a dying process cannot forget it. What is noted goes by
// itself after a while.
type Trial struct {
	bus    *Bus
	key    string
	before int         // trials without an end
	waits  func(error) // told why a note must wait, nil when it need not any more
}

// Trial reads how something did so far that is known by a key, waiting for as long as that takes.
func (b *Bus) Trial(ctx context.Context, key string, waits func(error)) (*Trial, error) {
	t := &Trial{bus: b, key: key, waits: waits}
	err := t.insist(ctx, "reading", func() error {
		value, err := b.Get(ctx, topology.TrialsBucket, key)
		if errors.Is(err, ErrNoKey) {
			return nil
		}
		if err != nil {
			return err
		}
		t.before, err = strconv.Atoi(string(value))
		return backoff.Permanent(err)
	})
	return t, err
}

// Condemned says that it was begun and not ended too often.
func (t *Trial) Condemned() bool { return t.before >= CondemnedAfter }

// Begin notes, before anything is done, that it is begun.
func (t *Trial) Begin(ctx context.Context) error {
	return t.insist(ctx, "noting", func() error { return t.note(ctx, t.before+1) })
}

// Pause notes that the process lives: what comes now is waiting, and nobody's fault. Nor is it one that ctx ends.
func (t *Trial) Pause(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), pauseTime)
	defer cancel()
	_ = t.insist(ctx, "ending", func() error { return t.note(ctx, t.before) })
}

// Acquit ends it: whatever it was before, this time it went well.
func (t *Trial) Acquit(ctx context.Context) {
	t.before = 0
	t.Pause(ctx)
}

// Forget removes what was noted.
func (t *Trial) Forget(ctx context.Context) {
	if err := t.bus.Delete(ctx, topology.TrialsBucket, t.key); err != nil && ctx.Err() == nil {
		t.bus.log.Warn("forgetting a trial", "of", t.key, "error", err)
	}
}

func (t *Trial) note(ctx context.Context, n int) error {
	return t.bus.Put(ctx, topology.TrialsBucket, t.key, []byte(strconv.Itoa(n)))
}

// insist repeats what NATS could not do yet.
func (t *Trial) insist(ctx context.Context, what string, do func() error) error {
	err := backoff.RetryNotify(do, backoff.WithContext(Forever(), ctx), func(err error, wait time.Duration) {
		t.waits(fmt.Errorf("%s a trial: %w", what, err))
		t.bus.log.Warn(what+" a trial", "of", t.key, "error", err, "wait", wait)
	})
	t.waits(nil)
	if err != nil {
		return fmt.Errorf("%s a trial: %w", what, err)
	}
	return nil
}
