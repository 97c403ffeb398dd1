package aggregate

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"polyphony/pkg/social"
	"polyphony/pkg/warehouse"
)

// Events of the tests are numbered, their nodes are letters. Each was recorded at its number of minutes after the hour,
// and waits for what it names for ten more.

func keyOf(event byte) social.Key      { return social.Key{event} }
func nodeOf(letter string) social.Node { return social.Node{Division: letter, Territory: "north"} }

func recordedAt(event byte) time.Time { return hour.Add(time.Duration(event) * time.Minute) }

// said is the version of an event by its own words.
func said(words uint64) social.Version { return social.OwnVersion(time.Time{}, hour, words) }

// row is an event in a node: by itself, or through a thread after so many decisions, an even number of them when it has
// left.
func row(event byte, node string, words uint64, decisions int) social.Mention {
	m := social.Mention{Node: nodeOf(node), EventKey: keyOf(event), Time: hour, RecordedTime: recordedAt(event), Via: social.ViaText, Version: said(words)}
	if decisions > 0 {
		m.Via, m.Version, m.Retracted = social.ViaThread, m.Version.Words(), decisions%2 == 0
	}
	for range decisions {
		m.Version, _ = m.Version.Next()
	}
	return m
}

// threadOf is a thread in which events, all asked for, stand as rows say. Those with a self have one of words 1.
func threadOf(refers map[byte][]byte, selves []byte, rows ...social.Mention) *thread {
	t := &thread{asked: map[social.Key]bool{}, standing: map[social.Key][]social.Mention{}, from: map[social.Key][]warehouse.Edge{},
		selves: map[social.Key]*warehouse.Self{}, recorded: map[social.Key]time.Time{}, heads: map[social.Key]social.Version{}}
	for event, targets := range refers {
		t.asked[keyOf(event)] = true
		t.see(keyOf(event), recordedAt(event))
		for _, target := range targets {
			t.from[keyOf(target)] = append(t.from[keyOf(target)],
				warehouse.Edge{Event: keyOf(event), Target: keyOf(target), Until: recordedAt(event).Add(10 * time.Minute), Recorded: recordedAt(event)})
		}
	}
	for _, event := range selves {
		self := row(event, "", 1, 0)
		t.selves[keyOf(event)] = &warehouse.Self{Mention: self}
	}
	for _, m := range rows {
		t.standing[m.EventKey] = append(t.standing[m.EventKey], m)
		t.see(m.EventKey, m.RecordedTime)
	}
	return t
}

