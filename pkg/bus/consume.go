package bus

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"polyphony/pkg/seam"
	"polyphony/pkg/topology"
)

const (
	// ackWait is how long a dead reader's messages stay with it: what a kill delays. A live reader says every third of
	// it that it works.
	ackWait = 10 * time.Second
	// maxAckPending allows a second's worth of one-event messages of several hundred quiet nodes.
	maxAckPending = 50_000
)

// askPeriod is how often a reader looks whether its durable was set back.
const askPeriod = time.Second

// request bounds what the server sends at one go: more would only wait in its buffers and ours.
const request = 2 << 20

// Delivery is a message as a handler sees it.
type Delivery struct {
	Message
	Deliveries uint64    // 1 the first time
	Again      bool      // somebody may have begun with it before, and even ended
	Stored     time.Time // by the server's clock
	Sequence   uint64
	count      uint64 // of deliveries of the durable, from 1; it falls when that is set back
	msg        jetstream.Msg
}

// Done acknowledges d before its batch is: what follows from it is stored. If that fails, the end of the batch does it. It takes
// five seconds to fail, as it does for all that a replay sets the readers back behind meanwhile.
func (d *Delivery) Done(ctx context.Context) error {
	seam.Before(seam.Acknowledge, d.Subject)
	if err := d.msg.DoubleAck(ctx); err != nil {
		return err
	}
	seam.After(seam.Acknowledge, d.Subject)
	return nil
}

// ownHeaderSize is more than a value of a header takes that we write.
const ownHeaderSize = 1 << 10

// OwnHeader is d's header without what NATS, or somebody else who may write megabytes, put there.
func (d *Delivery) OwnHeader() Header {
	own := maps.Clone(d.Header)
	maps.DeleteFunc(own, func(name string, values []string) bool {
		return !strings.HasPrefix(name, "Polyphony-") && name != "Content-Type" || len(values) != 1 || len(values[0]) > ownHeaderSize
	})
	return own
}

// Limit bounds the batches of a handler: as soon as Bytes or Messages have come, or Wait after the first message.
type Limit struct {
	Bytes    int // as they travel, compressed or not
	Messages int
	Wait     time.Duration
}

// Handler processes one batch. nil acknowledges all of it. An error leaves it unacknowledged and ends Consume: what
// can only be waited for is waited for inside, for as long as it takes; meanwhile the server is told that work goes on.
// Its context lasts a little longer than the reader's, so that what is half done is ended and not repeated.
type Handler func(context.Context, []Delivery) error

// finishTime is how long a handler may go on after its reader was told to stop: a batch takes a fraction of it, unless
// what it is stored in is away.
const finishTime = 5 * time.Second

// finishing lasts longer than ctx by finishTime, or until end.
func finishing(ctx context.Context) (work context.Context, end func()) {
	work, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	unhook := context.AfterFunc(ctx, func() {
		late := time.NewTimer(finishTime)
		defer late.Stop()
		select {
		case <-late.C:
			cancel(context.Cause(ctx))
		case <-work.Done():
		}
	})
	return work, func() { unhook(); cancel(nil) }
}

// Consume feeds a durable's messages to handle, batch after batch, until ctx ends (nil) or handle fails, be it while ctx
// ends. Nothing is fetched ahead: what a reader holds is one batch, and a stopped reader leaves nothing waiting behind.
func (b *Bus) Consume(ctx context.Context, c topology.Consumer, limit Limit, handle Handler) error {
	pace := Forever()
	for ctx.Err() == nil {
		err := b.consume(ctx, c, limit, handle, pace.Reset)
		var failed *handlerError
		switch {
		case errors.As(err, &failed) && !(ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.Cause(ctx)))):
			return failed.error
		case ctx.Err() != nil:
			return nil
		}
		if absent(err) {
			b.restore(ctx, err)
		}
		wait := pace.NextBackOff()
		b.log.Warn("reading again", "stream", c.Stream.Name, "consumer", c.Durable, "error", err, "wait", wait)
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
	return nil
}

// handlerError tells a handler's error, which ends Consume, from a reader's, which is tried again.
type handlerError struct{ error }

func (e *handlerError) Unwrap() error { return e.error }

