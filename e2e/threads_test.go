package e2e

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const (
	orders = 5 // in which each history is told
	pieces = 3 // in which each is told
)

// TestSameInAnyOrder: the same facts under the same secret, heard in other orders, end as the same rows to the last column,
// also where hashes decide what stands; only when each was recorded differs.
func TestSameInAnyOrder(t *testing.T) {
	t.Parallel()
	const histories, tellings = 400, 2
	r := rand.New(rand.NewPCG(7, 7))
	around := time.Now().UTC().Truncate(time.Hour).Add(-48 * time.Hour)
	all, contests := [tellings][]told{}, 0
	for i := range histories {
		h := inventHistory(r, around)
		if len(h.choices()) > 1 {
			contests++
		}
		for n := range all {
			all[n] = append(all[n], h.tell(r, fmt.Sprintf("h%d", i), pieces))
		}
	}
	if contests < histories/20 {
		t.Fatalf("hashes decide in %d of %d histories", contests, histories)
	}
	directory, key := companyWith(t, historyCompany, ""), filepath.Join(t.TempDir(), "author.key")
	if err := os.WriteFile(key, []byte("the same secret every time"), 0o600); err != nil {
		t.Fatal(err)
	}
	var first []string
	for n := range all {
		u := newUp(t, "--nodes", directory)
		u.env = []string{"POLYPHONY_AUTHOR_KEY_FILE=" + key}
		u.start()
		u.tell(all[n], func() {})
		var got []string
		for _, query := range []string{
			`SELECT * EXCEPT (recorded_time, version) REPLACE (hex(event_key) AS event_key, hex(author_key) AS author_key, hex(parent_key) AS parent_key,
				hex(root_key) AS root_key, hex(parent_author_key) AS parent_author_key), bitShiftRight(version, 58) AS words
			FROM mentions_store FINAL WHERE NOT is_deleted ORDER BY ALL`,
			`SELECT * EXCEPT version REPLACE (hex(event_key) AS event_key) FROM gains FINAL WHERE NOT is_deleted ORDER BY ALL`,
		} {
			got = append(got, strings.Split(string(u.sql(query+" FORMAT JSONEachRow")), "\n")...)
		}
		u.drain()
		if first == nil {
			first = got
		}
		if len(got) < histories {
			t.Fatalf("%d rows of %d histories", len(got), histories)
		}
		if diff := cmp.Diff(first, got); diff != "" {
			t.Fatalf("told in another order (-first +other):\n%.5000s", diff)
		}
	}
}

