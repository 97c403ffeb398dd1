package warehouse

import (
	"context"
	"fmt"

	"github.com/ClickHouse/ch-go/proto"

	"polyphony/pkg/social"
)

// noteColumns are the columns of notes: that more is known of an event than mentions say.
type noteColumns struct {
	half    proto.ColUInt64
	kept    proto.ColBool
	expires proto.ColDateTime
}

func (c *noteColumns) input() proto.Input {
	return proto.Input{{Name: "event_half", Data: &c.half}, {Name: "kept", Data: &c.kept}, {Name: "expires", Data: &c.expires}}
}

// append notes an event until what is known of it may go.
func (c *noteColumns) append(event social.Key, kept bool, expires proto.DateTime) {
	c.half.Append(halves(event)[0])
	c.kept.Append(kept)
	c.expires.AppendRaw(expires)
}

// note stores notes. It comes before what they are about, so that nobody who looks here misses that.
func (s *sender) note(ctx context.Context, c *noteColumns) error {
	return s.insert(ctx, "notes", c.input())
}

// noted gives those of the events of which more may be known.
func (s *sender) noted(ctx context.Context, events []social.Key) (noted []social.Key, err error) {
	if empty, err := s.empty(ctx, "notes"); empty || err != nil {
		return nil, err
	}
	asked := make(proto.ColUInt64, len(events))
	for i, event := range events {
		asked[i] = halves(event)[0]
	}
	var half proto.ColUInt64
	found := map[uint64]bool{}
	err = s.askFor(ctx, `SELECT DISTINCT event_half FROM notes WHERE event_half IN (SELECT key FROM asked)`, &asked,
		proto.Results{{Name: "event_half", Data: &half}}, func(i int) { found[half[i]] = true })
	if err != nil {
		return nil, fmt.Errorf("looking for notes: %w", err)
	}
	for _, event := range events {
		if found[halves(event)[0]] {
			noted = append(noted, event)
		}
	}
	return noted, nil
}
