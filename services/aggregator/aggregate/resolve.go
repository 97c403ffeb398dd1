package aggregate

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"polyphony/pkg/bus"
	"polyphony/pkg/social"
	"polyphony/pkg/topology"
	"polyphony/pkg/wire"
)

// news says of which events something is new.
type news struct {
	events    []social.Key // by a mention, or a statement about them
	recorded  []time.Time  // when each of the events was recorded, as far as they may be repeats; or empty
	referring []social.Key // by what they refer to; in order
	again     bool         // somebody may have begun this before, and died before the end
}

// resolve makes events stand as the facts about them say, and what refers to them with them: it takes back what was
// deleted, edited away or happened earlier, routes edits anew, and finds who belongs to a node through its thread.
//
// It is called after every new fact about one of the events, or reference of one, once that is stored and before it is
// acknowledged, reads the facts anew, publishes what has to change, stores it, and looks again until nothing has. So of
// two that resolve at once the one that stored last sees what both did, and what stands in the end follows from the facts
// alone.
func (f *flush) resolve(ctx context.Context, n news) error {
	return f.insist(ctx, "resolving threads and edits", func(ctx context.Context) error {
		r := &resolver{Aggregator: f.Aggregator, trying: f.trying, again: n.again}
		n.again = true
		for part := range slices.Chunk(social.Distinct(slices.Concat(n.events, n.referring)), maxAsked) {
			if err := r.resolve(ctx, &n, part); err != nil {
				return err
			}
		}
		return nil
	})
}

// resolver is one attempt to resolve.
type resolver struct {
	*Aggregator
	trying *bus.Trial // of the message that brings the news
	again  bool
}

func (r *resolver) resolve(ctx context.Context, n *news, part []social.Key) error {
	known, err := r.store.Unsettled(ctx, part)
	if err != nil {
		return err
	}
	threaded, err := r.unheard(ctx, n, known.Awaited)
	if err != nil {
		return err
	}
	threaded = append(threaded, known.Contested...)
	for _, event := range part {
		if has(n.referring, event) {
			threaded = append(threaded, event)
		}
	}
	threaded = social.Distinct(threaded)
	if err := r.settleAll(ctx, known.Contested, threaded); err != nil {
		return err
	}
	counted := slices.DeleteFunc(known.Counted, func(event social.Key) bool { return has(threaded, event) })
	for part := range slices.Chunk(counted, maxResolved) {
		if err := r.engage(ctx, part, nil); err != nil {
			return err
		}
	}
	return nil
}

// unheard leaves out repeats: networks are asked for the same posts again and again, and nothing is new for the threads
// below. Whoever brings the first record of a mention settles them, before that is acknowledged.
func (r *resolver) unheard(ctx context.Context, n *news, events []social.Key) ([]social.Key, error) {
	if len(n.recorded) == 0 || r.again || len(events) == 0 {
		return events, nil
	}
	recorded := map[social.Key]time.Time{}
	for i, event := range n.events {
		if t, ok := recorded[event]; has(events, event) && (!ok || n.recorded[i].Before(t)) {
			recorded[event] = n.recorded[i]
		}
	}
	standing, err := r.store.Standing(ctx, events)
	if err != nil {
		return nil, err
	}
	first := map[social.Key]bool{}
	for i := range standing {
		row := &standing[i]
		if says(row) && !row.RecordedTime.Before(recorded[row.EventKey]) {
			first[row.EventKey] = true
		}
	}
	return slices.DeleteFunc(events, func(event social.Key) bool { return !first[event] }), nil
}

// has looks for a key among keys in order.
func has(keys []social.Key, key social.Key) bool {
	_, found := slices.BinarySearchFunc(keys, key, social.Key.Compare)
	return found
}

// settleAll settles events by and by.
func (r *resolver) settleAll(ctx context.Context, contested, threaded []social.Key) error {
	for part := range slices.Chunk(threaded, maxResolved) {
		of := slices.DeleteFunc(slices.Clone(part), func(event social.Key) bool {
			return !has(contested, event)
		})
		if err := r.settle(ctx, of, part); err != nil {
			return err
		}
	}
	return nil
}

const (
	// maxAsked bounds the events of one question: the more there are, the less each costs.
	maxAsked = 100_000
	// maxResolved bounds the events that one settling begins with. What refers to them comes on top, some 5 KB each.
	maxResolved = 20_000
	// maxPut bounds what is published before it is stored, some 10 MiB.
	maxPut = 10_000
	// maxRounds is far above what two resolvers that correct each other need; beyond it something is wrong.
	maxRounds = 20
)

// settle settles contested events and those that others refer to or that refer to others.
func (r *resolver) settle(ctx context.Context, contested, threaded []social.Key) error {
	heads, err := r.heads(ctx, contested)
	if err != nil {
		return err
	}
	if err := r.takeBack(ctx, heads); err != nil {
		return err
	}
	var changes []social.Mention
	for round := range maxRounds {
		t, err := r.read(ctx, threaded)
		if err != nil {
			return err
		}
		late := t.headsOf(changes) // who deleted or edited one meanwhile may not have seen where it came to stand
		if round == 0 && r.again {
			late = t.heads // of what a predecessor published before it died
		}
		if err := r.takeBack(ctx, late); err != nil {
			return err
		}
		wanted := t.wanted()
		if err := r.listen(ctx, t, wanted); err != nil {
			return err
		}
		if changes = t.changes(wanted); len(changes) == 0 {
			if err := r.keep(ctx, t); err != nil {
				return err
			}
			return r.engage(ctx, slices.Collect(maps.Keys(t.asked)), slices.Collect(maps.Keys(t.from)))
		}
		if err := r.put(ctx, changes); err != nil {
			return err
		}
	}
	return fmt.Errorf("threads of %d events did not settle in %d rounds: %s in %s and others", len(threaded), maxRounds, changes[0].EventKey, changes[0].Node)
}

