package warehouse

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/ClickHouse/ch-go/proto"

	"polyphony/pkg/social"
)

const (
	// maxPartitions bounds the monthly partitions that one INSERT touches. ClickHouse refuses more than 100, and each
	// costs a part of its own.
	maxPartitions = 50
	// maxRows bounds one INSERT, so that it stays one block on the way and some 150 MB of memory on either side.
	maxRows = 200_000
)

// InsertMentions stores mentions as facts and marks the node-hours they fall into as changed. When it returns nil,
// readers see them. Repeats are harmless, in one call or over many; of one event in one node the highest version holds,
// see social.Version. A retraction hides what its node, event and time name, for good if it is of version
// social.Deleted or of another time than its version's. A time that is not a social.ValidTime is an error before
// anything is written, and no repeat mends it: see Retry.
//
// First the locations are written, then what is known to take them back is read, then the facts are written, then the
// touches: whatever stops it in between, the caller's repeat completes it, and no reader ever takes a sealed number that
// lacks facts which were acknowledged. Whoever learns that an event no longer holds first writes its head and then looks
// for locations, so of two that do both at once one sees the other.
func (w *Warehouse) InsertMentions(ctx context.Context, mentions []social.Mention) error {
	for i := range mentions {
		if m := &mentions[i]; !social.ValidTime(m.Time) || !social.ValidTime(m.RecordedTime) {
			return fmt.Errorf("mention %d of %d happened %s, recorded %s: %w", i+1, len(mentions),
				m.Time.UTC().Format(time.RFC3339), m.RecordedTime.UTC().Format(time.RFC3339), errTime)
		}
	}
	rows, more := sortRows(mentions)
	hours := hoursOf(mentions, rows)
	defer func() { w.dirty.touch(hours, time.Now()) }()
	return w.send(ctx, w.mentionSenders, func(s *sender) error {
		if err := s.insertTold(ctx, mentions); err != nil {
			return err
		}
		for _, chunk := range splitRows(more) {
			if err := s.insertLocations(ctx, mentions, chunk, nil); err != nil {
				return err
			}
			if _, err := s.takenBack(ctx, mentions, chunk); err != nil { // their author may have had deleted what others say too
				return err
			}
		}
		for _, chunk := range splitRows(rows) {
			if err := s.insertLocations(ctx, mentions, chunk, nil); err != nil {
				return err
			}
			back, err := s.takenBack(ctx, mentions, chunk)
			if err != nil {
				return err
			}
			if len(back) > 0 {
				if err := s.insertLocations(ctx, mentions, chunk, back); err != nil {
					return err
				}
			}
			if err := s.insertFacts(ctx, mentions, chunk, back); err != nil {
				return err
			}
		}
		return s.touch(ctx, hours)
	})
}

// errTime is a time that ClickHouse would store as an instant of another century.
var errTime = errors.New("the tables reach from 1970-01-01 to 2106-02-06")

// row is the sort key of one fact and its place in the caller's slice.
type row struct {
	node  uint32 // rank of the node in the order of the table
	index int32  // in the caller's slice
	ms    int64
	key   [2]uint64
}

// sortRows gives the mentions in the order of mentions_store, only the highest version of each key, and those left out
// that carry other totals, name another author or were recorded earlier.
func sortRows(mentions []social.Mention) (kept, more []row) {
	ranks := ranksOf(mentions)
	rows := make([]row, len(mentions))
	var rank uint32
	for i := range mentions {
		m := &mentions[i]
		if i == 0 || m.Node != mentions[i-1].Node {
			rank = ranks[m.Node]
		}
		rows[i] = row{
			node:  rank,
			ms:    m.Time.UnixMilli(),
			key:   halves(m.EventKey),
			index: int32(i),
		}
	}
	slices.SortFunc(rows, compareRows)

	kept = rows[:0]
	for _, r := range rows {
		if n := len(kept); n > 0 && compareRows(kept[n-1], r) == 0 {
			is, other := r, kept[n-1]
			if storedVersion(&mentions[is.index]).less(storedVersion(&mentions[other.index])) {
				is, other = other, is
			}
			kept[n-1] = is
			if a, b := &mentions[is.index], &mentions[other.index]; carriedHash(a) != carriedHash(b) || a.AuthorKey != b.AuthorKey || b.RecordedTime.Before(a.RecordedTime) {
				more = append(more, other)
			}
			continue
		}
		kept = append(kept, r)
	}
	return kept, more
}

// ranksOf numbers the nodes in the order of the table. Mentions come by the message, so neighbours are mostly of one node.
func ranksOf(mentions []social.Mention) map[social.Node]uint32 {
	ranks := map[social.Node]uint32{}
	for i := range mentions {
		if i == 0 || mentions[i].Node != mentions[i-1].Node {
			ranks[mentions[i].Node] = 0
		}
	}
	for i, node := range slices.SortedFunc(maps.Keys(ranks), social.Node.Compare) {
		ranks[node] = uint32(i)
	}
	return ranks
}

