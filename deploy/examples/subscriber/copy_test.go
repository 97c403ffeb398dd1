package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// told is one event of the stream, in short.
type told struct {
	event   int
	node    string // division/territory
	version int
	back    bool // a retraction
	again   int  // seconds after it was recorded first
}

func (e told) key() Key {
	division, territory, _ := strings.Cut(e.node, "/")
	return Key{fmt.Sprintf("%032x", e.event), division, territory}
}

// data are those of a mention; what event and version say decides all of them. Nobody knows the field mood yet.
func (e told) data() string {
	k := e.key()
	return fmt.Sprintf(`{"division":%q,"territory":%q,"event_key":%q,"version":"%032x","time":"2031-05-01T00:00:%02d.000Z","recorded_time":"2031-05-02T00:00:%02d.000Z","text":"a <b> & %d","mood":[%d]}`,
		k.Division, k.Territory, k.EventKey, e.version, 59-e.event%10, e.again, e.version, e.version)
}

func (e told) json() string {
	if e.back {
		k := e.key()
		return fmt.Sprintf(`{"specversion":"1.0","type":"polyphony.retraction.v1","data":{"division":%q,"territory":%q,"event_key":%q,"version":"%032x","recorded_time":"2031-05-02T00:00:%02d.000Z","source":"agora"}}`,
			k.Division, k.Territory, k.EventKey, e.version, e.again)
	}
	return `{"specversion":"1.0","type":"polyphony.mention.v1","data":` + e.data() + `}`
}

func (e told) entry() Entry {
	out := Entry{Key: e.key(), Version: fmt.Sprintf("%032x", e.version)}
	if !e.back {
		out.Data, out.Recorded = json.RawMessage(e.data()), time.Date(2031, 5, 2, 0, 0, e.again, 0, time.UTC)
	}
	return out
}

// batch is a message as it travels.
func batch(events ...string) []byte {
	return []byte("[\n" + strings.Join(events, ",\n") + "\n]\n")
}

// line is how a change is printed.
func (e told) line() string {
	sign := "+"
	if e.back {
		sign = "-"
	}
	return fmt.Sprintf("%s %032x %s %032x", sign, e.event, e.node, e.version)
}

func TestRule(t *testing.T) {
	const here, there = "cardiology/at", "cardiology/zz"
	mention := func(version int) told { return told{1, here, version, false, 0} }
	retraction := func(version int) told { return told{1, here, version, true, 0} }
	again := told{1, here, 5, false, 1}
	for name, test := range map[string]struct {
		told    []told
		changes []told // what Apply returns, in all
		holds   []told // what is held in the end
	}{
		"a mention":                        {[]told{mention(5)}, []told{mention(5)}, []told{mention(5)}},
		"a repeat":                         {[]told{mention(5), mention(5)}, []told{mention(5)}, []told{mention(5)}},
		"the same again":                   {[]told{mention(5), again}, []told{mention(5)}, []told{mention(5)}},
		"the same again before the first":  {[]told{again, mention(5)}, []told{again, mention(5)}, []told{mention(5)}},
		"a newer one":                      {[]told{mention(5), mention(6)}, []told{mention(5), mention(6)}, []told{mention(6)}},
		"an older one after a newer one":   {[]told{mention(6), mention(5)}, []told{mention(6)}, []told{mention(6)}},
		"a retraction":                     {[]told{mention(5), retraction(6)}, []told{mention(5), retraction(6)}, nil},
		"a retraction wins a tie":          {[]told{mention(5), retraction(5)}, []told{mention(5), retraction(5)}, nil},
		"and before its mention, too":      {[]told{retraction(5), mention(5)}, nil, nil},
		"a retraction before its mention":  {[]told{retraction(6), mention(5)}, nil, nil},
		"an older retraction":              {[]told{mention(6), retraction(5)}, []told{mention(6)}, []told{mention(6)}},
		"repeats of what was taken back":   {[]told{mention(5), retraction(6), mention(5), retraction(6)}, []told{mention(5), retraction(6)}, nil},
		"a newer one after a retraction":   {[]told{mention(5), retraction(6), mention(7)}, []told{mention(5), retraction(6), mention(7)}, []told{mention(7)}},
		"a higher retraction of nothing":   {[]told{retraction(5), retraction(7), mention(6)}, nil, nil},
		"versions compare in all digits":   {[]told{mention(0xff), mention(0x100)}, []told{mention(0xff), mention(0x100)}, []told{mention(0x100)}},
		"two nodes of one event":           {[]told{mention(5), {1, there, 4, false, 0}, retraction(6)}, []told{mention(5), {1, there, 4, false, 0}, retraction(6)}, []told{{1, there, 4, false, 0}}},
		"by time, then event, then node":   {[]told{{1, there, 1, false, 0}, mention(1), {11, here, 1, false, 0}, {2, here, 1, false, 0}}, []told{{1, there, 1, false, 0}, mention(1), {11, here, 1, false, 0}, {2, here, 1, false, 0}}, []told{{2, here, 1, false, 0}, mention(1), {1, there, 1, false, 0}, {11, here, 1, false, 0}}},
		"two divisions are two nodes":      {[]told{mention(5), {1, "company/at", 9, true, 0}}, []told{mention(5)}, []told{mention(5)}},
		"the highest version is a removal": {[]told{mention(5), retraction(9), mention(7), mention(8)}, []told{mention(5), retraction(9)}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var alone, together Copy // as messages of their own, and in one
			var changes []Entry
			var list []string
			for _, e := range test.told {
				changed, err := alone.Apply(batch(e.json()))
				if err != nil {
					t.Fatal(err)
				}
				changes = append(changes, changed...)
				list = append(list, e.json())
			}
			changed, err := together.Apply(batch(list...))
			if err != nil {
				t.Fatal(err)
			}
			var want []Entry
			for _, e := range test.changes {
				want = append(want, e.entry())
			}
			if diff := cmp.Diff(want, changes); diff != "" {
				t.Errorf("changes (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(changes, changed); diff != "" {
				t.Errorf("changes of one message and of several (-several +one):\n%s", diff)
			}
			for _, c := range []*Copy{&alone, &together} {
				mustHold(t, c, test.holds...)
			}
		})
	}
}

