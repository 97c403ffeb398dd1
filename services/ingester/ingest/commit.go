package ingest

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"polyphony/pkg/bus"
	"polyphony/pkg/topology"
	"polyphony/pkg/wire"
)

const (
	// groupWindow is how long the first request of a group waits for company: much less than a client notices, long
	// enough that a thousand small requests a second share a few hundred frames.
	groupWindow = 3 * time.Millisecond
	// groupBytes ends the window early: about what one publish round trip carries well.
	groupBytes = 1 << 20
	// groupsInFlight is how many groups may wait for their acknowledgement at once. More groups while these wait
	// would only be smaller.
	groupsInFlight = 4
	// commitTimeout is how long a group is published again before its requests are told to send again: long enough for
	// the bus to miss an acknowledgement and ask for another.
	commitTimeout = 10 * time.Second
)

// submission is what one request has to store: accepted lines by source, rejects by code. Its memory is reused.
type submission struct {
	sources batches
	rejects batches
	rules   string // version by which rejects are judged
}

// batch is content for one subject; name is its source or code.
type batch struct {
	name    string
	content []byte
	events  int
}

func (s *submission) reset() {
	s.sources.reset()
	s.rejects.reset()
}

// size is how many bytes s holds.
func (s *submission) size() int { return s.sources.size + s.rejects.size }

// accept copies an event's line into the batch of its source.
func (s *submission) accept(source string, event []byte) {
	s.sources.add(source, maxBody+1, 1, func(content []byte) []byte { return append(append(content, event...), '\n') })
}

// reject copies a reject, of so many events, into the batch of its code.
func (s *submission) reject(r *wire.Reject, events int) {
	s.rejects.add(string(r.Code), rejectFrame, events, func(content []byte) []byte { return wire.AppendReject(content, r) })
}

// rejectFrame is when a frame of rejects takes no more: with a last one of the greatest size it still fits the bound
// of a frame.
const rejectFrame = 256 << 10

// batches are the batches of one request, in order of their first event.
type batches struct {
	list []batch
	last map[string]int // by name: the batch that takes what comes
	size int            // bytes of all contents
}

func (bs *batches) reset() {
	bs.list, bs.size = bs.list[:0], 0
	clear(bs.last)
}

// add lets write append events to the batch of a name with room below limit, begun in memory that an earlier use
// left behind when there is none.
func (bs *batches) add(name string, limit, events int, write func([]byte) []byte) {
	at, ok := bs.last[name]
	if !ok || len(bs.list[at].content) >= limit {
		at = bs.begin(name)
	}
	b := &bs.list[at]
	before := len(b.content)
	b.content = write(b.content)
	b.events += events
	bs.size += len(b.content) - before
}

func (bs *batches) begin(name string) int {
	n := len(bs.list)
	if cap(bs.list) > n {
		bs.list = bs.list[:n+1]
	} else {
		bs.list = append(bs.list, batch{})
	}
	b := &bs.list[n]
	*b = batch{name: strings.Clone(name), content: b.content[:0]}
	if bs.last == nil {
		bs.last = map[string]int{}
	}
	bs.last[b.name] = n
	return n
}

// publisher is what a committer needs of the bus.
type publisher interface {
	Publish(context.Context, []bus.Message) error
}

// committer stores the submissions of many requests together: group commit.
type committer struct {
	bus     publisher
	log     *slog.Logger
	metrics *metrics

	mu     sync.Mutex
	open   *group // takes submissions; nil when none waits
	closed bool
	begun  chan struct{} // a group was opened
	full   chan struct{} // the open group need not wait longer
	slots  chan struct{}
}

// group is what is published, and acknowledged, as one.
type group struct {
	sources map[string][]byte
	rejects []wireReject
	bytes   int
	done    chan struct{}
	err     error // set before done is closed
}

// wireReject is a frame's worth of rejects of one code, not yet compressed.
type wireReject struct {
	code    string
	rules   string // version by which they were judged
	content []byte
	events  int
}

