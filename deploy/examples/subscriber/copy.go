package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"
)

// The CloudEvents types that the copy is made of.
const (
	mentionType    = "polyphony.mention.v1"
	retractionType = "polyphony.retraction.v1"
)

// Key is what a mention is found by: one event may be a mention of several nodes.
type Key struct {
	EventKey  string `json:"event_key"`
	Division  string `json:"division"`
	Territory string `json:"territory"`
}

// Entry is the last word on one event in one node: a mention with its data, or without data a retraction. Retractions
// are kept, or a repeat of the mention that comes later would bring it back.
type Entry struct {
	Key
	Version  string          `json:"version"`
	Recorded time.Time       `json:"recorded_time,omitzero"` // of a mention
	Data     json.RawMessage `json:"data,omitempty"`         // as it came, with fields that this program does not know
}

func (e Entry) retracted() bool { return e.Data == nil }

// Copy is what holds, by the messages applied so far. Their order does not matter, nor how often each came. The zero
// Copy is empty.
type Copy struct {
	entries map[Key]Entry
}

// Apply takes in one message of the stream, a batch of CloudEvents, and returns what changed: mentions that are new or
// say something else, and retractions of mentions that were held. Events of other types are skipped. The error tells
// what could not be read; everything else of the message is applied all the same.
func (c *Copy) Apply(message []byte) (changed []Entry, err error) {
	var batch []json.RawMessage
	if err := json.Unmarshal(message, &batch); err != nil {
		return nil, fmt.Errorf("reading a batch of events: %w", err)
	}
	var first error
	bad := 0
	for _, raw := range batch {
		entry, ok, err := read(raw)
		if err != nil {
			first = cmp.Or(first, err)
			bad++
		}
		if ok && c.put(entry) {
			changed = append(changed, entry)
		}
	}
	if bad > 0 {
		return changed, fmt.Errorf("%d of %d events are bad, the first: %w", bad, len(batch), first)
	}
	return changed, nil
}

// read makes an entry of a CloudEvent; ok is false when it is of another type.
func read(raw json.RawMessage) (entry Entry, ok bool, err error) {
	var event struct {
		Type string          `json:"type"`
		Data json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(raw, &event); err != nil {
		return entry, false, err
	}
	switch event.Type {
	case "":
		return entry, false, errors.New("it has no type")
	case mentionType, retractionType:
	default:
		return entry, false, nil
	}
	var data struct {
		Key
		Version  string    `json:"version"`
		Recorded time.Time `json:"recorded_time"`
		Time     time.Time `json:"time"`
	}
	if err := json.Unmarshal(event.Data, &data); err != nil {
		return entry, false, fmt.Errorf("reading its data: %w", err)
	}
	entry = Entry{Key: data.Key, Version: data.Version}
	if event.Type == mentionType {
		var line bytes.Buffer // all of it on one line, to be printed
		if err := json.Compact(&line, event.Data); err != nil {
			return entry, false, fmt.Errorf("reading its data: %w", err)
		}
		entry.Data, entry.Recorded = line.Bytes(), data.Recorded
	}
	err = entry.check()
	return entry, err == nil, err
}

// digits is how keys and versions are written. Versions compare as strings because all of them are.
var digits = regexp.MustCompile(`^[0-9a-f]{32}$`)

func (e Entry) check() error {
	switch {
	case !digits.MatchString(e.EventKey):
		return fmt.Errorf("event_key %q is not 32 hexadecimal digits", e.EventKey)
	case !digits.MatchString(e.Version):
		return fmt.Errorf("version %q is not 32 hexadecimal digits", e.Version)
	case e.Division == "" || e.Territory == "":
		return errors.New("it has no division or no territory")
	}
	return nil
}

// put is the rule: of one event in one node the highest version holds, of two equal ones the retraction, and of two equal
// mentions the one that was recorded first: an event that is sent again under new rules says the same, but may be about
// other topics. It tells whether what is held changed; a retraction of nothing is remembered, but changes nothing.
func (c *Copy) put(e Entry) bool {
	was, known := c.entries[e.Key]
	if known && !e.above(was) {
		return false
	}
	if c.entries == nil {
		c.entries = map[Key]Entry{}
	}
	c.entries[e.Key] = e
	return !e.retracted() || known && !was.retracted()
}

// above reports whether e holds and was does not.
func (e Entry) above(was Entry) bool {
	switch {
	case e.Version != was.Version:
		return e.Version > was.Version
	case e.retracted() || was.retracted():
		return !was.retracted()
	}
	return e.Recorded.Before(was.Recorded)
}

// Mentions are the data of the mentions that hold, by time, then event, then node.
func (c *Copy) Mentions() ([]json.RawMessage, error) {
	type mention struct {
		Entry
		time time.Time
	}
	var list []mention
	for _, e := range c.entries {
		if e.retracted() {
			continue
		}
		var data struct {
			Time time.Time `json:"time"`
		}
		if err := json.Unmarshal(e.Data, &data); err != nil {
			return nil, fmt.Errorf("reading the time of %s: %w", e.EventKey, err)
		}
		list = append(list, mention{e, data.Time})
	}
	slices.SortFunc(list, func(a, b mention) int {
		return cmp.Or(
			a.time.Compare(b.time),
			cmp.Compare(a.EventKey, b.EventKey),
			cmp.Compare(a.Division, b.Division),
			cmp.Compare(a.Territory, b.Territory),
		)
	})
	out := make([]json.RawMessage, len(list))
	for i, m := range list {
		out[i] = m.Data
	}
	return out, nil
}