// mustHold compares the mentions of c, with all their data.
func mustHold(t *testing.T, c *Copy, want ...told) {
	t.Helper()
	mentions, err := c.Mentions()
	if err != nil {
		t.Fatal(err)
	}
	got := make([]string, len(mentions))
	for i, m := range mentions {
		got[i] = string(m)
	}
	list := make([]string, len(want))
	for i, e := range want {
		list[i] = e.data()
	}
	if diff := cmp.Diff(list, got); diff != "" {
		t.Errorf("mentions (-want +got):\n%s", diff)
	}
}

// What cannot be read harms nothing beside it.
func TestOthersAndGarbage(t *testing.T) {
	good := told{1, "cardiology/at", 5, false, 0}
	mention := func(data string) string { return `{"type":"polyphony.mention.v1","data":` + data + `}` }
	for name, test := range map[string]struct {
		message []byte
		bad     bool
		held    bool // good is
	}{
		"another type":               {batch(`{"type":"polyphony.mention.v2","data":7}`, good.json(), `{"type":"x"}`), false, true},
		"data over several lines":    {batch(mention("{\n" + good.data()[1:])), false, true},
		"nothing":                    {[]byte("[]"), false, false},
		"not JSON":                   {[]byte("pigeon"), true, false},
		"no bytes":                   {nil, true, false},
		"no batch":                   {[]byte(good.json()), true, false},
		"half a message":             {batch(good.json())[:100], true, false},
		"a bad event beside a good":  {batch(`7`, good.json(), mention(`"x"`)), true, true},
		"no type":                    {batch(`{"data":{}}`, good.json()), true, true},
		"no data":                    {batch(`{"type":"polyphony.mention.v1"}`, good.json()), true, true},
		"null":                       {batch(mention(`null`), `null`, good.json()), true, true},
		"a version of another shape": {batch(mention(strings.Replace(good.data(), fmt.Sprintf("%032x", 5), "v5", 1)), good.json()), true, true},
		"a key in upper case":        {batch(mention(strings.Replace(good.data(), fmt.Sprintf("%032x", 1), fmt.Sprintf("%032X", 10), 1)), good.json()), true, true},
		"no node":                    {batch(mention(strings.Replace(good.data(), `"at"`, `""`, 1)), good.json()), true, true},
		"no time":                    {batch(mention(strings.Replace(good.data(), `2031-`, `soon-`, 1)), good.json()), true, true},
	} {
		t.Run(name, func(t *testing.T) {
			var c Copy
			_, err := c.Apply(test.message)
			if (err != nil) != test.bad {
				t.Errorf("Apply: %v", err)
			}
			if test.held {
				mustHold(t, &c, good)
			} else {
				mustHold(t, &c)
			}
		})
	}
}

// Any order and any repeats of what was told end in the same copy: that of a model which sees everything at once.
func TestOrderDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := rapid.SliceOf(rapid.Custom(func(t *rapid.T) told {
			return told{
				event:   rapid.IntRange(1, 3).Draw(t, "event"),
				node:    rapid.SampledFrom([]string{"cardiology/at", "cardiology/zz", "company/at"}).Draw(t, "node"),
				version: rapid.IntRange(1, 4).Draw(t, "version"),
				back:    rapid.Bool().Draw(t, "back"),
				again:   rapid.IntRange(0, 2).Draw(t, "again"),
			}
		})).Draw(t, "all")
		model := map[Key]Entry{}
		for _, e := range all {
			best := e
			for _, o := range all {
				if o.key() == e.key() && (o.version > best.version || o.version == best.version && !best.back && (o.back || o.again < best.again)) {
					best = o
				}
			}
			model[e.key()] = best.entry()
		}
		for _, history := range [][]told{
			rapid.Permutation(all).Draw(t, "first"),
			rapid.Permutation(slices.Concat(all, all)).Draw(t, "second"),
		} {
			var c Copy
			shown := map[Key]bool{} // what a reader of the changes believes to hold
			for len(history) > 0 {
				n := rapid.IntRange(1, len(history)).Draw(t, "events in one message")
				var list []string
				for _, e := range history[:n] {
					list = append(list, e.json())
				}
				history = history[n:]
				changed, err := c.Apply(batch(list...))
				if err != nil {
					t.Fatal(err)
				}
				for _, e := range changed {
					if e.retracted() && !shown[e.Key] {
						t.Fatalf("%v was taken back and never shown", e.Key)
					}
					shown[e.Key] = !e.retracted()
				}
			}
			got := map[Key]Entry{}
			for k, e := range c.entries {
				got[k] = e
				if shown[k] == e.retracted() {
					t.Fatalf("the changes tell something else of %v than the copy", k)
				}
			}
			if diff := cmp.Diff(model, got); diff != "" {
				t.Fatalf("copy (-model +got):\n%s", diff)
			}
		}
	})
}
