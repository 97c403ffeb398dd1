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

// ErrKills is why something is given up that was begun again and again and never ended.
var ErrKills = errors.New("its readers die of it")

// Suspect says that a message is to be handled under trial: it comes again and again.
func (d *Delivery) Suspect() bool { return d.Deliveries > SuspectAfter }

// Judge has something done, known by a key, unless that was begun too often and never ended: then it is condemned, and not done.
// One at a time is under way in a process: of two when it dies, the one that did not kill it would count that too.
// do gets the trial, to pause it while it waits for others. waits is told why a note has to wait, nil when it need not any more.
// What ends with an error counts as not ended, unless ctx ended: a stop is nobody's fault.
func (b *Bus) Judge(ctx context.Context, key string, waits func(error), do func(*Trial) error) (condemned bool, err error) {
	t := &Trial{bus: b, key: key, waits: waits}
	if err := t.read(ctx); err != nil {
		return false, err
	}
	if t.before >= CondemnedAfter { // noted anew: it must not be forgotten while what it stands beside is tried
		return true, t.insist(ctx, "noting", func() error { return t.note(ctx, t.before) })
	}
	if err := t.Resume(ctx); err != nil {
		return false, err
	}
	defer t.leave()
	if err = do(t); err == nil {
		t.acquit(ctx)
	} else if ctx.Err() != nil {
		t.Pause(ctx)
	}
	return false, err
}

// Handling is what can be done with a message that is to be tried.
type Handling struct {
	Whole   func(*Trial) error                     // handles all of it
	Split   func() (lines int)                     // takes it apart
	Line    func(t *Trial, n int) error            // handles the nth line, from 1
	Condemn func(ctx context.Context, n int) error // gives up the nth line, or with 0 all that cannot be taken apart
}

// Try has a message handled; when its readers die of it, line by line, and what they die of is given up. What is noted of that stays
// until it goes by itself: who comes after a death knows which lines were given up.
func (b *Bus) Try(ctx context.Context, stream string, d *Delivery, waits func(error), h Handling) error {
	judge := func(part string, do func(*Trial) error) (condemned bool, err error) {
		return b.Judge(ctx, topology.TrialKey(stream, d.Sequence, d.Stored, part), waits, do)
	}
	condemned, err := judge("whole", h.Whole)
	if err != nil || !condemned {
		return err
	}
	b.log.Error("the readers of a message die: taking it apart", "subject", d.Subject, "sequence", d.Sequence, "deliveries", d.Deliveries)
	lines := 0
	condemned, err = judge("apart", func(*Trial) error { lines = h.Split(); return nil })
	if err != nil {
		return err
	}
	if condemned || lines < 2 {
		return h.Condemn(ctx, 0)
	}
	for n := 1; n <= lines; n++ {
		condemned, err := judge(strconv.Itoa(n), func(t *Trial) error { return h.Line(t, n) })
		if err == nil && condemned {
			err = h.Condemn(ctx, n)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Trial counts how often something was begun and not ended, where a dying process cannot forget it. What is noted goes by
// itself after a while. A nil Trial is of what nobody suspects: it notes nothing.
type Trial struct {
	bus      *Bus
	key      string
	waits    func(error)
	before   int  // trials without an end
	underWay bool // and noted so
	excused  bool
}

func (t *Trial) read(ctx context.Context) error {
	return t.insist(ctx, "reading", func() error {
		value, err := t.bus.Get(ctx, topology.TrialsBucket, t.key)
		if err == nil {
			t.before, _ = strconv.Atoi(string(value)) // what nobody of ours noted counts nothing
		}
		if errors.Is(err, ErrNoKey) {
			return nil
		}
		return err
	})
}

// Resume notes, before anything is done, that it is begun, as soon as no other trial is under way.
func (t *Trial) Resume(ctx context.Context) error {
	if t == nil || t.underWay || t.excused {
		return nil
	}
	select {
	case t.bus.turn <- struct{}{}:
	default:
		t.waits(errors.New("another trial is under way"))
		select {
		case t.bus.turn <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		t.waits(nil)
	}
	t.underWay = true
	err := t.insist(ctx, "noting", func() error { return t.note(ctx, t.before+1) })
	if err != nil {
		t.Pause(ctx) // it may have been noted although nobody heard so
	}
	return err
}

// Pause notes that the process lives, and lets others have their trial: what comes now is waiting, and nobody's fault.
func (t *Trial) Pause(ctx context.Context) {
	if t == nil || !t.underWay {
		return
	}
	defer t.leave()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), pauseTime)
	defer cancel()
	_ = t.insist(ctx, "pausing", func() error { return t.note(ctx, t.before) })
}

// Excuse is a pause without an end: who had to wait for an engine once is likely to be stopped because of that.
func (t *Trial) Excuse(ctx context.Context) {
	t.Pause(ctx)
	if t != nil {
		t.excused = true
	}
}

// acquit forgets whatever was noted: this time it went well.
func (t *Trial) acquit(ctx context.Context) {
	defer t.leave()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), pauseTime)
	defer cancel()
	_ = t.insist(ctx, "ending", func() error { return t.bus.Delete(ctx, topology.TrialsBucket, t.key) })
}

// leave lets others have their trial.
func (t *Trial) leave() {
	if t.underWay {
		t.underWay = false
		<-t.bus.turn
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
