package warehouse

import (
	"context"
	"fmt"
	"time"

	"github.com/ClickHouse/ch-go/proto"
	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/ext"

	"polyphony/pkg/social"
)

// Part says which self of an event it is.
type Part int8

// The parts, numbered as in the table.
const (
	Waiting Part = 1 // refers to others and is no mention by itself
	Edited  Part = 2 // was edited, as it is now
	Before  Part = 3 // was edited, as first written
)

// waitFactor times its own wait is how long a reference stays that nothing adopts: its post may have to wait itself for
// another, up to so many deep.
const waitFactor = 3

// selfColumns are the columns of selves.
type selfColumns struct {
	facts   *factColumns
	version proto.ColUInt256
	part    enumColumn
	kept    proto.ColBool
	expires proto.ColDateTime
	sealed  proto.ColStr
}

func (c *selfColumns) input() proto.Input {
	input := proto.Input{
		{Name: "version", Data: &c.version},
		{Name: "part", Data: &c.part},
		{Name: "kept", Data: &c.kept},
		{Name: "expires", Data: &c.expires},
		{Name: "sealed", Data: &c.sealed},
	}
	for _, column := range c.facts.input() {
		switch column.Name {
		case "division", "territory", "version", "likes", "shares", "views":
		default:
			input = append(input, column)
		}
	}
	return input
}

// InsertEdges stores to which others events refer. Repeats are harmless.
func (w *Warehouse) InsertEdges(ctx context.Context, references []social.Reference) error {
	return w.send(ctx, w.recordSenders, func(s *sender) error {
		for _, piece := range splitReferences(references) {
			if err := s.insertEdges(ctx, piece); err != nil {
				return err
			}
		}
		return nil
	})
}

// splitReferences cuts references so that no piece touches more than maxPartitions months.
func splitReferences(references []social.Reference) (pieces [][]social.Reference) {
	rows := rowsOf(len(references), func(i int) (int64, social.Key) {
		return references[i].Mention.Time.UnixMilli(), references[i].Mention.EventKey
	})
	for _, chunk := range splitRows(rows) {
		piece := make([]social.Reference, len(chunk))
		for i, r := range chunk {
			piece[i] = references[r.index]
		}
		pieces = append(pieces, piece)
	}
	return pieces
}

func (s *sender) insertEdges(ctx context.Context, references []social.Reference) error {
	const to, from = 1, 2
	var event, other proto.ColFixedStr16
	var direction enumColumn
	until, recorded := newFoldedTimes(), newFoldedTimes()
	var kept proto.ColBool
	var expires foldedSeconds
	var notes noteColumns
	for i := range references {
		r := &references[i]
		for _, target := range r.Targets {
			notes.append(target, r.Kept, expiry(r))
			event.Append(r.Mention.EventKey)
			direction.Append(to)
			other.Append(target)
			event.Append(target)
			direction.Append(from)
			other.Append(r.Mention.EventKey)
			for range 2 {
				until.AppendRaw(proto.DateTime64(r.Until.UnixMilli()))
				recorded.AppendRaw(proto.DateTime64(r.Mention.RecordedTime.UnixMilli()))
				kept.Append(r.Kept)
				expires.AppendRaw(expiry(r))
			}
		}
	}
	if err := s.note(ctx, &notes); err != nil {
		return err
	}
	return s.insert(ctx, "edges", proto.Input{{Name: "event_key", Data: &event}, {Name: "direction", Data: &direction},
		{Name: "other_key", Data: &other}, {Name: "until", Data: until}, {Name: "recorded", Data: recorded}, {Name: "kept", Data: &kept},
		{Name: "expires", Data: &expires}})
}

// expiry is when a reference may go. Those that are kept go with the mentions: see SetRetention.
func expiry(r *social.Reference) proto.DateTime {
	if r.Kept {
		return proto.DateTime(r.Mention.Time.Unix())
	}
	wait := max(0, r.Until.Sub(r.Mention.RecordedTime))
	return proto.DateTime(r.Mention.RecordedTime.Add(waitFactor * wait).Unix())
}

