package aggregate

import (
	"context"
	"strconv"
	"time"

	"polyphony/pkg/bus"
	"polyphony/pkg/social"
	"polyphony/pkg/topology"
	"polyphony/pkg/warehouse"
	"polyphony/pkg/wire"
)

// flush turns one batch of messages into rows, in memory that it reuses. Returning nil acknowledges the messages:
// by then the rows, and the touches that make their node-hours stale, are in ClickHouse.
type flush struct {
	*Aggregator
	decoded []social.Mention
	lines   []byte
}

func (f *flush) mentions(ctx context.Context, batch []bus.Delivery) error {
	start := time.Now()
	f.decoded = f.decoded[:0]
	for i := range batch {
		mentions, err := wire.DecodeBatch(f.decoded, batch[i].Data)
		if f.decoded = mentions; err != nil {
			f.foreign(&batch[i], err)
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

func (f *flush) facts(ctx context.Context, batch []bus.Delivery) error {
	start := time.Now()
	var facts wire.Facts
	for i := range batch {
		d := &batch[i]
		size, err := strconv.Atoi(d.Header.Get(topology.HeaderSize))
		var lines []byte
		if err == nil {
			lines, err = wire.DecodeFrame(nil, d.Data, size)
		}
		if err == nil {
			err = wire.DecodeFacts(&facts, lines)
		}
		if err != nil {
			f.foreign(d, err)
		}
	}
	err := f.insist(ctx, "storing statements", func(ctx context.Context) error {
		return f.store.InsertStatements(ctx, facts.Statements)
	})
	if err == nil {
		err = f.insist(ctx, "storing originals", func(ctx context.Context) error {
			return f.store.InsertOriginals(ctx, facts.Originals)
		})
	}
	if err != nil {
		return err
	}
	f.metrics.flushed("facts", len(facts.Statements)+len(facts.Originals), time.Since(start))
	return nil
}
