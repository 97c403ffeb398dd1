package social

import (
	"encoding/hex"
	"fmt"
	"time"
)

// Mention is one event as it concerns one node, enriched and pseudonymised. It is a fact: its key (Node, EventKey,
// Via's lane) and its content follow from the event and the rules version alone.
type Mention struct {
	Node     Node
	EventKey Key
	Version  Version

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
}

// ValidTime reports whether t is from 1970-01-01 to 2106-02-06, in UTC: the days whose hours and minutes have a number in
// the tables. Any other would be stored as an instant of another century.
func ValidTime(t time.Time) bool {
	const end = 4294944000 // 2106-02-07 in Unix seconds; 32 bits end some hours later
	return t.Unix() >= 0 && t.Unix() < end
}

// Via says why an event belongs to a node.
type Via string

// The three ways of contract section 5. Text and account form the "own" lane of a node, thread the other.
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

// Version orders all that was ever said of one event in one node: the highest holds. It is made from content only,
// never from a clock or from the rules, so every attempt and every order of arrival ends with the same one.
//
// From the most significant bit: 44 bits revision (edit time in ms, 0 for the post as first written), 44 bits
// inverted event time (the earliest time of an id stands), 40 bits hash of the content (breaks ties). 44 bits of
// milliseconds reach the year 2527.
type Version [16]byte

// VersionOf packs the three parts of a version.
func VersionOf(revision, at time.Time, hash uint64) Version {
	const ones44 = 1<<44 - 1
	var rev uint64
	if !revision.IsZero() {
		rev = uint64(revision.UnixMilli()) & ones44
	}
	inv := ones44 - uint64(at.UnixMilli())&ones44
	hi := rev<<20 | inv>>24
	lo := inv<<40 | hash&(1<<40-1)
	var v Version
	for i := range 8 {
		v[i] = byte(hi >> (56 - 8*i))
		v[8+i] = byte(lo >> (56 - 8*i))
	}
	return v
}

// Retracted is the version of a deletion: nothing is higher.
func Retracted() Version {
	var v Version
	for i := range v {
		v[i] = 0xff
	}
	return v
}

// Revision is the edit time in ms within v, 0 for a post as first written.
func (v Version) Revision() uint64 {
	var hi uint64
	for _, b := range v[:8] {
		hi = hi<<8 | uint64(b)
	}
	return hi >> 20
}

// Hash is the 40-bit content hash within v.
func (v Version) Hash() uint64 {
	var h uint64
	for _, b := range v[11:] {
		h = h<<8 | uint64(b)
	}
	return h
}

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
