package social

import "time"

// Statement is a fact about a post, or about all that an author wrote: an edit, a deletion, running totals.
// It concerns no node by itself; which node-hours it changes follows from where the post is a mention.
type Statement struct {
	Key          Key // of (source, kind, object, time): the statement's own identity
	Source       string
	Kind         Kind // Edit, Delete or Counted
	ObjectKey    Key  // the post; zero for a deletion of all that ObjectAuthor wrote
	ObjectAuthor Key
	Time         time.Time // when it was stated; for counters, when they were observed
	RecordedTime time.Time
	Counters     Counters // of Counted
	RulesVersion string
	Sealed       []byte // of Edit: the event as it came, readable only with the secret
}

// Original holds what leads back to a person, sealed: only who has the secret can open it.
type Original struct {
	EventKey     Key
	Version      Version // Words of the copy of the event that it was made of
	Source       string
	RecordedTime time.Time
	Sealed       []byte
}
