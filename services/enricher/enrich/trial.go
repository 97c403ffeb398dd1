package enrich

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"strconv"

	"polyphony/pkg/bus"
	"polyphony/pkg/topology"
	"polyphony/pkg/wire"
)

// suspect says that a frame is to be watched: it comes again and again, or is a piece of one that did.
func suspect(d *bus.Delivery) bool {
	return d.Suspect() || d.Header.Get(topology.HeaderSuspect) != ""
}

// try enriches a suspect frame under watch, one in a process at a time, and acknowledges it at once: whatever dies of
// the next one does not take it along. A frame that was tried too often is taken apart.
func (w *worker) try(ctx context.Context, m *matcher, d *bus.Delivery, head head) error {
	w.trial.Lock()
	defer w.trial.Unlock()
	t, err := w.bus.Trial(ctx, topology.TrialKey(topology.Raw.Name, d.Sequence, 0), w.waits)
	if err != nil {
		return err
	}
	if t.Condemned() {
		err = w.apart(ctx, d, head)
	} else {
		err = w.watched(ctx, t, m, d, head)
	}
	if err != nil {
		return err
	}
	if err := w.flush(ctx); err != nil {
		return err
	}
	d.Done(ctx)
	t.Forget(ctx)
	return nil
}

// watched enriches the frame in hand between two notes, so that it is known when the process does not come to the second.
func (w *worker) watched(ctx context.Context, t *bus.Trial, m *matcher, d *bus.Delivery, head head) error {
	if err := t.Begin(ctx); err != nil {
		return err
	}
	w.trying = t
	err := w.lineByLine(ctx, m, d, head)
	w.trying = nil
	if err != nil {
		t.Pause(ctx)
		return err
	}
	t.Acquit(ctx)
	return nil
}

// apart makes a frame of each event of a frame that its readers die of, and a reject of an event that is alone already.
// It looks at none of them.
func (w *worker) apart(ctx context.Context, d *bus.Delivery, head head) error {
	w.log.Error("the readers of a raw frame die: taking it apart", "subject", d.Subject, "sequence", d.Sequence, "deliveries", d.Deliveries)
	if bytes.Count(w.lines, []byte{'\n'}) <= 1 {
		w.out.reject(d, 1, &wire.Reject{Code: "unprocessable", Detail: "its readers die of it", Source: sourceOf(d, w.lines), RecordedTime: head.recorded,
			Bytes: bytes.TrimSuffix(w.lines, []byte{'\n'})})
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
