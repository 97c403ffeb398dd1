// Package enrich turns raw frames into mentions: it reads what the ingester stored, finds the nodes that each event
// concerns by the rules version stamped on its frame, replaces people by keys, and publishes one message per node and
// cycle. It keeps no state: a frame is acknowledged when all that follows from it is stored, and reading it again
// gives the same bytes.
package enrich

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strconv"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/prometheus/client_golang/prometheus"

	"polyphony/pkg/bus"
	"polyphony/pkg/nodes"
	"polyphony/pkg/pseudonym"
	"polyphony/pkg/social"
	"polyphony/pkg/topology"
	"polyphony/pkg/wire"
)

const (
	// cycleBytes of compressed frames are some thousand events, and some MiB of mentions when all of them match: enough
	// to make full messages for busy nodes, little enough to stay in the cache.
	cycleBytes = 512 << 10
	// cycleFrames bounds what very compressible frames unpack to, at most 1.5 MiB each.
	cycleFrames = 64
	// cycleWait is how long the first frame of a cycle waits for others: the price in latency of busy nodes' batches.
	cycleWait = 20 * time.Millisecond
	// apartAfter deliveries of a frame, something in it may be what kills its readers: it is taken apart, event by event.
	// An event that comes alone and as often again is given up. Ordinary kills do not come near: each costs a frame one
	// delivery, and only frames in hand.
	apartAfter = 10
)

// Enricher is the service.
type Enricher struct {
	bus     *bus.Bus
	log     *slog.Logger
	keyer   *pseudonym.Keyer
	rules   ruleBook
	metrics *metrics
}

// New builds an enricher and starts nothing.
func New(keyer *pseudonym.Keyer, b *bus.Bus, log *slog.Logger, registry prometheus.Registerer) *Enricher {
	return &Enricher{bus: b, log: log, keyer: keyer, metrics: newMetrics(registry), rules: ruleBook{bus: b, log: log}}
}

