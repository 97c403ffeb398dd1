package warehouse

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/ClickHouse/ch-go/proto"

	"polyphony/pkg/social"
)

// storedColumns are a mention's, but for its node, as mentionRow reads them.
const storedColumns = `event_key, time, recorded_time, source, toString(kind) AS kind, author_key, parent_key,
	root_key, parent_author_key, toString(via) AS via, account, owned,
	by_company, bot, toString(role) AS role, role_confidence, lang, country, toString(country_method) AS country_method,
	sentiment, products, competitors, topics, needs, is_question, ae_elements, ae_screened, ae_serious, offlabel, cluster_id,
	followers, text, rules_version`

// versionColumns are the two halves of a version of mentions_store.
const versionColumns = `toUInt64(bitShiftRight(version, 64)) AS high, toUInt64(version) AS low`

// mentionRow is a mention as it is read, keys as 16 bytes.
type mentionRow struct {
	EventKey        string    `ch:"event_key"`
	High            uint64    `ch:"high"`
	Low             uint64    `ch:"low"`
	Time            time.Time `ch:"time"`
	RecordedTime    time.Time `ch:"recorded_time"`
	Source          string    `ch:"source"`
	Kind            string    `ch:"kind"`
	AuthorKey       string    `ch:"author_key"`
	ParentKey       string    `ch:"parent_key"`
	RootKey         string    `ch:"root_key"`
	ParentAuthorKey string    `ch:"parent_author_key"`
	Via             string    `ch:"via"`
	Account         string    `ch:"account"`
	Owned           bool      `ch:"owned"`
	ByCompany       bool      `ch:"by_company"`
	Bot             bool      `ch:"bot"`
	Role            string    `ch:"role"`
	RoleConfidence  float32   `ch:"role_confidence"`
	Lang            string    `ch:"lang"`
	Country         string    `ch:"country"`
	CountryMethod   string    `ch:"country_method"`
	Sentiment       float32   `ch:"sentiment"`
	Products        []string  `ch:"products"`
	Competitors     []string  `ch:"competitors"`
	Topics          []string  `ch:"topics"`
	Needs           []string  `ch:"needs"`
	IsQuestion      bool      `ch:"is_question"`
	AEElements      uint8     `ch:"ae_elements"`
	AEScreened      bool      `ch:"ae_screened"`
	AESerious       bool      `ch:"ae_serious"`
	OffLabel        bool      `ch:"offlabel"`
	ClusterID       uint64    `ch:"cluster_id"`
	Followers       int64     `ch:"followers"`
	Text            string    `ch:"text"`
	RulesVersion    string    `ch:"rules_version"`
}

func (r *mentionRow) mention() social.Mention {
	m := social.Mention{
		EventKey: social.Key([]byte(r.EventKey)), Source: r.Source, Kind: social.Kind(r.Kind), Time: r.Time.UTC(), RecordedTime: r.RecordedTime.UTC(),
		AuthorKey: social.Key([]byte(r.AuthorKey)), ParentKey: social.Key([]byte(r.ParentKey)), RootKey: social.Key([]byte(r.RootKey)),
		ParentAuthorKey: social.Key([]byte(r.ParentAuthorKey)), Via: social.Via(r.Via), Account: r.Account, Owned: r.Owned,
		ByCompany: r.ByCompany, Bot: r.Bot, Role: r.Role, RoleConfidence: r.RoleConfidence, Lang: r.Lang, Country: r.Country,
		CountryMethod: r.CountryMethod, Products: r.Products, Competitors: r.Competitors, Topics: r.Topics, Needs: r.Needs,
		IsQuestion: r.IsQuestion, AEElements: r.AEElements, AEScreened: r.AEScreened, AESerious: r.AESerious, OffLabel: r.OffLabel,
		ClusterID: r.ClusterID, Followers: r.Followers, Text: r.Text, RulesVersion: r.RulesVersion,
	}
	if !math.IsNaN(float64(r.Sentiment)) {
		m.Sentiment = &r.Sentiment
	}
	return m
}

// selfRow is a row of selves.
type selfRow struct {
	mentionRow
	Part   int8   `ch:"part"`
	Kept   bool   `ch:"kept"`
	Sealed string `ch:"sealed"`
}

