package aggregate

import (
	"context"
	"maps"
	"slices"
	"time"

	"polyphony/pkg/social"
	"polyphony/pkg/warehouse"
)

// thread is what is known about a set of events, in which is all that refers to any of them, and about what they refer
// to. It decides which of them are mentions through others. It is pure.
//
// How the events of the set stand through their threads is never a reason to stand so. What they refer to outside of the
// set does not depend on them; who changes how that stands has them in a set of its own.
type thread struct {
	asked    map[social.Key]bool             // the events to decide
	standing map[social.Key][]social.Mention // where they ever were mentions
	from     map[social.Key][]warehouse.Edge // what refers to an event
	selves   map[social.Key]*warehouse.Self  // what they would be as mentions, where no mention says it
	waits    []*warehouse.Self               // what is dropped when it has waited long enough
	recorded map[social.Key]time.Time        // since when an event is known
	heads    map[social.Key]social.Version   // of those asked, where known
}

// read gathers the events, all that refers to them at any depth, and what those refer to.
func (r *resolver) read(ctx context.Context, events []social.Key) (t *thread, err error) {
	t = &thread{asked: map[social.Key]bool{}, standing: map[social.Key][]social.Mention{}, from: map[social.Key][]warehouse.Edge{},
		selves: map[social.Key]*warehouse.Self{}, recorded: map[social.Key]time.Time{}}
	for _, event := range events {
		t.asked[event] = true
	}
	known := map[social.Key]bool{}
	for next := events; len(next) > 0; {
		to, from, err := r.store.Edges(ctx, next)
		if err != nil {
			return nil, err
		}
		for _, edge := range to {
			t.from[edge.Target] = append(t.from[edge.Target], edge)
			t.see(edge.Event, edge.Recorded)
			known[edge.Target] = true
		}
		next = nil
		for _, edge := range from {
			if !t.asked[edge.Event] {
				t.asked[edge.Event] = true
				next = append(next, edge.Event)
			}
		}
	}
	maps.Copy(known, t.asked)
	all := slices.Collect(maps.Keys(known))
	standing, err := r.store.Standing(ctx, all)
	if err != nil {
		return nil, err
	}
	for i := range standing {
		row := &standing[i]
		t.standing[row.EventKey] = append(t.standing[row.EventKey], *row)
		t.see(row.EventKey, row.RecordedTime)
	}
	outside := slices.DeleteFunc(slices.Clone(all), func(event social.Key) bool { return t.asked[event] })
	since, err := r.store.Referred(ctx, outside)
	if err != nil {
		return nil, err
	}
	for event, at := range since {
		t.see(event, at)
	}
	selves, err := r.store.Selves(ctx, all)
	if err != nil {
		return nil, err
	}
	for i := range selves { // the last of what was edited stands, or else of what was waiting
		self := &selves[i]
		event := self.Mention.EventKey
		if self.Part != warehouse.Before && !slices.ContainsFunc(t.standing[event], outdone(self)) {
			t.selves[event] = self
		}
		if !self.Kept {
			t.waits = append(t.waits, self)
		}
	}
	t.heads, err = r.store.Heads(ctx, slices.Collect(maps.Keys(t.asked)))
	return t, err
}

// headsOf gives the heads of those events that mentions are of.
func (t *thread) headsOf(mentions []social.Mention) map[social.Key]social.Version {
	heads := map[social.Key]social.Version{}
	for i := range mentions {
		if head, ok := t.heads[mentions[i].EventKey]; ok {
			heads[mentions[i].EventKey] = head
		}
	}
	return heads
}

// outdone finds mentions that say something newer than a self, by their own words.
func outdone(self *warehouse.Self) func(social.Mention) bool {
	return func(row social.Mention) bool {
		return says(&row) && self.Mention.Version.Words().Less(row.Version.Words())
	}
}

// see notes when an event became known, the earliest of all records.
func (t *thread) see(event social.Key, at time.Time) {
	if was, ok := t.recorded[event]; !ok || at.Before(was) {
		t.recorded[event] = at
	}
}

