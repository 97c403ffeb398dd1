package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// TestReplay: whatever acknowledged data are lost, on the way or in ClickHouse, somebody says so and from when to replay,
// nothing is claimed to be complete meanwhile, and the replay makes the metrics what they must be.
func TestReplay(t *testing.T) {
	t.Parallel()
	events := 8_000
	if testing.Short() {
		events = 6_000
	}
	g := generate(t, 31, events)
	pieces := g.pieces(t, 250)
	half := len(pieces) / 2
	u := startUp(t)
	send := func(pieces [][]byte) {
		t.Helper()
		if err := newSender(u.at["http"], len(pieces)).send(t.Context(), pieces); err != nil {
			t.Fatal(err)
		}
	}

	t.Log("a ClickHouse that lost its last while, as after a power cut")
	send(pieces[:half])
	u.claimed()
	u.drain()
	older := filepath.Join(t.TempDir(), "clickhouse")
	copyTree(t, filepath.Join(u.data, "clickhouse"), older)
	u.start()
	send(pieces[half:])
	u.mustEqual(g.truth)
	u.claimed()
	u.kill()
	replaceTree(t, filepath.Join(u.data, "clickhouse"), older)
	u.start()
	u.mustHeal(g, "ClickHouse is older than it was")
	// Too short: what lies between the last claim and then is lost as well, so it is read again.
	replayed := polyphony(t, "replay", "--nats", u.at["nats"], "--clickhouse", u.at["clickhouse"], "--from", "1s")
	if !strings.Contains(replayed, "is read again") || !strings.Contains(replayed, "\ncomplete until") {
		t.Errorf("replay printed %q", replayed)
	}
	u.mustEqual(g.truth)

	t.Log("unread mentions that somebody purged")
	u.drain()
	u.beginAnew()
	u.start()
	u.claimed()
	u.unread(send, pieces[:half], func(js jetstream.JetStream) error {
		stream, err := js.Stream(t.Context(), "MENTIONS")
		if err != nil {
			return err
		}
		return stream.Purge(t.Context())
	})
	send(pieces[half:])
	u.mustHeal(g, "of stream MENTIONS were removed before they were known to be read")

	t.Log("a stream of mentions that somebody deleted")
	u.drain()
	u.beginAnew()
	u.start()
	u.claimed()
	u.unread(send, pieces, func(js jetstream.JetStream) error { return js.DeleteStream(t.Context(), "MENTIONS") })
	u.mustHeal(g, "stream MENTIONS was deleted and made anew")

	t.Log("a NATS that was restored from an older copy, with ClickHouse ahead; what it does not know any more is sent again")
	u.drain()
	older = filepath.Join(t.TempDir(), "nats")
	copyTree(t, filepath.Join(u.data, "nats"), older)
	u.start()
	send(pieces)
	u.settle()
	u.claimed()
	u.drain()
	replaceTree(t, filepath.Join(u.data, "nats"), older)
	u.start()
	u.lost("is older than it was")
	u.mustEqual(g.truth)
	send(pieces)
	u.replay()
	u.mustEqual(g.truth)
	if diff := cmp.Diff("", u.losses()); diff != "" {
		t.Errorf("after everything is made good (-want +got):\n%s", diff)
	}
}

// mustHeal: the loss is said, the metrics lack something, and a replay from when the log says makes them whole.
func (u *up) mustHeal(g generated, says string) {
	u.t.Helper()
	u.lost(says)
	until := u.completeUntil()
	u.settle()
	if cmp.Equal(g.truth, u.counted()) {
		u.t.Fatalf("nothing was lost: this shows nothing")
	}
	time.Sleep(2 * time.Second) // in which a wrong claim would come
	if got := u.completeUntil(); got.After(until) {
		u.t.Errorf("with %q the metrics are said to be complete until %v, before until %v", says, got, until)
	}
	u.replay()
	u.mustEqual(g.truth)
	u.await("losses to be made good", func() error {
		if losses := u.losses(); losses != "" {
			return errors.New(losses)
		}
		return nil
	})
}

// lost waits until it is said in the log that something is lost, and how to make it good.
func (u *up) lost(says string) {
	u.t.Helper()
	u.await("the loss to be noticed", func() error {
		text, err := os.ReadFile(u.log.Name())
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(text)) {
			if strings.Contains(line, says) && remedy.MatchString(line) && u.losses() != "" {
				return nil
			}
		}
		return errNone
	})
}