// halves are a key's, in the order in which ClickHouse compares keys.
func halves(k social.Key) [2]uint64 {
	return [2]uint64{binary.BigEndian.Uint64(k[:8]), binary.BigEndian.Uint64(k[8:])}
}

func compareRows(a, b row) int {
	switch {
	case a.node != b.node:
		return cmp.Compare(a.node, b.node)
	case a.ms != b.ms:
		return cmp.Compare(a.ms, b.ms)
	}
	return compareKeys(a, b)
}

func compareKeys(a, b row) int {
	if a.key[0] != b.key[0] {
		return cmp.Compare(a.key[0], b.key[0])
	}
	return cmp.Compare(a.key[1], b.key[1])
}

// splitRows cuts rows so that no piece has more than maxRows of them or touches more than maxPartitions months.
func splitRows(rows []row) [][]row {
	var chunks [][]row
	for _, piece := range splitMonths(rows) {
		chunks = slices.AppendSeq(chunks, slices.Chunk(piece, maxRows))
	}
	return chunks
}

func splitMonths(rows []row) [][]row {
	if len(rows) == 0 {
		return nil
	}
	first, last := rows[0].ms, rows[0].ms
	for i := range rows {
		first, last = min(first, rows[i].ms), max(last, rows[i].ms)
	}
	if month(last)-month(first) < maxPartitions {
		return [][]row{rows}
	}
	pieces := map[int][]row{}
	for _, r := range rows {
		i := (month(r.ms) - month(first)) / maxPartitions
		pieces[i] = append(pieces[i], r)
	}
	return slices.Collect(maps.Values(pieces))
}

// month counts months, as the partitions do.
func month(ms int64) int {
	y, m, _ := time.UnixMilli(ms).UTC().Date()
	return y*12 + int(m)
}

// version is the UInt128 that mentions_store replaces by: 44 bits revision, 40 bits rank, 44 bits inverted recorded
// time, so that among equals the earliest record stands, or all ones for a retraction, which wins a tie. The event's
// time is in the key already. All ones together is for good.
type version struct{ hi, lo uint64 }

const ones44 = 1<<44 - 1

func storedVersion(m *social.Mention) version {
	if m.Version == social.Deleted() || m.Retracted && m.Version.Time() != m.Time.UnixMilli() {
		return version{^uint64(0), ^uint64(0)} // an event that happened at another time never happens at this one again
	}
	v := packVersion(m.Version.Revision(), m.Version.Rank(), m.RecordedTime)
	if m.Retracted {
		v.lo |= ones44
	}
	return v
}

func packVersion(revision, rank uint64, recorded time.Time) version {
	inverted := ones44 - uint64(recorded.UnixMilli())&ones44
	return version{hi: revision<<20 | rank>>20, lo: rank<<44 | inverted}
}

func (v version) less(o version) bool { return v.hi < o.hi || v.hi == o.hi && v.lo < o.lo }

// factColumns are the columns of mentions_store.
type factColumns struct {
	division, territory             *lowColumn
	time                            *proto.ColDateTime64
	eventKey                        proto.ColFixedStr16
	version                         proto.ColUInt128
	isDeleted                       proto.ColUInt8
	recordedTime                    *proto.ColDateTime64
	source                          proto.ColStr
	kind                            enumColumn
	authorKey, parentKey, rootKey   proto.ColFixedStr16
	parentAuthorKey                 proto.ColFixedStr16
	via                             enumColumn
	account                         proto.ColStr
	owned, byCompany, bot           proto.ColBool
	role                            enumColumn
	roleConfidence                  proto.ColFloat32
	lang, country                   proto.ColStr
	countryMethod                   enumColumn
	sentiment                       proto.ColFloat32
	products, competitors           *proto.ColArr[string]
	topics, needs                   *proto.ColArr[string]
	isQuestion                      proto.ColBool
	aeElements                      proto.ColUInt8
	aeScreened, aeSerious, offLabel proto.ColBool
	clusterID                       proto.ColUInt64
	followers                       proto.ColInt64
	likes, shares, views            proto.ColInt64
	text                            proto.ColStr
	rulesVersion                    proto.ColStr
}

func newFactColumns() *factColumns {
	lists := func() *proto.ColArr[string] { return proto.NewArray[string](new(proto.ColStr)) }
	return &factColumns{
		division: newLow(), territory: newLow(), time: newTimes(), recordedTime: newTimes(),
		products: lists(), competitors: lists(), topics: lists(), needs: lists(),
	}
}

