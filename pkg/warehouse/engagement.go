package warehouse

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/ch-go/proto"
	"github.com/cespare/xxhash/v2"

	"polyphony/pkg/social"
)

// Observation is what a network told of a post's totals at one time.
type Observation struct {
	EventKey social.Key
	social.Counters
}

// InsertCounters stores totals as facts. What they change in metrics is the caller's business, and where a mention of the
// post comes later, that of whoever stores it. Repeats are harmless; of those told of one post and one time the greatest
// holds, each total by itself.
func (w *Warehouse) InsertCounters(ctx context.Context, observations []Observation) error {
	if len(observations) == 0 {
		return nil
	}
	rows := rowsOf(len(observations), func(i int) (int64, social.Key) {
		return observations[i].ObservedAt.UnixMilli(), observations[i].EventKey
	})
	return w.send(ctx, w.recordSenders, func(s *sender) error {
		for _, chunk := range splitRows(rows) {
			err := s.insertCounters(ctx, chunk, func(i int32) (social.Key, *social.Counters) {
				return observations[i].EventKey, &observations[i].Counters
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// counterColumns are the columns of counters.
type counterColumns struct {
	event                         proto.ColFixedStr16
	observed                      *proto.ColDateTime64
	likes, replies, shares, views proto.ColInt64
}

func (c *counterColumns) input() proto.Input {
	return proto.Input{{Name: "event_key", Data: &c.event}, {Name: "observed", Data: c.observed},
		{Name: "likes", Data: &c.likes}, {Name: "replies", Data: &c.replies}, {Name: "shares", Data: &c.shares}, {Name: "views", Data: &c.views}}
}

func (s *sender) insertCounters(ctx context.Context, rows []row, of func(i int32) (social.Key, *social.Counters)) error {
	c := s.counters
	input := c.input()
	input.Reset()
	var notes noteColumns
	for _, r := range rows {
		event, told := of(r.index)
		notes.append(event, true, proto.DateTime(told.ObservedAt.Unix()))
		c.event.Append(event)
		c.observed.AppendRaw(proto.DateTime64(told.ObservedAt.UnixMilli()))
		c.likes.Append(told.Likes)
		c.replies.Append(told.Replies)
		c.shares.Append(told.Shares)
		c.views.Append(told.Views)
	}
	if err := s.note(ctx, &notes); err != nil {
		return err
	}
	return s.insert(ctx, "counters", input)
}

// insertTold stores the totals of mentions that were observed at another time than the mention's, as InsertCounters does.
func (s *sender) insertTold(ctx context.Context, mentions []social.Mention) error {
	var told []row
	for i := range mentions {
		if m := &mentions[i]; m.Counters != nil && !m.Counters.ObservedAt.Equal(m.Time) {
			told = append(told, row{index: int32(i), ms: m.Counters.ObservedAt.UnixMilli(), key: halves(m.EventKey)})
		}
	}
	slices.SortFunc(told, compareKeys)
	for _, chunk := range splitRows(told) {
		err := s.insertCounters(ctx, chunk, func(i int32) (social.Key, *social.Counters) { return mentions[i].EventKey, mentions[i].Counters })
		if err != nil {
			return err
		}
	}
	return nil
}

// nothingTold are the totals of a post of which none was told.
var nothingTold = social.Counters{Likes: social.Unreported, Replies: social.Unreported, Shares: social.Unreported, Views: social.Unreported}

// carriedBy are the totals that a mention carries as of its own time. Nothing can have been observed of a post before it
// was there: those count as they are, until somebody knows more.
func carriedBy(m *social.Mention) social.Counters {
	if m.Counters == nil || !m.Counters.ObservedAt.Equal(m.Time) {
		return nothingTold
	}
	return *m.Counters
}

// carriedHash tells the totals that copies of an event carried from each other. It is 0 of what is no copy: of what is
// said by a thread, an edit or a retraction.
func carriedHash(m *social.Mention) uint64 {
	if m.Retracted || m.Via == social.ViaThread || m.Version.Revision() != 0 {
		return 0
	}
	c := carriedBy(m)
	if c == nothingTold {
		return 1
	}
	var totals [32]byte
	for i, n := range [...]int64{c.Likes, c.Replies, c.Shares, c.Views} {
		binary.LittleEndian.PutUint64(totals[8*i:], uint64(n))
	}
	return max(2, xxhash.Sum64(totals[:]))
}

// GainPart says what a gain is of.
type GainPart int8

// The parts, numbered as in the table.
const (
	TotalGain  GainPart = 1 // totals of a post gained so much since they were observed before
	SingleGain GainPart = 2 // a single event counts less, because its post has a total
)

// GainPlace is the place of a gain in the table.
type GainPlace struct {
	Node     social.Node
	Time     int64 // Unix ms
	EventKey social.Key
	Part     GainPart
}

// Gain is what is added to the count of single events at a place.
type Gain struct {
	Shares, Reactions, Views int64
}

// DecidedGain is a gain in its place, or that there is none.
type DecidedGain struct {
	GainPlace
	Gain
	Gone    bool
	Version GainVersion
}

// GainVersion orders the decisions of a place: the number of the decision, from 1, and 32 bits of a hash of its content,
// so that of two that were made at once the same one holds everywhere.
type GainVersion uint64

// After is the version of g as the decision after another, 0 for the first.
func (g *DecidedGain) After(v GainVersion) GainVersion {
	var content [25]byte
	for i, n := range [...]int64{g.Shares, g.Reactions, g.Views} {
		binary.LittleEndian.PutUint64(content[8*i:], uint64(n))
	}
	content[24] = flag(g.Gone)
	return (v>>32+1)<<32 | GainVersion(xxhash.Sum64(content[:])>>32)
}

// InsertGains stores decisions and marks the node-hours they fall into as changed.
func (w *Warehouse) InsertGains(ctx context.Context, gains []DecidedGain) error {
	places := make([]GainPlace, len(gains))
	for i := range gains {
		places[i] = gains[i].GainPlace
	}
	hours := hoursOfGains(places)
	defer func() { w.dirty.touch(hours, time.Now()) }()
	return w.send(ctx, w.recordSenders, func(s *sender) error {
		rows := rowsOf(len(gains), func(i int) (int64, social.Key) { return gains[i].Time, gains[i].EventKey })
		for _, chunk := range splitRows(rows) {
			part := make([]DecidedGain, len(chunk))
			for i, r := range chunk {
				part[i] = gains[r.index]
			}
			if err := s.insertGains(ctx, part); err != nil {
				return err
			}
		}
		return s.touch(ctx, hours)
	})
}

// TouchGains marks the node-hours of decisions as changed. Whoever repeats what somebody else may have left half done
// finds the decisions stored, but cannot know whether they were followed by their touches.
func (w *Warehouse) TouchGains(ctx context.Context, places []GainPlace) error {
	hours := hoursOfGains(places)
	defer func() { w.dirty.touch(hours, time.Now()) }()
	return w.send(ctx, w.recordSenders, func(s *sender) error { return s.touch(ctx, hours) })
}

func hoursOfGains(places []GainPlace) (hours []nodeHour) {
	seen := map[nodeHour]bool{}
	for _, place := range places {
		if h := (nodeHour{place.Node, floorHour(place.Time)}); !seen[h] {
			seen[h] = true
			hours = append(hours, h)
		}
	}
	return hours
}

func (s *sender) insertGains(ctx context.Context, gains []DecidedGain) error {
	var (
		division, territory      = newLow(), newLow()
		at                       = newTimes()
		event                    proto.ColFixedStr16
		part                     enumColumn
		version                  proto.ColUInt64
		deleted                  proto.ColUInt8
		shares, reactions, views proto.ColInt64
	)
	for i := range gains {
		g := &gains[i]
		division.Append(g.Node.Division)
		territory.Append(g.Node.Territory)
		at.AppendRaw(proto.DateTime64(g.Time))
		event.Append(g.EventKey)
		part.Append(proto.Enum8(g.Part))
		version.Append(uint64(g.Version))
		deleted.Append(flag(g.Gone))
		shares.Append(g.Shares)
		reactions.Append(g.Reactions)
		views.Append(g.Views)
	}
	return s.insert(ctx, "gains", proto.Input{{Name: "division", Data: division}, {Name: "territory", Data: territory}, {Name: "time", Data: at},
		{Name: "event_key", Data: &event}, {Name: "part", Data: &part}, {Name: "version", Data: &version}, {Name: "is_deleted", Data: &deleted},
		{Name: "shares", Data: &shares}, {Name: "reactions", Data: &reactions}, {Name: "views", Data: &views}})
}

// Observations reads all that was told of the totals of events, each event's in the order of time.
func (w *Warehouse) Observations(ctx context.Context, events []social.Key) (observations map[social.Key][]social.Counters, err error) {
	c := &counterColumns{observed: newTimes()}
	observations = map[social.Key][]social.Counters{}
	err = w.send(ctx, w.recordSenders, func(s *sender) error {
		if empty, err := s.empty(ctx, "counters"); empty || err != nil {
			return err
		}
		return s.ask(ctx, `SELECT event_key, observed, toInt64(max(c.likes)) AS likes, toInt64(max(c.replies)) AS replies,
				toInt64(max(c.shares)) AS shares, toInt64(max(c.views)) AS views
			FROM counters AS c WHERE event_key IN (SELECT key FROM asked) GROUP BY event_key, observed ORDER BY event_key, observed`, events,
			proto.Results{{Name: "event_key", Data: &c.event}, {Name: "observed", Data: c.observed}, {Name: "likes", Data: &c.likes},
				{Name: "replies", Data: &c.replies}, {Name: "shares", Data: &c.shares}, {Name: "views", Data: &c.views}}, func(i int) {
				observations[c.event[i]] = append(observations[c.event[i]], social.Counters{Likes: c.likes[i], Replies: c.replies[i],
					Shares: c.shares[i], Views: c.views[i], ObservedAt: time.UnixMilli(int64(c.observed.Data[i])).UTC()})
			})
	})
	if err != nil {
		return nil, fmt.Errorf("reading totals: %w", err)
	}
	return observations, nil
}

// Shown reads the totals that mentions in places carry and that count as they are.
func (w *Warehouse) Shown(ctx context.Context, places []GainPlace) (shown map[GainPlace]Gain, err error) {
	var (
		division, territory  proto.ColStr
		at                   = newTimes()
		event                proto.ColFixedStr16
		likes, shares, views proto.ColInt64
	)
	shown = map[GainPlace]Gain{}
	err = w.send(ctx, w.recordSenders, func(s *sender) error {
		return s.askPlaces(ctx, `SELECT CAST(division, 'String') AS division, CAST(territory, 'String') AS territory, time, event_key, likes, shares, views
			FROM mentions_store FINAL
			WHERE (division, territory, time, event_key) IN (SELECT division, territory, time, event_key FROM asked)`, places,
			proto.Results{{Name: "division", Data: &division}, {Name: "territory", Data: &territory}, {Name: "time", Data: at}, {Name: "event_key", Data: &event},
				{Name: "likes", Data: &likes}, {Name: "shares", Data: &shares}, {Name: "views", Data: &views}}, func(i int) {
				place := GainPlace{social.Node{Division: division.Row(i), Territory: territory.Row(i)}, int64(at.Data[i]), event[i], TotalGain}
				shown[place] = Gain{Shares: shares[i], Reactions: likes[i], Views: views[i]}
			})
	})
	if err != nil {
		return nil, fmt.Errorf("reading the totals of mentions: %w", err)
	}
	return shown, nil
}

// Single is a share, a reaction or a view by somebody else than the company, as it stands in a node.
type Single struct {
	GainPlace
	Kind   social.Kind
	Parent social.Key
}

// Singles reads which of the mentions in places are shares, reactions or views that hold and that the company did not
// make.
func (w *Warehouse) Singles(ctx context.Context, places []GainPlace) (singles []Single, err error) {
	var (
		division, territory, kind proto.ColStr
		at                        = newTimes()
		event, parent             proto.ColFixedStr16
	)
	err = w.send(ctx, w.recordSenders, func(s *sender) error {
		return s.askPlaces(ctx, `SELECT CAST(division, 'String') AS division, CAST(territory, 'String') AS territory, time, event_key,
				toString(kind) AS kind, parent_key AS parent
			FROM mentions_store FINAL
			WHERE (division, territory, time, event_key) IN (SELECT division, territory, time, event_key FROM asked)
				AND kind IN ('share', 'reaction', 'view') AND NOT by_company`, places,
			proto.Results{{Name: "division", Data: &division}, {Name: "territory", Data: &territory}, {Name: "time", Data: at},
				{Name: "event_key", Data: &event}, {Name: "kind", Data: &kind}, {Name: "parent", Data: &parent}}, func(i int) {
				singles = append(singles, Single{GainPlace{social.Node{Division: division.Row(i), Territory: territory.Row(i)}, int64(at.Data[i]), event[i], SingleGain},
					social.Kind(kind.Row(i)), parent[i]})
			})
	})
	if err != nil {
		return nil, fmt.Errorf("reading shares, reactions and views: %w", err)
	}
	return singles, nil
}

// Gains reads what was decided last in places.
func (w *Warehouse) Gains(ctx context.Context, places []GainPlace) (decided map[GainPlace]DecidedGain, err error) {
	var (
		division, territory      proto.ColStr
		at                       = newTimes()
		event                    proto.ColFixedStr16
		part                     proto.ColInt8
		version                  proto.ColUInt64
		deleted                  proto.ColUInt8
		shares, reactions, views proto.ColInt64
	)
	decided = map[GainPlace]DecidedGain{}
	err = w.send(ctx, w.recordSenders, func(s *sender) error {
		return s.askPlaces(ctx, `SELECT CAST(division, 'String') AS division, CAST(territory, 'String') AS territory, time, event_key,
				toInt8(part) AS which, version, is_deleted, shares, reactions, views
			FROM gains
			WHERE (division, territory, time, event_key) IN (SELECT division, territory, time, event_key FROM asked)
			ORDER BY division, territory, time, event_key, part, version DESC
			LIMIT 1 BY division, territory, time, event_key, part`, places,
			proto.Results{{Name: "division", Data: &division}, {Name: "territory", Data: &territory}, {Name: "time", Data: at},
				{Name: "event_key", Data: &event}, {Name: "which", Data: &part}, {Name: "version", Data: &version}, {Name: "is_deleted", Data: &deleted},
				{Name: "shares", Data: &shares}, {Name: "reactions", Data: &reactions}, {Name: "views", Data: &views}}, func(i int) {
				place := GainPlace{social.Node{Division: division.Row(i), Territory: territory.Row(i)}, int64(at.Data[i]), event[i], GainPart(part[i])}
				decided[place] = DecidedGain{place, Gain{shares[i], reactions[i], views[i]}, deleted[i] != 0, GainVersion(version[i])}
			})
	})
	if err != nil {
		return nil, fmt.Errorf("reading gains: %w", err)
	}
	return decided, nil
}

// askPlaces is ask for places, which the question finds in the table asked, whatever their part.
func (s *sender) askPlaces(ctx context.Context, question string, places []GainPlace, answer proto.Results, each func(i int)) error {
	if len(places) == 0 {
		return nil
	}
	var division, territory proto.ColStr
	at := newTimes()
	var event proto.ColFixedStr16
	for i := range places {
		division.Append(places[i].Node.Division)
		territory.Append(places[i].Node.Territory)
		at.AppendRaw(proto.DateTime64(places[i].Time))
		event.Append(places[i].EventKey)
	}
	return s.query(ctx, ch.Query{
		Body: question + " SETTINGS max_threads = 1", ExternalTable: "asked", Result: answer,
		ExternalData: proto.Input{{Name: "division", Data: &division}, {Name: "territory", Data: &territory}, {Name: "time", Data: at}, {Name: "event_key", Data: &event}},
	}, each)
}
