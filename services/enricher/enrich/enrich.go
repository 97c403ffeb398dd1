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
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"polyphony/pkg/bus"
	"polyphony/pkg/nodes"
	"polyphony/pkg/pseudonym"
	"polyphony/pkg/seam"
	"polyphony/pkg/social"
	"polyphony/pkg/topology"
	"polyphony/pkg/watchdog"
	"polyphony/pkg/wire"
)

const (
	// cycleBytes of compressed frames are some thousand events, and some MiB of mentions when all of them match: enough
	// to make full messages for busy nodes, little enough to stay in the cache.
	cycleBytes = 512 << 10
	// cycleFrames bounds how long a cycle of very compressible frames takes. They are unpacked one by one, to at most
	// 1.5 MiB each.
	cycleFrames = 64
	// cycleWait is how long the first frame of a cycle waits for others: the price in latency of busy nodes' batches.
	cycleWait = 20 * time.Millisecond
	// longest is how long an event may take, of which the largest is done in some ms.
	longest = 10 * time.Second
)

// Enricher is the service.
type Enricher struct {
	bus     *bus.Bus
	log     *slog.Logger
	keyer   *pseudonym.Keyer
	rules   ruleBook
	metrics *metrics
	waiting sync.Map // by worker: why it waits
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
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	failed := make(chan error, workers+1)
	var running sync.WaitGroup
	running.Go(func() { _ = en.bus.Janitor(ctx, en.rules.keepRaw, en.metrics.fill, topology.EnrichRaw) })
	start := func(what string, run func(*worker) error) {
		w := &worker{Enricher: en, enrichment: NewEnrichment(en.keyer), matchers: map[string]*matcher{}}
		running.Go(func() { w.hand.Watch(ctx, longest, func() { watchdog.End(what+" an event", longest) }) })
		running.Go(func() {
			if err := run(w); err != nil {
				failed <- fmt.Errorf("%s: %w", what, err)
				stop()
			}
		})
	}
	start("routing", func(w *worker) error { return w.answer(ctx) })
	for range workers {
		start("enriching", func(w *worker) error {
			return en.bus.Consume(ctx, topology.EnrichRaw, bus.Limit{Bytes: cycleBytes, Messages: cycleFrames, Wait: cycleWait}, w.cycle)
		})
	}
	running.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

// Ready says what is missing, nil when frames are read and what follows from them is taken.
func (en *Enricher) Ready() error {
	var waits error
	en.waiting.Range(func(_, why any) bool {
		waits = why.(error)
		return false
	})
	return errors.Join(waits, en.bus.Ready())
}

// worker runs one cycle after the other, in its own memory.
type worker struct {
	*Enricher
	hand       watchdog.Hand // at work while it enriches an event
	trying     *bus.Trial    // of what is in hand, nil when it is not suspect
	enrichment *Enrichment
	matchers   map[string]*matcher
	decoder    wire.EventDecoder
	lines      []byte
	line       int // of them, from 1: the one in hand
	out        outbox
}

// matcher is a version's matcher with what the worker needs of its rules.
type matcher struct {
	*nodes.Matcher
	version    string
	origin     string        // CloudEvents source of all mentions
	threadWait time.Duration // how long a reference waits for its post
	keepText   time.Duration // how long the words of mentions are kept
	sources    map[string]nodes.SourceRules
}

// waits lets Ready say what w waits for, until it works again: then why is nil.
func (w *worker) waits(why error) {
	if why == nil {
		w.waiting.Delete(w)
		return
	}
	w.waiting.Store(w, why)
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
	if err := w.flush(ctx); err != nil {
		return err
	}
	w.metrics.cycle(&w.out, len(frames), time.Since(start))
	return nil
}

// frame enriches the events of one frame.
func (w *worker) frame(ctx context.Context, d *bus.Delivery) error {
	if d.Suspect() {
		return w.try(ctx, d)
	}
	return w.whole(ctx, d)
}

// whole enriches a frame, one event after the other. A frame that cannot be read becomes a reject: another attempt would end
// the same, and the frames behind it must not wait.
func (w *worker) whole(ctx context.Context, d *bus.Delivery) error {
	head, err := w.unpack(d)
	if err != nil {
		w.log.Error("a raw frame cannot be read", "subject", d.Subject, "sequence", d.Sequence, "error", err)
		recorded := head.recorded
		if recorded.IsZero() {
			recorded = d.Stored
		}
		w.out.reject(d, 0, &wire.Reject{Code: "invalid_frame", Detail: err.Error(), Source: sourceOf(d, nil), RecordedTime: recorded, Bytes: d.Data})
		return w.relieve(ctx)
	}
	m, err := w.matcher(ctx, head.rules)
	if err != nil {
		return err
	}
	w.line = 0
	for line := range bytes.Lines(w.lines) {
		w.line++
		if err := w.event(ctx, m, d, bytes.TrimSuffix(line, []byte{'\n'}), head.recorded); err != nil {
			return err
		}
	}
	return nil
}

// unpack gives what is stamped on a frame, and its lines to w; none of a frame that cannot be read.
func (w *worker) unpack(d *bus.Delivery) (head, error) {
	w.hand.Work()
	defer w.hand.Rest()
	w.lines = w.lines[:0]
	head, err := parseHead(d.Header)
	if err != nil {
		return head, err
	}
	lines, err := wire.DecodeFrame(w.lines, d.Data, head.size)
	if err != nil {
		return head, err
	}
	w.lines = lines
	return head, nil
}

// event enriches one event into the outbox. Its facts come after its mentions, so that whatever is published while it
// is at it, no fact goes before its mention.
func (w *worker) event(ctx context.Context, m *matcher, d *bus.Delivery, line []byte, recorded time.Time) error {
	w.out.events++
	w.hand.Work()
	defer w.hand.Rest()
	e, err := w.decoder.Decode(line)
	if err != nil { // accepted by an ingester of another version
		var bad *social.Invalid
		errors.As(err, &bad)
		w.out.reject(d, w.line, &wire.Reject{Code: bad.Code, Detail: bad.Detail, Source: sourceOf(d, line), RecordedTime: recorded, Bytes: line})
		return w.relieve(ctx)
	}
	if e.Kind.IsStatement() {
		w.out.statement(w.enrichment.statement(e, line, m.version, recorded))
		if e.Kind == social.Edit && e.Counters != nil {
			w.out.statement(w.enrichment.counters(e, m.version, recorded))
		}
		return w.relieve(ctx)
	}
	seam.Taste(line)
	matches := m.Match(e)
	var last *social.Mention
	for mention := range w.enrichment.Mentions(e, matches, m.version, recorded) {
		w.out.mention(m.origin, mention)
		last = mention
		if err := w.relieve(ctx); err != nil {
			return err
		}
		w.hand.Work()
	}
	if last != nil {
		w.out.original(w.enrichment.original(e, last))
	} else {
		w.out.unmatched++
	}
	if reference := w.enrichment.reference(e, m, matches, recorded); reference != nil {
		w.out.reference(reference)
	}
	return w.relieve(ctx)
}

// relieve publishes what was collected when it is much.
func (w *worker) relieve(ctx context.Context) error {
	if !w.out.full() {
		return nil
	}
	w.hand.Rest()
	w.trying.Pause(ctx)
	if err := w.flush(ctx); err != nil {
		return err
	}
	return w.trying.Resume(ctx)
}

// flush publishes what was collected. Mentions first: whoever reads a fact finds the mention that goes with it in its
// stream.
func (w *worker) flush(ctx context.Context) error {
	if err := w.publish(ctx, w.out.mentionMessages()); err != nil {
		return err
	}
	if err := w.publish(ctx, w.out.factMessages()); err != nil {
		return err
	}
	w.metrics.rejected.Add(float64(w.out.rejected)) // what dies now is not tried again: an alarm rests on it
	w.out.sent()
	return nil
}

// publish stores the messages, waiting for as long as a full stream or an absent server takes: the frames stay
// unacknowledged meanwhile, and the ingester's senders are told to wait when those no longer fit.
func (w *worker) publish(ctx context.Context, messages []bus.Message) error {
	if len(messages) == 0 {
		return nil
	}
	defer w.waits(nil)
	return w.bus.PublishPatiently(ctx, messages, func(why error) { w.waits(fmt.Errorf("publishing: %w", why)) })
}

// sourceOf is the source that a frame was accepted from, or else the one that a line of it names, "" for none.
func sourceOf(d *bus.Delivery, line []byte) string {
	if source := strings.TrimPrefix(d.Subject, topology.RawSubject("")); social.ValidName(source) {
		return source
	}
	return wire.SourceOf(line)
}

// head is what the ingester stamped on a frame.
type head struct {
	rules    string
	recorded time.Time
	size     int
}

// version is what may be asked for; anything else would be waited for in vain.
var version = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,64}$`)

func parseHead(h bus.Header) (head, error) {
	ms, err := strconv.ParseInt(h.Get(topology.HeaderRecorded), 10, 64)
	if err != nil {
		return head{}, fmt.Errorf("%w: header %s is no number", wire.ErrFrame, topology.HeaderRecorded)
	}
	size, err := strconv.Atoi(h.Get(topology.HeaderSize))
	if err != nil {
		return head{}, fmt.Errorf("%w: header %s is no number", wire.ErrFrame, topology.HeaderSize)
	}
	rules := h.Get(topology.HeaderRules)
	if !version.MatchString(rules) {
		return head{}, fmt.Errorf("%w: header %s is missing, or no version", wire.ErrFrame, topology.HeaderRules)
	}
	return head{rules: rules, recorded: time.UnixMilli(ms).UTC(), size: size}, nil
}
