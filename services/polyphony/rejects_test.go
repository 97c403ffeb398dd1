package main

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/schollz/progressbar/v3"

	"polyphony/pkg/social"
	"polyphony/pkg/wire"
)

// A reject is as old as the rejection: what was accepted days ago and given up now is new.
func TestRejectFilter(t *testing.T) {
	now := time.Date(2026, 5, 25, 14, 0, 0, 0, time.UTC)
	r := &reject{Reject: wire.Reject{Source: "reddit", RecordedTime: now.Add(-72 * time.Hour)}, stored: now.Add(-time.Hour)}
	f := func(filter rejectFilter, want bool) {
		t.Helper()
		if err := filter.read(now); err != nil {
			t.Fatal(err)
		}
		if got := filter.takes(r); got != want {
			t.Errorf("%+v takes it: %v", filter, got)
		}
	}
	f(rejectFilter{}, true)
	f(rejectFilter{Since: "24h"}, true)
	f(rejectFilter{Since: "30m"}, false)
	f(rejectFilter{Until: "30m"}, true)
	f(rejectFilter{Until: "24h"}, false)
	f(rejectFilter{Source: []string{"bluesky"}}, false)
	f(rejectFilter{Source: []string{"bluesky", "reddit"}, Since: "2h", Until: "30m"}, true)
}

// What somebody sent for a source that their token is not for does not become an event by the token of who replays it,
// and does not stand in the way of whose it is.
func TestForeignSourceIsNotReplayed(t *testing.T) {
	var said strings.Builder
	re := &replayer{seen: map[[32]byte]bool{}, bar: progressbar.DefaultSilent(2), std: streams{out: io.Discard, err: &said}}
	event := []byte(`{"id":"1","source":"reddit"}`)
	for _, r := range []*reject{
		{Reject: wire.Reject{Code: social.InvalidField, Detail: social.ForeignSource, Source: "reddit", Bytes: event}, stage: "ingest", sequence: 1, position: 1},
		{Reject: wire.Reject{Code: social.MissingField, Detail: "time", Source: "reddit", Bytes: event}, stage: "ingest", sequence: 1, position: 2},
	} {
		if err := re.take(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	if len(re.sent) != 1 || re.sent[0] != "1.2" || re.lost != 1 || !strings.Contains(said.String(), "reject 1.1 was sent by somebody who may not send for source reddit") {
		t.Errorf("to be sent %v, %d lost, said %q", re.sent, re.lost, said.String())
	}
}
