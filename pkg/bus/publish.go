package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"polyphony/pkg/seam"
)

// Header is a message's header.
type Header = nats.Header

// HeaderMsgID is the header that Message.ID travels in.
const HeaderMsgID = nats.MsgIdHdr

// Message is bytes on their way to a subject, or from one.
type Message struct {
	Subject string
	Header  Header
	Data    []byte
	// ID makes repeats of a publish harmless within two minutes; empty where repeats are harmless anyway.
	ID string
}

// ErrFull says that a stream takes no more until its readers have caught up.
var ErrFull = errors.New("stream is full")

// Publish returns nil when every message is stored. Lost acknowledgements and reconnects are retried, with the same
// ids, until ctx ends; a full stream is not: the caller's own sender is to wait. After an error any part of the
// messages may have been stored, so the only remedy is to publish them all again.
func (b *Bus) Publish(ctx context.Context, messages []Message) error {
	return b.publish(ctx, messages, func(err error) error {
		if errors.Is(err, ErrFull) {
			return backoff.Permanent(err)
		}
		return err
	})
}

// PublishPatiently is Publish for callers that can only wait: a full stream is retried as well. What is stored is not
// published again while the rest waits. waits, which may be nil, is told why after each attempt that did not store all.
func (b *Bus) PublishPatiently(ctx context.Context, messages []Message, waits func(why error)) error {
	return b.publish(ctx, messages, func(err error) error {
		if waits != nil {
			waits(err)
		}
		return err
	})
}

// publish tries until everything is stored, ctx ends, or judge makes of an attempt's error a permanent one.
func (b *Bus) publish(ctx context.Context, messages []Message, judge func(error) error) error {
	pending := messages
	attempt := func() error {
		failed, err := b.publishOnce(ctx, pending)
		pending = failed
		if absent(err) {
			b.restore(ctx, err)
		}
		switch {
		case err == nil:
			return nil
		case errors.Is(err, nats.ErrMaxPayload):
			return backoff.Permanent(err)
		}
		return judge(err)
	}
	notify := func(err error, wait time.Duration) {
		b.log.Warn("publishing again", "messages", len(pending), "error", err, "wait", wait)
	}
	if err := backoff.RetryNotify(attempt, backoff.WithContext(Forever(), ctx), notify); err != nil {
		return fmt.Errorf("publishing %d messages: %w", len(messages), err)
	}
	return nil
}

// Forever is the retry policy of everything that can only wait: quick at first, every five seconds later.
func Forever() backoff.BackOff {
	return backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(50*time.Millisecond), backoff.WithMaxInterval(5*time.Second), backoff.WithMaxElapsedTime(0))
}

// publishOnce sends all messages, waits for all acknowledgements, and returns what failed with the first reason.
func (b *Bus) publishOnce(ctx context.Context, messages []Message) (failed []Message, err error) {
	futures := make([]jetstream.PubAckFuture, len(messages))
	fail := func(i int, reason error) {
		failed = append(failed, messages[i])
		if err == nil || errors.Is(reason, ErrFull) {
			err = reason
		}
	}
	for i, m := range messages {
		if ctx.Err() != nil { // where nobody answers, each send waits for one of those in flight
			return messages, context.Cause(ctx)
		}
		msg := &nats.Msg{Subject: m.Subject, Header: m.Header, Data: m.Data}
		var options []jetstream.PublishOpt
		if m.ID != "" {
			options = append(options, jetstream.WithMsgID(m.ID))
		}
		seam.Before(seam.Publish, m.Subject)
		future, sendErr := b.js.PublishMsgAsync(msg, options...)
		if sendErr != nil {
			fail(i, sendErr)
			continue
		}
		futures[i] = future
	}
	for i, future := range futures {
		if future == nil {
			continue
		}
		select {
		case <-future.Ok():
			seam.After(seam.Publish, messages[i].Subject)
		case ackErr := <-future.Err():
			fail(i, refusal(ackErr))
		case <-ctx.Done():
			return messages, context.Cause(ctx)
		}
	}
	return failed, err
}

// refusal recognises a full stream among the server's answers.
func refusal(err error) error {
	var api *jetstream.APIError
	if errors.As(err, &api) && (api.ErrorCode == errCodeStoreFailed || api.ErrorCode == errCodeInsufficient) {
		return fmt.Errorf("%w: %s", ErrFull, api.Description)
	}
	return err
}

// The server's error codes for a store that refuses (maximum bytes, disk) and for exhausted resources.
const (
	errCodeStoreFailed  = 10077
	errCodeInsufficient = 10023
)
