package aggregate

import (
	"context"
	"fmt"
	"strconv"
	"strings"
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
	decoded   []social.Mention
	originals []social.Original
}

func (f *flush) mentions(ctx context.Context, batch []bus.Delivery) error {
	start := time.Now()
	f.decoded = f.decoded[:0]
	for i := range batch {
		mentions, err := wire.DecodeBatch(f.decoded, batch[i].Data)
		if f.decoded = mentions; err != nil {
			if err := f.foreign(ctx, &batch[i], err); err != nil {
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

func (f *flush) facts(ctx context.Context, batch []bus.Delivery) error {
	start := time.Now()
	f.originals = f.originals[:0]
	var statements []social.Statement
	for i := range batch {
		d := &batch[i]
		var err error
		if d.Subject == topology.OriginalsSubject {
			f.originals, err = wire.DecodeOriginals(f.originals, d.Data)
		} else {
			statements, err = decodeStatements(statements, d)
		}
		if err != nil {
			if err := f.foreign(ctx, d, err); err != nil {
				return err
			}
		}
	}
	err := f.insist(ctx, "storing statements", func(ctx context.Context) error {
		return f.store.InsertStatements(ctx, statements)
	})
	if err == nil {
		err = f.insist(ctx, "storing originals", func(ctx context.Context) error {
			return f.store.InsertOriginals(ctx, f.originals)
		})
	}
	if err != nil {
		return err
	}
	f.metrics.flushed("facts", len(statements)+len(f.originals), time.Since(start))
	clear(f.originals) // its strings hold the messages
	return nil
}

func decodeStatements(dst []social.Statement, d *bus.Delivery) ([]social.Statement, error) {
	lines, err := decodeFrame(d)
	if err != nil {
		return dst, err
	}
	return wire.DecodeStatements(dst, lines)
}

// rejects stores what is wrong with rejected events, without their bytes: those stay in the sealed stream.
func (f *flush) rejects(ctx context.Context, batch []bus.Delivery) error {
	start := time.Now()
	var rows []warehouse.Reject
	for i := range batch {
		d := &batch[i]
		frame, err := decodeFrame(d)
		if err != nil {
			f.unreadable(d, err)
			continue
		}
		stage, n := stageOf(d.Subject), uint32(0)
		for r, err := range wire.DecodeRejects(frame) {
			if err != nil {
				f.unreadable(d, err)
				break
			}
			rows = append(rows, warehouse.Reject{
				Sequence: d.Sequence, Index: n, Stage: stage, Code: string(r.Code), Source: r.Source, Detail: r.Detail, Time: r.RecordedTime,
			})
			n++
		}
	}
	if err := f.insist(ctx, "storing rejects", func(ctx context.Context) error { return f.store.InsertRejects(ctx, rows) }); err != nil {
		return err
	}
	f.metrics.flushed("rejects", len(rows), time.Since(start))
	return nil
}

// stageOf is the third token of social.rejects.<stage>.<code>.
func stageOf(subject string) string {
	tokens := strings.Split(subject, ".")
	if len(tokens) < 4 {
		return "unknown"
	}
	return tokens[2]
}

func decodeFrame(d *bus.Delivery) ([]byte, error) {
	size, err := strconv.Atoi(d.Header.Get(topology.HeaderSize))
	if err != nil {
		return nil, fmt.Errorf("%w: header %s: %v", wire.ErrFrame, topology.HeaderSize, err)
	}
	return wire.DecodeFrame(nil, d.Data, size)
}

// foreign makes a reject of a message that nobody of ours wrote: reading it again would end the same.
func (f *flush) foreign(ctx context.Context, d *bus.Delivery, why error) error {
	f.unreadable(d, why)
	frame := wire.AppendReject(nil, &wire.Reject{Code: "invalid_message", Detail: "not written by Polyphony", RecordedTime: d.Stored, Bytes: d.Data})
	return f.insist(ctx, "keeping a foreign message", func(ctx context.Context) error {
		return f.bus.Publish(ctx, []bus.Message{{
			Subject: topology.RejectSubject("aggregate", "invalid_message"), Data: wire.EncodeOne(frame), ID: fmt.Sprintf("aggregate-%s-%d", d.Subject, d.Sequence),
			Header: bus.Header{topology.HeaderSize: {strconv.Itoa(len(frame))}, topology.HeaderEvents: {"1"}},
		}})
	})
}

func (f *flush) unreadable(d *bus.Delivery, why error) {
	f.metrics.unreadable.WithLabelValues(d.Subject[:min(len(d.Subject), len("social.mentions"))]).Inc()
	f.log.Error("a message cannot be read", "subject", d.Subject, "sequence", d.Sequence, "error", why)
}
