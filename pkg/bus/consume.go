package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/nats-io/nats.go/jetstream"

	"polyphony/pkg/topology"
)

const (
	// ackWait is how long a dead reader's messages stay with it: what a kill delays. A live reader says every third of
	// it that it works.
	ackWait = 10 * time.Second
	// maxAckPending allows a second's worth of one-event messages of several hundred quiet nodes.
	maxAckPending = 50_000
	// prefetch bounds the bytes waiting in the client: half the bound above which the client drops messages.
	prefetch = 16 << 20
)

// Delivery is a message as a handler sees it.
type Delivery struct {
	Message
	Deliveries uint64 // 1 the first time
	Sequence   uint64
	msg        jetstream.Msg
}

// Limit bounds the batches of a handler: as soon as Bytes have come, or Wait after the first message.
type Limit struct {
	Bytes int
	Wait  time.Duration
}

// Handler processes one batch. nil acknowledges all of it. An error leaves it unacknowledged and ends Consume: what
// can only be waited for is waited for inside, for as long as it takes; meanwhile the server is told that work goes on.
type Handler func(context.Context, []Delivery) error

// Consume feeds a durable's messages to handle, batch after batch, until ctx ends (nil) or handle fails.
func (b *Bus) Consume(ctx context.Context, c topology.Consumer, limit Limit, handle Handler) error {
	for {
		messages, err := b.open(ctx, c)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		err = b.consume(ctx, messages, limit, handle)
		giveBack(messages)
		switch {
		case ctx.Err() != nil:
			return nil
		case !errors.Is(err, errReader):
			return err
		}
		b.log.Warn("reading again", "stream", c.Stream.Name, "consumer", c.Durable, "error", err)
	}
}

// errReader marks a broken subscription, which is opened anew; the durable knows where it stood.
var errReader = errors.New("reading")

// open subscribes to a durable, waiting for it while the server cannot answer.
func (b *Bus) open(ctx context.Context, c topology.Consumer) (jetstream.MessagesContext, error) {
	return backoff.RetryNotifyWithData(func() (jetstream.MessagesContext, error) {
		consumer, err := b.js.Consumer(ctx, c.Stream.Name, c.Durable)
		if err != nil {
			return nil, fmt.Errorf("finding consumer %s of %s: %w", c.Durable, c.Stream.Name, err)
		}
		return consumer.Messages(jetstream.PullMaxBytes(prefetch))
	}, backoff.WithContext(forever(), ctx), func(err error, wait time.Duration) {
		b.log.Warn("waiting for stream", "error", err, "wait", wait)
	})
}

// giveBack ends a subscription and returns what was fetched ahead, so that the next reader need not wait for it.
func giveBack(messages jetstream.MessagesContext) {
	messages.Drain()
	for {
		msg, err := messages.Next(jetstream.NextMaxWait(time.Second))
		if err != nil {
			return
		}
		_ = msg.Nak() // without it the message comes again after ackWait
	}
}

func (b *Bus) consume(ctx context.Context, messages jetstream.MessagesContext, limit Limit, handle Handler) error {
	for {
		batch, err := gather(ctx, messages, limit)
		if err != nil {
			return fmt.Errorf("%w: %w", errReader, err)
		}
		stop := keepAlive(batch)
		err = handle(ctx, batch)
		stop()
		if err != nil {
			for _, d := range batch {
				_ = d.msg.Nak() // the next reader need not wait for it
			}
			return err
		}
		for _, d := range batch {
			if err := d.msg.Ack(); err != nil {
				return fmt.Errorf("%w: acknowledging: %w", errReader, err)
			}
		}
	}
}

// gather waits for a first message, then collects until the limit.
func gather(ctx context.Context, messages jetstream.MessagesContext, limit Limit) ([]Delivery, error) {
	first, err := messages.Next(jetstream.NextContext(ctx))
	if err != nil {
		return nil, err
	}
	batch := []Delivery{delivery(first)}
	size := len(first.Data())
	window, cancel := context.WithTimeout(ctx, limit.Wait)
	defer cancel()
	for size < limit.Bytes {
		next, err := messages.Next(jetstream.NextContext(window))
		if errors.Is(err, context.DeadlineExceeded) {
			break
		}
		if err != nil {
			return nil, err
		}
		size += len(next.Data())
		batch = append(batch, delivery(next))
	}
	return batch, nil
}

func delivery(msg jetstream.Msg) Delivery {
	d := Delivery{Message: Message{Subject: msg.Subject(), Header: msg.Headers(), Data: msg.Data()}, msg: msg}
	if meta, err := msg.Metadata(); err == nil {
		d.Deliveries, d.Sequence = meta.NumDelivered, meta.Sequence.Stream
	}
	return d
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
