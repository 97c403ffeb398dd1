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
	r, err := b.setBack(ctx, stream, c, from)
	if err != nil {
		return Replayed{}, err
	}
	return r, b.unpurged(ctx, c.Stream, stream, r.From)
}

// setBack is a replay that does not look whether somebody purges meanwhile.
func (b *Bus) setBack(ctx context.Context, stream jetstream.Stream, c topology.Consumer, from time.Time) (Replayed, error) {
	consumer, err := stream.Consumer(ctx, c.Durable)
	if err != nil {
		return Replayed{}, fmt.Errorf("reading consumer %s of %s: %w", c.Durable, c.Stream.Name, err)
	}
	state, floor := stream.CachedInfo().State, consumer.CachedInfo().AckFloor.Stream
	r := Replayed{From: floor + 1, Last: state.LastSeq}
	if state.Msgs > 0 {
		r.Oldest = state.FirstTime.UTC()
		since, err := firstSince(ctx, stream, c.Stream.Subject, state.FirstSeq, state.LastSeq+1, from)
		if err != nil {
			return Replayed{}, fmt.Errorf("looking in %s for what was stored at %s: %w", c.Stream.Name, from.UTC().Format(time.RFC3339), err)
		}
		r.From = min(r.From, since)
	}
	r.From = max(r.From, state.FirstSeq) // who counts what was read may be older than the stream
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
	if _, err := b.js.ResetConsumerToSequence(ctx, c.Stream.Name, c.Durable, r.From); ctx.Err() != nil {
		return Replayed{}, ctx.Err()
	} else if err != nil {
		return Replayed{}, fmt.Errorf("setting back consumer %s of %s (NATS 2.14 or later is needed): %w", c.Durable, c.Stream.Name, err)
	}
	return r, nil
}

// purgeTime is how long a purge may be under way.
const purgeTime = 5 * time.Second

// unpurged makes sure that what readers were set back to is still there: a janitor that looked before they were may be purging it. One
// that is stopped for longer, and purges then, will have removed more than is noted: that shows as a loss.
func (b *Bus) unpurged(ctx context.Context, s topology.Stream, stream jetstream.Stream, from uint64) error {
	tidied, err := b.Tidied(ctx, s, stream.CachedInfo().Created)
	if err != nil {
		return err
	}
	if tidied > from {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(purgeTime):
		}
	}
	info, err := stream.Info(ctx)
	if err != nil {
		return fmt.Errorf("reading stream %s: %w", s.Name, err)
	}
	if first := info.State.FirstSeq; first > from {
		return fmt.Errorf("messages %d to %d of %s were purged while they were to be read again", from, first-1, s.Name)
	}
	if tidied > from {
		return b.Put(ctx, topology.MarksBucket, topology.TidiedMark(s.Name, stream.CachedInfo().Created), strconv.AppendUint(nil, from, 10))
	}
	return nil
}

// readWait is how long a message may take that is there: the answers of a busy server, and those that were purged meanwhile.
const readWait = 5 * time.Second

// Read hands over what a stream holds now on some subjects, stored since a time, one by one and in order. It disturbs nobody
// else who reads.
func (b *Bus) Read(ctx context.Context, stream topology.Stream, subjects []string, since time.Time, each func(*Delivery) error) error {
	config := jetstream.OrderedConsumerConfig{FilterSubjects: subjects, DeliverPolicy: jetstream.DeliverAllPolicy}
	if !since.IsZero() {
		config.DeliverPolicy, config.OptStartTime = jetstream.DeliverByStartTimePolicy, &since
	}
	consumer, err := b.js.OrderedConsumer(ctx, stream.Name, config)
	if err != nil {
		return fmt.Errorf("reading stream %s: %w", stream.Name, err)
	}
	messages, err := consumer.Messages()
	if err != nil {
		return fmt.Errorf("reading stream %s: %w", stream.Name, err)
	}
	defer messages.Stop()
	for range consumer.CachedInfo().NumPending {
		waiting, cancel := context.WithTimeout(ctx, readWait)
		msg, err := messages.Next(jetstream.NextContext(waiting))
		cancel()
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
			info, err := consumer.Info(ctx)
			if err == nil && info.NumPending > 0 {
				err = fmt.Errorf("%d messages did not come", info.NumPending)
			}
			if err != nil {
				return fmt.Errorf("reading stream %s: NATS is silent: %w", stream.Name, err)
			}
			return nil // the rest was purged meanwhile
		}
		if err != nil {
			return fmt.Errorf("reading stream %s: %w", stream.Name, err)
		}
		d := delivery(msg)
		if err := each(&d); err != nil {
			return err
		}
	}
	return nil
}

// ErrGone says that a stream does not hold a message, or no more.
var ErrGone = errors.New("not in the stream")

// Message reads one message of a stream.
func (b *Bus) Message(ctx context.Context, stream topology.Stream, sequence uint64) (*Delivery, error) {
	from, err := b.js.Stream(ctx, stream.Name)
	if err != nil {
		return nil, fmt.Errorf("reading stream %s: %w", stream.Name, err)
	}
	msg, err := from.GetMsg(ctx, sequence)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, fmt.Errorf("%w: %s %d", ErrGone, stream.Name, sequence)
	}
	if err != nil {
		return nil, fmt.Errorf("reading message %d of stream %s: %w", sequence, stream.Name, err)
	}
	return &Delivery{Message: Message{Subject: msg.Subject, Header: msg.Header, Data: msg.Data}, Stored: msg.Time, Sequence: msg.Sequence}, nil
}

// StoredAt gives when a message was stored; the zero time and ErrGone where the stream does not hold it.
func (b *Bus) StoredAt(ctx context.Context, stream topology.Stream, sequence uint64) (time.Time, error) {
	if sequence == 0 {
		return time.Time{}, ErrGone
	}
	d, err := b.Message(ctx, stream, sequence)
	if err != nil {
		return time.Time{}, err
	}
	return d.Stored.UTC(), nil
}

// absent tells whether a stream, a durable or a bucket is not there (any more).
func absent(err error) bool {
	return errors.Is(err, jetstream.ErrStreamNotFound) || errors.Is(err, jetstream.ErrConsumerNotFound) || errors.Is(err, jetstream.ErrConsumerDeleted) ||
		errors.Is(err, jetstream.ErrBucketNotFound) || errors.Is(err, jetstream.ErrNoStreamResponse)
}

// removalTime is how long a server may be removing what it says is gone. What is made anew under the same name meanwhile it
// would take away too, and refuse every message since.
const removalTime = 2 * time.Second

// restore makes what is absent anew, where it was told how large. What was in it is lost, which whoever follows progress notices.
func (b *Bus) restore(ctx context.Context, why error) {
	if b.storage == 0 { // a tool's, that does not know how much room there is
		return
	}
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