// inShort tells changes, "+2@a" for an event that joins a node and "-2@a" for one that leaves it.
func inShort(changes []social.Mention) string {
	list := make([]string, len(changes))
	for i := range changes {
		sign := "+"
		if changes[i].Retracted {
			sign = "-"
		}
		list[i] = fmt.Sprintf("%s%d@%s", sign, changes[i].EventKey[0], changes[i].Node.Division)
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}

func TestThreadChanges(t *testing.T) {
	f := func(what string, thread *thread, want string) {
		t.Helper()
		if got := inShort(thread.changes(thread.wanted())); got != want {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	post := row(1, "a", 1, 0)
	refers := func(event byte, targets ...byte) map[byte][]byte { return map[byte][]byte{event: targets} }
	chain := map[byte][]byte{1: nil, 2: {1}, 3: {2}, 4: {3}}

	f("a reply to a mention", threadOf(refers(2, 1), []byte{2}, post), "+2@a")
	f("replies to any depth", threadOf(chain, []byte{2, 3, 4}, post), "+2@a +3@a +4@a")
	f("a reply to a mention of two nodes", threadOf(refers(2, 1), []byte{2}, post, row(1, "b", 1, 0)), "+2@a +2@b")
	f("what stands stands", threadOf(chain, []byte{2, 3, 4}, post, row(2, "a", 1, 1), row(3, "a", 1, 1), row(4, "a", 1, 3)), "")
	f("a reply to nobody known", threadOf(refers(2, 1), []byte{2}), "")
	f("two that reply to each other", threadOf(map[byte][]byte{2: {3}, 3: {2}}, []byte{2, 3}), "")
	f("and hold each other up no longer", threadOf(map[byte][]byte{2: {3}, 3: {2}}, []byte{2, 3}, row(2, "a", 1, 1), row(3, "a", 1, 1)), "-2@a -3@a")
	f("a cycle below a mention", threadOf(map[byte][]byte{2: {3, 1}, 3: {2}}, []byte{2, 3}, post), "+2@a +3@a")
	f("a thread whose post was taken back", threadOf(chain, []byte{2, 3}, withdrawn(post), row(2, "a", 1, 1), row(3, "a", 1, 1)), "-2@a -3@a")
	f("a thread whose post stands elsewhere now", threadOf(chain, []byte{2}, withdrawn(post), row(1, "b", 1, 0), row(2, "a", 1, 1)), "+2@b -2@a")
	f("one in the middle is deleted", threadOf(chain, []byte{2, 4}, post, row(2, "a", 1, 1), row(3, "a", 1, 1), row(4, "a", 1, 1)), "-3@a -4@a")
	f("back again after it left", threadOf(refers(2, 1), []byte{2}, post, row(2, "a", 1, 2)), "+2@a")
	f("by its own words already", threadOf(refers(2, 1), nil, post, row(2, "a", 1, 0)), "")
	f("by its own words elsewhere: what it says there is not known here", threadOf(refers(2, 1), nil, post, row(2, "b", 1, 0)), "")
	f("and is found out", threadOf(refers(2, 1), []byte{2}, post, row(2, "b", 1, 0)), "+2@a")
	f("with other words than it has", threadOf(refers(2, 1), []byte{2}, post, row(2, "a", 0, 1)), "+2@a")
	late := row(2, "a", 1, 1)
	late.RecordedTime = recordedAt(3)
	f("as known for less time than it is", threadOf(refers(2, 1), []byte{2}, post, late), "+2@a")
	f("a post that was recorded too late", threadOf(map[byte][]byte{1: {12}}, []byte{1}, row(12, "a", 1, 0)), "")
	f("and one that was not", threadOf(map[byte][]byte{1: {11}}, []byte{1}, row(11, "a", 1, 0)), "+1@a")
	f("through what is not asked for, however it stands", threadOf(refers(3, 2), []byte{3}, row(2, "a", 1, 1)), "+3@a")
	f("but not through what has left", threadOf(refers(3, 2), []byte{3}, row(2, "a", 1, 2)), "")

	superseded := threadOf(refers(2, 1), []byte{2}, post)
	superseded.heads[keyOf(2)] = said(7)
	f("what is known to say something else by now", superseded, "")

	worn := threadOf(refers(2, 1), []byte{2}, post, row(2, "a", 1, 8190))
	f("the last decision", worn, "+2@a")
	worn = threadOf(refers(2, 1), []byte{2}, withdrawn(post), row(2, "a", 1, 8191))
	f("none after the last", worn, "")
}

func withdrawn(m social.Mention) social.Mention {
	m.Retracted = true
	return m
}

// TestThreadSettles: whatever refers to what, and however it stands, what is decided once needs no other decision, and
// what stands then is what follows from the mentions by their own words alone; and every decision is above what stood before.
func TestThreadSettles(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		const events = 6
		refers, selves := map[byte][]byte{}, []byte{}
		var rows []social.Mention
		for event := byte(1); event <= events; event++ {
			refers[event] = rapid.SliceOfN(rapid.ByteRange(1, events), 0, 2).Draw(rt, "refers to")
			for _, node := range []string{"a", "b"} {
				switch n := rapid.IntRange(-3, 3).Draw(rt, "stands"); {
				case n == 0:
					rows = append(rows, row(event, node, 1, 0))
				case n > 0:
					rows = append(rows, row(event, node, 1, n))
				}
			}
			if rapid.Bool().Draw(rt, "has a self") {
				selves = append(selves, event)
			}
		}
		thread := threadOf(refers, selves, rows...)
		want := reached(thread, refers)
		for _, m := range thread.changes(thread.wanted()) {
			for _, was := range thread.standing[m.EventKey] {
				if above := was.Version.Less(m.Version) || m.Retracted && was.Version == m.Version; was.Node == m.Node && !above {
					rt.Fatalf("%s has version %s, and what it takes the place of %s", inShort([]social.Mention{m}), m.Version, was.Version)
				}
			}
			list := slices.DeleteFunc(thread.standing[m.EventKey], func(was social.Mention) bool { return was.Node == m.Node })
			thread.standing[m.EventKey] = append(list, m)
		}
		if again := thread.changes(thread.wanted()); len(again) > 0 {
			rt.Fatalf("a second decision: %s", inShort(again))
		}
		got := map[string]bool{}
		for _, list := range thread.standing {
			for i := range list {
				if !list[i].Retracted {
					got[inShort(list[i:i+1])] = true
				}
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			rt.Fatalf("(-want +got):\n%s", diff)
		}
	})
}

// reached asks of every event and node whether a walk along its references ends at a mention by its own words there. An
// event without a self can join no node: nobody knows what it says.
func reached(t *thread, refers map[byte][]byte) map[string]bool {
	own := func(event byte, node social.Node) bool {
		return slices.ContainsFunc(t.standing[keyOf(event)], func(m social.Mention) bool { return m.Node == node && says(&m) })
	}
	var walk func(event byte, node social.Node, seen map[byte]bool) bool
	walk = func(event byte, node social.Node, seen map[byte]bool) bool {
		if own(event, node) {
			return true
		}
		if seen[event] || !t.stands(keyOf(event)) {
			return false
		}
		seen[event] = true
		return slices.ContainsFunc(refers[event], func(target byte) bool { return walk(target, node, seen) })
	}
	found := map[string]bool{}
	for event := range refers {
		for _, node := range []string{"a", "b"} {
			stood := slices.ContainsFunc(t.standing[keyOf(event)], func(m social.Mention) bool {
				return m.Node == nodeOf(node) && !m.Retracted && m.Via == social.ViaThread
			})
			if walk(event, nodeOf(node), map[byte]bool{}) && (own(event, nodeOf(node)) || stood || t.selves[keyOf(event)] != nil) {
				found[fmt.Sprintf("+%d@%s", event, node)] = true
			}
		}
	}
	return found
}