func (r *selfRow) self() Self {
	self := Self{Part: Part(r.Part), Mention: r.mention(), Kept: r.Kept, Sealed: []byte(r.Sealed)}
	self.Mention.Version = unpacked(proto.UInt128{High: r.High, Low: r.Low})
	return self
}

// publicVersion is the version that a row of mentions_store was stored with.
func publicVersion(v version, at time.Time) social.Version {
	if v == (version{^uint64(0), ^uint64(0)}) {
		return social.Deleted()
	}
	var revision time.Time
	if ms := v.hi >> 20; ms > 0 {
		revision = time.UnixMilli(int64(ms))
	}
	return social.VersionOf(revision, at, v.hi<<44>>24|v.lo>>44)
}

// Standing reads how events stand in every node where they ever were a mention: node, event, time, version, whether they
// were taken back, since when they were known there, of those that were not taken back whether by themselves (via text, for
// account also) or through a thread, and the totals that it ever carried as of that time. A time at which an event
// never happens again is of version social.Deleted.
func (w *Warehouse) Standing(ctx context.Context, events []social.Key) (standing []social.Mention, err error) {
	var (
		event                         proto.ColFixedStr16
		division, territory           proto.ColStr
		at, recorded                  = newTimes(), newTimes()
		versions                      proto.ColUInt128
		likes, replies, shares, views proto.ColInt64
	)
	err = w.send(ctx, w.recordSenders, func(s *sender) error {
		return s.ask(ctx, `SELECT event_key, division, territory, time, toUInt128(max(l.version)) AS newest, CAST(min(l.recorded), 'DateTime64(3, \'UTC\')') AS since,
				toInt64(max(l.likes)) AS likes, toInt64(max(l.replies)) AS replies, toInt64(max(l.shares)) AS shares, toInt64(max(l.views)) AS views
			FROM locations AS l WHERE event_key IN (SELECT key FROM asked)
			GROUP BY event_key, division, territory, time`, events,
			proto.Results{{Name: "event_key", Data: &event}, {Name: "division", Data: &division}, {Name: "territory", Data: &territory},
				{Name: "time", Data: at}, {Name: "newest", Data: &versions}, {Name: "since", Data: recorded}, {Name: "likes", Data: &likes}, {Name: "replies", Data: &replies},
				{Name: "shares", Data: &shares}, {Name: "views", Data: &views}}, func(i int) {
				m := social.Mention{Node: social.Node{Division: division.Row(i), Territory: territory.Row(i)}, EventKey: event[i],
					Time: time.UnixMilli(int64(at.Data[i])).UTC(), Via: social.ViaThread}
				v := version{versions[i].High, versions[i].Low}
				m.Version, m.Retracted = publicVersion(v, m.Time), v.lo&ones44 == ones44
				m.RecordedTime = time.UnixMilli(int64(recorded.Data[i])).UTC()
				if m.Version.Own() {
					m.Via = social.ViaText
				}
				c := social.Counters{Likes: likes[i], Replies: replies[i], Shares: shares[i], Views: views[i]}
				if c != nothingTold {
					c.ObservedAt = m.Time
					m.Counters = &c
				}
				standing = append(standing, m)
			})
	})
	if err != nil {
		return nil, fmt.Errorf("reading how events stand: %w", err)
	}
	return standing, nil
}

// Located tells which events ever were a mention anywhere.
func (w *Warehouse) Located(ctx context.Context, events []social.Key) (located map[social.Key]bool, err error) {
	var event proto.ColFixedStr16
	located = map[social.Key]bool{}
	err = w.send(ctx, w.recordSenders, func(s *sender) error {
		return s.ask(ctx, `SELECT DISTINCT event_key FROM locations WHERE event_key IN (SELECT key FROM asked)`, events,
			proto.Results{{Name: "event_key", Data: &event}}, func(i int) { located[event[i]] = true })
	})
	if err != nil {
		return nil, fmt.Errorf("looking for mentions: %w", err)
	}
	return located, nil
}

