package warehouse

import (
	"strings"

	"github.com/ClickHouse/ch-go/proto"

	"polyphony/pkg/social"
)

// lowColumn is LowCardinality(String). Neighbours are often equal, so the last value is tried before the dictionary.
type lowColumn struct {
	proto.ColLowCardinalityRaw
	index proto.ColStr
	known map[string]uint32
	last  string
	key   uint32
}

func newLow() *lowColumn {
	c := &lowColumn{known: map[string]uint32{}}
	c.Index, c.Key = &c.index, proto.KeyUInt32
	c.Reset()
	return c
}

// Reset forgets the values.
func (c *lowColumn) Reset() {
	c.ColLowCardinalityRaw.Reset()
	clear(c.known)
	c.known[""] = 0
	c.index.Append("")
	c.last, c.key = "", 0
}

// Append adds one value.
func (c *lowColumn) Append(s string) {
	if s != c.last {
		key, ok := c.known[s]
		if !ok {
			key = uint32(c.index.Rows())
			s = strings.Clone(s) // it may be a piece of a big buffer
			c.index.Append(s)
			c.known[s] = key
		}
		c.last, c.key = s, key
	}
	c.Keys32 = append(c.Keys32, c.key)
}

// enumColumn is an Enum8 that takes its names from the table.
type enumColumn struct {
	proto.ColEnum8
	of proto.ColumnType
}

// Infer learns the type from the table's header.
func (c *enumColumn) Infer(t proto.ColumnType) error {
	c.of = t
	return nil
}

// Type is what Infer learned.
func (c *enumColumn) Type() proto.ColumnType { return c.of }

// newTimes is DateTime64(3).
func newTimes() *proto.ColDateTime64 {
	return new(proto.ColDateTime64).WithPrecision(proto.PrecisionMilli)
}

// foldedTimes is DateTime64(3), and foldedSeconds DateTime, for a column that keeps the least or the greatest of them.
// The server takes the plain values for those; the driver, asked to read its type, fails.
type (
	foldedTimes   struct{ proto.ColDateTime64 }
	foldedSeconds struct{ proto.ColDateTime }
)

func newFoldedTimes() *foldedTimes {
	c := &foldedTimes{}
	c.WithPrecision(proto.PrecisionMilli)
	return c
}

// Infer leaves the type as it is.
func (*foldedTimes) Infer(proto.ColumnType) error { return nil }

// Infer leaves the type as it is.
func (*foldedSeconds) Infer(proto.ColumnType) error { return nil }

// numberOf gives the kinds the numbers of the tables' enumerations.
func numberOf(k social.Kind) proto.Enum8 {
	switch k {
	case social.Post:
		return 1
	case social.Reply:
		return 2
	case social.Share:
		return 3
	case social.Reaction:
		return 4
	case social.Follow:
		return 5
	case social.View:
		return 6
	case social.Edit:
		return 7
	case social.Delete:
		return 8
	case social.Counted:
		return 9
	}
	return 0
}