// adopted gives the nodes in which the events are mentions through what they refer to: the least set that holds, from
// the mentions by their own words or account, down along the references. So two replies to each other hold up nobody.
func (t *thread) adopted() map[social.Key]map[social.Node]bool {
	nodes := map[social.Key]map[social.Node]bool{}
	type step struct {
		event social.Key
		node  social.Node
	}
	var queue []step
	for event, rows := range t.standing {
		for i := range rows {
			if says(&rows[i]) || !rows[i].Retracted && !t.asked[event] {
				queue = append(queue, step{event, rows[i].Node})
			}
		}
	}
	for len(queue) > 0 {
		step1 := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		for _, edge := range t.from[step1.event] {
			if nodes[edge.Event][step1.node] || !t.stands(edge.Event) || t.recorded[step1.event].After(edge.Until) {
				continue
			}
			if nodes[edge.Event] == nil {
				nodes[edge.Event] = map[social.Node]bool{}
			}
			nodes[edge.Event][step1.node] = true
			queue = append(queue, step{edge.Event, step1.node})
		}
	}
	return nodes
}

// says reports whether a row is a mention by its own words or account that holds.
func says(row *social.Mention) bool { return !row.Retracted && row.Via != social.ViaThread }

// stands reports whether anything is left of an event: deleted ones have neither words nor a self.
func (t *thread) stands(event social.Key) bool {
	if t.selves[event] != nil {
		return true
	}
	for i := range t.standing[event] {
		if says(&t.standing[event][i]) {
			return true
		}
	}
	return false
}

// wanted gives the nodes in which events are mentions through their threads alone.
func (t *thread) wanted() map[social.Key]map[social.Node]bool {
	wanted := t.adopted()
	for event, nodes := range wanted {
		if !t.asked[event] {
			delete(wanted, event)
			continue
		}
		for i := range t.standing[event] {
			if row := &t.standing[event][i]; says(row) {
				delete(nodes, row.Node) // its own words stand before its thread
			}
		}
	}
	return wanted
}

// silent are the events that are missing somewhere, and of which only a mention elsewhere says what they are.
func (t *thread) silent(wanted map[social.Key]map[social.Node]bool) (events []social.Key) {
	for event, nodes := range wanted {
		missing := len(nodes)
		for i := range t.standing[event] {
			if row := &t.standing[event][i]; nodes[row.Node] && t.current(row) {
				missing--
			}
		}
		if missing > 0 && t.selves[event] == nil {
			events = append(events, event)
		}
	}
	return events
}

// current reports whether a row is a mention through a thread that says what its event says now, by itself or elsewhere,
// and since when it is known. A version tells other words from the same.
func (t *thread) current(row *social.Mention) bool {
	if row.Retracted || says(row) || t.recorded[row.EventKey].Before(row.RecordedTime) {
		return false
	}
	same := func(m *social.Mention) bool { return row.Version.Words() == m.Version.Words() }
	if self := t.selves[row.EventKey]; self != nil {
		return same(&self.Mention)
	}
	rows := t.standing[row.EventKey]
	for i := range rows {
		if says(&rows[i]) && same(&rows[i]) {
			return true
		}
	}
	return false
}

// listen finds out what events say that are wanted in a thread and known only as mentions elsewhere.
func (r *resolver) listen(ctx context.Context, t *thread, wanted map[social.Key]map[social.Node]bool) error {
	said, err := r.store.FirstWritten(ctx, t.silent(wanted))
	for i := range said {
		m := said[i].Mention
		t.selves[m.EventKey] = &warehouse.Self{Mention: m, Kept: true}
	}
	return err
}

