package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sort"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"polyphony/pkg/seam"
	"polyphony/pkg/topology"
)

const (
	// janitorPeriod is how often streams are looked at; at 100 MB/s a stream of some GiB does not fill in between.
	janitorPeriod = 5 * time.Second
	// silence is how long nothing may be delivered or acknowledged while readers wait and messages are out: six times as long
	// as an unacknowledged message stays with its reader.
	silence = 6 * ackWait
	// highWater is the part of a stream's size, in percent, above which acknowledged messages go at any age. In small streams they go
	// sooner: when the largest message no longer fits, which is about largest, or half is taken.
	highWater = 80
	largest   = 1 << 20
	// lowWater is below what unread part of its size a stream has room again: one that is read as fast as it is filled is not said to
	// every few seconds.
	lowWater = 60
)

// Janitor keeps the streams of consumers within their bounds, and their messages moving, until ctx ends. It removes only what Polyphony's own
// durables have acknowledged: what is older than keep says, and above the high-water mark of any age. Several janitors
// of one stream are harmless. seen is told how full each stream is, every few seconds.
func (b *Bus) Janitor(ctx context.Context, keep func() time.Duration, seen func(Fill), consumers ...topology.Consumer) error {
	alarmed := map[string]bool{}
	ticker := time.NewTicker(janitorPeriod)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-ticker.C:
			for _, c := range consumers {
				fill, err := b.tidy(ctx, c, now.Add(-keep()))
				if err != nil && ctx.Err() == nil {
					b.log.Warn("tidying a stream", "stream", c.Stream.Name, "error", err)
				}
				if err == nil {
					seen(fill)
					alarm(b.log, alarmed, fill)
				}
				if err := b.revive(ctx, c, silence); err != nil && ctx.Err() == nil {
					b.log.Warn("looking for messages that are with nobody", "stream", c.Stream.Name, "error", err)
				}
			}
		}
	}
}

// Fill says how full a stream is.
type Fill struct {
	Stream string
	Bytes  uint64
	Max    uint64 // from where on the stream refuses
	Unread uint64 // of Bytes those that were not read yet, and cannot go: as their messages are of all
}

// Ratio is how full it is, 1 when it refuses.
func (f Fill) Ratio() float64 { return float64(f.Bytes) / float64(max(1, f.Max)) }

// alarm says when a stream comes near its limit, once, and when it no longer is.
func alarm(log *slog.Logger, alarmed map[string]bool, f Fill) {
	near := f.Unread*100 > f.Max*highWater || alarmed[f.Stream] && f.Unread*100 > f.Max*lowWater
	switch {
	case near && !alarmed[f.Stream]:
		log.Error("a stream is nearly full of what was not read yet, and will refuse: look at what its readers wait for in their /readyz, or give it more room",
			"stream", f.Stream, "bytes", f.Bytes, "unread", f.Unread, "max", f.Max)
	case !near && alarmed[f.Stream]:
		log.Info("a stream has room again", "stream", f.Stream, "bytes", f.Bytes, "unread", f.Unread, "max", f.Max)
	}
	alarmed[f.Stream] = near
}

// tidy purges one stream below the lower of what is acknowledged and what is younger than the time given, and says how full
// it was before.
func (b *Bus) tidy(ctx context.Context, c topology.Consumer, young time.Time) (Fill, error) {
	stream, err := b.js.Stream(ctx, c.Stream.Name)
	if err != nil {
		return Fill{}, fmt.Errorf("reading stream: %w", err)
	}
	consumer, err := stream.Consumer(ctx, c.Durable)
	if err != nil {
		return Fill{}, fmt.Errorf("reading consumer: %w", err)
	}
	state := stream.CachedInfo().State
	acked := consumer.CachedInfo().AckFloor.Stream
	fill := Fill{Stream: c.Stream.Name, Bytes: state.Bytes, Max: uint64(stream.CachedInfo().Config.MaxBytes), Unread: state.Bytes}
	if acked < state.FirstSeq || state.Msgs == 0 {
		return fill, nil
	}
	fill.Unread = uint64(float64(state.Bytes) * float64(state.LastSeq-min(acked, state.LastSeq)) / float64(state.LastSeq-state.FirstSeq+1))
	purgeBelow := acked + 1
	if full := fill.Bytes*100 > fill.Max*highWater || fill.Bytes+min(largest, fill.Max/2) > fill.Max; full {
		purgeBelow = state.FirstSeq + (purgeBelow-state.FirstSeq+1)/2 // the older half; the next round takes more if it must
	} else {
		if !state.FirstTime.Before(young) {
			return fill, nil
		}
		if purgeBelow, err = firstSince(ctx, stream, c.Stream.Subject, state.FirstSeq, purgeBelow, young); err != nil {
			return fill, err
		}
	}
	if err := b.raise(ctx, topology.TidiedMark(c.Stream.Name, stream.CachedInfo().Created), purgeBelow); err != nil {
		return fill, fmt.Errorf("noting what is purged: %w", err)
	}
	// Looked at again after that was noted: a replay sets the readers back first, then looks whether anything is noted.
	if consumer, err = stream.Consumer(ctx, c.Durable); err != nil {
		return fill, fmt.Errorf("reading consumer: %w", err)
	}
	if consumer.CachedInfo().AckFloor.Stream+1 < purgeBelow {
		return fill, nil
	}
	seam.Before(seam.Purge, c.Stream.Name)
	if err := stream.Purge(ctx, jetstream.WithPurgeSequence(purgeBelow)); err != nil {
		return fill, fmt.Errorf("purging below %d: %w", purgeBelow, err)
	}
	seam.After(seam.Purge, c.Stream.Name)
	return fill, nil
}

