package aggregate

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"polyphony/pkg/bus"
	"polyphony/pkg/warehouse"
)

// TestLost: what is missing of what a claim rested on is noticed, and nothing that goes its ordinary way is taken for it.
func TestLost(t *testing.T) {
	at := func(minute int) time.Time { return time.Date(2026, 5, 25, 14, minute, 0, 0, time.UTC) }
	// The claim: complete until minute 5, 100 messages of MENTIONS read.
	positions, err := json.Marshal(map[string]position{"MENTIONS": {Created: at(0), Floor: 100}})
	if err != nil {
		t.Fatal(err)
	}
	claim := warehouse.Freshness{Epoch: 1, CompleteUntil: at(5), Positions: positions}
	bare := warehouse.Freshness{Epoch: 1, CompleteUntil: at(5)}
	noted := Complete{Epoch: 1, Until: at(5)}
	fine := bus.Progress{Created: at(0), First: 1, Floor: 120, Last: 150}
	f := func(what string, stored warehouse.Freshness, noted Complete, now bus.Progress, tidied uint64, want string) {
		t.Helper()
		got := ""
		if err := errors.Join(lost(stored, noted, progress{"MENTIONS": now}, map[string]uint64{"MENTIONS": tidied})...); err != nil {
			got = err.Error()
		}
		if want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	with := func(change func(*bus.Progress)) bus.Progress {
		now := fine
		change(&now)
		return now
	}
	f("work goes on", claim, noted, fine, 0, "")
	f("the note of a claim is not written yet", claim, Complete{Epoch: 1, Until: at(4)}, fine, 0, "")
	f("no claim was ever noted", claim, Complete{}, fine, 0, "")
	f("an epoch that just began", bare, Complete{Epoch: 0, Until: at(9)}, fine, 0, "")
	f("nothing was claimed yet", warehouse.Freshness{}, Complete{}, with(func(p *bus.Progress) { p.First = 101 }), 101, "")
	f("everything read and tidied", claim, noted, with(func(p *bus.Progress) { p.First, p.Floor = 151, 150 }), 151, "")
	f("tidied up to the claim", claim, noted, with(func(p *bus.Progress) { p.First = 101 }), 0, "")
	f("a durable that was set back", claim, noted, with(func(p *bus.Progress) { p.Floor = 3 }), 0, "")

	f("ClickHouse says less than was claimed", claim, Complete{Epoch: 1, Until: at(6)}, fine, 0, "ClickHouse is older than it was")
	f("ClickHouse knows no such epoch", claim, Complete{Epoch: 2, Until: at(3)}, fine, 0, "ClickHouse is older than it was")
	f("ClickHouse knows nothing", warehouse.Freshness{CompleteUntil: time.Unix(0, 0)}, Complete{Until: at(5)}, fine, 0, "ClickHouse is older than it was")
	f("another stream of that name", claim, noted, with(func(p *bus.Progress) { p.Created = at(7) }), 0, "stream MENTIONS was deleted and made anew")
	f("a stream that ends before what was read", claim, noted, with(func(p *bus.Progress) { p.Floor, p.Last = 90, 95 }), 0, "stream MENTIONS is older than it was")
	f("a purge beyond what was read", claim, noted, with(func(p *bus.Progress) { p.First, p.Floor = 151, 150 }), 0, "messages 101 to 150 of stream MENTIONS were removed")
	f("a purge beyond what was tidied", claim, noted, with(func(p *bus.Progress) { p.First, p.Floor = 151, 150 }), 130, "messages 101 to 150 of stream MENTIONS were removed")
	f("a purge before anything was claimed", warehouse.Freshness{}, Complete{}, with(func(p *bus.Progress) { p.First, p.Floor = 151, 150 }), 0, "messages 1 to 150 of stream MENTIONS were removed")
	f("messages removed from between others", claim, noted, with(func(p *bus.Progress) { p.Removed = 2 }), 0, "2 messages were removed from within stream MENTIONS")
}