// input lists every column by name, so that no default of the server's ever fills one.
func (c *factColumns) input() proto.Input {
	return proto.Input{
		{Name: "division", Data: c.division},
		{Name: "territory", Data: c.territory},
		{Name: "time", Data: c.time},
		{Name: "event_key", Data: &c.eventKey},
		{Name: "version", Data: &c.version},
		{Name: "is_deleted", Data: &c.isDeleted},
		{Name: "recorded_time", Data: c.recordedTime},
		{Name: "source", Data: &c.source},
		{Name: "kind", Data: &c.kind},
		{Name: "author_key", Data: &c.authorKey},
		{Name: "parent_key", Data: &c.parentKey},
		{Name: "root_key", Data: &c.rootKey},
		{Name: "parent_author_key", Data: &c.parentAuthorKey},
		{Name: "via", Data: &c.via},
		{Name: "account", Data: &c.account},
		{Name: "owned", Data: &c.owned},
		{Name: "by_company", Data: &c.byCompany},
		{Name: "bot", Data: &c.bot},
		{Name: "role", Data: &c.role},
		{Name: "role_confidence", Data: &c.roleConfidence},
		{Name: "lang", Data: &c.lang},
		{Name: "country", Data: &c.country},
		{Name: "country_method", Data: &c.countryMethod},
		{Name: "sentiment", Data: &c.sentiment},
		{Name: "products", Data: c.products},
		{Name: "competitors", Data: c.competitors},
		{Name: "topics", Data: c.topics},
		{Name: "needs", Data: c.needs},
		{Name: "is_question", Data: &c.isQuestion},
		{Name: "ae_elements", Data: &c.aeElements},
		{Name: "ae_screened", Data: &c.aeScreened},
		{Name: "ae_serious", Data: &c.aeSerious},
		{Name: "offlabel", Data: &c.offLabel},
		{Name: "cluster_id", Data: &c.clusterID},
		{Name: "followers", Data: &c.followers},
		{Name: "likes", Data: &c.likes},
		{Name: "shares", Data: &c.shares},
		{Name: "views", Data: &c.views},
		{Name: "text", Data: &c.text},
		{Name: "rules_version", Data: &c.rulesVersion},
	}
}

func (c *factColumns) append(m *social.Mention, v version) {
	c.division.Append(m.Node.Division)
	c.territory.Append(m.Node.Territory)
	c.time.AppendRaw(proto.DateTime64(m.Time.UnixMilli()))
	c.eventKey.Append(m.EventKey)
	c.version.Append(proto.UInt128{High: v.hi, Low: v.lo})
	c.isDeleted.Append(flag(m.Retracted))
	c.recordedTime.AppendRaw(proto.DateTime64(m.RecordedTime.UnixMilli()))
	c.source.Append(m.Source)
	c.kind.Append(numberOf(m.Kind))
	c.authorKey.Append(m.AuthorKey)
	c.parentKey.Append(m.ParentKey)
	c.rootKey.Append(m.RootKey)
	c.parentAuthorKey.Append(m.ParentAuthorKey)
	c.via.Append(viaNumber(m.Via))
	c.account.Append(m.Account)
	c.owned.Append(m.Owned)
	c.byCompany.Append(m.ByCompany)
	c.bot.Append(m.Bot)
	c.role.Append(roleNumber(m.Role))
	c.roleConfidence.Append(m.RoleConfidence)
	c.lang.Append(m.Lang)
	c.country.Append(m.Country)
	c.countryMethod.Append(methodNumber(m.CountryMethod))
	if m.Sentiment == nil {
		c.sentiment.Append(float32(math.NaN()))
	} else {
		c.sentiment.Append(*m.Sentiment)
	}
	c.products.Append(m.Products)
	c.competitors.Append(m.Competitors)
	c.topics.Append(m.Topics)
	c.needs.Append(m.Needs)
	c.isQuestion.Append(m.IsQuestion)
	c.aeElements.Append(m.AEElements)
	c.aeScreened.Append(m.AEScreened)
	c.aeSerious.Append(m.AESerious)
	c.offLabel.Append(m.OffLabel)
	c.clusterID.Append(m.ClusterID)
	c.followers.Append(m.Followers)
	carried := carriedBy(m)
	c.likes.Append(max(carried.Likes, 0))
	c.shares.Append(max(carried.Shares, 0))
	c.views.Append(max(carried.Views, 0))
	if m.Retracted {
		c.text.Append("") // the row stays for as long as mentions are kept, the words must not
	} else {
		c.text.Append(m.Text)
	}
	c.rulesVersion.Append(m.RulesVersion)
}

// insertFacts stores mentions, and retractions of the versions in back instead of those whose index is there.
func (s *sender) insertFacts(ctx context.Context, mentions []social.Mention, rows []row, back map[int32]social.Version) error {
	input := s.facts.input()
	input.Reset()
	for i := range rows {
		m := &mentions[rows[i].index]
		if by, gone := back[rows[i].index]; gone {
			m = retracted(m, by)
		}
		s.facts.append(m, storedVersion(m))
	}
	return s.insert(ctx, "mentions_store", input)
}

