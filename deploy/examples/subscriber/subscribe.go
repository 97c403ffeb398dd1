package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	streamName = "MENTIONS"
	// heartbeat is how often NATS says that it is there when it has nothing to send. Two missed ones begin the reading
	// again; it is well below checkEvery, the longest wait for a message.
	heartbeat = 2 * time.Second
)

var (
	// errNATS marks what another attempt may cure.
	errNATS = errors.New("nats")
	// errRecreated says that the stream is not the one that the position belongs to.
	errRecreated = errors.New("the stream was deleted and created again")
)

// subscriber keeps the copy. One goroutine does all of it, so nothing is locked.
type subscriber struct {
	config
	out io.Writer
	say *log.Logger
	js  jetstream.JetStream

	at    Position
	held  Copy
	dirty bool      // the file is older than at and held
	saved time.Time // when the file was last written

	opened bool   // the stream could be read once, so its name and address are right
	end    uint64 // with --once: the last message that the stream held when reading began
}

// subscribe does what the command line asks for. It returns nil when that is done or ctx ends.
func subscribe(ctx context.Context, cfg config, out io.Writer, say *log.Logger) error {
	at, held, err := load(cfg.file, cfg.subject())
	if err != nil {
		return err
	}
	conn, err := nats.Connect(cfg.nats, nats.Name("subscriber"), nats.MaxReconnects(-1),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				say.Printf("nats is gone, connecting again: %v", err)
			}
		}),
		nats.ReconnectHandler(func(*nats.Conn) { say.Print("nats is back") }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { say.Printf("nats: %v", err) }))
	if err != nil {
		return fmt.Errorf("connecting to nats: %w", err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, conn.Close)() // whoever waits for an answer gives up at once
	js, err := jetstream.New(conn)
	if err != nil {
		return fmt.Errorf("opening jetstream: %w", err)
	}
	s := &subscriber{config: cfg, out: out, say: say, js: js, at: at, held: held}
	if err := errors.Join(s.read(ctx), s.save()); err != nil {
		return err
	}
	if !cfg.once {
		return nil
	}
	if ctx.Err() != nil {
		say.Print("interrupted before everything was read, so nothing is printed")
		return nil
	}
	return s.print()
}

// read reads until it is done or ctx ends. What goes wrong at the start is told, for an address or a name is likely
// wrong; later on it is waited for.
func (s *subscriber) read(ctx context.Context) error {
	told := ""
	for {
		err := s.session(ctx)
		switch {
		case err == nil || ctx.Err() != nil:
			return nil
		case errors.Is(err, errRecreated):
			continue
		case !errors.Is(err, errNATS) || !s.opened:
			return err
		case err.Error() != told: // an outage is told once
			told = err.Error()
			s.say.Printf("%v; trying again", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(s.retryAfter):
		}
	}
}

// session reads on from the position, until it is done (nil), or something is in the way.
func (s *subscriber) session(ctx context.Context) error {
	stream, err := s.js.Stream(ctx, streamName)
	if err != nil {
		return fmt.Errorf("%w: looking at stream %s: %w", errNATS, streamName, err)
	}
	s.begin(stream.CachedInfo())
	consumer, err := s.js.OrderedConsumer(ctx, streamName, jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{s.subject()},
		DeliverPolicy:  jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:    s.at.Sequence + 1,
		// Left alone, the consumer would go on in a stream that was created again, in the middle. The next session looks.
		MaxResetAttempts: 1,
	})
	if err != nil {
		return fmt.Errorf("%w: reading %s: %w", errNATS, s.subject(), err)
	}
	messages, err := consumer.Messages(jetstream.PullHeartbeat(heartbeat))
	if err != nil {
		return fmt.Errorf("%w: reading %s: %w", errNATS, s.subject(), err)
	}
	defer messages.Stop()
	s.opened = true
	var last jetstream.MsgMetadata // of the last message of this session
	var checked time.Time          // never: what is there already may be nothing
	for {
		if time.Since(checked) >= s.checkEvery {
			all, err := s.check(ctx, stream, consumer, last)
			if err != nil {
				return err
			}
			if all && s.once {
				return nil
			}
			checked = time.Now()
		}
		wake := checked.Add(s.checkEvery)
		if s.dirty && s.file != "" {
			due := s.saved.Add(s.saveEvery)
			if !due.After(time.Now()) {
				if err := s.save(); err != nil {
					return err
				}
			} else if due.Before(wake) {
				wake = due
			}
		}
		msg, err := next(ctx, messages, wake)
		if err != nil {
			return fmt.Errorf("%w: reading %s: %w", errNATS, s.subject(), err)
		}
		if msg == nil {
			continue
		}
		meta, err := msg.Metadata()
		if err != nil {
			return fmt.Errorf("%w: reading %s: %w", errNATS, s.subject(), err)
		}
		last = *meta
		sequence := last.Sequence.Stream
		if s.once && sequence > s.end {
			s.advance(s.end)
			return nil
		}
		if err := s.apply(msg.Data(), sequence); err != nil {
			return err
		}
		// The stream's last message may be another node's, so that none left is an end as well.
		if s.once && (sequence == s.end || last.NumPending == 0) {
			s.advance(s.end)
			return nil
		}
	}
}