// Edge says that an event refers to another.
type Edge struct {
	Event, Target social.Key
	Until         time.Time // the event waits for the target until then
	Recorded      time.Time // of the event
	Kept          bool      // as long as mentions are
}

// Edges reads to what events refer, and what refers to them.
func (w *Warehouse) Edges(ctx context.Context, events []social.Key) (to, from []Edge, err error) {
	var event, other proto.ColFixedStr16
	var direction, kept proto.ColUInt8
	until, recorded := newTimes(), newTimes()
	err = w.send(ctx, w.recordSenders, func(s *sender) error {
		return s.ask(ctx, `SELECT event_key, toUInt8(direction) AS way, other_key, CAST(max(until), 'DateTime64(3, \'UTC\')') AS waits,
				CAST(min(recorded), 'DateTime64(3, \'UTC\')') AS since,
				toUInt8(max(kept)) AS stays
			FROM edges WHERE direction IN ('to', 'from') AND event_key IN (SELECT key FROM asked) GROUP BY event_key, direction, other_key`, events,
			proto.Results{{Name: "event_key", Data: &event}, {Name: "way", Data: &direction}, {Name: "other_key", Data: &other},
				{Name: "waits", Data: until}, {Name: "since", Data: recorded}, {Name: "stays", Data: &kept}}, func(i int) {
				edge := Edge{Event: event[i], Target: other[i], Until: time.UnixMilli(int64(until.Data[i])).UTC(),
					Recorded: time.UnixMilli(int64(recorded.Data[i])).UTC(), Kept: kept[i] == 1}
				if direction[i] == 1 {
					to = append(to, edge)
				} else {
					edge.Event, edge.Target = edge.Target, edge.Event
					from = append(from, edge)
				}
			})
	})
	if err != nil {
		return nil, nil, fmt.Errorf("reading the references of %d events: %w", len(events), err)
	}
	return to, from, nil
}

// Referred reads since when events are known that refer to others, mentions or not.
func (w *Warehouse) Referred(ctx context.Context, events []social.Key) (since map[social.Key]time.Time, err error) {
	var event proto.ColFixedStr16
	recorded := newTimes()
	since = map[social.Key]time.Time{}
	err = w.send(ctx, w.recordSenders, func(s *sender) error {
		return s.ask(ctx, `SELECT event_key, CAST(min(recorded), 'DateTime64(3, \'UTC\')') AS since FROM edges
			WHERE direction = 'to' AND event_key IN (SELECT key FROM asked) GROUP BY event_key`, events,
			proto.Results{{Name: "event_key", Data: &event}, {Name: "since", Data: recorded}}, func(i int) {
				since[event[i]] = time.UnixMilli(int64(recorded.Data[i])).UTC()
			})
	})
	if err != nil {
		return nil, fmt.Errorf("reading since when %d events are known: %w", len(events), err)
	}
	return since, nil
}

// Unsettled are events of which more is known than that they are mentions by their own words. It does not matter who
// says so, mentions or selves.
type Unsettled struct {
	Contested []social.Key // were said to be different things, edited or deleted
	Awaited   []social.Key // others refer to them
	Counted   []social.Key // their totals were told, or copies of them carried different ones
}

// Unsettled finds those of the events of which more is known.
func (w *Warehouse) Unsettled(ctx context.Context, events []social.Key) (u Unsettled, err error) {
	err = w.send(ctx, w.recordSenders, func(s *sender) error {
		noted, err := s.noted(ctx, events)
		if err != nil {
			return err
		}
		var differ []social.Key
		if u.Contested, differ, err = s.contested(ctx, events, noted); err != nil {
			return err
		}
		if u.Awaited, err = s.known(ctx, "edges", "direction = 'from'", noted); err != nil {
			return err
		}
		told, err := s.known(ctx, "counters", "true", noted)
		u.Counted = social.Distinct(append(told, differ...))
		return err
	})
	if err != nil {
		return Unsettled{}, fmt.Errorf("looking for what is known of %d events: %w", len(events), err)
	}
	return u, nil
}

