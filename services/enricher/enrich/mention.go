package enrich

import (
	"encoding/binary"
	"iter"
	"slices"
	"strconv"
	"time"

	"github.com/cespare/xxhash/v2"

	"polyphony/pkg/nodes"
	"polyphony/pkg/pseudonym"
	"polyphony/pkg/social"
	"polyphony/pkg/wire"
)

// Enrichment makes mentions and facts of events, one event at a time and in its own memory. It is pure: the same event
// under the same rules gives the same result.
type Enrichment struct {
	keyer  *pseudonym.Keyer
	masker masker

	content       []byte // of contentHash
	plain, sealed []byte // of original
	made          social.Original
}

// NewEnrichment makes an enrichment with a keyer of its own.
func NewEnrichment(keyer *pseudonym.Keyer) *Enrichment { return &Enrichment{keyer: keyer.Clone()} }

// Mentions yields what an event is in each node that it matches, and none when it matches none. The mention is
// valid until the next one; its strings alias the event.
func (en *Enrichment) Mentions(e *social.Event, matches []nodes.Match, version string, recorded time.Time) iter.Seq[*social.Mention] {
	return func(yield func(*social.Mention) bool) {
		if len(matches) == 0 {
			return
		}
		mention := en.mention(e, matches[0].Country, version, recorded)
		for i := range matches {
			place(&mention, &matches[i])
			if !yield(&mention) {
				return
			}
		}
	}
}

// mention fills in what is the same for every node of an event. What later stages will know (role, sentiment,
// needs, safety) stays unknown here, never guessed.
func (en *Enrichment) mention(e *social.Event, country, version string, recorded time.Time) social.Mention {
	parent := parentOf(e)
	m := social.Mention{
		EventKey: en.keyer.Key(e.Source, e.ID), AuthorKey: en.keyer.Key(e.Source, e.Author.ID),
		ParentKey: en.keyer.Key(e.Source, parent.ID), ParentAuthorKey: en.keyer.Key(e.Source, parent.AuthorID),
		RootKey: en.keyer.Key(e.Source, e.RootID),
		Source:  e.Source, Kind: e.Kind, Time: e.Time, RecordedTime: recorded,
		Bot: e.Author.Bot, Role: social.RoleUnknown, Lang: e.Lang, Followers: e.Author.Followers,
		Text: en.masker.mask(e, country), RulesVersion: version, Counters: e.Counters,
	}
	m.Version = social.OwnVersion(time.Time{}, e.Time, en.contentHash(e, &m)).Carrying(totalsHash(e.Counters))
	return m
}

// parentOf is the post that an event answers, shares or reacts to.
func parentOf(e *social.Event) social.Ref {
	if e.InReplyTo.ID != "" {
		return e.InReplyTo
	}
	return e.Object
}

// place fills in what concerns one node.
func place(m *social.Mention, match *nodes.Match) {
	m.Node, m.Via = match.Node, match.Via
	m.Account, m.Owned, m.ByCompany = match.Account, match.Owned, match.ByCompany
	m.Products, m.Competitors, m.Topics = match.Products, match.Competitors, match.Topics
	m.Country, m.CountryMethod = match.Country, match.CountryMethod
}

// contentHash covers what an event says and by whom, with the names that were just masked in it, for of two copies one may
// know more of them; not where it belongs, under which rules and how often it was liked:
// of two events with one id and time, one stands in all nodes, and the same event sent again has the same version under
// any rules. Some of it is masked elsewhere, and the version is public: it is keyed.
func (en *Enrichment) contentHash(e *social.Event, m *social.Mention) uint64 {
	b := en.content[:0]
	for _, v := range [...]string{e.Source, string(e.Kind), e.Title, e.Text, e.Lang, e.Author.Country, e.PlaceCountry, e.Account} {
		b = append(append(b, v...), 0)
	}
	for _, list := range [...][]string{e.Hashtags, e.Links} {
		for _, name := range list {
			b = append(append(b, name...), 0)
		}
		b = append(b, 1)
	}
	b = append(b, en.masker.met...)
	b = strconv.AppendBool(b, e.Author.Bot)
	b = strconv.AppendInt(b, e.Author.Followers, 10)
	for _, k := range [...]*social.Key{&m.AuthorKey, &m.ParentKey, &m.RootKey, &m.ParentAuthorKey} {
		b = append(b, k[:]...)
	}
	en.content = b
	return en.keyer.Tag(xxhash.Sum64(b))
}

