package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"polyphony/pkg/seam"
)

// answerWait is how long an answer may take before the question is put again.
const answerWait = 5 * time.Second

// ErrTooLarge says that NATS does not take a message of that size.
var ErrTooLarge = errors.New("too large a message")

// ErrNobody says that nobody answers questions on a subject.
var ErrNobody = errors.New("nobody answers")

// Request puts a question to whoever answers on a subject. Questions change nothing, so they may be put again.
func (b *Bus) Request(ctx context.Context, subject string, question []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	seam.Before(seam.Request, subject)
	answer, err := b.conn.RequestWithContext(ctx, subject, question)
	switch {
	case errors.Is(err, nats.ErrMaxPayload):
		return nil, fmt.Errorf("%w for %s: %d bytes", ErrTooLarge, subject, len(question))
	case errors.Is(err, nats.ErrNoResponders):
		return nil, fmt.Errorf("%w on %s", ErrNobody, subject)
	case err != nil:
		return nil, fmt.Errorf("asking %s: %w", subject, err)
	}
	seam.After(seam.Request, subject)
	return answer.Data, nil
}

// MaxPayload is the size, in bytes, of the largest message that NATS takes.
func (b *Bus) MaxPayload() int { return int(b.conn.MaxPayload()) }

// Answer answers questions on a subject until ctx ends, one at a time, together with all others that do.
func (b *Bus) Answer(ctx context.Context, subject string, answer func(question []byte) []byte) error {
	const pending = 64
	questions := make(chan *nats.Msg, pending)
	subscription, err := b.conn.ChanQueueSubscribe(subject, "polyphony", questions)
	if err != nil {
		return fmt.Errorf("subscribing to %s: %w", subject, err)
	}
	defer func() { _ = subscription.Unsubscribe() }()
	for {
		select {
		case <-ctx.Done():
			return nil
		case q := <-questions:
			seam.Before(seam.Answer, subject)
			if err := q.Respond(answer(q.Data)); err != nil {
				b.log.Warn("answering", "subject", subject, "error", err)
			}
			seam.After(seam.Answer, subject)
		}
	}
}
