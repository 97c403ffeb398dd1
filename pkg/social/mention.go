package social

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"time"
)

// Mention is one event as it concerns one node, enriched and pseudonymised. It is a fact: its key (Node, EventKey,
// Time) and its content follow from the event and the rules version alone.
type Mention struct {
	Node     Node
	EventKey Key
	Version  Version
	// Retracted says that the event is no mention of the node any more, as of Version. Of a retraction only the
	// times are known besides; Time is that of the mention it takes back.
	Retracted bool

	Source       string
	Kind         Kind
	Time         time.Time
	RecordedTime time.Time

	AuthorKey       Key
	ParentKey       Key // what it replies to, shares or reacts to; zero when nothing
	RootKey         Key
	ParentAuthorKey Key

	Via       Via
	Account   string // the owned account, empty when none
	Owned     bool   // happened on an owned account
	ByCompany bool   // written by an owned account
	Bot       bool

	Role           string // RoleUnknown until somebody is sure
	RoleConfidence float32
	Lang           string
	Country        string // ISO 3166-1 alpha-2, empty when unknown
	CountryMethod  string // place, author, account, language, or none
	Sentiment      *float32
	Products       []string
	Competitors    []string
	Topics         []string
	Needs          []string
	IsQuestion     bool
	AEElements     uint8
	AEScreened     bool
	AESerious      bool
	OffLabel       bool
	ClusterID      uint64
	Followers      int64
	Text           string // title and text, personal data masked
	RulesVersion   string

	// Counters are totals that the event carried, nil when it carried none. They are not part of what it says.
	Counters *Counters
}

// TakenBack tells whether m no longer holds when head is the highest version known of its event in any node, and gives
// the version of the retraction.
func (m *Mention) TakenBack(head Version) (by Version, gone bool) {
	switch {
	case head == Deleted():
		return head, true
	case head == Mark():
		return Version{}, false
	}
	at := m.Time // an event heard at an earlier time than any before may stand at that: the head does not know it yet
	if known := time.UnixMilli(head.Time()); known.Before(at) {
		at = known
	}
	var revision time.Time
	if r := head.Revision(); r > 0 {
		revision = time.UnixMilli(int64(r))
	}
	floor := Floor(revision, at)
	switch {
	case m.Version.Less(floor):
		return floor, true
	case m.Version.Words().Less(head.Words()):
		return m.Version, true // other words under the same id, time and edit: a retraction wins a tie
	}
	return Version{}, false
}

// Mark is the lowest head: it takes back nothing, but whoever writes a mention of the event looks what else is known.
func Mark() Version { return Version{} }

// ValidTime reports whether t is from 1970-01-01 to 2106-02-06, in UTC: the days whose hours and minutes have a number in
// the tables. Any other would be stored as an instant of another century.
func ValidTime(t time.Time) bool {
	const end = 4294944000 // 2106-02-07 in Unix seconds; 32 bits end some hours later
	return t.Unix() >= 0 && t.Unix() < end
}

// Via says why an event belongs to a node.
type Via string

// The three ways of contract section 5.
const (
	ViaText    Via = "text"
	ViaAccount Via = "account"
	ViaThread  Via = "thread"
)

// RoleUnknown is the role of an author nobody has classified.
const RoleUnknown = "unknown"

// How the country of a mention was found.
const (
	CountryByPlace    = "place"    // the event says where it happened
	CountryByAuthor   = "author"   // the author says where they live
	CountryByAccount  = "account"  // no country known; the owned account's territory stands
	CountryByLanguage = "language" // no country known; the one territory whose languages fit
	CountryNone       = "none"
)

// Key names an event or an author without revealing it: the first 128 bits of HMAC-SHA256(secret, source|id).
// The zero Key means "none".
type Key [16]byte

// String is the key in 32 hexadecimal digits, or "" for none.
func (k Key) String() string {
	if k == (Key{}) {
		return ""
	}
	return hex.EncodeToString(k[:])
}

// Compare orders keys as the tables do.
func (k Key) Compare(o Key) int { return bytes.Compare(k[:], o[:]) }

// Distinct sorts keys, in their own memory, and leaves each once.
func Distinct(keys []Key) []Key {
	slices.SortFunc(keys, Key.Compare)
	return slices.Compact(keys)
}

// ParseKey reads what String writes.
func ParseKey(s string) (Key, error) {
	var k Key
	if s == "" {
		return k, nil
	}
	if err := parseHex16(k[:], s); err != nil {
		return k, fmt.Errorf("key: %w", err)
	}
	return k, nil
}

// Version orders all that was ever said of one event in one node: the highest holds, and of two equal ones the
// retraction. It is never made from a clock, nor from the rules but for an edit's (of one that was heard under two rules
// versions one decides), so every attempt and every order of arrival ends with the same one.
//
// From the most significant bit: 44 bits revision (edit time in ms, 0 for the post as first written), 44 bits
// inverted event time (the earliest time of an id stands), 40 bits rank. Of one revision and time, the rank is 26 bits of
// a hash of what the event says, one bit that is set for a mention by its own words or account and not for one through a
// thread, and 13 bits that are, of the former, a hash of the totals that it carried, and of the latter the number of
// decisions that were made before whether it is one. So other words come first, then whose they are. 44 bits of
// milliseconds reach the year 2527.
type Version [16]byte