// revive has messages delivered again that are out with nobody, for as long as nothing moved while readers wait for more.
// After a start the server may put off the redelivery of some messages by as long as others had been out before; it does not know
// then when anything moved last. Those that somebody does work on are worked on twice, which is harmless.
func (b *Bus) revive(ctx context.Context, c topology.Consumer, silence time.Duration) error {
	stream, err := b.js.Stream(ctx, c.Stream.Name)
	if err != nil {
		return fmt.Errorf("reading stream: %w", err)
	}
	consumer, err := stream.Consumer(ctx, c.Durable)
	if err != nil {
		return fmt.Errorf("reading consumer: %w", err)
	}
	info := consumer.CachedInfo()
	if info.NumAckPending == 0 || info.NumWaiting == 0 || within(info.TimeStamp, info.Delivered.Last, silence) || within(info.TimeStamp, info.AckFloor.Last, silence) {
		return nil
	}
	b.log.Warn("delivering messages again that are with nobody", "stream", c.Stream.Name, "messages", info.NumAckPending)
	_, err = b.setBack(ctx, stream, c, info.TimeStamp.Add(time.Hour)) // of what is read nothing
	return err
}

func within(now time.Time, at *time.Time, time time.Duration) bool {
	return at != nil && now.Sub(*at) < time
}

// raise notes a number under a mark unless that is as high already. Whoever finds less in a stream than was noted before
// knows that somebody else removed it.
func (b *Bus) raise(ctx context.Context, mark string, n uint64) error {
	kv, err := b.bucket(ctx, topology.MarksBucket)
	if err != nil {
		return err
	}
	value := strconv.AppendUint(nil, n, 10)
	entry, err := kv.Get(ctx, mark)
	switch {
	case errors.Is(err, jetstream.ErrKeyNotFound):
		_, err = kv.Create(ctx, mark, value)
		return err
	case err != nil:
		return err
	}
	if noted, err := strconv.ParseUint(string(entry.Value()), 10, 64); err == nil && noted >= n {
		return nil
	}
	_, err = kv.Update(ctx, mark, value, entry.Revision()) // who loses against another janitor comes again
	return err
}

// Tidied gives the first message that janitors left of a stream made at a time; what is missing from there on somebody else
// removed.
func (b *Bus) Tidied(ctx context.Context, stream topology.Stream, created time.Time) (uint64, error) {
	value, err := b.Get(ctx, topology.MarksBucket, topology.TidiedMark(stream.Name, created))
	if errors.Is(err, ErrNoKey) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(string(value), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("reading what was purged of %s: %w", stream.Name, err)
	}
	return n, nil
}

// firstSince is the first sequence within [from, to) stored at or after t, or to. Some in between may have been removed.
func firstSince(ctx context.Context, stream jetstream.Stream, subject string, from, to uint64, t time.Time) (uint64, error) {
	var failed error
	n := sort.Search(int(to-from), func(i int) bool {
		if failed != nil {
			return true
		}
		msg, err := stream.GetMsg(ctx, from+uint64(i), jetstream.WithGetMsgSubject(subject)) // or the next one that is there
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return true
		}
		if err != nil {
			failed = fmt.Errorf("reading message %d: %w", from+uint64(i), err)
			return true
		}
		return !msg.Time.Before(t)
	})
	return from + uint64(n), failed
}