// begin compares the position with the stream, and says what cannot be made good.
func (s *subscriber) begin(info *jetstream.StreamInfo) {
	if !s.at.Created.IsZero() && s.isOther(info) {
		// The copy stays: versions decide, whatever comes again.
		s.say.Printf("%v: reading from its beginning", errRecreated)
		s.at.Sequence = 0
	}
	s.at.Created = info.Created
	if first := info.State.FirstSeq; first > s.at.Sequence+1 {
		s.say.Printf("messages %d to %d were removed from the stream before they were read: the copy lacks what only they said",
			s.at.Sequence+1, first-1)
		s.at.Sequence = first - 1
	}
	s.dirty = true
	s.end = info.State.LastSeq
}

// isOther tells whether the position belongs to another stream than this one.
func (s *subscriber) isOther(info *jetstream.StreamInfo) bool {
	return !info.Created.Equal(s.at.Created) || info.State.LastSeq < s.at.Sequence
}

// check tells whether everything that the stream holds for us has been read. The position then moves on past the
// messages of other nodes, so that their removal is not taken for a loss later.
func (s *subscriber) check(ctx context.Context, stream jetstream.Stream, consumer jetstream.Consumer, last jetstream.MsgMetadata) (all bool, err error) {
	info, err := stream.Info(ctx) // before the consumer's: what comes in between is not skipped
	if err != nil {
		return false, fmt.Errorf("%w: looking at stream %s: %w", errNATS, streamName, err)
	}
	if s.isOther(info) {
		return false, errRecreated
	}
	reading, err := consumer.Info(ctx)
	if err != nil {
		return false, fmt.Errorf("%w: looking at the consumer: %w", errNATS, err)
	}
	received := uint64(0) // of this consumer; the client replaces it now and then
	if last.Consumer == reading.Name {
		received = last.Sequence.Consumer
	}
	all = reading.NumPending == 0 && reading.Delivered.Consumer == received
	if all {
		s.advance(info.State.LastSeq)
	}
	return all, nil
}

// next waits for a message; nil without an error when none came in time.
func next(ctx context.Context, messages jetstream.MessagesContext, until time.Time) (jetstream.Msg, error) {
	wait, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	msg, err := messages.Next(jetstream.NextContext(wait))
	if err != nil && ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
		return nil, nil
	}
	return msg, err
}

// apply takes in a message. One that cannot be read is reported and left: it would not become better.
func (s *subscriber) apply(message []byte, sequence uint64) error {
	changed, err := s.held.Apply(message)
	if err != nil {
		s.say.Printf("message %d is skipped, or a part of it: %v", sequence, err)
	}
	s.advance(sequence)
	if s.once || len(changed) == 0 {
		return nil
	}
	var lines bytes.Buffer
	for _, e := range changed {
		sign := '+'
		if e.retracted() {
			sign = '-'
		}
		fmt.Fprintf(&lines, "%c %s %s/%s %s\n", sign, e.EventKey, e.Division, e.Territory, e.Version)
	}
	if _, err := s.out.Write(lines.Bytes()); err != nil {
		return fmt.Errorf("printing changes: %w", err)
	}
	return nil
}

func (s *subscriber) advance(sequence uint64) {
	if sequence > s.at.Sequence {
		s.at.Sequence, s.dirty = sequence, true
	}
}

// save writes the file, if there is one and something to write.
func (s *subscriber) save() error {
	if s.file == "" || !s.dirty {
		return nil
	}
	if err := save(s.file, s.at, &s.held); err != nil {
		return err
	}
	s.dirty, s.saved = false, time.Now()
	return nil
}

// print prints the mentions that hold, one a line.
func (s *subscriber) print() error {
	mentions, err := s.held.Mentions()
	if err != nil {
		return err
	}
	lines := bufio.NewWriter(s.out)
	for _, data := range mentions {
		lines.Write(data)
		lines.WriteByte('\n')
	}
	if err := lines.Flush(); err != nil { // tells of the writes before it, too
		return fmt.Errorf("printing the mentions: %w", err)
	}
	return nil
}
