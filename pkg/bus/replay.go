package bus

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"polyphony/pkg/topology"
)

// Replayed says what the readers of a durable read once more.
type Replayed struct {
	From   uint64    // the first message
	Last   uint64    // the last of them that was read before, or is to be read anyway
	Oldest time.Time // when the oldest message was stored that the stream still holds; zero when it holds none
}

// replayedUntil is the key in a durable's metadata of the last message that may have been read before.
const replayedUntil = "polyphony-replayed"

// Replay has the readers of a durable read again what its stream holds from a time on. What was not acknowledged yet is
// read in any case, also where it is older. Readers may be at work meanwhile.
func (b *Bus) Replay(ctx context.Context, c topology.Consumer, from time.Time) (Replayed, error) {
	stream, err := b.js.Stream(ctx, c.Stream.Name)
	if err != nil {
		return Replayed{}, fmt.Errorf("reading stream %s: %w", c.Stream.Name, err)
	}
	consumer, err := stream.Consumer(ctx, c.Durable)
	if err != nil {
		return Replayed{}, fmt.Errorf("reading consumer %s of %s: %w", c.Durable, c.Stream.Name, err)
	}
	state, floor := stream.CachedInfo().State, consumer.CachedInfo().AckFloor.Stream
	r := Replayed{From: floor + 1, Last: state.LastSeq}
	if state.Msgs > 0 {
		r.Oldest = state.FirstTime.UTC()
		since, err := firstSince(ctx, stream, state.FirstSeq, state.LastSeq+1, from)
		if err != nil {
			return Replayed{}, fmt.Errorf("looking in %s for what was stored at %s: %w", c.Stream.Name, from.UTC().Format(time.RFC3339), err)
		}
		r.From = min(r.From, since)
	}
	// Told first: whoever gets a message again finds that it may be one.
	config := consumer.CachedInfo().Config
	config.Metadata = maps.Clone(config.Metadata)
	if config.Metadata == nil {
		config.Metadata = map[string]string{}
	}
	config.Metadata[replayedUntil] = strconv.FormatUint(r.Last, 10)
	if _, err := stream.UpdateConsumer(ctx, config); err != nil {
		return Replayed{}, fmt.Errorf("telling consumer %s of %s: %w", c.Durable, c.Stream.Name, err)
	}
	if _, err := b.js.ResetConsumerToSequence(ctx, c.Stream.Name, c.Durable, r.From); err != nil {
		return Replayed{}, fmt.Errorf("setting back consumer %s of %s (NATS 2.14 or later is needed): %w", c.Durable, c.Stream.Name, err)
	}
	return r, nil
}

// absent tells whether a stream, a durable or a bucket is not there (any more).
func absent(err error) bool {
	return errors.Is(err, jetstream.ErrStreamNotFound) || errors.Is(err, jetstream.ErrConsumerNotFound) || errors.Is(err, jetstream.ErrConsumerDeleted) ||
		errors.Is(err, jetstream.ErrBucketNotFound) || errors.Is(err, jetstream.ErrNoStreamResponse)
}

// removalTime is how long a server may be removing what it says is gone. What is made anew under the same name meanwhile it
// would take away too, and refuse every message since.
const removalTime = 2 * time.Second

// restore makes what is absent anew. What was in it is lost, which whoever follows progress notices.
func (b *Bus) restore(ctx context.Context, why error) {
	b.log.Error("something of NATS is gone and is made anew", "error", why)
	select {
	case <-ctx.Done():
		return
	case <-time.After(removalTime):
	}
	if err := b.ensure(ctx); err != nil && ctx.Err() == nil {
		b.log.Warn("making it anew", "error", err)
	}
}
