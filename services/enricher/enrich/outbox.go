package enrich

import (
	"fmt"
	"strconv"

	"polyphony/pkg/bus"
	"polyphony/pkg/social"
	"polyphony/pkg/topology"
	"polyphony/pkg/wire"
)

// outbox collects what follows from a cycle's frames until it is full: mentions by node, originals, statements, rejects.
// Its memory is reused.
type outbox struct {
	nodes      map[social.Node]*nodeBatch
	ready      []bus.Message
	facts      []bus.Message // to follow when the others are stored
	lent       [][]byte      // memory of ready messages, free again when they are sent
	free       [][]byte
	statements []byte // lines
	references []byte // lines
	originals  []byte // the batch in the making
	size       int    // bytes collected, and what messages take beside their bytes

	rejected int // among them

	events, unmatched, mentions int
}

// nodeBatch is the public message of a node in the making.
type nodeBatch struct {
	subject string
	batch   []byte
	n       int
	idle    int // times that messages were made without a mention of it
}

const (
	// outboxBytes is what an outbox takes before it is published. A cycle of ordinary posts stays below; a cycle of spam,
	// which compresses well and concerns many nodes, would come to gigabytes.
	outboxBytes = 8 << 20
	// messageBytes is about what a message takes beside its bytes.
	messageBytes = 512
	// forgetAfter bounds the memory of nodes that went quiet.
	forgetAfter = 1000
)

// full says that what was collected is to be published before more is.
func (o *outbox) full() bool { return o.size > outboxBytes }

func (o *outbox) reset() {
	if o.nodes == nil {
		o.nodes = map[social.Node]*nodeBatch{}
	}
	o.sent()
	o.events, o.unmatched, o.mentions = 0, 0, 0
}

// sent forgets what was collected and keeps the counts of what it came from.
func (o *outbox) sent() {
	if o.free = append(o.free, o.lent...); len(o.free) > keptBatches {
		o.free = o.free[:keptBatches]
	}
	clear(o.ready)
	clear(o.facts)
	o.ready, o.lent, o.originals = o.ready[:0], o.lent[:0], nil
	o.statements, o.references, o.facts = o.statements[:0], o.references[:0], o.facts[:0]
	o.size, o.rejected = 0, 0
}

func (o *outbox) mention(origin string, m *social.Mention) {
	b := o.nodes[m.Node]
	if b == nil {
		b = &nodeBatch{subject: topology.MentionSubject(m.Node.Division, m.Node.Territory)}
		o.nodes[m.Node] = b
	}
	if b.n == 0 {
		b.batch = wire.BeginBatch(o.memory())
	}
	before := len(b.batch)
	b.batch = wire.AppendMention(b.batch, origin, m)
	o.size += len(b.batch) - before
	o.mentions++
	if b.n++; len(b.batch) > wire.MaxBatch && b.n > 1 { // the last one begins the next message
		next := append(wire.BeginBatch(o.memory()), b.batch[before:]...)
		b.batch, b.n = b.batch[:before], b.n-1
		o.close(b)
		b.batch, b.n = next, 1
	}
}

// keptBatches bounds the memory kept for messages: 16 MiB when all are full.
const keptBatches = 64

// memory gives room for a message, used before if possible.
func (o *outbox) memory() []byte {
	n := len(o.free)
	if n == 0 {
		return nil
	}
	buffer := o.free[n-1]
	o.free = o.free[:n-1]
	return buffer
}

// close makes a message of a node's batch.
func (o *outbox) close(b *nodeBatch) {
	b.batch = wire.EndBatch(b.batch)
	o.lent = append(o.lent, b.batch)
	o.ready = append(o.ready, bus.Message{
		Subject: b.subject, Data: b.batch, Header: bus.Header{"Content-Type": {wire.BatchContentType}},
	})
	b.batch, b.n = nil, 0
}

func (o *outbox) original(original *social.Original) {
	if o.originals == nil {
		o.originals = o.memory()[:0]
	}
	before := len(o.originals)
	o.originals = wire.AppendOriginal(o.originals, original)
	o.size += len(o.originals) - before
	if len(o.originals) > wire.MaxBatch {
		o.closeOriginals()
	}
}

func (o *outbox) closeOriginals() {
	if len(o.originals) > 0 {
		o.lent = append(o.lent, o.originals)
		o.facts = append(o.facts, bus.Message{Subject: topology.OriginalsSubject, Data: o.originals})
		o.originals = nil
	}
}

func (o *outbox) statement(s *social.Statement) {
	before := len(o.statements)
	o.statements = wire.AppendStatement(o.statements, s)
	o.size += len(o.statements) - before
}

func (o *outbox) reference(r *social.Reference) {
	before := len(o.references)
	o.references = wire.AppendReference(o.references, r)
	o.size += len(o.references) - before
}

// message adds a message that is whole.
func (o *outbox) message(m bus.Message) {
	o.ready = append(o.ready, m)
	o.size += len(m.Data) + messageBytes
}

// reject keeps what could not be processed of a delivery, all of it or a line. Its id follows from where it stands, so that
// a repeat of the cycle stores it once.
func (o *outbox) reject(d *bus.Delivery, line int, r *wire.Reject) {
	r.Origin = &wire.Origin{Stream: topology.Raw.Name, Sequence: d.Sequence, Line: line, Subject: d.Subject, Header: d.OwnHeader()}
	frame := wire.AppendReject(nil, r)
	o.rejected++
	o.message(bus.Message{
		Subject: topology.RejectSubject("enrich", string(r.Code)), Data: wire.EncodeOne(frame),
		ID: fmt.Sprintf("enrich-%d-%d-%d", d.Stored.UnixMilli(), d.Sequence, line),
		Header: bus.Header{
			topology.HeaderRules: {d.Header.Get(topology.HeaderRules)}, topology.HeaderRecorded: {strconv.FormatInt(r.RecordedTime.UnixMilli(), 10)},
			topology.HeaderSize: {strconv.Itoa(len(frame))}, topology.HeaderEvents: {"1"},
		},
	})
}

// mentionMessages closes the batches of all nodes. They, and rejects, are valid until they are sent.
func (o *outbox) mentionMessages() []bus.Message {
	for node, b := range o.nodes {
		if b.n > 0 {
			o.close(b)
			b.idle = 0
		} else if b.idle++; b.idle > forgetAfter {
			delete(o.nodes, node)
		}
	}
	return o.ready
}

// factMessages closes the batches of facts. They are valid until they are sent.
func (o *outbox) factMessages() []bus.Message {
	o.closeOriginals()
	for _, lines := range [...]struct {
		subject string
		bytes   []byte
	}{{topology.ReferencesSubject, o.references}, {topology.StatementsSubject, o.statements}} {
		for frame, info := range wire.EncodeFrame(lines.bytes) {
			o.facts = append(o.facts, bus.Message{
				Subject: lines.subject, Data: frame,
				Header: bus.Header{topology.HeaderSize: {strconv.Itoa(info.Size)}, topology.HeaderEvents: {strconv.Itoa(info.Events)}},
			})
		}
	}
	return o.facts
}