// heads finds the highest version of each of the events that has more than one: of its mentions and of itself, where it was
// edited of what the edit makes of it, and social.Deleted of those that are. Of others it gives a social.Mark or nothing.
func (r *resolver) heads(ctx context.Context, events []social.Key) (map[social.Key]social.Version, error) {
	heads, err := r.store.Heads(ctx, events)
	if err != nil {
		return nil, err
	}
	versions, err := r.versions(ctx, events)
	if err != nil {
		return nil, err
	}
	raised := map[social.Key]social.Version{}
	raise := func(event social.Key, v social.Version) {
		if heads[event].Less(v) {
			heads[event], raised[event] = v, v
		}
	}
	for event, seen := range versions {
		if heads[event] != social.Mark() || seen.several {
			raise(event, seen.highest)
		}
	}
	standing := slices.DeleteFunc(slices.Clone(events), func(event social.Key) bool { return heads[event] == social.Deleted() })
	edited, err := r.edits(ctx, standing)
	if err != nil {
		return nil, err
	}
	for event, v := range edited {
		raise(event, v)
	}
	if err := r.store.PutHeads(ctx, raised); err != nil || len(edited) == 0 {
		return heads, err
	}
	return r.store.Heads(ctx, events) // whoever deleted one meanwhile may not have seen what the edit put where
}

// versions is what is known of an event before its head is.
type versions struct {
	highest social.Version
	several bool // something stands that is of another version
}

// versions reads what events were said to be, by their own words or accounts and as references.
func (r *resolver) versions(ctx context.Context, events []social.Key) (map[social.Key]versions, error) {
	standing, err := r.store.Standing(ctx, events)
	if err != nil {
		return nil, err
	}
	selves, err := r.store.Selves(ctx, events)
	if err != nil {
		return nil, err
	}
	seen := map[social.Key]versions{}
	see := func(m *social.Mention) {
		v := seen[m.EventKey]
		v.several = v.several || v.highest != (social.Version{}) && v.highest.Words() != m.Version.Words()
		if v.highest.Less(m.Version) {
			v.highest = m.Version
		}
		seen[m.EventKey] = v
	}
	for i := range selves {
		see(&selves[i].Mention)
	}
	for i := range standing {
		if says(&standing[i]) {
			see(&standing[i])
		}
	}
	for i := range standing {
		row := &standing[i]
		if v := seen[row.EventKey]; !row.Retracted && row.Version.Words() != v.highest.Words() {
			v.several = true
			seen[row.EventKey] = v
		}
	}
	return seen, nil
}

// takeBack publishes and stores the retractions of all mentions that their event's head has left behind. It repeats
// those that are stored already: a predecessor may have died before it published them.
func (r *resolver) takeBack(ctx context.Context, heads map[social.Key]social.Version) error {
	if len(heads) == 0 {
		return nil
	}
	standing, err := r.store.Standing(ctx, slices.Collect(maps.Keys(heads)))
	if err != nil {
		return err
	}
	var gone []social.Mention
	var first []social.Key // were stored as first written since their edit was routed
	for i := range standing {
		row := standing[i]
		head := heads[row.EventKey]
		by, left := row.TakenBack(head)
		if left && !row.Retracted && says(&row) && row.Version.Revision() == 0 && head.Revision() > 0 && head != social.Deleted() {
			first = append(first, row.EventKey)
		}
		if row.Retracted && !left {
			by, left = row.Version, true
		}
		if row.Version == social.Deleted() && head != social.Deleted() { // it never happened at this time
			by, left = social.Floor(revisionOf(head), time.UnixMilli(head.Time())), true
		}
		if left {
			row.Retracted, row.Version = true, by
			gone = append(gone, row)
		}
	}
	if _, err := r.bases(ctx, social.Distinct(first)); err != nil { // keeps their words: whoever stored them routes the edit again
		return err
	}
	var deleted []social.Key
	for event, head := range heads {
		if head == social.Deleted() {
			deleted = append(deleted, event)
		}
	}
	if err := r.store.DropSelves(ctx, deleted); err != nil {
		return err
	}
	return r.put(ctx, gone)
}

// put publishes mentions and retractions and stores them. Publishing first means that nobody dies knowing in ClickHouse
// what no subscriber was told.
func (r *resolver) put(ctx context.Context, mentions []social.Mention) error {
	if len(mentions) == 0 {
		return nil
	}
	origin := r.origin.Load()
	if origin == nil {
		return fmt.Errorf("the company's name is not known yet")
	}
	for part := range slices.Chunk(mentions, maxPut) {
		if err := r.bus.Publish(ctx, batches(*origin, part)); err != nil {
			return err
		}
		if err := r.store.InsertMentions(ctx, part); err != nil {
			return err
		}
	}
	return nil
}

// batches makes the public messages of mentions, by node.
func batches(origin string, mentions []social.Mention) []bus.Message {
	byNode := map[social.Node][]int{}
	for i := range mentions {
		byNode[mentions[i].Node] = append(byNode[mentions[i].Node], i)
	}
	var messages []bus.Message
	for node, list := range byNode {
		batch := wire.BeginBatch(nil)
		flush := func() {
			messages = append(messages, bus.Message{Subject: topology.MentionSubject(node.Division, node.Territory), Data: wire.EndBatch(batch),
				Header: bus.Header{"Content-Type": {wire.BatchContentType}}})
			batch = wire.BeginBatch(nil)
		}
		for n, i := range list {
			batch = wire.AppendMention(batch, origin, &mentions[i])
			if len(batch) > wire.MaxBatch/2 || n == len(list)-1 {
				flush()
			}
		}
	}
	return messages
}
