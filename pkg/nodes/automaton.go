package nodes

import (
	"fmt"
	"slices"
	"unicode/utf8"
	"unsafe"
)

// unsafeString views bytes as text for as long as nobody writes to them.
func unsafeString(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// automaton finds all patterns of all queries in one pass over a text: the machine of Aho and Corasick with a dense
// transition table over classes of bytes. Upper and lower case are one class and all separators are one class, so that
// ASCII text is read as it is; runs of separators are read as one.
//
// A pattern is a normal form. It begins (or ends) with a space where a word must begin (or end).
type automaton struct {
	class [256]uint8
	next  []uint32 // next[state+class]; states are multiples of the number of classes, the top bit says that patterns end here
	start uint32   // where a text begins: after a separator
	// Patterns that end in a state: out[state/width] is the first or -1, more[pattern] the next.
	width uint32
	out   []int32
	via   []int32 // the nearest state by fewer leading bytes in which a pattern ends, or -1
}

const accepts = 1 << 31

// maxTable bounds the transition table: 32 Mi entries are 128 MiB, some 50,000 terms of mixed scripts; two versions fit into a service.
const maxTable = 32 << 20

// newAutomaton builds the machine; patterns must be distinct and not empty.
func newAutomaton(patterns []string) (*automaton, error) {
	a := &automaton{width: 2}
	// Class 0 is a separator, class 1 a byte of words that no pattern has.
	for b := range a.class {
		if !separates(byte(b)) {
			a.class[b] = 1
		}
	}
	for _, p := range patterns {
		for i := range len(p) {
			if b := p[i]; a.class[b] == 1 {
				a.class[b] = uint8(a.width)
				if 'a' <= b && b <= 'z' {
					a.class[b-'a'+'A'] = uint8(a.width)
				}
				a.width++
			}
		}
	}
	width := int(a.width)

	const none = ^uint32(0)
	trie := slices.Repeat([]uint32{none}, width)
	a.out = []int32{-1}
	last := []uint8{1} // the class a state was entered by
	for id, p := range patterns {
		state := 0
		for i := range len(p) {
			c := a.class[p[i]]
			child := trie[state*width+int(c)]
			if child == none {
				if len(trie)+width > maxTable {
					return nil, fmt.Errorf("too many terms: they need more than %d MiB", maxTable*4>>20)
				}
				child = uint32(len(a.out))
				trie[state*width+int(c)] = child
				trie = append(trie, slices.Repeat([]uint32{none}, width)...)
				a.out = append(a.out, -1)
				last = append(last, c)
			}
			state = int(child)
		}
		a.out[state] = int32(id)
	}

	// Breadth first, so that the state to fall back to is always complete.
	a.next = trie
	fallback := make([]uint32, len(a.out))
	a.via = slices.Repeat([]int32{-1}, len(a.out))
	queue := make([]uint32, 0, len(a.out))
	queue = append(queue, 0)
	for head := 0; head < len(queue); head++ {
		state := queue[head]
		row := a.next[int(state)*width : int(state+1)*width]
		back := a.next[int(fallback[state])*width:]
		for c, child := range row {
			switch {
			case child != none:
				if state != 0 {
					fallback[child] = back[c] / uint32(width)
				}
				f := fallback[child]
				if a.out[f] >= 0 {
					a.via[child] = int32(f)
				} else {
					a.via[child] = a.via[f]
				}
				queue = append(queue, child)
			}
		}
		for c, child := range row {
			switch {
			case child != none:
				row[c] = child * uint32(width)
			case c == 0 && last[state] == 0:
				row[c] = state * uint32(width) // a run of separators is one
			case state == 0:
				row[c] = 0
			default:
				row[c] = back[c]
			}
		}
	}
	for i, target := range a.next {
		if s := target / a.width; a.out[s] >= 0 || a.via[s] >= 0 {
			a.next[i] |= accepts
		}
	}
	a.start = a.next[0] &^ accepts
	return a, nil
}

// scan calls found for every pattern in text, which is ASCII or a normal form, with the offset where it ends, in
// ascending order. The separators around a pattern are not part of it.
func (a *automaton) scan(text string, found func(pattern int32, end int)) {
	state := a.start
	next := a.next
	for i := 0; i < len(text); i++ {
		state = next[state+uint32(a.class[text[i]])]
		if state&accepts != 0 {
			state &^= accepts
			if !separates(text[i]) {
				a.report(state, i+1, found)
			} else if i > 0 && !separates(text[i-1]) {
				a.report(state, i, found)
			}
		}
	}
	if state = next[state]; state&accepts != 0 && len(text) > 0 && !separates(text[len(text)-1]) {
		a.report(state&^accepts, len(text), found)
	}
}

func (a *automaton) report(state uint32, end int, found func(pattern int32, end int)) {
	for s := int32(state / a.width); s >= 0; s = a.via[s] {
		if id := a.out[s]; id >= 0 {
			found(id, end)
		}
	}
}

// startOf is where the pattern begins that ends at end.
func startOf(text, pattern string, end int) int {
	inner := pattern
	for len(inner) > 0 && inner[0] == space {
		inner = inner[1:]
	}
	for len(inner) > 0 && inner[len(inner)-1] == space {
		inner = inner[:len(inner)-1]
	}
	at := end
	for i := len(inner) - 1; i >= 0; i-- {
		if inner[i] != space {
			at--
			continue
		}
		for at > 0 && separates(text[at-1]) {
			at--
		}
	}
	return max(at, 0)
}

// words counts the words that begin in text[from:to]; a character of a script without spaces is a word. Joined says
// that the character before from belongs to a word.
func (t *runeTable) words(text string, from, to int, joined bool) (count int, stillJoined bool) {
	for i := from; i < to; {
		if b := text[i]; b < utf8.RuneSelf {
			if separates(b) {
				joined = false
			} else {
				if !joined {
					count++
				}
				joined = true
			}
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(text[i:])
		switch p := t.props(r); {
		case p&isMark != 0:
		case p&isSpaceless != 0:
			count++
			joined = true
		default:
			if !joined {
				count++
			}
			joined = true
		}
		i += size
	}
	return count, joined
}