// InsertSelves stores what events would be as mentions. Repeats are harmless; of one event and part the highest version
// holds. What is deleted stays so.
func (w *Warehouse) InsertSelves(ctx context.Context, selves []social.Reference, part Part) error {
	if len(selves) == 0 {
		return nil
	}
	return w.send(ctx, w.recordSenders, func(s *sender) error {
		for _, piece := range splitReferences(selves) {
			if err := s.insertSelves(ctx, piece, part); err != nil {
				return err
			}
		}
		return s.dropDeleted(ctx, selves)
	})
}

func (s *sender) insertSelves(ctx context.Context, selves []social.Reference, part Part) error {
	if len(selves) == 0 {
		return nil
	}
	c := &selfColumns{facts: newFactColumns()}
	var notes noteColumns
	for i := range selves {
		r := &selves[i]
		kept := r.Kept || part == Before
		notes.append(r.Mention.EventKey, kept, expiry(r))
		c.part.Append(proto.Enum8(part))
		c.kept.Append(kept)
		c.expires.AppendRaw(expiry(r))
		c.sealed.AppendBytes(r.Sealed)
		c.version.Append(selfVersion(&r.Mention))
		c.facts.append(&r.Mention, version{})
	}
	if err := s.note(ctx, &notes); err != nil {
		return err
	}
	return s.insert(ctx, "selves", c.input())
}

// selfVersion is the version that selves replaces by: that of the mention, and of those that say the same the earliest
// record, in the lowest 44 bits.
func selfVersion(m *social.Mention) proto.UInt256 {
	v := packed(m.Version)
	inverted := ones44 - uint64(m.RecordedTime.UnixMilli())&ones44
	return proto.UInt256{
		High: proto.UInt128{Low: v.High >> 20},
		Low:  proto.UInt128{High: v.High<<44 | v.Low>>20, Low: v.Low<<44 | inverted},
	}
}

// dropDeleted takes back the selves of events that are deleted. It looks after they are written; whoever deletes one
// writes that first and then drops it: of two that do both at once one sees the other.
func (s *sender) dropDeleted(ctx context.Context, references []social.Reference) error {
	events, authors := make([]social.Key, len(references)), make([]social.Key, len(references))
	for i := range references {
		events[i], authors[i] = references[i].Mention.EventKey, references[i].Mention.AuthorKey
	}
	heads, err := s.heads(ctx, events)
	if err != nil {
		return err
	}
	until, err := s.authorHeads(ctx, authors)
	if err != nil {
		return err
	}
	byAuthor := map[social.Key]social.Version{} // the event goes, although it may stand somewhere at a later time
	for i := range references {
		m := &references[i].Mention
		if t, ok := until[m.AuthorKey]; ok && !m.Time.After(t) {
			heads[m.EventKey], byAuthor[m.EventKey] = social.Deleted(), social.Deleted()
		}
	}
	var deleted []social.Key
	for event, head := range heads {
		if head == social.Deleted() {
			deleted = append(deleted, event)
		}
	}
	if err := s.putHeads(ctx, byAuthor); err != nil {
		return err
	}
	return s.dropSelves(ctx, deleted)
}

// DropSelves forgets, for good, what events would be as mentions.
func (w *Warehouse) DropSelves(ctx context.Context, events []social.Key) error {
	return w.send(ctx, w.recordSenders, func(s *sender) error { return s.dropSelves(ctx, events) })
}

