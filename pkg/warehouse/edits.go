package warehouse

import (
	"context"
	"fmt"

	"github.com/ClickHouse/ch-go/proto"

	"polyphony/pkg/social"
)

// Edit is the newest edit of an event.
type Edit struct {
	social.Statement
	Version social.Version // by its content
}

// NewestEdits reads the newest edit of each event that has one; of two at one time their content decides.
func (w *Warehouse) NewestEdits(ctx context.Context, events []social.Key) (map[social.Key]Edit, error) {
	var (
		object, author, statement proto.ColFixedStr16
		at, recorded              = newTimes(), newTimes()
		versions                  proto.ColUInt128
		source, rules, sealed     proto.ColStr
	)
	edits, named := map[social.Key]Edit{}, map[social.Key]social.Key{}
	var statements []social.Key
	err := w.send(ctx, w.recordSenders, func(s *sender) error {
		if empty, err := s.empty(ctx, "statements"); empty || err != nil {
			return err
		}
		err := s.ask(ctx, `SELECT object_key, max(time) AS at, argMax(statements.version, (time, statements.version)) AS newest, argMax(recorded_time, (time, version)) AS recorded,
				CAST(argMax(source, (time, version)), 'String') AS source, CAST(argMax(rules_version, (time, version)), 'String') AS rules,
				argMax(object_author_key, (time, version)) AS author, argMax(statement_key, (time, version)) AS statement
			FROM statements
			WHERE object_key IN (SELECT key FROM asked) AND kind = 'edit'
			GROUP BY object_key`, events,
			proto.Results{{Name: "object_key", Data: &object}, {Name: "at", Data: at}, {Name: "newest", Data: &versions}, {Name: "recorded", Data: recorded},
				{Name: "source", Data: &source}, {Name: "rules", Data: &rules}, {Name: "author", Data: &author}, {Name: "statement", Data: &statement}}, func(i int) {
				edit := Edit{Statement: social.Statement{Kind: social.Edit, Key: statement[i], Source: source.Row(i), ObjectKey: object[i], ObjectAuthor: author[i],
					Time: at.Data[i].Time(proto.PrecisionMilli).UTC(), RecordedTime: recorded.Data[i].Time(proto.PrecisionMilli).UTC(), RulesVersion: rules.Row(i)}}
				edit.Version = publicVersion(version{versions[i].High, versions[i].Low}, edit.Time)
				edits[object[i]] = edit
				named[statement[i]] = object[i]
				statements = append(statements, statement[i])
			})
		if err != nil {
			return err
		}
		object.Reset()
		return s.ask(ctx, `SELECT event_key, argMax(sealed, version) AS sealed FROM originals
			WHERE event_key IN (SELECT key FROM asked) GROUP BY event_key`, statements,
			proto.Results{{Name: "event_key", Data: &object}, {Name: "sealed", Data: &sealed}}, func(i int) {
				edit := edits[named[object[i]]]
				edit.Sealed = []byte(sealed.Row(i))
				edits[named[object[i]]] = edit
			})
	})
	if err != nil {
		return nil, fmt.Errorf("reading edits: %w", err)
	}
	return edits, nil
}

// Originals reads what leads back to the authors of events, sealed, for those where it is still kept: the event, the version
// of its copy, and what is sealed.
func (w *Warehouse) Originals(ctx context.Context, events []social.Key) (map[social.Key]social.Original, error) {
	var event proto.ColFixedStr16
	var versions proto.ColUInt128
	var sealed proto.ColStr
	originals := map[social.Key]social.Original{}
	err := w.send(ctx, w.recordSenders, func(s *sender) error {
		return s.ask(ctx, `SELECT event_key, max(originals.version) AS newest, argMax(sealed, originals.version) AS sealed FROM originals
			WHERE event_key IN (SELECT key FROM asked) GROUP BY event_key`, events,
			proto.Results{{Name: "event_key", Data: &event}, {Name: "newest", Data: &versions}, {Name: "sealed", Data: &sealed}}, func(i int) {
				originals[event[i]] = social.Original{EventKey: event[i], Version: copyOf(versions[i]), Sealed: []byte(sealed.Row(i))}
			})
	})
	if err != nil {
		return nil, fmt.Errorf("reading originals: %w", err)
	}
	return originals, nil
}