const (
	rankBits = 40
	restBits = 13
	ownBit   = 1 << restBits
	wordBits = rankBits - restBits - 1
)

// OwnVersion is the version of a mention by its own words or account. Of a hash of the words 26 bits break ties.
func OwnVersion(revision, at time.Time, words uint64) Version {
	return VersionOf(revision, at, words<<(restBits+1)&(1<<rankBits-1)|ownBit)
}

// EditedVersion is that of an event as first written and as an edit of it left it, each by its version.
func EditedVersion(revision time.Time, first, edit Version) Version {
	const half = wordBits / 2
	words := func(v Version) uint64 { return v.Rank() >> (rankBits - half) }
	return OwnVersion(revision, time.UnixMilli(first.Time()), words(edit)<<half|words(first))
}

// Carrying is v, that of a mention by its own words, with totals: by them copies that say the same are told apart.
func (v Version) Carrying(totals uint64) Version {
	return v.withRank(v.Rank()&^(ownBit-1) | totals&(ownBit-1))
}

// Words is v without what does not depend on what the event says.
func (v Version) Words() Version { return v.withRank(v.Rank() &^ (2*ownBit - 1)) }

// Next is the decision after v whether what an event says is a mention through its thread, the first of them when v is
// that of its Words. After 8191 decisions there is none.
func (v Version) Next() (next Version, ok bool) {
	rank := v.Rank() + 1
	return v.withRank(rank), rank&(ownBit-1) != 0
}

func (v Version) withRank(rank uint64) Version {
	binary.BigEndian.PutUint64(v[8:], binary.BigEndian.Uint64(v[8:])>>rankBits<<rankBits|rank)
	return v
}

// Floor is below all that is said of an event as of a revision and a time, and above all that was said before: a
// retraction with this version takes back what nothing new stands for.
func Floor(revision, at time.Time) Version { return VersionOf(revision, at, 0) }

// Deleted is the version of a deletion: nothing is higher.
func Deleted() Version {
	var v Version
	for i := range v {
		v[i] = 0xff
	}
	return v
}

// VersionOf packs the parts of a version, a zero revision for a post as first written.
func VersionOf(revision, at time.Time, rank uint64) Version {
	var rev uint64
	if !revision.IsZero() {
		rev = uint64(revision.UnixMilli()) & ones44
	}
	inv := ones44 - uint64(at.UnixMilli())&ones44
	var v Version
	binary.BigEndian.PutUint64(v[:8], rev<<20|inv>>24)
	binary.BigEndian.PutUint64(v[8:], inv<<rankBits|rank)
	return v
}

const ones44 = 1<<44 - 1

// Less orders versions.
func (v Version) Less(o Version) bool { return string(v[:]) < string(o[:]) }

// Revision is the edit time in ms within v, 0 for a post as first written.
func (v Version) Revision() uint64 { return binary.BigEndian.Uint64(v[:8]) >> 20 }

// Time is the event's time within v, in ms.
func (v Version) Time() int64 {
	hi, lo := binary.BigEndian.Uint64(v[:8]), binary.BigEndian.Uint64(v[8:])
	return int64(ones44 - (hi<<24|lo>>rankBits)&ones44)
}

// Own reports whether v is that of a mention by its own words or account.
func (v Version) Own() bool { return v.Rank()&ownBit != 0 }

// Rank is what decides between versions of one revision and time.
func (v Version) Rank() uint64 { return binary.BigEndian.Uint64(v[8:]) & (1<<rankBits - 1) }

// String is the version in 32 hexadecimal digits; strings compare as versions do.
func (v Version) String() string { return hex.EncodeToString(v[:]) }

// ParseVersion reads what String writes.
func ParseVersion(s string) (Version, error) {
	var v Version
	if err := parseHex16(v[:], s); err != nil {
		return v, fmt.Errorf("version: %w", err)
	}
	return v, nil
}

func parseHex16(dst []byte, s string) error {
	if len(s) != 32 {
		return fmt.Errorf("want 32 hexadecimal digits, got %d characters", len(s))
	}
	var all byte
	for i := range dst {
		hi, lo := unhex[s[2*i]], unhex[s[2*i+1]]
		all |= hi | lo
		dst[i] = hi<<4 | lo
	}
	if all > 15 {
		return fmt.Errorf("want 32 hexadecimal digits, got %q", s)
	}
	return nil
}

// unhex is the value of a digit, 255 of anything else. A table, because a processor cannot guess what a digit will be.
var unhex = func() (value [256]byte) {
	for c := range value {
		value[c] = 255
	}
	for v, c := range []byte("0123456789abcdef") {
		value[c] = byte(v)
	}
	return value
}()
