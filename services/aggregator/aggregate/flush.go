package aggregate

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"polyphony/pkg/bus"
	"polyphony/pkg/seam"
	"polyphony/pkg/social"
	"polyphony/pkg/topology"
	"polyphony/pkg/warehouse"
	"polyphony/pkg/watchdog"
	"polyphony/pkg/wire"
)

// flush turns one batch of messages into rows, in memory that it reuses. Returning nil acknowledges the messages:
// by then the rows, and the touches that make their node-hours stale, are in ClickHouse.
type flush struct {
	*Aggregator
	of        string // such as mentions
	again     bool   // somebody may have begun with a message of the batch before
	decoded   []social.Mention
	originals []social.Original
	trying    *bus.Trial    // of the message in hand, nil when it is not suspect
	line      int           // of it, when it is taken apart, otherwise 0
	hand      watchdog.Hand // at work while it decodes
}

func (f *flush) mentions(ctx context.Context, batch []bus.Delivery) error {
	start := time.Now()
	f.decoded = f.decoded[:0]
	for i := range batch {
		f.hand.Work()
		seam.Taste(batch[i].Data)
		mentions, err := wire.DecodeBatch(f.decoded, batch[i].Data)
		f.hand.Rest()
		if f.decoded = mentions; err != nil {
			if err := f.foreign(ctx, &batch[i]); err != nil {
				return err
			}
		}
	}
	err := f.insist(ctx, "storing mentions", func(ctx context.Context) error {
		return f.store.InsertMentions(ctx, f.decoded)
	})
	if err != nil {
		return err
	}
	f.metrics.flushed("mentions", len(f.decoded), time.Since(start))
	clear(f.decoded) // its strings hold the messages
	return nil
}

// facts stores sealed originals, then resolves the events they belong to: each was a mention by itself, and by the time
// its original is stored so is the mention.
func (f *flush) facts(ctx context.Context, batch []bus.Delivery) error {
	start := time.Now()
	f.again = slices.ContainsFunc(batch, func(d bus.Delivery) bool { return d.Again })
	published, err := f.published(ctx)
	if err != nil {
		return err
	}
	f.originals = f.originals[:0]
	for i := range batch {
		f.hand.Work()
		originals, err := wire.DecodeOriginals(f.originals, batch[i].Data)
		f.hand.Rest()
		if f.originals = originals; err != nil {
			if err := f.foreign(ctx, &batch[i]); err != nil {
				return err
			}
		}
	}
	err = f.insist(ctx, "storing originals", func(ctx context.Context) error {
		return f.store.InsertOriginals(ctx, f.originals)
	})
	if err != nil {
		return err
	}
	events, recorded := make([]social.Key, len(f.originals)), make([]time.Time, len(f.originals))
	for i := range f.originals {
		events[i], recorded[i] = f.originals[i].EventKey, f.originals[i].RecordedTime
	}
	clear(f.originals) // its strings hold the messages
	if err := f.stored(ctx, published); err != nil {
		return err
	}
	if err := f.resolve(ctx, news{events: events, recorded: recorded, again: f.again}); err != nil {
		return err
	}
	f.metrics.flushed("originals", len(events), time.Since(start))
	return nil
}

// published is the last mention in its stream: those that go with the facts in hand are at or before it.
func (f *flush) published(ctx context.Context) (sequence uint64, err error) {
	err = f.insist(ctx, "reading progress for "+f.of, func(ctx context.Context) error {
		progress, err := f.bus.Progress(ctx, topology.AggregateMentions)
		sequence = progress.Last
		return err
	})
	return sequence, err
}

// caughtUp waits until all mentions that are published now are stored.
func (f *flush) caughtUp(ctx context.Context) error {
	published, err := f.published(ctx)
	if err != nil {
		return err
	}
	return f.stored(ctx, published)
}

// storedPeriod is how often storedness is looked at: a fraction of what a flush takes.
const storedPeriod = 50 * time.Millisecond

