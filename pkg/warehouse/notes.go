package warehouse

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/ClickHouse/ch-go/proto"

	"polyphony/pkg/social"
)

// noteColumns are the columns of notes: that more is known of an event than mentions say.
type noteColumns struct {
	prefix  proto.ColUInt32
	kept    proto.ColBool
	expires proto.ColDateTime
}

func (c *noteColumns) input() proto.Input {
	return proto.Input{{Name: "event_prefix", Data: &c.prefix}, {Name: "kept", Data: &c.kept}, {Name: "expires", Data: &c.expires}}
}

// append notes an event until what is known of it may go.
func (c *noteColumns) append(event social.Key, kept bool, expires proto.DateTime) {
	c.prefix.Append(prefixOf(event))
	c.kept.Append(kept)
	c.expires.AppendRaw(expires)
}

// prefixOf is what tells most events from each other, and orders them as their keys do. Two that share it only cost a
// question in vain.
func prefixOf(event social.Key) uint32 { return binary.BigEndian.Uint32(event[:4]) }

// note stores notes. It comes before what they are about, so that nobody who looks here misses that.
func (s *sender) note(ctx context.Context, c *noteColumns) error { return s.insert(ctx, "notes", c.input()) }

// noted gives those of the events of which more may be known.
func (s *sender) noted(ctx context.Context, events []social.Key) (noted []social.Key, err error) {
	if empty, err := s.empty(ctx, "notes"); empty || err != nil {
		return nil, err
	}
	asked := make(proto.ColUInt32, len(events))
	for i, event := range events {
		asked[i] = prefixOf(event)
	}
	var prefix proto.ColUInt32
	found := map[uint32]bool{}
	err = s.askFor(ctx, `SELECT DISTINCT event_prefix FROM notes WHERE event_prefix IN (SELECT key FROM asked)`, &asked,
		proto.Results{{Name: "event_prefix", Data: &prefix}}, func(i int) { found[prefix[i]] = true })
	if err != nil {
		return nil, fmt.Errorf("looking for notes: %w", err)
	}
	for _, event := range events {
		if found[prefixOf(event)] {
			noted = append(noted, event)
		}
	}
	return noted, nil
}
