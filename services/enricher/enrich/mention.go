package enrich

import (
	"bytes"
	"encoding/json"
	"iter"
	"strconv"
	"time"

	"github.com/cespare/xxhash/v2"

	"polyphony/pkg/nodes"
	"polyphony/pkg/social"
)

// mention fills in what is the same for every node of an event. What later stages will know (role, sentiment,
// needs, safety) stays unknown here, never guessed.
func (w *worker) mention(m *matcher, e *social.Event, country string, recorded time.Time) social.Mention {
	parent := parentOf(e)
	return social.Mention{
		EventKey: w.keyer.Key(e.Source, e.ID), AuthorKey: w.keyer.Key(e.Source, e.Author.ID),
		ParentKey: w.keyer.Key(e.Source, parent.ID), ParentAuthorKey: w.keyer.Key(e.Source, parent.AuthorID),
		RootKey: w.keyer.Key(e.Source, e.RootID),
		Source:  e.Source, Kind: e.Kind, Time: e.Time, RecordedTime: recorded,
		Bot: e.Author.Bot, Role: social.RoleUnknown, Lang: e.Lang, Followers: e.Author.Followers,
		Text: w.masker.mask(e, country), RulesVersion: m.version,
	}
}

// parentOf is the post that an event answers, shares or reacts to.
func parentOf(e *social.Event) social.Ref {
	if e.InReplyTo.ID != "" {
		return e.InReplyTo
	}
	return e.Object
}

// place fills in what concerns one node, and the version, which covers all of it.
func place(m *social.Mention, match *nodes.Match, at time.Time) {
	m.Node, m.Via = match.Node, match.Via
	m.Account, m.Owned, m.ByCompany = match.Account, match.Owned, match.ByCompany
	m.Products, m.Competitors, m.Topics = match.Products, match.Competitors, match.Topics
	m.Country, m.CountryMethod = match.Country, match.CountryMethod
	m.Version = social.VersionOf(time.Time{}, at, contentHash(m))
}

// contentHash covers all of a mention but when and under which rules version it was seen: the same event sent again
// has the same version.
func contentHash(m *social.Mention) uint64 {
	var h xxhash.Digest
	h.Reset()
	text := func(values ...string) {
		for _, v := range values {
			_, _ = h.WriteString(v)
			_, _ = h.Write([]byte{0})
		}
		_, _ = h.Write([]byte{1})
	}
	text(m.Source, string(m.Kind), string(m.Via), m.Account, m.Role, m.Lang, m.Country, m.CountryMethod, m.Text)
	text(strconv.FormatBool(m.Owned), strconv.FormatBool(m.ByCompany), strconv.FormatBool(m.Bot), strconv.FormatInt(m.Followers, 10))
	text(m.Products...)
	text(m.Competitors...)
	text(m.Topics...)
	for _, k := range [...]social.Key{m.AuthorKey, m.ParentKey, m.RootKey, m.ParentAuthorKey} {
		_, _ = h.Write(k[:])
	}
	return h.Sum64()
}

// original seals what leads back to the author: to answer a post, somebody with the right to must find it.
func (w *worker) original(e *social.Event, key social.Key, recorded time.Time) *social.Original {
	plain, err := json.Marshal(map[string]string{
		"id": e.ID, "author_id": e.Author.ID, "handle": e.Author.Handle, "name": e.Author.Name, "url": e.URL,
	})
	if err != nil {
		panic("BUG: a map of strings cannot fail to encode: " + err.Error())
	}
	return &social.Original{EventKey: key, Source: e.Source, RecordedTime: recorded, Sealed: w.keyer.Seal(plain)}
}

// statement keeps an edit, a deletion or totals as a fact. What it changes is worked out where the posts are.
func (w *worker) statement(m *matcher, e *social.Event, line []byte, recorded time.Time) {
	if e.Kind == social.Counted {
		object := w.keyer.Key(e.Source, e.Object.ID)
		w.out.statement(w.counters(m, e.Source, object, w.keyer.Key(e.Source, e.Object.AuthorID), e.Counters, recorded))
		return
	}
	s := &social.Statement{
		Source: e.Source, Kind: e.Kind, Time: e.Time, RecordedTime: recorded, RulesVersion: m.version,
		ObjectKey: w.keyer.Key(e.Source, e.Object.ID), ObjectAuthor: w.keyer.Key(e.Source, e.Object.AuthorID),
	}
	if e.Kind == social.Edit {
		s.Text, s.Lang, s.Sealed = w.masker.mask(e, e.PlaceCountry), e.Lang, w.keyer.Seal(line)
	}
	s.Key = w.statementKey(s)
	w.out.statement(s)
}

func (w *worker) counters(m *matcher, source string, object, author social.Key, c *social.Counters, recorded time.Time) *social.Statement {
	s := &social.Statement{
		Source: source, Kind: social.Counted, ObjectKey: object, ObjectAuthor: author,
		Time: c.ObservedAt, RecordedTime: recorded, Counters: *c, RulesVersion: m.version,
	}
	s.Key = w.statementKey(s)
	return s
}

// statementKey identifies a statement by source, kind, object and time, as the contract does.
func (w *worker) statementKey(s *social.Statement) social.Key {
	object := s.ObjectKey
	if object == (social.Key{}) {
		object = s.ObjectAuthor
	}
	return w.keyer.Key(s.Source, string(s.Kind)+" "+object.String()+" "+strconv.FormatInt(s.Time.UnixMilli(), 10))
}

// linesOf yields the lines of a frame without their newlines.
func linesOf(frame []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for len(frame) > 0 {
			line, rest, _ := bytes.Cut(frame, []byte{'\n'})
			if !yield(line) {
				return
			}
			frame = rest
		}
	}
}