type locationColumns struct {
	eventKey, authorKey proto.ColFixedStr16
	division, territory proto.ColStr
	time                *proto.ColDateTime64
	version             proto.ColUInt128
	recorded            *foldedTimes
	likes, replies      proto.ColInt64
	shares, views       proto.ColInt64
	least, most         proto.ColUInt64
	order               []keyed
}

// keyed is a row by the first half of its key: small, because sorting moves it about.
type keyed struct {
	high uint64
	row  int32
}

func newLocationColumns() *locationColumns {
	return &locationColumns{time: newTimes(), recorded: newFoldedTimes()}
}

// insertLocations says where events stand: as the mentions say, or, where there is a back, that those in it do not.
func (s *sender) insertLocations(ctx context.Context, mentions []social.Mention, rows []row, back map[int32]social.Version) error {
	order := s.locations.order[:0]
	for i := range rows {
		order = append(order, keyed{rows[i].key[0], int32(i)})
	}
	slices.SortFunc(order, func(a, b keyed) int {
		if a.high != b.high {
			return cmp.Compare(a.high, b.high)
		}
		return cmp.Or(compareKeys(rows[a.row], rows[b.row]), cmp.Compare(a.row, b.row))
	})
	s.locations.order = order
	c := s.locations
	input := proto.Input{
		{Name: "event_key", Data: &c.eventKey},
		{Name: "division", Data: &c.division},
		{Name: "territory", Data: &c.territory},
		{Name: "time", Data: c.time},
		{Name: "author_key", Data: &c.authorKey},
		{Name: "version", Data: &c.version},
		{Name: "recorded", Data: c.recorded},
		{Name: "likes", Data: &c.likes},
		{Name: "replies", Data: &c.replies},
		{Name: "shares", Data: &c.shares},
		{Name: "views", Data: &c.views},
		{Name: "carried_least", Data: &c.least},
		{Name: "carried_most", Data: &c.most},
	}
	input.Reset()
	for _, k := range order {
		m := &mentions[rows[k.row].index]
		if back != nil {
			gone, ok := back[rows[k.row].index]
			if !ok {
				continue
			}
			m = retracted(m, gone)
		}
		v := storedVersion(m)
		c.eventKey.Append(m.EventKey)
		c.division.Append(m.Node.Division)
		c.territory.Append(m.Node.Territory)
		c.time.AppendRaw(proto.DateTime64(m.Time.UnixMilli()))
		c.authorKey.Append(m.AuthorKey)
		c.version.Append(proto.UInt128{High: v.hi, Low: v.lo})
		c.recorded.AppendRaw(knownSince(m))
		carried := carriedBy(m)
		c.likes.Append(carried.Likes)
		c.replies.Append(carried.Replies)
		c.shares.Append(carried.Shares)
		c.views.Append(carried.Views)
		if hash := carriedHash(m); hash == 0 {
			c.least.Append(math.MaxUint64)
			c.most.Append(0)
		} else {
			c.least.Append(hash)
			c.most.Append(hash)
		}
	}
	return s.insert(ctx, "locations", input)
}

// knownSince is when a mention was recorded; from a retraction nothing becomes known, and it says the last social.ValidTime.
func knownSince(m *social.Mention) proto.DateTime64 {
	if m.Retracted {
		return 4_294_943_999_999
	}
	return proto.DateTime64(m.RecordedTime.UnixMilli())
}

// retracted is the retraction that is stored instead of a mention.
func retracted(m *social.Mention, by social.Version) *social.Mention {
	return &social.Mention{Node: m.Node, EventKey: m.EventKey, AuthorKey: m.AuthorKey, Source: m.Source, Time: m.Time,
		RecordedTime: m.RecordedTime, Via: m.Via, Retracted: true, Version: by}
}

func flag(b bool) uint8 {
	if b {
		return 1
	}
	return 0
}

func viaNumber(v social.Via) proto.Enum8 {
	switch v {
	case social.ViaText:
		return 1
	case social.ViaAccount:
		return 2
	case social.ViaThread:
		return 3
	}
	return 0
}

func roleNumber(role string) proto.Enum8 {
	switch role {
	case "patient":
		return 1
	case "caregiver":
		return 2
	case "hcp":
		return 3
	case "employee":
		return 4
	case "partner":
		return 5
	case "company":
		return 6
	case "other":
		return 7
	}
	return 0
}

func methodNumber(method string) proto.Enum8 {
	switch method {
	case social.CountryByPlace:
		return 1
	case social.CountryByAuthor:
		return 2
	case social.CountryByAccount:
		return 3
	case social.CountryByLanguage:
		return 4
	}
	return 0
}