// changes are what is to be published so that the events stand as wanted. Each has a version above what stands there
// now; of two resolvers that decide at once the one that wrote last looks again, see resolve.
func (t *thread) changes(wanted map[social.Key]map[social.Node]bool) []social.Mention {
	var changes []social.Mention
	for event := range t.asked {
		self, rows, nodes := t.selves[event], t.standing[event], wanted[event]
		for i := range rows {
			row := &rows[i]
			switch {
			case row.Retracted || says(row):
			case !nodes[row.Node]:
				if gone, ok := leaves(row); ok {
					changes = append(changes, gone)
				}
			case t.current(row):
				delete(nodes, row.Node)
			case self == nil:
			case self.Mention.Time.Before(row.Time):
				gone := *row
				gone.Retracted, gone.Version = true, social.Floor(revisionOf(self.Mention.Version), self.Mention.Time)
				changes = append(changes, gone)
			}
		}
		if self == nil || t.behind(event) {
			continue
		}
		for _, node := range sorted(nodes) {
			if m, ok := joins(self, node, rows); ok {
				m.RecordedTime = t.recorded[event]
				changes = append(changes, m)
			}
		}
	}
	return changes
}

// behind reports whether a self is known to be superseded by one that was not there yet when it was read. Whoever stores
// that one decides the event again.
func (t *thread) behind(event social.Key) bool {
	head, ok := t.heads[event]
	_, gone := t.selves[event].Mention.TakenBack(head)
	return ok && gone
}

// leaves takes back a mention that has lost its thread. One that was in and out thousands of times stays where it is.
func leaves(row *social.Mention) (gone social.Mention, ok bool) {
	gone = *row
	gone.Retracted = true
	gone.Version, ok = row.Version.Next()
	return gone, ok
}

// joins makes a mention of an event in a node of its thread, again only so often.
func joins(self *warehouse.Self, node social.Node, rows []social.Mention) (m social.Mention, ok bool) {
	m = self.Mention
	m.Node, m.Via = node, social.ViaThread
	m.Products, m.Competitors, m.Topics = nil, nil, nil // those of another division
	m.Version = self.Mention.Version.Words()
	for i := range rows {
		row := &rows[i]
		if row.Node == node && !row.Version.Own() && row.Version.Words() == m.Version.Words() && m.Version.Less(row.Version) {
			m.Version = row.Version
		}
	}
	m.Version, ok = m.Version.Next()
	return m, ok
}

func revisionOf(v social.Version) time.Time {
	if ms := v.Revision(); ms > 0 {
		return time.UnixMilli(int64(ms))
	}
	return time.Time{}
}

func sorted(nodes map[social.Node]bool) []social.Node {
	var list []social.Node
	for node := range nodes {
		list = append(list, node)
	}
	slices.SortFunc(list, social.Node.Compare)
	return list
}

// keep has what waited, and what it refers to, stay as long as the mention that it is now.
func (r *resolver) keep(ctx context.Context, t *thread) error {
	var selves, edges []social.Reference
	for _, self := range t.waits {
		if _, ok := t.mentioned(self.Mention.EventKey); ok {
			selves = append(selves, social.Reference{Mention: self.Mention, Sealed: self.Sealed, Kept: true})
		}
	}
	for _, list := range t.from {
		for _, edge := range list {
			if at, ok := t.mentioned(edge.Event); ok && !edge.Kept {
				edges = append(edges, social.Reference{Kept: true, Until: edge.Until, Targets: []social.Key{edge.Target},
					Mention: social.Mention{EventKey: edge.Event, RecordedTime: edge.Recorded, Time: at}})
			}
		}
	}
	if err := r.store.InsertEdges(ctx, edges); err != nil {
		return err
	}
	return r.store.InsertSelves(ctx, selves, warehouse.Waiting)
}

// mentioned tells whether one of the events to decide is a mention anywhere, and when it happened.
func (t *thread) mentioned(event social.Key) (at time.Time, ok bool) {
	for i := range t.standing[event] {
		if row := &t.standing[event][i]; t.asked[event] && !row.Retracted && row.Time.After(at) {
			at, ok = row.Time, true
		}
	}
	return at, ok
}