// Run enriches with that many workers, sharing one durable, until ctx ends. It returns an error only for a bug.
func (en *Enricher) Run(ctx context.Context, workers int) error {
	if err := en.bus.Prepare(ctx); err != nil {
		return nil // ctx ended
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var running sync.WaitGroup
	running.Go(func() { _ = en.bus.Janitor(ctx, en.rules.keepRaw, topology.EnrichRaw) })
	running.Go(func() {
		if err := en.answer(ctx); err != nil {
			stop(fmt.Errorf("answering where edits belong: %w", err))
		}
	})
	for range workers {
		running.Go(func() {
			w := &worker{Enricher: en, enrichment: NewEnrichment(en.keyer), matchers: map[string]*matcher{}}
			if err := en.bus.Consume(ctx, topology.EnrichRaw, bus.Limit{Bytes: cycleBytes, Messages: cycleFrames, Wait: cycleWait}, w.cycle); err != nil {
				stop(fmt.Errorf("enriching: %w", err))
			}
		})
	}
	running.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// Ready says what is missing, nil when frames can be read.
func (en *Enricher) Ready() error { return en.bus.Ready() }

// worker runs one cycle after the other, in its own memory.
type worker struct {
	*Enricher
	enrichment *Enrichment
	matchers   map[string]*matcher
	decoder    wire.EventDecoder
	lines      []byte
	out        outbox
}

// matcher is a version's matcher with what the worker needs of its rules.
type matcher struct {
	*nodes.Matcher
	version    string
	origin     string        // CloudEvents source of all mentions
	threadWait time.Duration // how long a reference waits for its post
}

// cycle is the whole of it: enrich every frame, publish per node, and by returning nil acknowledge the frames.
func (w *worker) cycle(ctx context.Context, frames []bus.Delivery) error {
	start := time.Now()
	w.out.reset()
	for i := range frames {
		if err := w.frame(ctx, &frames[i]); err != nil {
			return err
		}
	}
	// Mentions first: whoever reads a fact finds the mention that goes with it in its stream.
	if err := w.publish(ctx, w.out.mentionMessages()); err != nil {
		return err
	}
	if err := w.publish(ctx, w.out.factMessages()); err != nil {
		return err
	}
	w.metrics.cycle(&w.out, len(frames), time.Since(start))
	return nil
}

// frame enriches the events of one frame. A frame that cannot be read becomes a reject: another attempt would end
// the same, and the frames behind it must not wait.
func (w *worker) frame(ctx context.Context, d *bus.Delivery) error {
	head, err := parseHead(d.Header)
	if err == nil {
		w.lines, err = wire.DecodeFrame(w.lines, d.Data, head.size)
	}
	if err != nil {
		w.log.Error("a raw frame cannot be read", "subject", d.Subject, "sequence", d.Sequence, "error", err)
		w.out.reject(d, &wire.Reject{Code: "invalid_frame", Detail: err.Error(), RecordedTime: head.recorded, Bytes: d.Data})
		return nil
	}
	if d.Deliveries > apartAfter {
		w.apart(d, head)
		return nil
	}
	m, err := w.matcher(ctx, head.rules)
	if err != nil {
		return err
	}
	for line := range bytes.Lines(w.lines) {
		w.event(m, d, bytes.TrimSuffix(line, []byte{'\n'}), head.recorded)
	}
	return nil
}

// apart makes a frame of each event of a frame that was delivered too often, and a reject of an event that is alone
// already. It looks at none of them.
func (w *worker) apart(d *bus.Delivery, head head) {
	w.log.Error("a raw frame was delivered too often: taking it apart", "subject", d.Subject, "sequence", d.Sequence, "deliveries", d.Deliveries)
	if bytes.Count(w.lines, []byte{'\n'}) <= 1 {
		w.out.reject(d, &wire.Reject{Code: "unprocessable", Detail: "its readers die of it", RecordedTime: head.recorded, Bytes: w.lines})
		return
	}
	n := 0
	for line := range bytes.Lines(w.lines) {
		for frame, info := range wire.EncodeFrame(line) {
			header := maps.Clone(d.Header)
			header[topology.HeaderSize], header[topology.HeaderEvents] = []string{strconv.Itoa(info.Size)}, []string{"1"}
			delete(header, bus.HeaderMsgID)
			w.out.ready = append(w.out.ready, bus.Message{Subject: d.Subject, Header: header, Data: frame, ID: fmt.Sprintf("apart-%d-%d", d.Sequence, n)})
			n++
		}
	}
}

// event enriches one event into the outbox.
func (w *worker) event(m *matcher, d *bus.Delivery, line []byte, recorded time.Time) {
	w.out.events++
	e, err := w.decoder.Decode(line)
	if err != nil { // accepted by an ingester of another version
		var bad *social.Invalid
		errors.As(err, &bad)
		w.out.reject(d, &wire.Reject{Code: bad.Code, Detail: bad.Detail, RecordedTime: recorded, Bytes: line})
		return
	}
	if e.Kind.IsStatement() {
		w.out.statement(w.enrichment.statement(e, line, m.version, recorded))
		return
	}
	matches := m.Match(e)
	reference := w.enrichment.reference(e, m, matches, recorded)
	if reference != nil {
		w.out.reference(reference)
	}
	if len(matches) == 0 {
		w.out.unmatched++
		if reference == nil {
			return
		}
	}
	var event, author social.Key
	for mention := range w.enrichment.Mentions(e, matches, m.version, recorded) {
		w.out.mention(m.origin, mention)
		event, author = mention.EventKey, mention.AuthorKey
	}
	if len(matches) > 0 {
		w.out.original(w.enrichment.original(e, event, recorded))
	} else {
		event, author = reference.Mention.EventKey, reference.Mention.AuthorKey
	}
	if e.Counters != nil {
		w.out.statement(w.enrichment.counters(e, event, author, m.version, recorded))
	}
}

// publish stores the messages, waiting for as long as a full stream or an absent server takes: the frames stay
// unacknowledged meanwhile, and the ingester's senders are told to wait when those no longer fit.
func (w *worker) publish(ctx context.Context, messages []bus.Message) error {
	if len(messages) == 0 {
		return nil
	}
	return backoff.RetryNotify(func() error { return w.bus.Publish(ctx, messages) },
		backoff.WithContext(bus.Forever(), ctx), func(err error, wait time.Duration) {
			w.log.Warn("waiting to publish", "messages", len(messages), "error", err, "wait", wait)
		})
}

// head is what the ingester stamped on a frame.
type head struct {
	rules    string
	recorded time.Time
	size     int
}

func parseHead(h bus.Header) (head, error) {
	ms, err := strconv.ParseInt(h.Get(topology.HeaderRecorded), 10, 64)
	if err != nil {
		return head{}, fmt.Errorf("%w: header %s: %v", wire.ErrFrame, topology.HeaderRecorded, err)
	}
	size, err := strconv.Atoi(h.Get(topology.HeaderSize))
	if err != nil {
		return head{}, fmt.Errorf("%w: header %s: %v", wire.ErrFrame, topology.HeaderSize, err)
	}
	rules := h.Get(topology.HeaderRules)
	if rules == "" {
		return head{}, fmt.Errorf("%w: header %s is missing", wire.ErrFrame, topology.HeaderRules)
	}
	return head{rules: rules, recorded: time.UnixMilli(ms).UTC(), size: size}, nil
}
