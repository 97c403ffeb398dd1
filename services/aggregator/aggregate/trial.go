package aggregate

import (
	"bytes"
	"context"
	"slices"
	"strconv"
	"strings"

	"polyphony/pkg/bus"
	"polyphony/pkg/topology"
	"polyphony/pkg/warehouse"
	"polyphony/pkg/wire"
)

// groups is into how many parts those messages of a batch are divided that come again and again; into as many times more when they come
// once more, until each is alone. They are handled from the first to the last, and the next time from the last to the first.
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
		for _, group := range grouped(suspects) {
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

// grouped divides messages, the finer the more often one of them came.
func grouped(suspects []bus.Delivery) [][]bus.Delivery {
	most := uint64(0)
	for i := range suspects {
		most = max(most, suspects[i].Deliveries)
	}
	parts := groups
	for n := uint64(bus.SuspectAfter + 1); n < most && parts < len(suspects); n++ {
		parts *= groups
	}
	divided := slices.Collect(slices.Chunk(suspects, (len(suspects)+parts-1)/parts))
	if most%2 == 1 {
		slices.Reverse(divided)
	}
	return divided
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
		if batch[i].Done(ctx) != nil { // so would the others
			break
		}
	}
	return nil
}

// try handles a message alone, under trial. One that was tried too often is handled line by line.
func (f *flush) try(ctx context.Context, handle bus.Handler, d *bus.Delivery) error {
	var lines []bus.Delivery
	under := func(t *bus.Trial, d *bus.Delivery, line int) error {
		f.trying, f.line = t, line
		defer func() { f.trying, f.line = nil, 0 }()
		return handle(ctx, []bus.Delivery{*d})
	}
	err := f.bus.Try(ctx, streamOf(d), d, func(why error) { f.waits(streamOf(d), why) }, bus.Handling{
		Whole: func(t *bus.Trial) error { return under(t, d, 0) },
		Split: func() int {
			f.hand.Work()
			defer f.hand.Rest()
			lines = linesOf(d)
			return len(lines)
		},
		Line: func(t *bus.Trial, n int) error { return under(t, &lines[n-1], n) },
		Condemn: func(ctx context.Context, n int) error {
			if n == 0 {
				return f.condemn(ctx, d, 0)
			}
			return f.condemn(ctx, &lines[n-1], n)
		},
	})
	if err != nil {
		return err
	}
	_ = d.Done(ctx)
	return nil
}

// insist is the aggregator's; a message in hand is not to blame for what an engine does not do, also where the process ends because
// of it.
func (f *flush) insist(ctx context.Context, what string, do func(context.Context) error) error {
	return f.Aggregator.insist(ctx, what, func(ctx context.Context) error {
		err := do(ctx)
		if err != nil && !warehouse.Blames(err) {
			f.trying.Excuse(ctx)
		}
		return err
	})
}

// condemn gives up a message, or the nth line of one, that kills its readers.
func (f *flush) condemn(ctx context.Context, d *bus.Delivery, line int) error {
	if streamOf(d) == topology.Rejects.Name { // its bytes are a reject's
		f.unreadable(d, bus.ErrKills.Error())
		return nil
	}
	return f.giveUp(ctx, d, line, "unprocessable", bus.ErrKills.Error())
}

// keptOf is what a reject keeps of a message, or of a line of one that is a message by itself: of a frame the line as it was.
func keptOf(d *bus.Delivery, line int) []byte {
	if line > 0 && streamOf(d) == topology.Threads.Name {
		if frame, err := decodeFrame(d); err == nil {
			return bytes.TrimSuffix(frame, []byte{'\n'})
		}
	}
	return d.Data
}

// waits lets Ready say what a trial of a message of a stream waits for, until it need not: then why is nil.
func (ag *Aggregator) waits(stream string, why error) {
	what := "trying a message of " + stream
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
		originals, err := wire.DecodeOriginals(nil, d.Data)
		if err != nil {
			return nil
		}
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
