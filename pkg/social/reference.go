package social

import "time"

// Reference is an event that names others: what it replies to, shares or reacts to, or the post that began its thread.
// Unless it is a mention by itself, it carries what it would be as one of any node; which nodes those are, its thread
// decides.
type Reference struct {
	Mention Mention // of no node, via thread; of one that is Kept only the key and the times
	Targets []Key   // the events that it names, each once
	// Until is how long it waits: a post that was recorded later is not what it refers to.
	Until time.Time
	// Kept says that the event is a mention by itself, so that its reference must live as long; others wait for their posts.
	Kept bool
	// Sealed leads back to the author, as in Original.
	Sealed []byte
}
