package aggregate

import (
	"slices"
	"time"

	"polyphony/pkg/social"
	"polyphony/pkg/warehouse"
)

// thread is what is known about a set of events and about all that they refer to, at any depth: facts, and how the
// events stand. It decides which of them are mentions through others. It is pure.
type thread struct {
	selves   map[social.Key]*warehouse.Self  // as the events stand; those that refer to others
	standing map[social.Key][]social.Mention // where they ever were mentions
	edges    map[social.Key][]social.Key     // who refers to an event
	recorded map[social.Key]time.Time        // since when an event is known
	asked    map[social.Key]bool             // the events to decide
	heads    map[social.Key]social.Version   // of those, where known
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
			if row := &rows[i]; !row.Retracted && row.Via != social.ViaThread {
				queue = append(queue, step{event, row.Node})
			}
		}
	}
	for len(queue) > 0 {
		from := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		for _, event := range t.edges[from.event] {
			if !t.waits(event, from.event) || nodes[event][from.node] {
				continue
			}
			if nodes[event] == nil {
				nodes[event] = map[social.Node]bool{}
			}
			nodes[event][from.node] = true
			queue = append(queue, step{event, from.node})
		}
	}
	return nodes
}

// waits reports whether event stands, and still waited when target was recorded.
func (t *thread) waits(event, target social.Key) bool {
	self := t.selves[event]
	return self != nil && !t.recorded[target].After(self.Until)
}

// changes are what is to be published so that the events stand as the facts say. Each has a version above what stands
// there now; of two resolvers that decide at once the one that wrote last looks again, see resolver.
func (t *thread) changes() []social.Mention {
	adopted := t.adopted()
	var changes []social.Mention
	for event := range t.asked {
		self, rows := t.selves[event], t.standing[event]
		wanted := adopted[event]
		if self == nil {
			wanted = nil
		}
		for i := range rows {
			row := &rows[i]
			current := self != nil && row.Version.Revision() == self.Mention.Version.Revision() && row.Version.Time() == self.Mention.Version.Time()
			switch {
			case row.Retracted:
			case row.Via != social.ViaThread:
				delete(wanted, row.Node) // its own words stand before its thread
			case current && wanted[row.Node]:
				delete(wanted, row.Node)
			case !wanted[row.Node]:
				changes = append(changes, leaves(row))
			}
		}
		if self == nil || t.behind(event) {
			continue
		}
		for _, node := range sorted(wanted) {
			changes = append(changes, joins(self, node, rows))
		}
	}
	return changes
}

// behind reports whether a self is known to be superseded by one that was not there yet when it was read. Whoever stores
// that one decides the event again.
func (t *thread) behind(event social.Key) bool {
	head, ok := t.heads[event]
	self := t.selves[event].Mention
	_, gone := self.TakenBack(head)
	return ok && gone
}

// leaves takes back a mention that has lost its thread.
func leaves(row *social.Mention) social.Mention {
	gone := *row
	gone.Retracted, gone.Version = true, next(row.Version)
	return gone
}

// joins makes a mention of an event in a node of its thread.
func joins(self *warehouse.Self, node social.Node, rows []social.Mention) social.Mention {
	m := self.Mention
	m.Node, m.Via = node, social.ViaThread
	m.Version = next(social.Floor(revisionOf(m.Version), m.Time))
	for i := range rows {
		row := &rows[i]
		if row.Node == node && row.Time.Equal(m.Time) && row.Version.Revision() == m.Version.Revision() && m.Version.Less(next(row.Version)) {
			m.Version = next(row.Version)
		}
	}
	return m
}

// next is the decision after the one that v stands for.
func next(v social.Version) social.Version {
	return social.VersionOf(revisionOf(v), time.UnixMilli(v.Time()), v.Rank()+1)
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
