// Package social holds the nouns of Polyphony: events, nodes, mentions and statements.
//
// It owns meaning, not form: how a noun travels is pkg/wire's business, where it travels pkg/topology's.
// It imports the standard library only and does no I/O.
package social

import "time"

// Kind says what happened: somebody posted, replied, shared, or made a statement about an earlier post.
type Kind string

// The kinds of the public contract. The last three are statements about a post, see Kind.IsStatement.
const (
	Post     Kind = "post"
	Reply    Kind = "reply"
	Share    Kind = "share"
	Reaction Kind = "reaction"
	Follow   Kind = "follow"
	View     Kind = "view"
	Edit     Kind = "edit"
	Delete   Kind = "delete"
	Counted  Kind = "counters"
)

// Known reports whether k is a kind of the contract.
func (k Kind) Known() bool {
	switch k {
	case Post, Reply, Share, Reaction, Follow, View, Edit, Delete, Counted:
		return true
	}
	return false
}

// IsStatement reports whether an event of this kind says something about a post instead of being one.
func (k Kind) IsStatement() bool { return k == Edit || k == Delete || k == Counted }

// NeedsObject reports whether an event of this kind must name the post it is about.
func (k Kind) NeedsObject() bool { return k == Share || k == Reaction || k.IsStatement() }

// Event is what happened on a social network, in one canonical shape, before enrichment.
// Its strings may alias the bytes it was decoded from: clone what outlives them.
type Event struct {
	Source string // the network, a name as in ValidName
	ID     string // native id, unique within the source; empty for statements without one
	Kind   Kind
	Time   time.Time // when it happened, UTC, millisecond precision

	Title    string
	Text     string
	Lang     string // BCP 47 as declared by the source, may be empty
	URL      string
	Hashtags []string // with or without the leading #
	Links    []string
	Mentions []Person

	Author       Author
	Account      string // the owned account on or to which it happened, native id
	InReplyTo    Ref
	RootID       string // the post that started the thread
	Object       Ref    // what a share, a reaction or a statement is about
	PlaceCountry string // ISO 3166-1 alpha-2, upper case, where the event happened
	Counters     *Counters
}

// Author is the person or account that an event comes from. All of it is personal data.
type Author struct {
	ID, Handle, Name, Bio, Location string
	Country                         string // ISO 3166-1 alpha-2, upper case
	Followers                       int64
	Verified, Bot                   bool
}

// Person is somebody named in a text.
type Person struct{ ID, Handle string }

// Ref points to another event of the same source.
type Ref struct{ ID, AuthorID string }

// Counters are running totals of a post as its network reported them. Totals replace each other, they never add up.
type Counters struct {
	Likes, Replies, Shares, Views int64 // Unreported where the network tells none
	ObservedAt                    time.Time
}

// Unreported is a total that was not told, which is not one of zero.
const Unreported = -1
