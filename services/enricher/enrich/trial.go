package enrich

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"time"

	"github.com/cenkalti/backoff/v4"

	"polyphony/pkg/bus"
	"polyphony/pkg/topology"
	"polyphony/pkg/wire"
)

const (
	// suspectAfter deliveries of a frame, something in it may be what kills its readers. It need not be: stops and outages
	// cost a delivery too, and so does the company of another frame that kills. From then on it is watched.
	suspectAfter = 3
	// condemnedAfter trials that were begun and never ended, a frame does kill its readers. One alone may be a coincidence:
	// what is not suspect yet runs beside a trial, and may kill the process suspectAfter times.
	condemnedAfter = 5
	// pauseTime is how long an end of a trial may take to be noted. A note that fails counts against the frame, once.
	pauseTime = 5 * time.Second
)

// trial counts how often a suspect frame was begun and not ended, where a dying process cannot forget it.
type trial struct {
	*worker
	key    string // in the bucket
	before int    // trials without an end
}

// suspect says that a frame is to be watched: it comes again and again, or is a piece of one that did.
func suspect(d *bus.Delivery) bool {
	return d.Deliveries > suspectAfter || d.Header.Get(topology.HeaderSuspect) != ""
}

// try enriches a suspect frame under watch, one in a process at a time, and acknowledges it at once: whatever dies of
// the next one does not take it along. A frame that was tried too often is taken apart.
func (w *worker) try(ctx context.Context, m *matcher, d *bus.Delivery, head head) error {
	w.trial.Lock()
	defer w.trial.Unlock()
	t, err := w.trialOf(ctx, d)
	if err != nil {
		return err
	}
	if t.before >= condemnedAfter {
		if err := w.apart(ctx, d, head); err != nil {
			return err
		}
	} else {
		if err := t.begin(ctx); err != nil {
			return err
		}
		w.trying = t
		err := w.lineByLine(ctx, m, d, head)
		w.trying = nil
		if err == nil {
			t.before = 0
		}
		t.pause(ctx)
		if err != nil {
			return err
		}
	}
	if err := w.flush(ctx); err != nil {
		return err
	}
	d.Done(ctx)
	t.forget(ctx)
	return nil
}

// trialOf reads how a frame did so far.
func (w *worker) trialOf(ctx context.Context, d *bus.Delivery) (*trial, error) {
	t := &trial{worker: w, key: strconv.FormatUint(d.Sequence, 10)}
	err := t.insist(ctx, "reading", func() error {
		value, err := w.bus.Get(ctx, topology.TrialsBucket, t.key)
		if errors.Is(err, bus.ErrNoKey) {
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

// begin notes, before anything is done with the frame, that it was begun.
func (t *trial) begin(ctx context.Context) error {
	return t.insist(ctx, "noting", func() error { return t.note(ctx, t.before+1) })
}

// pause notes that the process lives: what comes now is waiting, and no fault of the frame. Nor is it one that ctx ends.
func (t *trial) pause(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), pauseTime)
	defer cancel()
	_ = t.insist(ctx, "ending", func() error { return t.note(ctx, t.before) })
}

func (t *trial) note(ctx context.Context, n int) error {
	return t.bus.Put(ctx, topology.TrialsBucket, t.key, []byte(strconv.Itoa(n)))
}

// forget removes what was noted; what stays goes by itself after a while.
func (t *trial) forget(ctx context.Context) {
	if err := t.bus.Delete(ctx, topology.TrialsBucket, t.key); err != nil && ctx.Err() == nil {
		t.log.Warn("forgetting a trial", "sequence", t.key, "error", err)
	}
}

// insist repeats what NATS could not do yet.
func (t *trial) insist(ctx context.Context, what string, do func() error) error {
	defer t.works()
	err := backoff.RetryNotify(do, backoff.WithContext(bus.Forever(), ctx), func(err error, wait time.Duration) {
		t.waits(fmt.Errorf("%s a trial: %w", what, err))
		t.log.Warn(what+" a trial", "sequence", t.key, "error", err, "wait", wait)
	})
	if err != nil {
		return fmt.Errorf("%s a trial: %w", what, err)
	}
	return nil
}

// apart makes a frame of each event of a frame that its readers die of, and a reject of an event that is alone already.
// It looks at none of them.
func (w *worker) apart(ctx context.Context, d *bus.Delivery, head head) error {
	w.log.Error("the readers of a raw frame die: taking it apart", "subject", d.Subject, "sequence", d.Sequence, "deliveries", d.Deliveries)
	if bytes.Count(w.lines, []byte{'\n'}) <= 1 {
		w.out.reject(d, 1, &wire.Reject{Code: "unprocessable", Detail: "its readers die of it", Source: sourceOf(d, w.lines), RecordedTime: head.recorded, Bytes: bytes.TrimSuffix(w.lines, []byte{'\n'})})
		return nil
	}
	n := 0
	for line := range bytes.Lines(w.lines) {
		for frame, info := range wire.EncodeFrame(line) {
			header := maps.Clone(d.Header)
			header[topology.HeaderSize], header[topology.HeaderEvents] = []string{strconv.Itoa(info.Size)}, []string{"1"}
			header[topology.HeaderSuspect] = []string{"1"}
			delete(header, bus.HeaderMsgID)
			w.out.message(bus.Message{Subject: d.Subject, Header: header, Data: frame, ID: fmt.Sprintf("apart-%d-%d", d.Sequence, n)})
			n++
		}
		if err := w.relieve(ctx); err != nil {
			return err
		}
	}
	return nil
}
