package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"polyphony/pkg/topology"
)

// Progress says how far a durable has come in which stream.
type Progress struct {
	Created time.Time // when the stream was made
	First   uint64    // the first message that the stream still holds
	Removed int       // messages that were removed from between others
	Floor   uint64    // every message up to this one is acknowledged
	Last    uint64    // the last message of the stream
	LastAt  time.Time // when that was stored
	Until   time.Time // every message stored before this time, by the server's clock, is acknowledged
}

// Progress reads how far the readers of a durable have come, together.
func (b *Bus) Progress(ctx context.Context, c topology.Consumer) (Progress, error) {
	stream, err := b.js.Stream(ctx, c.Stream.Name)
	if err != nil {
		return Progress{}, fmt.Errorf("reading stream %s: %w", c.Stream.Name, err)
	}
	consumer, err := stream.Consumer(ctx, c.Durable)
	if err != nil {
		return Progress{}, fmt.Errorf("reading consumer %s of %s: %w", c.Durable, c.Stream.Name, err)
	}
	state := stream.CachedInfo().State
	p := Progress{Created: stream.CachedInfo().Created.UTC(), First: state.FirstSeq, Removed: state.NumDeleted, Floor: consumer.CachedInfo().AckFloor.Stream,
		Last: state.LastSeq, LastAt: state.LastTime.UTC(), Until: stream.CachedInfo().TimeStamp.UTC()}
	if p.Floor >= p.Last {
		return p, nil
	}
	msg, err := stream.GetMsg(ctx, p.Floor+1)
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound): // acknowledged and purged meanwhile: ask again later
		p.Until = time.Time{}
	case err != nil:
		return Progress{}, fmt.Errorf("reading message %d of %s: %w", p.Floor+1, c.Stream.Name, err)
	default:
		p.Until = msg.Time.UTC()
	}
	return p, nil
}
