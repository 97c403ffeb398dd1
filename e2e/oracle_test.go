package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// generated is a file of events, and what they must be counted as.
type generated struct {
	file   string
	events int
	truth  map[bucket]counts
}

type bucket struct {
	Division, Territory string
	Hour                int64 // Unix
}

type counts struct{ Mentions, Voices int }

// generate makes events and reads the truth about them. More flags may follow.
func generate(t *testing.T, seed, events int, flags ...string) generated {
	t.Helper()
	dir := t.TempDir()
	g := generated{file: filepath.Join(dir, "events.ndjson"), events: events, truth: map[bucket]counts{}}
	truth := filepath.Join(dir, "truth.ndjson")
	polyphony(t, append([]string{"generate", "--seed", strconv.Itoa(seed), "--events", strconv.Itoa(events), "--out", g.file, "--truth", truth}, flags...)...)
	text, err := os.ReadFile(truth)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range decodeLines[struct {
		Division, Territory string
		Bucket              time.Time
		counts
	}](t, text) {
		g.truth[bucket{row.Division, row.Territory, row.Bucket.Unix()}] = row.counts
	}
	if len(g.truth) == 0 {
		t.Fatal("no truth")
	}
	return g
}

// mentions is the sum over all nodes and hours.
func (g generated) mentions() (n int) {
	for _, c := range g.truth {
		n += c.Mentions
	}
	return n
}

// pieces cuts the events into pieces of that many lines.
func (g generated) pieces(t *testing.T, lines int) (pieces [][]byte) {
	t.Helper()
	text, err := os.ReadFile(g.file)
	if err != nil {
		t.Fatal(err)
	}
	for start, n, i := 0, 0, 0; i < len(text); i++ {
		if text[i] != '\n' {
			continue
		}
		if n++; n == lines || i == len(text)-1 {
			pieces = append(pieces, text[start:i+1])
			start, n = i+1, 0
		}
	}
	return pieces
}

func decodeLines[T any](t *testing.T, text []byte) (rows []T) {
	t.Helper()
	for d := json.NewDecoder(bytes.NewReader(text)); d.More(); {
		var row T
		if err := d.Decode(&row); err != nil {
			t.Fatal(err)
		}
		rows = append(rows, row)
	}
	return rows
}

// sql asks ClickHouse over HTTP, as anybody may.
func (u *up) sql(query string) []byte {
	u.t.Helper()
	answer, err := ask(u.t.Context(), u.at["clickhouse-http"], query)
	if err != nil {
		u.t.Fatal(err)
	}
	return answer
}

func ask(ctx context.Context, addr, query string) ([]byte, error) {
	url := "http://" + addr + "/?database=polyphony&output_format_json_quote_64bit_integers=0"
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(query))
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s\n%s: %s", query, response.Status, body)
	}
	return body, err
}

// rows asks for JSON and decodes it.
func rows[T any](u *up, query string) []T {
	u.t.Helper()
	return decodeLines[T](u.t, u.sql(query+" FORMAT JSONEachRow"))
}

// counted is what the public view says, in the form of the truth.
func (u *up) counted() map[bucket]counts {
	u.t.Helper()
	return countedAt(u.t, u.at["clickhouse-http"])
}

func countedAt(t *testing.T, clickhouse string) map[bucket]counts {
	t.Helper()
	text, err := ask(t.Context(), clickhouse, `SELECT division, territory, toUnixTimestamp(bucket) AS hour, mentions, voices
		FROM node_metrics_1h WHERE mentions > 0 OR voices > 0 FORMAT JSONEachRow`)
	if err != nil {
		t.Fatal(err)
	}
	got := map[bucket]counts{}
	for _, row := range decodeLines[struct {
		bucket
		counts
	}](t, text) {
		if _, twice := got[row.bucket]; twice {
			t.Errorf("node_metrics_1h has two rows of %v", row.bucket)
		}
		got[row.bucket] = row.counts
	}
	return got
}

// mustEqual waits until everything accepted has been worked off; then the metrics must be the truth at once.
func (u *up) mustEqual(truth map[bucket]counts) {
	u.t.Helper()
	u.settle()
	if diff := cmp.Diff(truth, u.counted()); diff != "" {
		u.t.Fatalf("node_metrics_1h (-truth +got)\n%.3000s", diff)
	}
}

// settle waits until nobody has anything left to read: the raw frames first, because what follows from them is
// stored before they are acknowledged.
func (u *up) settle() {
	u.t.Helper()
	settleAt(u.t, u.at["nats"], time.Minute)
}

// settleAt fails when for so long nothing moves.
func settleAt(t *testing.T, addr string, still time.Duration) {
	t.Helper()
	conn, err := nats.Connect("nats://" + addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	last, moved := "", time.Now()
	awaitFor(t, 15*time.Minute, "all streams to be read", func() (busy error) {
		defer func() {
			if now := fmt.Sprint(busy); now != last {
				last, moved = now, time.Now()
			} else if time.Since(moved) > still {
				t.Fatalf("for %v nobody has read anything: %v", still, busy)
			}
		}()
		for _, name := range []string{"RAW", "THREADS", "MENTIONS", "FACTS", "REJECTS"} {
			stream, err := js.Stream(t.Context(), name)
			if err != nil {
				return err
			}
			state, readers := stream.CachedInfo().State, 0
			list := stream.ListConsumers(t.Context())
			for c := range list.Info() { // to its end: whoever sends waits for that
				if c.Config.Durable == "" {
					continue // somebody else's
				}
				if readers++; c.NumPending > 0 || c.NumAckPending > 0 {
					busy = errors.Join(busy, fmt.Errorf("%s of %d bytes holds %d bytes from %d to %d: %s is at %d and has %d to read and %d to acknowledge", name,
						stream.CachedInfo().Config.MaxBytes, state.Bytes, state.FirstSeq, state.LastSeq, c.Name, c.AckFloor.Stream, c.NumPending, c.NumAckPending))
				}
			}
			if list.Err() != nil || readers == 0 {
				return fmt.Errorf("%s: %d readers, %w", name, readers, list.Err())
			}
		}
		return busy
	})
}

func isSetting(entry string) bool {
	return strings.HasPrefix(entry, "POLYPHONY_") && !strings.HasPrefix(entry, "POLYPHONY_CLICKHOUSE_BIN=")
}
