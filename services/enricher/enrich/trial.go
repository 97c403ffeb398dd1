package enrich

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"polyphony/pkg/bus"
	"polyphony/pkg/topology"
	"polyphony/pkg/wire"
)

// try enriches a suspect frame under trial, and acknowledges it at once: whatever dies of the next one does not take it along.
// A frame that was tried too often is enriched line by line; what kills alone becomes a reject.
func (w *worker) try(ctx context.Context, d *bus.Delivery) error {
	var head head
	var m *matcher
	var lines [][]byte
	under := func(t *bus.Trial, do func() error) error {
		w.trying = t
		defer func() { w.trying = nil }()
		return do()
	}
	err := w.bus.Try(ctx, topology.Raw.Name, d, w.waits, bus.Handling{
		Whole: func(t *bus.Trial) error { return under(t, func() error { return w.whole(ctx, d) }) },
		Split: func() int {
			head, _ = w.unpack(d) // what cannot be unpacked has no lines
			lines = slices.Collect(bytes.Lines(w.lines))
			return len(lines)
		},
		Line: func(t *bus.Trial, n int) error {
			return under(t, func() (err error) {
				if m, err = w.matcher(ctx, head.rules); err != nil {
					return err
				}
				w.line = n
				return w.event(ctx, m, d, bytes.TrimSuffix(lines[n-1], []byte{'\n'}), head.recorded)
			})
		},
		Condemn: func(ctx context.Context, n int) error {
			w.condemn(d, n, lines)
			return w.relieve(ctx)
		},
	})
	if err != nil {
		return err
	}
	if err := w.flush(ctx); err != nil {
		return err
	}
	_ = d.Done(ctx)
	return nil
}

// condemn makes a reject of the nth line of a frame, or with 0 of all of it.
func (w *worker) condemn(d *bus.Delivery, n int, lines [][]byte) {
	recorded := d.Stored
	if head, err := parseHead(d.Header); err == nil {
		recorded = head.recorded
	}
	data := d.Data
	switch {
	case n > 0:
		data = bytes.TrimSuffix(lines[n-1], []byte{'\n'})
	case len(lines) == 1:
		n, data = 1, bytes.TrimSuffix(lines[0], []byte{'\n'})
	}
	w.out.reject(d, n, &wire.Reject{Code: "unprocessable", Detail: bus.ErrKills.Error(), Source: sourceOf(d, nil), RecordedTime: recorded, Bytes: data})
}

// tryRoute routes an edit under trial. One that was tried too often is routed no more, until it is replayed.
func (w *worker) tryRoute(ctx context.Context, question []byte) (edited wire.Edited, err error) {
	var routing error
	condemned, err := w.bus.Judge(ctx, topology.QuestionKey(question), w.waits, func(t *bus.Trial) error {
		w.trying = t
		defer func() { w.trying = nil }()
		ctx, cancel := context.WithTimeout(ctx, routeWait)
		defer cancel()
		edited, routing = w.route(ctx, question)
		return nil
	})
	switch {
	case err != nil:
		return edited, err
	case condemned:
		return edited, fmt.Errorf("%w: %w", wire.ErrUnroutable, bus.ErrKills)
	}
	return edited, routing
}
