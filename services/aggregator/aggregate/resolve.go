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
	"polyphony/pkg/warehouse"
	"polyphony/pkg/wire"
)

// resolve makes events stand as the facts about them say, and what refers to them with them: it takes back what was
// deleted, edited away or happened earlier, routes edits anew, and finds who belongs to a node through its thread.
//
// It is called after every new fact about an event, once that is stored and before it is acknowledged, reads the facts
// anew, publishes what has to change, stores it, and looks again until nothing has. So of two that resolve at once the
// one that stored last sees what both did, and what stands in the end follows from the facts alone.
func (f *flush) resolve(ctx context.Context, events []social.Key) error {
	if len(events) == 0 {
		return nil
	}
	return f.insist(ctx, "resolving threads and edits", func(ctx context.Context) error {
		r := &resolver{flush: f}
		slices.SortFunc(events, social.Key.Compare)
		for part := range slices.Chunk(slices.Compact(events), maxResolved) {
			if err := r.settle(ctx, part); err != nil {
				return err
			}
		}
		return nil
	})
}

const (
	// maxResolved bounds the events resolved at once, and with them questions and memory.
	maxResolved = 20_000
	// maxRounds is far above what two resolvers that correct each other need; beyond it something is wrong.
	maxRounds = 20
)

type resolver struct{ *flush }

func (r *resolver) settle(ctx context.Context, events []social.Key) error {
	heads, err := r.heads(ctx, events)
	if err != nil {
		return err
	}
	if err := r.takeBack(ctx, heads); err != nil {
		return err
	}
	var changes []social.Mention
	for range maxRounds {
		t, err := r.read(ctx, events)
		if err != nil {
			return err
		}
		if changes = t.changes(); len(changes) == 0 {
			return r.keep(ctx, t)
		}
		if err := r.put(ctx, changes); err != nil {
			return err
		}
	}
	return fmt.Errorf("threads of %d events did not settle in %d rounds: %+v", len(events), maxRounds, changes[0])
}

// heads finds the highest version of each event that has more than one: of its mentions and of itself, and, where it
// was edited, of what the edit makes of it; and those that are deleted, by themselves or with all that their author wrote.
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
		if _, known := heads[event]; known || seen.several {
			raise(event, seen.highest)
		}
	}
	edited, err := r.edits(ctx, heads)
	if err != nil {
		return nil, err
	}
	for event, v := range edited {
		raise(event, v)
	}
	deleted, err := r.deletedByAuthors(ctx, versions)
	if err != nil {
		return nil, err
	}
	for _, event := range deleted {
		raise(event, social.Deleted())
	}
	if len(raised) > 0 {
		err = r.store.PutHeads(ctx, raised)
	}
	return heads, err
}

// versions is what is known of an event before its head is.
type versions struct {
	highest social.Version
	several bool // something stands that is of another version
	author  social.Key
	time    time.Time // the earliest at which it was ever heard
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
	see := func(m *social.Mention, says bool) {
		v, ok := seen[m.EventKey]
		if !ok {
			v.time = m.Time
		}
		if m.Time.Before(v.time) {
			v.time = m.Time
		}
		if says {
			v.several = v.several || v.highest != (social.Version{}) && v.highest != m.Version
			if v.highest.Less(m.Version) {
				v.highest = m.Version
			}
		}
		if m.AuthorKey != (social.Key{}) {
			v.author = m.AuthorKey
		}
		seen[m.EventKey] = v
	}
	for i := range selves {
		see(&selves[i].Mention, true)
	}
	for i := range standing {
		row := &standing[i]
		see(row, !row.Retracted && row.Via != social.ViaThread)
	}
	for i := range standing {
		row := &standing[i]
		if v := seen[row.EventKey]; !row.Retracted && (row.Version.Revision() != v.highest.Revision() || row.Version.Time() != v.highest.Time()) {
			v.several = true
			seen[row.EventKey] = v
		}
	}
	return seen, nil
}