var remedy = regexp.MustCompile(`polyphony replay --from (\S+?)"`)

// replay does what the log said last.
func (u *up) replay() {
	u.t.Helper()
	text, err := os.ReadFile(u.log.Name())
	if err != nil {
		u.t.Fatal(err)
	}
	all := remedy.FindAllSubmatch(text, -1)
	out := polyphony(u.t, "replay", "--nats", u.at["nats"], "--clickhouse", u.at["clickhouse"], "--from", string(all[len(all)-1][1]))
	if !strings.Contains(out, "complete until") {
		u.t.Errorf("replay printed %q", out)
	}
}

// losses is the gauge of what is lost, "" for nothing.
func (u *up) losses() string {
	_, text := u.get("/metrics")
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "polyphony_aggregator_losses ") && !strings.HasSuffix(line, " 0\n") {
			return line
		}
	}
	return ""
}

func (u *up) completeUntil() time.Time {
	u.t.Helper()
	list := rows[struct{ At int64 }](u, "SELECT toUnixTimestamp64Milli(complete_until) AS At FROM freshness WHERE stream = 'MENTIONS'")
	if len(list) == 0 {
		return time.Time{}
	}
	return time.UnixMilli(list[0].At)
}

// claimed waits until what was sent up to now is said to be complete.
func (u *up) claimed() {
	u.t.Helper()
	sent := time.Now()
	u.await("the metrics to be complete", func() error {
		if until := u.completeUntil(); until.Before(sent) {
			return fmt.Errorf("complete until %v, sent until %v", until, sent)
		}
		return nil
	})
}

// unread has streams spoilt while there are mentions that nobody has read: ClickHouse stands still, an aggregator has the
// first of them in hand and the others wait.
func (u *up) unread(send func([][]byte), pieces [][]byte, spoil func(jetstream.JetStream) error) {
	u.t.Helper()
	js := u.jetStream()
	if err := syscall.Kill(u.engine, syscall.SIGSTOP); err != nil {
		u.t.Fatal(err)
	}
	defer syscall.Kill(u.engine, syscall.SIGCONT)
	state := func(stream, durable string) (waiting uint64, inHand int) {
		c, err := js.Consumer(u.t.Context(), stream, durable)
		if err != nil {
			u.t.Fatal(err)
		}
		return c.CachedInfo().NumPending, c.CachedInfo().NumAckPending
	}
	send(pieces[:1])
	u.await("an aggregator to have mentions in hand", func() error {
		if waiting, inHand := state("MENTIONS", "aggregator"); waiting > 0 || inHand == 0 {
			return fmt.Errorf("%d in hand, %d waiting", inHand, waiting)
		}
		return nil
	})
	time.Sleep(time.Second) // it waits half of that for more to come
	send(pieces[1:])
	u.await("everything to be enriched", func() error {
		if waiting, inHand := state("RAW", "enricher"); waiting > 0 || inHand > 0 {
			return fmt.Errorf("%d in hand, %d waiting", inHand, waiting)
		}
		return nil
	})
	if waiting, _ := state("MENTIONS", "aggregator"); waiting == 0 {
		u.t.Fatal("everything was read")
	}
	if err := spoil(js); err != nil {
		u.t.Fatal(err)
	}
}

func (u *up) jetStream() jetstream.JetStream {
	u.t.Helper()
	conn, err := nats.Connect("nats://" + u.at["nats"])
	if err != nil {
		u.t.Fatal(err)
	}
	u.t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		u.t.Fatal(err)
	}
	return js
}

// beginAnew empties NATS and ClickHouse.
func (u *up) beginAnew() {
	u.t.Helper()
	for _, name := range []string{"clickhouse", "nats"} {
		if err := os.RemoveAll(filepath.Join(u.data, name)); err != nil {
			u.t.Fatal(err)
		}
	}
}

// copyTree copies a directory of a program that has ended.
func copyTree(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

func replaceTree(t *testing.T, of, by string) {
	t.Helper()
	if err := os.RemoveAll(of); err != nil {
		t.Fatal(err)
	}
	copyTree(t, by, of)
}