func (s *sender) dropSelves(ctx context.Context, events []social.Key) error {
	var event, author proto.ColFixedStr16
	var parts proto.ColUInt8
	gone := map[Part][]social.Reference{}
	err := s.ask(ctx, `SELECT event_key, author_key, toUInt8(part) AS parts FROM selves
		WHERE event_key IN (SELECT key FROM asked) GROUP BY event_key, author_key, part HAVING NOT max(is_deleted)`, events,
		proto.Results{{Name: "event_key", Data: &event}, {Name: "author_key", Data: &author}, {Name: "parts", Data: &parts}}, func(i int) {
			gone[Part(parts[i])] = append(gone[Part(parts[i])], social.Reference{Kept: true, Mention: social.Mention{EventKey: event[i],
				AuthorKey: author[i], Version: social.Deleted(), Retracted: true, Time: time.Now(), RecordedTime: time.Now()}})
		})
	if err != nil {
		return fmt.Errorf("looking for selves: %w", err)
	}
	for part, references := range gone {
		if err := s.insertSelves(ctx, references, part); err != nil {
			return err
		}
	}
	return nil
}

// Self is what an event would be as a mention, and what leads back to its author.
type Self struct {
	Mention social.Mention
	Sealed  []byte
	Kept    bool
	Part    Part
}

// Selves reads what is known of events beyond their mentions, but for deleted ones: of each part the copy that holds for
// every author that it names, in the order of parts and versions.
func (w *Warehouse) Selves(ctx context.Context, events []social.Key) ([]Self, error) {
	if len(events) == 0 {
		return nil, nil
	}
	asked, err := askedTable(events)
	if err != nil {
		return nil, err
	}
	rows, err := w.conn.Query(clickhouse.Context(ctx, clickhouse.WithExternalTable(asked)), `SELECT * EXCEPT (public, gone) FROM
		(
			SELECT bitShiftRight(version, 44) AS public, toUInt64(bitShiftRight(public, 64)) AS high, toUInt64(public) AS low, `+storedColumns+`,
				toInt8(part) AS part, kept, sealed, max(is_deleted) OVER (PARTITION BY event_key) AS gone
			FROM selves WHERE event_key IN (SELECT key FROM asked)
			ORDER BY event_key, part, author_key, version DESC, kept DESC
			LIMIT 1 BY event_key, part, author_key
		)
		WHERE NOT gone
		ORDER BY event_key, part, public`)
	if err != nil {
		return nil, fmt.Errorf("reading selves: %w", err)
	}
	defer rows.Close()
	var selves []Self
	for rows.Next() {
		var row selfRow
		if err := rows.ScanStruct(&row); err != nil {
			return nil, fmt.Errorf("reading a self: %w", err)
		}
		selves = append(selves, row.self())
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("reading selves: %w", err)
	}
	return selves, nil
}

// FirstWritten reads events as they were first written, from the mentions themselves, whether those hold or not.
func (w *Warehouse) FirstWritten(ctx context.Context, events []social.Key) ([]social.Reference, error) {
	if len(events) == 0 {
		return nil, nil
	}
	asked, err := askedTable(events)
	if err != nil {
		return nil, err
	}
	var rows []mentionRow
	err = w.conn.Select(clickhouse.Context(ctx, clickhouse.WithExternalTable(asked)), &rows, `SELECT `+versionColumns+`, `+storedColumns+`
		FROM mentions_store
		WHERE (division, territory, time, event_key) IN
				(SELECT division, territory, time, event_key FROM locations WHERE event_key IN (SELECT key FROM asked))
			AND NOT is_deleted AND via != 'thread' AND bitShiftRight(version, 84) = 0
		ORDER BY event_key, time, version DESC, via = 'account' DESC, division, territory
		LIMIT 1 BY event_key`)
	if err != nil {
		return nil, fmt.Errorf("reading events as first written: %w", err)
	}
	var before []social.Reference
	for i := range rows {
		m := rows[i].mention()
		m.Version = publicVersion(version{rows[i].High, rows[i].Low}, m.Time)
		before = append(before, social.Reference{Mention: m})
	}
	return before, nil
}

func askedTable(keys []social.Key) (*ext.Table, error) {
	table, err := ext.NewTable("asked", ext.Column("key", "FixedString(16)"))
	if err != nil {
		return nil, err
	}
	for _, k := range keys {
		if err := table.Append(string(k[:])); err != nil {
			return nil, err
		}
	}
	return table, nil
}
