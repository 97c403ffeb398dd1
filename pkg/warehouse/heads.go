package warehouse

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/ch-go/proto"

	"polyphony/pkg/social"
)

// PutHeads stores the highest versions known of events. Repeats are harmless; of several the highest holds.
func (w *Warehouse) PutHeads(ctx context.Context, heads map[social.Key]social.Version) error {
	if len(heads) == 0 {
		return nil
	}
	return w.send(ctx, w.recordSenders, func(s *sender) error { return s.putHeads(ctx, heads) })
}

func (s *sender) putHeads(ctx context.Context, heads map[social.Key]social.Version) error {
	var key proto.ColFixedStr16
	var versions proto.ColUInt128
	for k, v := range heads {
		key.Append(k)
		versions.Append(packed(v))
	}
	return s.insert(ctx, "heads", proto.Input{{Name: "event_key", Data: &key}, {Name: "version", Data: &versions}})
}

// PutAuthorHeads stores until when all that authors wrote is deleted. Repeats are harmless; of several the latest holds.
func (w *Warehouse) PutAuthorHeads(ctx context.Context, heads map[social.Key]time.Time) error {
	var key proto.ColFixedStr16
	until := newTimes()
	for k, t := range heads {
		key.Append(k)
		until.AppendRaw(proto.DateTime64(t.UnixMilli()))
	}
	return w.send(ctx, w.recordSenders, func(s *sender) error {
		return s.insert(ctx, "author_heads", proto.Input{{Name: "author_key", Data: &key}, {Name: "until", Data: until}})
	})
}

func packed(v social.Version) proto.UInt128 {
	return proto.UInt128{High: binary.BigEndian.Uint64(v[:8]), Low: binary.BigEndian.Uint64(v[8:])}
}

func unpacked(n proto.UInt128) (v social.Version) {
	binary.BigEndian.PutUint64(v[:8], n.High)
	binary.BigEndian.PutUint64(v[8:], n.Low)
	return v
}

// takenBack finds, by their index, the mentions that no longer hold, and the versions of their retractions. Their words,
// where an edit took their place, go into selves: a later edit may need them.
func (s *sender) takenBack(ctx context.Context, mentions []social.Mention, rows []row) (map[int32]social.Version, error) {
	events, authors := make([]social.Key, 0, len(rows)), make([]social.Key, 0, len(rows))
	for i := range rows {
		m := &mentions[rows[i].index]
		events = append(events, m.EventKey)
		if m.AuthorKey != (social.Key{}) {
			authors = append(authors, m.AuthorKey)
		}
	}
	heads, err := s.heads(ctx, events)
	if err != nil {
		return nil, err
	}
	until, err := s.authorHeads(ctx, authors)
	if err != nil || len(heads) == 0 && len(until) == 0 {
		return nil, err
	}
	back, byAuthor := map[int32]social.Version{}, map[social.Key]social.Version{}
	var before []social.Reference
	for i := range rows {
		m := &mentions[rows[i].index]
		if m.Retracted {
			continue
		}
		if t, ok := until[m.AuthorKey]; ok && !m.Time.After(t) {
			back[rows[i].index], byAuthor[m.EventKey] = social.Deleted(), social.Deleted()
			continue
		}
		head, ok := heads[m.EventKey]
		if !ok {
			continue
		}
		by, gone := m.TakenBack(head)
		if !gone {
			continue
		}
		back[rows[i].index] = by
		if m.Version.Revision() == 0 && head.Revision() > 0 && by != social.Deleted() {
			before = append(before, social.Reference{Mention: *m})
		}
	}
	if err := s.putHeads(ctx, byAuthor); err != nil { // so that whoever resolves the event tells subscribers
		return nil, err
	}
	if err := s.insertSelves(ctx, before, Before); err != nil {
		return nil, err
	}
	return back, s.dropDeleted(ctx, before) // as of now: the heads above may have been read before a deletion
}

func (s *sender) heads(ctx context.Context, events []social.Key) (map[social.Key]social.Version, error) {
	var key proto.ColFixedStr16
	var version proto.ColUInt128
	heads := map[social.Key]social.Version{}
	if empty, err := s.empty(ctx, "heads"); empty || err != nil {
		return heads, err
	}
	err := s.ask(ctx, `SELECT event_key, max(version) AS version FROM heads
		WHERE event_key IN (SELECT key FROM asked) GROUP BY event_key`, events,
		proto.Results{{Name: "event_key", Data: &key}, {Name: "version", Data: &version}}, func(i int) {
			heads[key[i]] = unpacked(version[i])
		})
	if err != nil {
		return nil, fmt.Errorf("looking for newer versions: %w", err)
	}
	return heads, nil
}

func (s *sender) authorHeads(ctx context.Context, authors []social.Key) (map[social.Key]time.Time, error) {
	var key proto.ColFixedStr16
	until := newTimes()
	heads := map[social.Key]time.Time{}
	if empty, err := s.empty(ctx, "author_heads"); empty || err != nil {
		return heads, err
	}
	err := s.ask(ctx, `SELECT author_key, max(until) AS until FROM author_heads
		WHERE author_key IN (SELECT key FROM asked) GROUP BY author_key`, authors,
		proto.Results{{Name: "author_key", Data: &key}, {Name: "until", Data: until}}, func(i int) {
			heads[key[i]] = time.UnixMilli(int64(until.Data[i])).UTC()
		})
	if err != nil {
		return nil, fmt.Errorf("looking for deleted authors: %w", err)
	}
	return heads, nil
}

// empty tells, for much less than a question about keys costs, that nothing is known of any.
func (s *sender) empty(ctx context.Context, table string) (bool, error) {
	var n proto.ColUInt64
	defer context.AfterFunc(ctx, func() { s.client.Close() })() // as in insert
	err := s.client.Do(ctx, ch.Query{Body: "SELECT count() AS n FROM " + table, Result: proto.Results{{Name: "n", Data: &n}}})
	if err != nil {
		return false, fmt.Errorf("looking whether %s is empty: %w", table, err)
	}
	return n.Rows() == 0 || n[0] == 0, nil
}

// ask sends a question about keys, which it finds in the table asked, and calls each for every row of the answer.
func (s *sender) ask(ctx context.Context, question string, keys []social.Key, answer proto.Results, each func(i int)) error {
	asked := make(proto.ColFixedStr16, len(keys))
	for i, k := range keys {
		asked[i] = k
	}
	return s.askFor(ctx, question, &asked, answer, each)
}

// askFor is ask for a column of anything.
func (s *sender) askFor(ctx context.Context, question string, asked proto.ColInput, answer proto.Results, each func(i int)) error {
	if asked.Rows() == 0 {
		return nil
	}
	return s.query(ctx, ch.Query{
		Body: question + " SETTINGS max_threads = 1", ExternalTable: "asked", ExternalData: proto.Input{{Name: "key", Data: asked}}, Result: answer,
	}, each)
}

// query calls each for every row of the answer.
func (s *sender) query(ctx context.Context, q ch.Query, each func(i int)) error {
	q.OnResult = func(_ context.Context, block proto.Block) error {
		for i := range block.Rows {
			each(i)
		}
		return nil
	}
	defer context.AfterFunc(ctx, func() { s.client.Close() })() // as in insert
	return s.client.Do(ctx, q)
}