// contested gives the events that were said to be different things, and those of which only the totals differ. Only those
// noted may have selves.
func (s *sender) contested(ctx context.Context, events, noted []social.Key) (contested, differ []social.Key, err error) {
	var event proto.ColFixedStr16
	var things proto.ColUInt8
	compare := func(said string, events []social.Key) error {
		event.Reset()
		things.Reset()
		return s.ask(ctx, `SELECT event_key, min(time) != max(time) OR minIf(words, holds) != maxIf(words, holds) AS things FROM (`+said+`)
			GROUP BY event_key HAVING things OR min(carried_least) < max(carried_most)`, events,
			proto.Results{{Name: "event_key", Data: &event}, {Name: "things", Data: &things}}, func(i int) {
				if things[i] == 1 {
					contested = append(contested, event[i])
				} else {
					differ = append(differ, event[i])
				}
			})
	}
	if err := compare(saidByMentions, events); err != nil {
		return nil, nil, err
	}
	if err := compare(saidByMentions+" UNION ALL "+saidBySelves, noted); err != nil {
		return nil, nil, err
	}
	heads, err := s.heads(ctx, events)
	return social.Distinct(slices.AppendSeq(contested, maps.Keys(heads))), differ, err
}

// known gives those of the events of which a table has rows.
func (s *sender) known(ctx context.Context, table, where string, events []social.Key) (known []social.Key, err error) {
	var event proto.ColFixedStr16
	err = s.ask(ctx, `SELECT DISTINCT event_key FROM `+table+` WHERE `+where+` AND event_key IN (SELECT key FROM asked)`, events,
		proto.Results{{Name: "event_key", Data: &event}}, func(i int) { known = append(known, event[i]) })
	return social.Distinct(known), err
}

// What events say, by the revision and the words of their versions, where mentions of them stand and by themselves.
const (
	saidByMentions = `SELECT event_key, time, carried_least, carried_most, bitShiftRight(version, 58) AS words,
			bitAnd(toUInt64(version), 17592186044415) != 17592186044415 AS holds -- is not taken back
		FROM locations WHERE event_key IN (SELECT key FROM asked)`
	saidBySelves = `SELECT event_key, time, bitNot(toUInt64(0)) AS carried_least, toUInt64(0) AS carried_most,
			toUInt128(bitOr(bitShiftLeft(bitShiftRight(version, 128), 26), bitAnd(bitShiftRight(version, 58), 67108863))) AS words,
			NOT is_deleted AS holds
		FROM selves WHERE event_key IN (SELECT key FROM asked)`
)

// Heads reads the highest versions of events, for those of which one was put, if only a social.Mark.
func (w *Warehouse) Heads(ctx context.Context, events []social.Key) (heads map[social.Key]social.Version, err error) {
	err = w.send(ctx, w.recordSenders, func(s *sender) error {
		heads, err = s.heads(ctx, events)
		return err
	})
	return heads, err
}

// WrittenBy finds the events of authors up to the time of each, mentions or not, by whatever copy says so. It reads all of
// three columns of two tables.
func (w *Warehouse) WrittenBy(ctx context.Context, until map[social.Key]time.Time) (events []social.Key, err error) {
	authors := make([]social.Key, 0, len(until))
	for k := range until {
		authors = append(authors, k)
	}
	var event, author proto.ColFixedStr16
	at := newTimes()
	seen := map[social.Key]bool{}
	err = w.send(ctx, w.recordSenders, func(s *sender) error {
		return s.ask(ctx, `SELECT author_key, event_key, min(time) AS time FROM
			(
				SELECT author_key, event_key, time FROM locations WHERE author_key IN (SELECT key FROM asked)
				UNION ALL
				SELECT author_key, event_key, time FROM selves WHERE author_key IN (SELECT key FROM asked)
			) GROUP BY author_key, event_key`, authors,
			proto.Results{{Name: "author_key", Data: &author}, {Name: "event_key", Data: &event}, {Name: "time", Data: at}}, func(i int) {
				if !time.UnixMilli(int64(at.Data[i])).After(until[author[i]]) && !seen[event[i]] {
					seen[event[i]] = true
					events = append(events, event[i])
				}
			})
	})
	if err != nil {
		return nil, fmt.Errorf("reading what %d authors wrote: %w", len(authors), err)
	}
	return events, nil
}
