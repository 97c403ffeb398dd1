package warehouse

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/ClickHouse/ch-go/proto"
	"github.com/cespare/xxhash/v2"

	"polyphony/pkg/social"
)

// InsertStatements stores edits and deletions as facts, and the events they came as among the originals, under the
// statement's key. What they change in mentions is the caller's business. Repeats are harmless.
func (w *Warehouse) InsertStatements(ctx context.Context, statements []social.Statement) error {
	var originals []social.Original
	var versions []version
	for i := range statements {
		if s := &statements[i]; len(s.Sealed) > 0 {
			originals = append(originals, social.Original{EventKey: s.Key, Source: s.Source, RecordedTime: s.RecordedTime, Sealed: s.Sealed})
			versions = append(versions, statementVersion(s))
		}
	}
	if err := w.insertOriginals(ctx, originals, func(i int) version { return versions[i] }); err != nil {
		return err
	}
	rows := rowsOf(len(statements), func(i int) (int64, social.Key) { return statements[i].Time.UnixMilli(), statements[i].ObjectKey })
	return w.send(ctx, w.recordSenders, func(s *sender) error {
		for _, chunk := range splitRows(rows) {
			if err := s.insertStatements(ctx, statements, chunk); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *sender) insertStatements(ctx context.Context, statements []social.Statement, rows []row) error {
	var (
		source, rulesVersion      = newLow(), newLow()
		key, object, objectAuthor proto.ColFixedStr16
		kind                      enumColumn
		timeColumn, recorded      = newTimes(), newTimes()
		versions                  proto.ColUInt128
	)
	for _, r := range rows {
		st := &statements[r.index]
		v := statementVersion(st)
		key.Append(st.Key)
		source.Append(st.Source)
		kind.Append(numberOf(st.Kind))
		timeColumn.AppendRaw(proto.DateTime64(r.ms))
		recorded.AppendRaw(proto.DateTime64(st.RecordedTime.UnixMilli()))
		object.Append(st.ObjectKey)
		objectAuthor.Append(st.ObjectAuthor)
		rulesVersion.Append(st.RulesVersion)
		versions.Append(proto.UInt128{High: v.hi, Low: v.lo})
	}
	return s.insert(ctx, "statements", proto.Input{
		{Name: "statement_key", Data: &key},
		{Name: "source", Data: source},
		{Name: "kind", Data: &kind},
		{Name: "time", Data: timeColumn},
		{Name: "recorded_time", Data: recorded},
		{Name: "object_key", Data: &object},
		{Name: "object_author_key", Data: &objectAuthor},
		{Name: "rules_version", Data: rulesVersion},
		{Name: "version", Data: &versions},
	})
}

// statementVersion settles which of two statements with one key holds: by content, all of it, and for the same content
// by the earliest record. The original has the same version, so it is always the one of the words beside it.
func statementVersion(s *social.Statement) version {
	hash := xxhash.New()
	hash.Write(s.ObjectAuthor[:])
	hash.Write([]byte(s.RulesVersion))
	hash.Write([]byte{0})
	hash.Write(s.Sealed)
	return packVersion(0, hash.Sum64()&(1<<40-1), s.RecordedTime)
}

// InsertOriginals stores sealed originals; of several of one event that of the copy holds that stands as first written: of
// the earliest, and of those of one time the one whose words win, then by content, and of equal ones the first record.
// Repeats are harmless.
func (w *Warehouse) InsertOriginals(ctx context.Context, originals []social.Original) error {
	return w.insertOriginals(ctx, originals, func(i int) version { return originalVersion(&originals[i]) })
}

// originalVersion has, from the most significant bit, 44 bits inverted time and 26 bits words of the copy, as in its
// version, 14 bits of a hash of the content, and 44 bits inverted recorded time.
func originalVersion(o *social.Original) version {
	words := packed(o.Version)
	low := words.Low | xxhash.Sum64(o.Sealed)&(1<<14-1)
	return version{hi: words.High<<44 | low>>20, lo: low<<44 | ones44 - uint64(o.RecordedTime.UnixMilli())&ones44}
}

// copyOf is the version of the copy of an event to which an original belongs.
func copyOf(n proto.UInt128) social.Version {
	return unpacked(proto.UInt128{High: n.High >> 44, Low: n.High<<20 | n.Low>>44}).Words()
}

func (w *Warehouse) insertOriginals(ctx context.Context, originals []social.Original, versionOf func(i int) version) error {
	rows := rowsOf(len(originals), func(i int) (int64, social.Key) {
		return originals[i].RecordedTime.UnixMilli(), originals[i].EventKey
	})
	return w.send(ctx, w.recordSenders, func(s *sender) error {
		for _, chunk := range splitRows(rows) {
			if err := s.insertOriginals(ctx, originals, chunk, versionOf); err != nil {
				return err
			}
		}
		return nil
	})
}

// originalColumns are the columns of originals.
type originalColumns struct {
	eventKey proto.ColFixedStr16
	source   proto.ColStr
	recorded *proto.ColDateTime64
	sealed   proto.ColStr
	version  proto.ColUInt128
}

func newOriginalColumns() *originalColumns {
	return &originalColumns{recorded: newTimes()}
}

func (s *sender) insertOriginals(ctx context.Context, originals []social.Original, rows []row, versionOf func(i int) version) error {
	c := s.originals
	input := proto.Input{
		{Name: "event_key", Data: &c.eventKey},
		{Name: "source", Data: &c.source},
		{Name: "recorded_time", Data: c.recorded},
		{Name: "sealed", Data: &c.sealed},
		{Name: "version", Data: &c.version},
	}
	input.Reset()
	for _, r := range rows {
		o := &originals[r.index]
		c.eventKey.Append(o.EventKey)
		c.source.Append(o.Source)
		c.recorded.AppendRaw(proto.DateTime64(r.ms))
		c.sealed.AppendBytes(o.Sealed)
		v := versionOf(int(r.index))
		c.version.Append(proto.UInt128{High: v.hi, Low: v.lo})
	}
	return s.insert(ctx, "originals", input)
}

// Reject says what was wrong with an event. Its bytes stay in the stream, at Sequence.
type Reject struct {
	ID           string // of the message and within it: the same reject published again is the same row
	Sequence     uint64 // of the message in the stream
	Position     uint32 // within the message, from 1
	Stage        string
	Code         string
	Source       string // as far as it is known
	Detail       string // never a value of the event
	RulesVersion string // by which it was judged
	Origin       string // stream, sequence and line where it was found, with : between them; "" of a request
	Size         uint32 // bytes
	Time         time.Time
}

// InsertRejects stores rejects. Repeats are harmless.
func (w *Warehouse) InsertRejects(ctx context.Context, rejects []Reject) error {
	rows := rowsOf(len(rejects), func(i int) (int64, social.Key) { return rejects[i].Time.UnixMilli(), social.Key{} })
	return w.send(ctx, w.recordSenders, func(s *sender) error {
		for _, chunk := range splitRows(rows) {
			if err := s.insertRejects(ctx, rejects, chunk); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *sender) insertRejects(ctx context.Context, rejects []Reject, rows []row) error {
	var (
		times                      = newTimes()
		stage, code, source, rules = newLow(), newLow(), newLow(), newLow()
		id, detail, origin         proto.ColStr
		sequence                   proto.ColUInt64
		position, size             proto.ColUInt32
	)
	for _, row := range rows {
		r := &rejects[row.index]
		times.AppendRaw(proto.DateTime64(row.ms))
		stage.Append(r.Stage)
		code.Append(r.Code)
		source.Append(r.Source)
		detail.Append(r.Detail)
		sequence.Append(r.Sequence)
		position.Append(r.Position)
		id.Append(r.ID)
		rules.Append(r.RulesVersion)
		origin.Append(r.Origin)
		size.Append(r.Size)
	}
	return s.insert(ctx, "rejects_store", proto.Input{
		{Name: "time", Data: times},
		{Name: "stage", Data: stage},
		{Name: "code", Data: code},
		{Name: "source", Data: source},
		{Name: "detail", Data: &detail},
		{Name: "sequence", Data: &sequence},
		{Name: "position", Data: &position},
		{Name: "id", Data: &id},
		{Name: "rules_version", Data: rules},
		{Name: "origin", Data: &origin},
		{Name: "size", Data: &size},
	})
}

// Freshness is a claim that everything of a stream which was recorded before CompleteUntil is readable. Of one epoch the latest
// holds, and none of an epoch before.
type Freshness struct {
	Epoch         uint32
	CompleteUntil time.Time
	Sequence      uint64 // the last message stored
	Positions     []byte // where the streams were, as whoever claims it wants it
}

// PutFreshness stores a claim.
func (w *Warehouse) PutFreshness(ctx context.Context, stream string, f Freshness) error {
	return w.put(ctx, "freshness_store (stream, epoch, complete_until, sequence, positions)", 1, func(int) []any {
		return []any{stream, f.Epoch, f.CompleteUntil, f.Sequence, string(f.Positions)}
	})
}

// Freshness gives the claim that holds; one of 1970 where none was ever made.
func (w *Warehouse) Freshness(ctx context.Context, stream string) (f Freshness, err error) {
	f.CompleteUntil = time.Unix(0, 0).UTC()
	rows, err := w.conn.Query(ctx, `SELECT epoch, complete_until, sequence, positions FROM freshness_store
		WHERE stream = ? ORDER BY epoch DESC, complete_until DESC, length(positions) DESC LIMIT 1`, stream)
	if err != nil {
		return f, fmt.Errorf("reading until when %s is complete: %w", stream, err)
	}
	defer rows.Close()
	for rows.Next() {
		var positions string
		if err := rows.Scan(&f.Epoch, &f.CompleteUntil, &f.Sequence, &positions); err != nil {
			return f, fmt.Errorf("reading until when %s is complete: %w", stream, err)
		}
		f.Positions = []byte(positions)
	}
	return f, rows.Err()
}

// rowsOf orders n things by key and time, the way splitRows wants them.
func rowsOf(n int, of func(i int) (ms int64, key social.Key)) []row {
	rows := make([]row, n)
	for i := range rows {
		ms, key := of(i)
		rows[i] = row{index: int32(i), ms: ms, key: halves(key)}
	}
	slices.SortFunc(rows, func(a, b row) int { return cmp.Or(compareKeys(a, b), cmp.Compare(a.ms, b.ms)) })
	return rows
}