// deletedByAuthors finds the events that their authors had deleted with all they wrote.
func (r *resolver) deletedByAuthors(ctx context.Context, seen map[social.Key]versions) ([]social.Key, error) {
	var authors []social.Key
	for _, v := range seen {
		authors = append(authors, v.author)
	}
	until, err := r.store.AuthorHeads(ctx, authors)
	if err != nil {
		return nil, err
	}
	var deleted []social.Key
	for event, v := range seen {
		if t, ok := until[v.author]; ok && !v.time.After(t) {
			deleted = append(deleted, event)
		}
	}
	return deleted, nil
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
	for i := range standing {
		row := standing[i]
		head := heads[row.EventKey]
		by, left := row.TakenBack(head)
		if row.Version == social.Deleted() && head != social.Deleted() { // it never happened at this time
			by, left = social.Floor(revisionOf(head), time.UnixMilli(head.Time())), true
		}
		if left {
			row.Retracted, row.Version = true, by
			gone = append(gone, row)
		}
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

// read gathers the events, all that refers to them, and all that those refer to, at any depth.
func (r *resolver) read(ctx context.Context, events []social.Key) (t *thread, err error) {
	t = &thread{selves: map[social.Key]*warehouse.Self{}, standing: map[social.Key][]social.Mention{}, edges: map[social.Key][]social.Key{},
		recorded: map[social.Key]time.Time{}, asked: map[social.Key]bool{}}
	for _, event := range events {
		t.asked[event] = true
	}
	for next := events; len(next) > 0; { // downwards
		edges, err := r.store.Referring(ctx, next)
		if err != nil {
			return nil, err
		}
		next = nil
		for _, edge := range edges {
			if !t.asked[edge.Event] {
				t.asked[edge.Event] = true
				next = append(next, edge.Event)
			}
		}
	}
	known := maps.Clone(t.asked)
	for next := slices.Collect(maps.Keys(known)); len(next) > 0; { // upwards
		selves, err := r.store.Selves(ctx, next)
		if err != nil {
			return nil, err
		}
		next = nil
		for i := range selves {
			self := &selves[i]
			event := self.Mention.EventKey
			switch self.Part {
			case warehouse.Before:
				continue
			case warehouse.Edited:
				if was := t.selves[event]; was != nil { // the part before, which says what it refers to
					was.Mention = self.Mention
				}
				continue
			}
			t.selves[event] = self
			t.see(event, self.Mention.RecordedTime)
			for _, target := range self.Targets {
				t.edges[target] = append(t.edges[target], event)
				if !known[target] {
					known[target] = true
					next = append(next, target)
				}
			}
		}
	}
	if t.heads, err = r.store.Heads(ctx, slices.Collect(maps.Keys(t.asked))); err != nil {
		return nil, err
	}
	standing, err := r.store.Standing(ctx, slices.Collect(maps.Keys(known)))
	if err != nil {
		return nil, err
	}
	for i := range standing {
		row := &standing[i]
		t.standing[row.EventKey] = append(t.standing[row.EventKey], *row)
		if !row.Retracted && row.Via != social.ViaThread {
			t.see(row.EventKey, row.RecordedTime)
		}
	}
	return t, nil
}

// see notes when an event became known, the earliest of all records.
func (t *thread) see(event social.Key, at time.Time) {
	if was, ok := t.recorded[event]; !ok || at.Before(was) {
		t.recorded[event] = at
	}
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
	if err := r.bus.Publish(ctx, batches(*origin, mentions)); err != nil {
		return err
	}
	return r.store.InsertMentions(ctx, mentions)
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

// keep has the references of mentions stay as long as those do.
func (r *resolver) keep(ctx context.Context, t *thread) error {
	var kept, edited []social.Reference
	for event := range t.asked {
		self := t.selves[event]
		if self == nil || self.Kept || !slices.ContainsFunc(t.standing[event], func(m social.Mention) bool { return !m.Retracted }) {
			continue
		}
		self.Kept = true
		if self.Mention.Version.Revision() > 0 {
			edited = append(edited, self.Reference)
		} else {
			kept = append(kept, self.Reference)
		}
	}
	if err := r.store.InsertSelves(ctx, kept, warehouse.Referring); err != nil {
		return err
	}
	return r.store.InsertSelves(ctx, edited, warehouse.Edited)
}