// consume reads until something fails. progress is called after each batch.
func (b *Bus) consume(ctx context.Context, c topology.Consumer, limit Limit, handle Handler, progress func()) error {
	consumer, err := b.js.Consumer(ctx, c.Stream.Name, c.Durable)
	if err != nil {
		return fmt.Errorf("finding the consumer: %w", err)
	}
	asked, last := time.Now(), consumer.CachedInfo().Delivered.Consumer
	for {
		batch, err := gather(ctx, consumer, limit)
		if err != nil {
			return fmt.Errorf("reading: %w", err)
		}
		if len(batch) == 0 {
			continue
		}
		// A durable may be set back at any time. Its deliveries then count from 1; and until which message, it says itself.
		if batch[0].count <= last || time.Since(asked) > askPeriod {
			if _, err := consumer.Info(ctx); err != nil {
				return fmt.Errorf("finding the consumer: %w", err)
			}
			asked = time.Now()
		}
		last = batch[len(batch)-1].count
		markAgain(batch, consumer.CachedInfo().Config.Metadata[replayedUntil])
		if err := b.handle(ctx, handle, batch); err != nil {
			return &handlerError{err}
		}
		for _, d := range batch {
			seam.Before(seam.Acknowledge, d.Subject)
			if err := d.msg.Ack(); err != nil && !errors.Is(err, jetstream.ErrMsgAlreadyAckd) {
				return fmt.Errorf("acknowledging: %w", err)
			}
			seam.After(seam.Acknowledge, d.Subject)
		}
		progress()
	}
}

// lastWords is how long a dying process may take to say what it leaves behind, and how long it is left alone: what is given back
// at once would come to other readers in it.
const lastWords = time.Second

// handle has a batch handled, and given back when it was not: the next reader need not wait for it, also when this one dies of
// it.
func (b *Bus) handle(ctx context.Context, handle Handler, batch []Delivery) error {
	survived, stop := false, keepAlive(batch)
	work, end := finishing(ctx)
	defer func() {
		end()
		stop()
		if survived {
			return
		}
		for _, d := range batch {
			_ = d.msg.NakWithDelay(lastWords)
		}
		_ = b.conn.FlushTimeout(lastWords)
	}()
	err := handle(work, batch)
	survived = true
	if err != nil {
		for _, d := range batch {
			_ = d.msg.Nak()
		}
	}
	return err
}

// gather waits for a first message, for as long as a request lasts, then collects until the limit.
func gather(ctx context.Context, consumer jetstream.Consumer, limit Limit) ([]Delivery, error) {
	first, err := consumer.Next(jetstream.FetchContext(ctx))
	if errors.Is(err, nats.ErrTimeout) || errors.Is(err, jetstream.ErrNoMessages) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	batch := []Delivery{delivery(first)}
	window := time.Now().Add(limit.Wait)
	for left := limit.Bytes - len(first.Data()); left > 0 && len(batch) < limit.Messages; {
		wait := time.Until(window)
		if wait <= 0 {
			break
		}
		more, err := consumer.Fetch(limit.Messages-len(batch), jetstream.FetchMaxBytes(min(left, request)), jetstream.FetchMaxWait(wait))
		if err != nil {
			break // the next request will say so again
		}
		before := len(batch)
		for msg := range more.Messages() {
			batch = append(batch, delivery(msg))
			left -= len(msg.Data())
		}
		if len(batch) == before { // the time is up, or the next one is too large for what is left
			break
		}
	}
	return batch, nil
}

func delivery(msg jetstream.Msg) Delivery {
	d := Delivery{Message: Message{Subject: msg.Subject(), Header: msg.Headers(), Data: msg.Data()}, msg: msg}
	if meta, err := msg.Metadata(); err == nil {
		d.Deliveries, d.Sequence, d.Stored, d.count = meta.NumDelivered, meta.Sequence.Stream, meta.Timestamp.UTC(), meta.Sequence.Consumer
	}
	return d
}

// markAgain marks what was delivered before, or may have been by what a replay said.
func markAgain(batch []Delivery, replayed string) {
	until, _ := strconv.ParseUint(replayed, 10, 64) // "" where nothing was ever replayed
	for i := range batch {
		batch[i].Again = batch[i].Deliveries > 1 || batch[i].Sequence <= until
	}
}

// keepAlive tells the server that the batch is being worked on, until stop.
func keepAlive(batch []Delivery) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		ticker := time.NewTicker(ackWait / 3)
		defer ticker.Stop()
		for {
			select {
			case <-done:
				return
			case <-ticker.C:
				for _, d := range batch {
					_ = d.msg.InProgress() // a failure means a redelivery, which is harmless
				}
			}
		}
	}()
	return func() { close(done); <-ended }
}
