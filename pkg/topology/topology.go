// Package topology is the map of Polyphony, as data: which streams there are, which subjects they hold, who reads
// them, and under which keys the rules lie. It does nothing.
package topology

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"time"
)

// Stream is a JetStream stream: what happened, kept until everybody of ours has read it and its age is up.
type Stream struct {
	Name    string
	Subject string // the one subject filter of the stream
	Share   int    // of the storage given to Polyphony, in percent
}

// The streams, in the order in which an event meets them.
var (
	// Raw holds frames of events as accepted, with native ids: short retention, its own permissions.
	Raw = Stream{Name: "RAW", Subject: "social.raw.*", Share: 40}
	// Rejects holds what could not be processed, with its original bytes.
	Rejects = Stream{Name: "REJECTS", Subject: "social.rejects.*.*", Share: 10}
	// Mentions is public: enriched, pseudonymised.
	Mentions = Stream{Name: "MENTIONS", Subject: "social.mentions.*.*", Share: 35}
	// Facts is internal: sealed originals on their way to storage.
	Facts = Stream{Name: "FACTS", Subject: "social.facts.*", Share: 10}
	// Threads is internal: events about events, what refers to others and statements about posts.
	Threads = Stream{Name: "THREADS", Subject: "social.threads.*", Share: 5}
)

// Keep is how long acknowledged messages stay, for other subscribers and for replay, where the company does not say.
const Keep = 72 * time.Hour

// Streams lists all of them.
func Streams() []Stream { return []Stream{Raw, Rejects, Mentions, Facts, Threads} }

const (
	// StatementsSubject is where frames of statements are published.
	StatementsSubject = "social.threads.statements"
	// ReferencesSubject is where frames of references are published.
	ReferencesSubject = "social.threads.references"
	// OriginalsSubject is where batches of sealed originals are published.
	OriginalsSubject = "social.facts.originals"
)

// RouteSubject is where enrichers answer where an edited event belongs; it is on no stream.
const RouteSubject = "polyphony.route"

// RawSubject is where frames of a source are published.
func RawSubject(source string) string { return "social.raw." + source }

// RejectSubject is where rejects of a stage are published.
func RejectSubject(stage, code string) string { return "social.rejects." + stage + "." + code }

// RejectStage is the stage of a reject published there.
func RejectStage(subject string) string {
	tokens := strings.Split(subject, ".")
	if len(tokens) < 4 {
		return "unknown"
	}
	return tokens[2]
}

// MentionSubject is where the mentions of a node are published.
func MentionSubject(division, territory string) string {
	return "social.mentions." + division + "." + territory
}

// Consumer is a durable reader of a whole stream. All replicas of a service share it.
type Consumer struct {
	Stream  Stream
	Durable string
}

// The durables.
var (
	EnrichRaw         = Consumer{Raw, "enricher"}
	AggregateMentions = Consumer{Mentions, "aggregator"}
	AggregateFacts    = Consumer{Facts, "aggregator"}
	AggregateThreads  = Consumer{Threads, "aggregator"}
	AggregateRejects  = Consumer{Rejects, "aggregator"}
)

// Consumers lists all of them.
func Consumers() []Consumer {
	return []Consumer{EnrichRaw, AggregateMentions, AggregateFacts, AggregateThreads, AggregateRejects}
}

// Bucket is a key-value bucket.
type Bucket struct {
	Name string
	Keep time.Duration // how long a value stays, 0 for ever
}

// Buckets lists all of them.
func Buckets() []Bucket {
	return []Bucket{{Name: RulesBucket}, {Name: TrialsBucket, Keep: time.Hour}, {Name: MarksBucket}}
}

const (
	// TrialsBucket is the key-value bucket of suspicions: by where a message stands, how often it was begun and not ended.
	// Each stays for longer than what restarts a dying process waits before it tries the same again.
	TrialsBucket = "polyphony-trials"
	// MarksBucket is the key-value bucket of what is remembered of streams and tables, so that it is noticed when they are not
	// what they were: how far each stream was tidied, and until when the metrics were complete.
	MarksBucket = "polyphony-marks"
	// RulesBucket is the key-value bucket of the rules: immutable archives by version, and which one is in force.
	RulesBucket = "polyphony-rules"
	// RulesCurrent is the key whose value is the version in force.
	RulesCurrent = "current"
)

// TrialKey is the key of the trials of a message, or of a part of it. A stream that was made anew has other messages under the same
// numbers, stored at other times.
func TrialKey(stream string, sequence uint64, stored time.Time, part string) string {
	return fmt.Sprintf("%s.%d.%d.%s", stream, sequence, stored.UnixMilli(), part)
}

// QuestionKey is the key of the trials of a question.
func QuestionKey(question []byte) string { return fmt.Sprintf("question.%x", sha256.Sum256(question)) }

// CompleteMark is the key of the last claim that the metrics are complete.
const CompleteMark = "complete"

// LossMark is the key of what was lost that the last claim rests on.
const LossMark = "lost"

// TidiedMark is the key of the first message that was left when a stream, made at a time, was last tidied.
func TidiedMark(stream string, created time.Time) string {
	return fmt.Sprintf("tidied.%s.%d", stream, created.UnixNano())
}

// RulesKey is the key of one version's archive.
func RulesKey(version string) string { return "version." + version }

// Headers of frames.
const (
	HeaderRules    = "Polyphony-Rules"    // version stamped by the ingester
	HeaderRecorded = "Polyphony-Recorded" // when it was accepted, Unix ms
	HeaderSize     = "Polyphony-Size"     // decoded bytes
	HeaderEvents   = "Polyphony-Events"   // lines
	HeaderTrial    = "Polyphony-Trial"    // of what a reject came from: the key of its trials, to forget when it is replayed
)