func newCommitter(b publisher, log *slog.Logger, m *metrics) *committer {
	return &committer{
		bus: b, log: log, metrics: m,
		begun: make(chan struct{}, 1), full: make(chan struct{}, 1), slots: make(chan struct{}, groupsInFlight),
	}
}

var errStopping = errors.New("stopping")

// commit returns nil when all of s is stored. s may be reused as soon as commit returns. It does not end with the
// client: the copy of s is held until the group is decided, and has to be counted as long.
func (c *committer) commit(s *submission) error {
	g, err := c.join(s)
	if err != nil {
		return err
	}
	<-g.done
	return g.err
}

// join copies s into the open group.
func (c *committer) join(s *submission) (*group, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, errStopping
	}
	if c.open == nil {
		c.open = &group{sources: map[string][]byte{}, done: make(chan struct{})}
		signal(c.begun)
	}
	g := c.open
	for _, b := range s.sources.list {
		g.sources[b.name] = append(g.sources[b.name], b.content...)
		g.bytes += len(b.content)
	}
	for _, b := range s.rejects.list {
		g.rejects = append(g.rejects, wireReject{b.name, s.rules, append([]byte(nil), b.content...), b.events})
		g.bytes += len(b.content)
	}
	if g.bytes >= groupBytes {
		signal(c.full)
	}
	return g, nil
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// run publishes group after group until ctx ends, then what is left, and returns when all of it is decided. stamp is
// the rules version in force.
func (c *committer) run(ctx context.Context, stamp func() string) {
	var publishing sync.WaitGroup
	defer publishing.Wait()
	for {
		select {
		case <-ctx.Done():
			c.mu.Lock()
			c.closed = true
			c.mu.Unlock()
			c.publish(c.take(), stamp())
			return
		case <-c.begun:
		}
		select {
		case <-c.full:
		case <-time.After(groupWindow):
		}
		c.slots <- struct{}{}
		g := c.take()
		version := stamp()
		publishing.Go(func() {
			c.publish(g, version)
			<-c.slots
		})
	}
}

// take closes the open group for further requests.
func (c *committer) take() *group {
	c.mu.Lock()
	defer c.mu.Unlock()
	g := c.open
	c.open = nil
	return g
}

// publish stores a group and tells its requests. It does not end with the service: a group taken is decided.
func (c *committer) publish(g *group, rules string) {
	if g == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), commitTimeout)
	defer cancel()
	start := time.Now()
	g.err = c.bus.Publish(ctx, messages(g, rules, start.UTC()))
	close(g.done)
	c.metrics.commitSeconds.Observe(time.Since(start).Seconds())
	if g.err != nil {
		c.log.Warn("a group of requests was not stored", "bytes", g.bytes, "error", g.err)
	}
}

// messages compresses a group into frames, each stamped with its time and the rules in force.
func messages(g *group, rules string, recorded time.Time) []bus.Message {
	var out []bus.Message
	at := strconv.FormatInt(recorded.UnixMilli(), 10)
	for source, lines := range g.sources {
		for frame, info := range wire.EncodeFrame(lines) {
			out = append(out, bus.Message{
				Subject: topology.RawSubject(source), Data: frame, ID: rand.Text(),
				Header: bus.Header{
					topology.HeaderRules: {rules}, topology.HeaderRecorded: {at},
					topology.HeaderSize: {strconv.Itoa(info.Size)}, topology.HeaderEvents: {strconv.Itoa(info.Events)},
				},
			})
		}
	}
	for _, r := range g.rejects {
		out = append(out, bus.Message{
			Subject: topology.RejectSubject("ingest", r.code), Data: wire.EncodeOne(r.content), ID: rand.Text(),
			Header: bus.Header{
				topology.HeaderRules: {r.rules}, topology.HeaderRecorded: {at},
				topology.HeaderSize: {strconv.Itoa(len(r.content))}, topology.HeaderEvents: {strconv.Itoa(r.events)},
			},
		})
	}
	return out
}
