package social

import (
	"slices"
	"testing"
	"time"
)

// Versions order: a later edit, then an earlier time, then what the event says itself, its thread, nothing; a deletion
// above all. Their texts compare as they do.
func TestVersionOrder(t *testing.T) {
	day := time.Date(2026, 5, 25, 0, 0, 0, 0, time.UTC)
	ascending := []Version{
		Mark(),
		OwnVersion(time.Time{}, day.Add(time.Hour), 1<<40-1),
		Floor(time.Time{}, day),
		decision(OwnVersion(time.Time{}, day, 0), 1),
		decision(OwnVersion(time.Time{}, day, 0), 8191),
		OwnVersion(time.Time{}, day, 0),
		OwnVersion(time.Time{}, day, 0).Carrying(1),
		OwnVersion(time.Time{}, day, 0).Carrying(1<<40 - 1),
		decision(OwnVersion(time.Time{}, day, 1), 1),
		OwnVersion(time.Time{}, day, 1),
		OwnVersion(time.Time{}, day, 1<<26-1),
		Floor(time.Time{}, day.Add(-time.Millisecond)),
		OwnVersion(time.Time{}, day.Add(-time.Millisecond), 0),
		Floor(day, day.Add(24*time.Hour)),
		OwnVersion(day, day.Add(24*time.Hour), 5),
		OwnVersion(day.Add(time.Millisecond), day, 0),
		Deleted(),
	}
	if !slices.IsSortedFunc(ascending, func(a, b Version) int { return slices.Compare(a[:], b[:]) }) {
		t.Error("bytes do not ascend")
	}
	for i := 1; i < len(ascending); i++ {
		if ascending[i-1].String() >= ascending[i].String() {
			t.Errorf("%s is not below %s", ascending[i-1], ascending[i])
		}
	}
	v := OwnVersion(day, day.Add(time.Second), 0xabcdef)
	if v.Revision() != uint64(day.UnixMilli()) || v.Time() != day.UnixMilli()+1000 || v.Rank() != 0xabcdef<<14|1<<13 {
		t.Errorf("revision %d, time %d, rank %x", v.Revision(), v.Time(), v.Rank())
	}
	if back, err := ParseVersion(v.String()); err != nil || back != v {
		t.Errorf("%v %v", back, err)
	}
}

// decision is the nth whether what v says is a mention through its thread.
func decision(v Version, n int) Version {
	v = v.Words()
	for range n {
		v, _ = v.Next()
	}
	return v
}

// Decisions end before they would look like a mention by its own words.
func TestLastDecision(t *testing.T) {
	v := decision(OwnVersion(time.Time{}, time.Unix(0, 0), 7), 8191)
	if v.Own() || v.Words() != OwnVersion(time.Time{}, time.Unix(0, 0), 7).Words() {
		t.Errorf("the last decision: %x", v.Rank())
	}
	if _, ok := v.Next(); ok {
		t.Error("there is one after the last")
	}
}

// Of two edits at one time the edit decides, of one edit what it was applied to.
func TestEditedVersion(t *testing.T) {
	at := time.Date(2026, 5, 25, 0, 0, 0, 0, time.UTC)
	version := func(hash uint64) Version { return OwnVersion(time.Time{}, at, hash<<13) }
	edited := func(first, edit uint64) Version {
		return EditedVersion(at.Add(time.Hour), version(first), version(edit))
	}
	ascending := []Version{edited(1, 1), edited(2, 1), edited(8191, 1), edited(0, 2), edited(1, 8191)}
	if !slices.IsSortedFunc(ascending, func(a, b Version) int { return slices.Compare(a[:], b[:]) }) || ascending[0] == ascending[1] {
		t.Errorf("%v do not ascend", ascending)
	}
	if v := ascending[0]; !v.Own() || v.Time() != at.UnixMilli() || v.Revision() != uint64(at.Add(time.Hour).UnixMilli()) {
		t.Errorf("%v", v)
	}
}

func TestParseKeyRefuses(t *testing.T) {
	for _, s := range []string{"0", "0123456789ABCDEF0123456789ABCDEF", "0123456789abcdef0123456789abcdeg", "0123456789abcdef0123456789abcdef0"} {
		if _, err := ParseKey(s); err == nil {
			t.Errorf("%q is read as a key", s)
		}
	}
	if k, err := ParseKey(""); err != nil || k != (Key{}) || k.String() != "" {
		t.Errorf("no key: %v %v", k, err)
	}
}

func TestValidName(t *testing.T) {
	f := func(name string, want bool) {
		t.Helper()
		if ValidName(name) != want {
			t.Errorf("%q: want %v", name, want)
		}
	}
	f("a", true)
	f("x-2", true)
	f("a2345678901234567890123456789012", true)
	f("a23456789012345678901234567890123", false)
	f("", false)
	f("2a", false)
	f("-a", false)
	f("A", false)
	f("a.b", false)
	f("ä", false)
}