// totalsHash tells copies of an event apart that differ in nothing but how often it was liked; 0 when none are told.
func totalsHash(c *social.Counters) uint64 {
	if c == nil {
		return 0
	}
	var b [40]byte
	for i, n := range [...]int64{c.Likes, c.Replies, c.Shares, c.Views, c.ObservedAt.UnixMilli()} {
		binary.LittleEndian.PutUint64(b[8*i:], uint64(n))
	}
	return xxhash.Sum64(b[:])
}

// reference makes what an event leaves for its threads, nil when it names no other or the company
// does not follow threads of its source. What it says is left to its mentions
// where it has any. Otherwise it is of no node, and what accounts have to do with it is the same in all.
func (en *Enrichment) reference(e *social.Event, m *matcher, matches []nodes.Match, recorded time.Time) *social.Reference {
	if m.sources[e.Source].NoThreads {
		return nil
	}
	targets := en.targets(e)
	if len(targets) == 0 {
		return nil
	}
	r := &social.Reference{Targets: targets, Until: recorded.Add(m.threadWait), Kept: len(matches) > 0}
	if r.Kept {
		r.Mention = social.Mention{EventKey: en.keyer.Key(e.Source, e.ID), Time: e.Time, RecordedTime: recorded}
		return r
	}
	country, method := m.Country()
	r.Mention = en.mention(e, country, m.version, recorded)
	r.Mention.Via, r.Mention.Country, r.Mention.CountryMethod = social.ViaThread, country, method
	r.Sealed = en.original(e, &r.Mention).Sealed
	return r
}

// targets are the events that e names, each once and not itself.
func (en *Enrichment) targets(e *social.Event) []social.Key {
	var ids [3]string
	n := 0
	for _, id := range [...]string{e.InReplyTo.ID, e.Object.ID, e.RootID} {
		if id != "" && id != e.ID && !slices.Contains(ids[:n], id) {
			ids[n] = id
			n++
		}
	}
	if n == 0 {
		return nil
	}
	targets := make([]social.Key, n)
	for i, id := range ids[:n] {
		targets[i] = en.keyer.Key(e.Source, id)
	}
	return targets
}

// original seals what leads back to the author of an event and what its mentions do not keep: to answer a post, somebody
// with the right to must find it, and an edit is applied to the post as it was. It is valid until the next one.
func (en *Enrichment) original(e *social.Event, m *social.Mention) *social.Original {
	en.plain = wire.AppendIdentity(en.plain[:0], e, m.Text)
	en.sealed = en.keyer.Seal(en.sealed[:0], en.plain)
	en.made = social.Original{EventKey: m.EventKey, Version: m.Version.Words(), Source: e.Source, RecordedTime: m.RecordedTime, Sealed: en.sealed}
	return &en.made
}

// statement makes a fact of an edit, a deletion or totals. What it changes is worked out where the posts are.
func (en *Enrichment) statement(e *social.Event, line []byte, version string, recorded time.Time) *social.Statement {
	if e.Kind == social.Counted {
		return en.counters(e, version, recorded)
	}
	s := &social.Statement{
		Source: e.Source, Kind: e.Kind, Time: e.Time, RecordedTime: recorded, RulesVersion: version,
		ObjectKey: en.keyer.Key(e.Source, e.Object.ID), ObjectAuthor: en.keyer.Key(e.Source, e.Object.AuthorID),
	}
	if e.Kind == social.Edit {
		s.Sealed = en.keyer.Seal(nil, line) // what it says is read where it is routed anew
	}
	s.Key = en.statementKey(s)
	return s
}

// counters makes a fact of the totals that an event reports of its object.
func (en *Enrichment) counters(e *social.Event, version string, recorded time.Time) *social.Statement {
	s := &social.Statement{
		Source: e.Source, Kind: social.Counted, ObjectKey: en.keyer.Key(e.Source, e.Object.ID), ObjectAuthor: en.keyer.Key(e.Source, e.Object.AuthorID),
		Time: e.Counters.ObservedAt, RecordedTime: recorded, Counters: *e.Counters, RulesVersion: version,
	}
	s.Key = en.statementKey(s)
	return s
}

// statementKey identifies a statement by source, kind, object and time, as the contract does.
func (en *Enrichment) statementKey(s *social.Statement) social.Key {
	object := s.ObjectKey
	if object == (social.Key{}) {
		object = s.ObjectAuthor
	}
	return en.keyer.Key(s.Source, string(s.Kind)+" "+object.String()+" "+strconv.FormatInt(s.Time.UnixMilli(), 10))
}