// stored waits until the mentions up to a sequence are stored, by whichever aggregator, or there is no such sequence any more:
// of a stream that was lost nothing comes.
func (f *flush) stored(ctx context.Context, sequence uint64) error {
	tick := time.NewTicker(storedPeriod)
	defer tick.Stop()
	for {
		var progress bus.Progress
		err := f.insist(ctx, "reading progress for "+f.of, func(ctx context.Context) (err error) {
			progress, err = f.bus.Progress(ctx, topology.AggregateMentions)
			return err
		})
		if err != nil {
			return err
		}
		if progress.Floor >= sequence || progress.Last < sequence {
			return f.trying.Resume(ctx)
		}
		f.trying.Pause(ctx) // the mentions may have to be tried as well
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// rejects stores what is wrong with rejected events, without their bytes: those stay in the sealed stream.
func (f *flush) rejects(ctx context.Context, batch []bus.Delivery) error {
	start := time.Now()
	var rows []warehouse.Reject
	for i := range batch {
		d := &batch[i]
		f.hand.Work()
		frame, err := decodeFrame(d)
		if err != nil {
			f.unreadable(d, notOurs)
			continue
		}
		stage, n := topology.RejectStage(d.Subject), uint32(0)
		for r, err := range wire.DecodeRejects(frame) {
			if err != nil {
				f.unreadable(d, notOurs)
				break
			}
			n++
			rows = append(rows, warehouse.Reject{
				ID: rejectID(d, n), Sequence: d.Sequence, Position: n, Stage: stage, Code: string(r.Code), Source: r.Source, Detail: r.Detail,
				RulesVersion: d.Header.Get(topology.HeaderRules), Size: uint32(r.Size), Time: r.RecordedTime, Origin: originOf(&r),
			})
		}
	}
	f.hand.Rest()
	if err := f.insist(ctx, "storing rejects", func(ctx context.Context) error { return f.store.InsertRejects(ctx, rows) }); err != nil {
		return err
	}
	f.metrics.flushed("rejects", len(rows), time.Since(start))
	return nil
}

// rejectID is of the nth reject of a message, the same however often that is published.
func rejectID(d *bus.Delivery, n uint32) string {
	message := d.Header.Get(bus.HeaderMsgID)
	if message == "" {
		message = strconv.FormatUint(d.Sequence, 10)
	}
	return fmt.Sprintf("%s-%d", message, n)
}

// originOf names the place where a rejected event was found, "" for a request.
func originOf(r *wire.Reject) string {
	if r.Origin == nil {
		return ""
	}
	return fmt.Sprintf("%s:%d:%d", r.Origin.Stream, r.Origin.Sequence, r.Origin.Line)
}

func decodeFrame(d *bus.Delivery) ([]byte, error) {
	size, err := strconv.Atoi(d.Header.Get(topology.HeaderSize))
	if err != nil {
		return nil, fmt.Errorf("%w: header %s: %v", wire.ErrFrame, topology.HeaderSize, err)
	}
	return wire.DecodeFrame(nil, d.Data, size)
}

const notOurs = "nothing that this version of Polyphony writes"

// foreign makes a reject of a message that nobody of ours wrote: reading it again would end the same.
func (f *flush) foreign(ctx context.Context, d *bus.Delivery) error {
	f.unreadable(d, notOurs)
	return f.giveUp(ctx, d, f.line, "invalid_message", notOurs)
}

// giveUp makes a reject of a message, or of the nth line of one, which is a message by itself.
func (f *flush) giveUp(ctx context.Context, d *bus.Delivery, line int, code social.Code, why string) error {
	return f.insist(ctx, "keeping what cannot be processed of "+f.of, func(ctx context.Context) error {
		stream := streamOf(d)
		return f.reject(ctx, fmt.Sprintf("aggregate-%s-%d-%d-%d", stream, d.Stored.UnixMilli(), d.Sequence, line), d.Header.Get(topology.HeaderRules), &wire.Reject{
			Code: code, Detail: why, RecordedTime: d.Stored, Bytes: keptOf(d, line),
			Origin: &wire.Origin{Stream: stream, Sequence: d.Sequence, Line: line, Subject: d.Subject, Header: d.OwnHeader()}})
	})
}

// unreadable says that a message cannot be read, and not what a parser says of it: that quotes what people wrote.
func (f *flush) unreadable(d *bus.Delivery, why string) {
	f.metrics.unreadable.WithLabelValues(streamOf(d)).Inc()
	f.log.Error("a message cannot be read", "subject", d.Subject, "sequence", d.Sequence, "error", why)
}