// companyWith makes a nodes directory, with more lines in company.yaml.
func companyWith(t *testing.T, files map[string]string, more string) string {
	t.Helper()
	directory := t.TempDir()
	for name, text := range files {
		path := filepath.Join(directory, name)
		if name == "company.yaml" {
			text += more
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return directory
}

// tell sends the first pieces of histories, then the second ones, and so on, with something between any two, and waits
// until all is read.
func (u *up) tell(all []told, between func()) {
	u.t.Helper()
	for piece := range pieces {
		var body strings.Builder
		for _, t := range all {
			for _, line := range t.pieces[piece] {
				body.WriteString(line)
				body.WriteByte('\n')
			}
		}
		for part := range chunks(body.String(), 1<<20) {
			u.post([]byte(part), "application/x-ndjson", nil)
		}
		if piece < pieces-1 {
			between()
		}
	}
	u.settle()
}

// mustShow compares mentions and hours with what the histories say.
func (u *up) mustShow(all []told, copyFile string) {
	u.t.Helper()
	secret, err := os.ReadFile(filepath.Join(u.data, "author.key"))
	if err != nil {
		u.t.Fatal(err)
	}
	secret = bytes.TrimSpace(secret)
	names := map[string]string{}
	for _, told := range all {
		for i, p := range told.history.posts {
			for _, id := range []string{fmt.Sprintf("%s-p%d", told.prefix, i), authorOf(told.prefix, p.author)} {
				names[pseudonymOf(secret, id)] = id
			}
		}
	}
	for _, known := range []string{"selves", "counters", "edges WHERE direction = 'from'"} {
		unnoted := rows[struct{ N int }](u, `SELECT count() AS N FROM (SELECT event_key FROM `+known+`)
			WHERE reinterpretAsUInt64(reverse(substring(event_key, 1, 8))) NOT IN (SELECT event_half FROM notes)`)
		if n := unnoted[0].N; n > 0 {
			u.t.Errorf("%d rows of %s have no note", n, known)
		}
	}
	got := rows[row](u, `SELECT event_key AS Event, author_key AS Author, division AS Division, territory AS Territory, kind AS Kind,
		via AS Via, text AS Text, toUnixTimestamp64Milli(time) AS Time FROM mentions`)
	u.mustEqualCopy(got, copyFile)
	for i := range got {
		got[i].Event, got[i].Author = names[got[i].Event], names[got[i].Author]
	}
	want, gains, choices := expected(all, got)
	u.mustAgree("mentions", all, difference(want, got))
	u.mustKeepOriginals(all, choices, names, secret)
	stored := rows[gain](u, `SELECT lower(hex(event_key)) AS Event, division AS Division, territory AS Territory, toUnixTimestamp64Milli(time) AS Time,
			toInt32(sum(s)) AS Shares, toInt32(sum(r)) AS Likes, toInt32(sum(v)) AS Views
		FROM
		(
			SELECT event_key, division, territory, time, part = 'single' AS single, shares AS s, reactions AS r, views AS v FROM gains FINAL
			UNION ALL
			SELECT event_key, division, territory, time, false AS single, shares AS s, likes AS r, views AS v FROM mentions_store FINAL
		)
		GROUP BY event_key, division, territory, time, single
		HAVING Shares != 0 OR Likes != 0 OR Views != 0`)
	for i := range stored {
		stored[i].Event = names[stored[i].Event]
	}
	u.mustAgree("gains", all, difference(gains, stored))
	hours := map[string]string{}
	for _, h := range rows[struct {
		Name, Text string
	}](u, `SELECT concat(division, '/', territory, '/', toString(toUnixTimestamp(bucket))) AS Name, concat('mentions ', toString(mentions), ' voices ', toString(voices),
		' posts ', toString(posts), ' replies ', toString(replies), ' broadcasts ', toString(broadcasts), ' answers ', toString(answers), ' shares ', toString(shares), ' reactions ', toString(reactions), ' views ', toString(views), ' ', toString(mentions_by_source)) AS Text
		FROM node_metrics_1h`) {
		hours[h.Name] = h.Text
	}
	if diff := cmp.Diff(hoursOf(want, gains), hours); diff != "" {
		u.t.Fatalf("node_metrics_1h (-want +got):\n%.3000s", diff)
	}
	u.mustAddUp()
}

// expected gives what the histories say. Where hashes decide, mentions must show one of the ways to decide.
func expected(all []told, got []row) (want []row, gains []gain, choices []choice) {
	shown := map[string][]row{}
	for _, m := range got {
		shown[historyOf(m.Event)] = append(shown[historyOf(m.Event)], m)
	}
	for _, told := range all {
		possible := told.history.choices()
		chosen := possible[0]
		for _, c := range possible {
			if len(difference(told.history.mentions(told.prefix, c), shown[told.prefix])) == 0 {
				chosen = c
				break
			}
		}
		want = append(want, told.history.mentions(told.prefix, chosen)...)
		gains = append(gains, told.history.gains(told.prefix, chosen)...)
		choices = append(choices, chosen)
	}
	return want, gains, choices
}

// mustKeepOriginals: there is one original of every event that is a mention by itself as first written, none of an event that
// never was, and each opens to what leads back to its author.
func (u *up) mustKeepOriginals(all []told, choices []choice, names map[string]string, secret []byte) {
	u.t.Helper()
	seal := sealOf(u.t, secret)
	kept := map[string]int{}
	for _, o := range rows[struct{ Event, Sealed string }](u, `SELECT lower(hex(event_key)) AS Event, hex(sealed) AS Sealed FROM originals FINAL`) {
		id, known := names[o.Event]
		if !known {
			continue // an edit as it came
		}
		kept[id]++
		sealed, err := hex.DecodeString(o.Sealed)
		if err != nil || len(sealed) < seal.NonceSize() {
			u.t.Fatalf("the original of %s is no sealed text: %v", id, err)
		}
		plain, err := seal.Open(nil, sealed[:seal.NonceSize()], sealed[seal.NonceSize():], nil)
		if err != nil || !bytes.HasPrefix(plain, []byte(`{"id":"`+id+`"`)) {
			u.t.Errorf("the original of %s opens to %s: %v", id, plain, err)
		}
	}
	faults := 0
	for i, told := range all {
		must, may := told.history.originals(choices[i])
		for post := range told.history.posts {
			id := fmt.Sprintf("%s-p%d", told.prefix, post)
			if n := kept[id]; n > 1 || n == 1 && !may[post] || n == 0 && must[post] {
				if faults++; faults < 4 {
					u.t.Errorf("%d originals of %s, must %t, may %t; as told:\n%s", n, id, must[post], may[post], told)
				}
			}
		}
	}
	if faults > 0 {
		u.t.Fatalf("%d events have other originals than they must", faults)
	}
}

// sealOf is how the documents say that originals are sealed.
func sealOf(t *testing.T, secret []byte) cipher.AEAD {
	t.Helper()
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte("polyphony seal"))
	block, err := aes.NewCipher(mac.Sum(nil))
	if err != nil {
		t.Fatal(err)
	}
	seal, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	return seal
}

// mustAddUp: what adds up over buckets is the same in every view.
func (u *up) mustAddUp() {
	u.t.Helper()
	const whole = "from = '1970-01-01 00:00:00', to = '2100-01-01 00:00:00'"
	sums := func(view string) string {
		return string(u.sql("SELECT division, territory, sum(mentions), sum(posts), sum(replies), sum(shares), sum(reactions), sum(views) FROM " + view +
			" GROUP BY division, territory ORDER BY division, territory FORMAT TSV"))
	}
	want := sums("node_metrics_1h")
	for _, view := range []string{"node_metrics_1m", "node_metrics_1d", "node_window(" + whole + ")", "node_metrics_1m_of(division = '%', territory = '%', " + whole + ")",
		"node_metrics_1h_of(division = '%', territory = '%', " + whole + ")", "node_metrics_1d_of(division = '%', territory = '%', " + whole + ")"} {
		if diff := cmp.Diff(want, sums(view)); diff != "" {
			u.t.Errorf("%s (-node_metrics_1h +got):\n%s", view, diff)
		}
	}
}

// mustAgree shows a few of the histories with faults as they were told.
func (u *up) mustAgree(what string, all []told, faults map[string][]string) {
	u.t.Helper()
	shown := 0
	for _, told := range all {
		if list := faults[told.prefix]; len(list) > 0 && shown < 3 {
			shown++
			u.t.Errorf("%s of %s (+ is missing, - is too much):\n%s\nas told:\n%s", what, told.prefix, strings.Join(list, "\n"), told)
		}
	}
	if len(faults) > 0 {
		u.t.Fatalf("%d of %d told histories are wrong", len(faults), len(all))
	}
}

// mustEqualCopy holds the copy of the example subscriber against the table: one that was kept in a file from round to
// round, and one that is read from the beginning of the stream.
func (u *up) mustEqualCopy(table []row, file string) {
	u.t.Helper()
	for _, args := range [][]string{{"--file", file}, {}} {
		n := 0
		for _, faults := range difference(table, u.copied(args...)) {
			for _, fault := range faults {
				if n++; n < 10 {
					u.t.Errorf("the subscriber's copy %v differs from the table (+ is missing, - is too much): %s", args, fault)
				}
			}
		}
	}
}

// copied runs the example subscriber for all nodes until it has read what the stream holds.
func (u *up) copied(args ...string) (list []row) {
	u.t.Helper()
	cmd := program("subscriber", append([]string{"--nats", "nats://" + u.at["nats"], "--division", "*", "--territory", "*", "--once"}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		u.t.Fatalf("the subscriber: %v", err)
	}
	for line := range bytes.Lines(out) {
		var d struct {
			Division, Territory, Kind, Via, Text string
			EventKey                             string `json:"event_key"`
			AuthorKey                            string `json:"author_key"`
			Time                                 time.Time
		}
		if err := json.Unmarshal(line, &d); err != nil {
			u.t.Fatal(err)
		}
		list = append(list, row{Event: d.EventKey, Author: d.AuthorKey, Division: d.Division, Territory: d.Territory, Kind: d.Kind, Via: d.Via,
			Text: d.Text, Time: d.Time.UnixMilli()})
	}
	return list
}

func (t told) String() string {
	var b strings.Builder
	for i, piece := range t.pieces {
		fmt.Fprintf(&b, "piece %d\n", i)
		for _, line := range piece {
			fmt.Fprintf(&b, "  %s\n", line)
		}
	}
	return b.String()
}

// chunks cuts text at line ends into pieces of at most size bytes.
func chunks(text string, size int) func(func(string) bool) {
	return func(yield func(string) bool) {
		for len(text) > 0 {
			end := len(text)
			if end > size {
				end = strings.LastIndexByte(text[:size], '\n') + 1
			}
			if !yield(text[:end]) {
				return
			}
			text = text[end:]
		}
	}
}

func setting(t *testing.T, name string, otherwise int) int {
	t.Helper()
	return settingOf(t, name, otherwise, strconv.Atoi)
}

// settingTime is how long something lasts, in the same way.
func settingTime(t *testing.T, name string, otherwise time.Duration) time.Duration {
	t.Helper()
	return settingOf(t, name, otherwise, time.ParseDuration)
}

func settingOf[T any](t *testing.T, name string, otherwise T, parse func(string) (T, error)) T {
	t.Helper()
	text := os.Getenv("POLYPHONY_TEST_" + name)
	if text == "" {
		return otherwise
	}
	value, err := parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return value
}
