package warehouse

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"polyphony/pkg/social"
)

var epoch = time.Date(2026, 5, 25, 14, 0, 0, 0, time.UTC)

// history makes n mentions of a few nodes over some hours, of every kind, by people, bots and the company.
func history(r *rand.Rand, n int) []social.Mention {
	pick := func(list ...string) string { return list[r.IntN(len(list))] }
	authors := make([]social.Key, 1+n/5)
	for i := range authors {
		authors[i] = key(r)
	}
	list := make([]social.Mention, n)
	for i := range list {
		at := epoch.Add(-time.Duration(r.Int64N(int64(6 * time.Hour)))).Truncate(time.Millisecond)
		list[i] = social.Mention{
			Node:         social.Node{Division: pick("oncology", "company"), Territory: pick("dach", "fr", "zz")},
			EventKey:     key(r),
			Source:       pick("bluesky", "reddit", "facebook"),
			Kind:         social.Kind(pick("post", "post", "reply", "share", "reaction", "follow", "view")),
			Time:         at,
			RecordedTime: at.Add(time.Duration(r.Int64N(int64(time.Hour)))).Truncate(time.Millisecond),
			AuthorKey:    authors[r.IntN(len(authors))],
			Via:          social.Via(pick("text", "account")),
			ByCompany:    r.IntN(5) == 0,
			Bot:          r.IntN(10) == 0,
			Role:         social.RoleUnknown,
			Lang:         pick("", "de", "fr"),
			Products:     strings.Fields(pick("", "examplumab", "examplumab otherumab")),
			Followers:    r.Int64N(1000),
			Text:         fmt.Sprintf("text %d", r.IntN(1000)),
			RulesVersion: "v1",
		}
		list[i].Version = social.OwnVersion(time.Time{}, at, r.Uint64())
	}
	return list
}

func key(r *rand.Rand) (k social.Key) {
	binary.BigEndian.PutUint64(k[:8], r.Uint64())
	binary.BigEndian.PutUint64(k[8:], r.Uint64())
	return k
}

// counted is the model: the metrics that a set of facts has, by buckets of the node.
func counted(facts []social.Mention, bucket func(social.Mention) time.Time) map[string]NodeRow {
	holding := map[string]social.Mention{}
	for _, m := range facts {
		name := fmt.Sprint(m.Node, m.Time.UnixMilli(), m.EventKey)
		if was, ok := holding[name]; !ok || replaces(m, was) {
			holding[name] = m
		}
	}
	rows, voices := map[string]NodeRow{}, map[string]map[social.Key]bool{}
	for _, m := range holding {
		if m.Retracted {
			continue
		}
		at := bucket(m)
		name := fmt.Sprint(m.Node, at.Unix())
		r, ok := rows[name]
		if !ok {
			r = NodeRow{Division: m.Node.Division, Territory: m.Node.Territory, Bucket: at, MentionsBySource: map[string]uint64{}}
			voices[name] = map[social.Key]bool{}
		}
		switch {
		case m.Kind == social.Post && m.ByCompany:
			r.Broadcasts++
		case m.Kind == social.Reply && m.ByCompany:
			r.Answers++
		case m.Kind == social.Post:
			r.Posts++
		case m.Kind == social.Reply:
			r.Replies++
		case m.Kind == social.Share && !m.ByCompany:
			r.Shares++
		case m.Kind == social.Reaction && !m.ByCompany:
			r.Reactions++
		case m.Kind == social.View && !m.ByCompany:
			r.Views++
		}
		if (m.Kind == social.Post || m.Kind == social.Reply) && !m.ByCompany {
			r.Mentions++
			r.MentionsBySource[m.Source]++
			if !m.Bot {
				voices[name][m.AuthorKey] = true
			}
		}
		rows[name] = r
	}
	for name, r := range rows {
		r.Voices = uint64(len(voices[name]))
		rows[name] = r
	}
	return rows
}

// replaces says which of two rows with one key holds, in words of the design instead of bits.
func replaces(m, was social.Mention) bool {
	if m.Retracted || was.Retracted {
		return !was.Retracted
	}
	if m.Version.Revision() != was.Version.Revision() {
		return m.Version.Revision() > was.Version.Revision()
	}
	if m.Version.Rank() != was.Version.Rank() {
		return m.Version.Rank() > was.Version.Rank()
	}
	return m.RecordedTime.Before(was.RecordedTime)
}

func hourOf(m social.Mention) time.Time { return m.Time.Truncate(time.Hour) }

// readMetrics reads a view into the model's form.
func readMetrics(tb testing.TB, w *Warehouse, from string, args ...any) map[string]NodeRow {
	tb.Helper()
	list, err := w.nodeRows(tb.Context(), "SELECT division, territory, bucket, "+metrics+" FROM "+from, args...)
	if err != nil {
		tb.Fatalf("%s: %v", from, err)
	}
	rows := map[string]NodeRow{}
	for _, r := range list {
		name := fmt.Sprint(social.Node{Division: r.Division, Territory: r.Territory}, r.Bucket.Unix())
		if _, twice := rows[name]; twice {
			tb.Errorf("%s: two rows for %s at %s", from, name, r.Bucket)
		}
		rows[name] = r
	}
	return rows
}

func insert(tb testing.TB, w *Warehouse, mentions ...social.Mention) {
	tb.Helper()
	if err := w.InsertMentions(tb.Context(), mentions); err != nil {
		tb.Fatal(err)
	}
}

func sealAll(tb testing.TB, w *Warehouse) (total int) {
	tb.Helper()
	for {
		n, more, err := w.Seal(tb.Context(), SealOptions{Eager: true})
		if err != nil {
			tb.Fatal(err)
		}
		total += n
		if !more {
			return total
		}
	}
}

func exec(tb testing.TB, w *Warehouse, sql string) {
	tb.Helper()
	if err := w.conn.Exec(tb.Context(), sql); err != nil {
		tb.Fatalf("%s: %v", sql, err)
	}
}

func same[T any](tb testing.TB, what string, want, got T) {
	tb.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		tb.Errorf("%s (-want +got):\n%s", what, diff)
	}
}
