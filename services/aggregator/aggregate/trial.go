package aggregate

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"polyphony/pkg/bus"
	"polyphony/pkg/topology"
	"polyphony/pkg/wire"
)

// groups is into how many parts those messages of a batch are divided that come again and again. They are handled from the first
// to the last, and when they come once more from the last to the first: after two deaths what is left is the part that kills.
const groups = 8

// guarded hands messages to handle so that none that kills its readers holds up the others for ever: who comes again and again is
// handled apart from the others, then alone and under trial, then line by line; what kills alone becomes a reject.
func (f *flush) guarded(handle bus.Handler) bus.Handler {
	return func(ctx context.Context, batch []bus.Delivery) error {
		if !slices.ContainsFunc(batch, func(d bus.Delivery) bool { return d.Suspect() }) {
			return handle(ctx, batch)
		}
		var fresh, suspects []bus.Delivery
		for _, d := range batch {
			if d.Suspect() {
				suspects = append(suspects, d)
			} else {
				fresh = append(fresh, d)
			}
		}
		if err := f.ended(ctx, handle, fresh); err != nil {
			return err
		}
		parts := slices.Collect(slices.Chunk(suspects, (len(suspects)+groups-1)/groups))
		if suspects[0].Deliveries%2 == 1 {
			slices.Reverse(parts)
		}
		for _, group := range parts {
			if len(group) > 1 {
				if err := f.ended(ctx, handle, group); err != nil {
					return err
				}
			} else if err := f.try(ctx, handle, &group[0]); err != nil {
				return err
			}
		}
		return nil
	}
}

// ended handles messages and acknowledges them at once: whatever dies of those behind does not take them along.
func (f *flush) ended(ctx context.Context, handle bus.Handler, batch []bus.Delivery) error {
	if len(batch) == 0 {
		return nil
	}
	if err := handle(ctx, batch); err != nil {
		return err
	}
	for i := range batch {
		batch[i].Done(ctx)
	}
	return nil
}

// try handles a message alone, under trial. One that was tried too often is handled line by line.
func (f *flush) try(ctx context.Context, handle bus.Handler, d *bus.Delivery) error {
	condemned, err := f.judged(ctx, handle, d, 0)
	if err != nil {
		return err
	}
	if condemned {
		if err := f.apart(ctx, handle, d); err != nil {
			return err
		}
	}
	d.Done(ctx)
	return nil
}

// apart handles the lines of a message, each under a trial of its own, and makes rejects of those that kill.
func (f *flush) apart(ctx context.Context, handle bus.Handler, d *bus.Delivery) error {
	f.log.Error("the readers of a message die: taking it apart", "subject", d.Subject, "sequence", d.Sequence, "deliveries", d.Deliveries)
	lines := linesOf(d)
	if len(lines) < 2 {
		return f.condemn(ctx, d, 0)
	}
	for i := range lines {
		condemned, err := f.judged(ctx, handle, &lines[i], i+1)
		if err != nil {
			return err
		}
		if !condemned {
			continue
		}
		if err := f.condemn(ctx, &lines[i], i+1); err != nil {
			return err
		}
	}
	return nil
}

// judged handles a message, or the nth line of one, unless it was begun and not ended too often. One in a process is under
// trial at a time, so that none counts what another killed.
func (f *flush) judged(ctx context.Context, handle bus.Handler, d *bus.Delivery, line int) (condemned bool, err error) {
	t, err := f.bus.Trial(ctx, topology.TrialKey(streamOf(d), d.Sequence, line), f.waits)
	if err != nil || t.Condemned() {
		return true, err
	}
	f.trial.Lock()
	defer f.trial.Unlock()
	if err := t.Begin(ctx); err != nil {
		return false, err
	}
	f.onTrial.Store(t)
	f.trying = t
	err = handle(ctx, []bus.Delivery{*d})
	f.trying = nil
	f.onTrial.Store(nil)
	if err != nil {
		if ctx.Err() != nil { // a stop is nobody's fault
			t.Pause(ctx)
		}
		return false, err
	}
	t.Acquit(ctx)
	if line == 0 {
		t.Forget(ctx)
	}
	return false, nil
}

// excuse has the trial in progress count nothing from now on: whoever must wait for ClickHouse or NATS may be stopped while it waits.
func (ag *Aggregator) excuse(ctx context.Context) {
	if t := ag.onTrial.Load(); t != nil {
		t.Pause(ctx)
	}
}

// away lets others have their trial while f waits for what they do, until back.
func (f *flush) away(ctx context.Context) (back func() error) {
	t := f.trying
	if t == nil {
		return func() error { return nil }
	}
	t.Pause(ctx)
	f.onTrial.Store(nil)
	f.trial.Unlock()
	return func() error {
		f.trial.Lock()
		f.onTrial.Store(t)
		return t.Begin(ctx)
	}
}

// condemn makes a reject of a message, or of the nth line of one.
func (f *flush) condemn(ctx context.Context, d *bus.Delivery, line int) error {
	stream := streamOf(d)
	if stream == topology.Rejects.Name { // its bytes are a reject's
		f.unreadable(d, errKills)
		return nil
	}
	return f.insist(ctx, "keeping what kills its readers", func(ctx context.Context) error {
		return f.reject(ctx, fmt.Sprintf("aggregate-%s-%d-%d-%d", stream, d.Stored.UnixMilli(), d.Sequence, line), d.Header.Get(topology.HeaderRules), &wire.Reject{
			Code: "unprocessable", Detail: errKills.Error(), RecordedTime: d.Stored, Bytes: d.Data,
			Origin: &wire.Origin{Stream: stream, Sequence: d.Sequence, Subject: d.Subject, Header: d.OwnHeader()}})
	})
}

// waits lets Ready say what a trial waits for, until it need not: then why is nil.
func (ag *Aggregator) waits(why error) {
	const what = "trying a message"
	if why == nil {
		ag.waiting.Delete(what)
		return
	}
	ag.waiting.Store(what, why)
}

// streamOf is the stream that a message was read from: social.mentions.heart.north is on MENTIONS.
func streamOf(d *bus.Delivery) string {
	tokens := strings.SplitN(d.Subject, ".", 3)
	return strings.ToUpper(tokens[min(1, len(tokens)-1)])
}

// linesOf makes a message of each line of a message, or of each original; nothing of what cannot be read.
func linesOf(d *bus.Delivery) (lines []bus.Delivery) {
	add := func(data []byte, header bus.Header) {
		line := *d
		line.Data, line.Header = data, header
		lines = append(lines, line)
	}
	switch streamOf(d) {
	case topology.Mentions.Name:
		for event := range wire.BatchEvents(d.Data) {
			add(wire.EndBatch(append(append(wire.BeginBatch(nil), event...), '\n')), d.Header)
		}
	case topology.Facts.Name:
		originals, _ := wire.DecodeOriginals(nil, d.Data)
		for i := range originals {
			add(wire.AppendOriginal(nil, &originals[i]), d.Header)
		}
	case topology.Threads.Name:
		frame, err := decodeFrame(d)
		if err != nil {
			return nil
		}
		for line := range bytes.Lines(frame) {
			for data, info := range wire.EncodeFrame(line) {
				add(data, bus.Header{topology.HeaderSize: {strconv.Itoa(info.Size)}, topology.HeaderEvents: {"1"}})
			}
		}
	}
	return lines
}
