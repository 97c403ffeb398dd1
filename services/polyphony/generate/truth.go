package generate

import (
	"cmp"
	"io"
	"iter"
	"slices"
	"strconv"
	"time"
)

// Row is the truth about one node and hour.
type Row struct {
	Division, Territory string
	Bucket              time.Time // start of the hour, UTC
	Mentions            int       // posts and replies of others than the company
	Voices              int       // distinct authors of those who are no bots
}

// Append writes r as one line of NDJSON.
func (r Row) Append(dst []byte) []byte {
	dst = append(dst, `{"division":"`...)
	dst = append(dst, r.Division...)
	dst = append(dst, `","territory":"`...)
	dst = append(dst, r.Territory...)
	dst = append(dst, `","bucket":"`...)
	dst = r.Bucket.UTC().AppendFormat(dst, time.RFC3339)
	dst = append(dst, `","mentions":`...)
	dst = strconv.AppendInt(dst, int64(r.Mentions), 10)
	dst = append(dst, `,"voices":`...)
	dst = strconv.AppendInt(dst, int64(r.Voices), 10)
	return append(dst, "}\n"...)
}

// WriteTruth writes all rows as NDJSON.
func WriteTruth(w io.Writer, rows iter.Seq[Row]) error {
	var line []byte
	for r := range rows {
		line = r.Append(line[:0])
		if _, err := w.Write(line); err != nil {
			return err
		}
	}
	return nil
}

// node is a division and a territory by their indices in the plan.
type node struct{ division, territory int }

// truth counts by node and hour. Names are put in when it is read.
type truth struct {
	plan  *vetted
	index map[uint64]int32 // node and hour -> position in cells
	cells []cell
	heard map[uint64]struct{} // position in cells and author: who has been counted
}

type cell struct {
	node             node
	hour             int64 // since 1970
	mentions, voices int
}

func newTruth(v *vetted) truth {
	return truth{plan: v, index: map[uint64]int32{}, heard: map[uint64]struct{}{}}
}

func (t *truth) add(n node, at int64, author uint64, net uint8, bot bool) {
	hour := at / time.Hour.Milliseconds()
	key := uint64(n.division*len(t.plan.territories)+n.territory)<<32 | uint64(hour)
	i, ok := t.index[key]
	if !ok {
		i = int32(len(t.cells))
		t.index[key] = i
		t.cells = append(t.cells, cell{node: n, hour: hour})
	}
	c := &t.cells[i]
	c.mentions++
	if bot {
		return
	}
	// A circle has 12 bits for its people and the world 15; 14 bits of circles are 16,384 nodes, 3 bits the networks.
	who := uint64(i)<<32 | (author>>32)<<18 | author&0x7fff<<3 | uint64(net)
	if _, ok := t.heard[who]; !ok {
		t.heard[who] = struct{}{}
		c.voices++
	}
}

func (t *truth) rows() iter.Seq[Row] {
	return func(yield func(Row) bool) {
		rows := make([]Row, len(t.cells))
		for i, c := range t.cells {
			rows[i] = Row{
				t.plan.divisions[c.node.division], t.plan.territories[c.node.territory],
				time.Unix(c.hour*3600, 0).UTC(), c.mentions, c.voices,
			}
		}
		slices.SortFunc(rows, func(a, b Row) int {
			return cmp.Or(cmp.Compare(a.Division, b.Division), cmp.Compare(a.Territory, b.Territory), a.Bucket.Compare(b.Bucket))
		})
		for _, r := range rows {
			if !yield(r) {
				return
			}
		}
	}
}
