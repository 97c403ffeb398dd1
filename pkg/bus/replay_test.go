package bus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"polyphony/pkg/topology"
)

// reading consumes RAW in the background; got gives each message's bytes, with a * when it may have come before.
func reading(t *testing.T, b *Bus) (got chan string) {
	t.Helper()
	got = make(chan string, 1000)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- b.Consume(ctx, topology.EnrichRaw, limit, func(_ context.Context, batch []Delivery) error {
			for _, d := range batch {
				text := string(d.Data)
				if d.Again {
					text += "*"
				}
				got <- text
			}
			return nil
		})
	}()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return got
}

// acknowledged waits until all messages up to the nth are.
func (b *Bus) acknowledged(t *testing.T, n uint64) {
	t.Helper()
	poll(t, func() error {
		if p, err := b.Progress(t.Context(), topology.EnrichRaw); err != nil || p.Floor < n {
			return fmt.Errorf("%d of %d acknowledged, %v", p.Floor, n, err)
		}
		return nil
	})
}

func expect(t *testing.T, got chan string, want ...string) {
	t.Helper()
	for _, w := range want {
		select {
		case g := <-got:
			if g != w {
				t.Fatalf("got %s, want %s of %v", g, w, want)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("nothing came, want %s of %v", w, want)
		}
	}
}

// Readers at work read again what was stored since a time, told that it may be again, and then what is new.
func TestReplay(t *testing.T) {
	b := setup(t, 64<<20)
	got := reading(t, b)
	publish := func(messages []Message) {
		t.Helper()
		if err := b.Publish(t.Context(), messages); err != nil {
			t.Fatal(err)
		}
	}
	messages := raw(6)
	publish(messages[:2])
	expect(t, got, "0", "1")
	stream, err := b.js.Stream(t.Context(), topology.Raw.Name)
	if err != nil {
		t.Fatal(err)
	}
	publish(messages[2:4])
	expect(t, got, "2", "3")
	b.acknowledged(t, 4)
	third, err := stream.GetMsg(t.Context(), 3)
	if err != nil {
		t.Fatal(err)
	}
	replayed, err := b.Replay(t.Context(), topology.EnrichRaw, third.Time)
	if err != nil || replayed.From != 3 || replayed.Last != 4 || replayed.Oldest.IsZero() {
		t.Fatalf("%+v, %v", replayed, err)
	}
	expect(t, got, "2*", "3*")
	publish(messages[4:])
	expect(t, got, "4", "5")
	b.acknowledged(t, 6)

	if replayed, err = b.Replay(t.Context(), topology.EnrichRaw, time.Time{}); err != nil || replayed.From != 1 {
		t.Fatalf("%+v, %v", replayed, err)
	}
	expect(t, got, "0*", "1*", "2*", "3*", "4*", "5*")
	b.acknowledged(t, 6)
	if replayed, err = b.Replay(t.Context(), topology.EnrichRaw, time.Now().Add(time.Hour)); err != nil || replayed.From != 7 {
		t.Errorf("from what is not there yet: %+v, %v", replayed, err)
	}
}

// What was not read yet is read, also where it is older than what a replay begins with.
func TestReplayLeavesNothingOut(t *testing.T) {
	b := setup(t, 64<<20)
	if err := b.Publish(t.Context(), raw(3)); err != nil {
		t.Fatal(err)
	}
	if replayed, err := b.Replay(t.Context(), topology.EnrichRaw, time.Now().Add(time.Hour)); err != nil || replayed.From != 1 {
		t.Fatalf("%+v, %v", replayed, err)
	}
	expect(t, reading(t, b), "0*", "1*", "2*")
}

// Messages that somebody removed from between others do not keep a replay from finding where to begin, nor the janitor.
func TestReplayAcrossHoles(t *testing.T) {
	b := setup(t, 64<<20)
	for i := range 8 {
		if err := b.Publish(t.Context(), raw(8)[i:i+1]); err != nil {
			t.Fatal(err)
		}
	}
	got := reading(t, b)
	expect(t, got, "0", "1", "2", "3", "4", "5", "6", "7")
	b.acknowledged(t, 8)
	stream, err := b.js.Stream(t.Context(), topology.Raw.Name)
	if err != nil {
		t.Fatal(err)
	}
	sixth, err := stream.GetMsg(t.Context(), 6)
	if err != nil {
		t.Fatal(err)
	}
	for _, removed := range []uint64{3, 4, 5, 8} {
		if err := stream.DeleteMsg(t.Context(), removed); err != nil {
			t.Fatal(err)
		}
	}
	if replayed, err := b.Replay(t.Context(), topology.EnrichRaw, sixth.Time); err != nil || replayed.From != 3 {
		t.Fatalf("%+v, %v", replayed, err)
	}
	expect(t, got, "5*", "6*")
	b.acknowledged(t, 7)
	if replayed, err := b.Replay(t.Context(), topology.EnrichRaw, time.Now().Add(time.Hour)); err != nil || replayed.From < 8 {
		t.Fatalf("%+v, %v", replayed, err)
	}
	poll(t, func() error {
		if _, err := b.tidy(t.Context(), topology.EnrichRaw, sixth.Time); err != nil {
			return err
		}
		if n := b.stored(t); n != 2 {
			return fmt.Errorf("%d left, two are young", n)
		}
		return nil
	})
}

// A janitor that looked before the readers were set back, and purges then what they are to read, is found out.
func TestReplayNoticesAPurge(t *testing.T) {
	b := setup(t, 64<<20)
	got := reading(t, b)
	if err := b.Publish(t.Context(), raw(3)); err != nil {
		t.Fatal(err)
	}
	expect(t, got, "0", "1", "2")
	stream, err := b.js.Stream(t.Context(), topology.Raw.Name)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.raise(t.Context(), topology.TidiedMark(topology.Raw.Name, stream.CachedInfo().Created), 3); err != nil {
		t.Fatal(err)
	}
	replayed := make(chan error, 1)
	go func() {
		_, err := b.Replay(t.Context(), topology.EnrichRaw, time.Time{})
		replayed <- err
	}()
	expect(t, got, "0*")
	if err := stream.Purge(t.Context(), jetstream.WithPurgeSequence(3)); err != nil {
		t.Fatal(err)
	}
	if err := <-replayed; err == nil || !strings.Contains(err.Error(), "messages 1 to 2 of RAW were purged") {
		t.Errorf("got %v", err)
	}
}

// A stream or bucket that somebody removes is made anew, and those who use it go on.
func TestRemovedIsMadeAnew(t *testing.T) {
	b := setup(t, 64<<20)
	got := reading(t, b)
	if err := b.Publish(t.Context(), raw(1)); err != nil {
		t.Fatal(err)
	}
	expect(t, got, "0")
	before, err := b.Progress(t.Context(), topology.EnrichRaw)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{topology.Raw.Name, "KV_" + topology.RulesBucket} {
		if err := b.js.DeleteStream(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Publish(t.Context(), raw(2)); err != nil {
		t.Fatal(err)
	}
	came := []string{<-got, <-got} // what was refused at first comes behind
	if slices.Sort(came); !slices.Equal(came, []string{"0", "1"}) {
		t.Errorf("%v came", came)
	}
	if after, err := b.Progress(t.Context(), topology.EnrichRaw); err != nil || !after.Created.After(before.Created) {
		t.Errorf("made at %v, before that at %v: %v", after.Created, before.Created, err)
	}
	if _, err := b.Get(t.Context(), topology.RulesBucket, "k"); !errors.Is(err, ErrNoKey) {
		t.Errorf("the bucket: %v", err)
	}
}

// What janitors remove is on record, by stream: what is missing beyond that was removed by somebody else.
func TestTidied(t *testing.T) {
	b := setup(t, 64<<20)
	got := reading(t, b)
	if err := b.Publish(t.Context(), raw(5)); err != nil {
		t.Fatal(err)
	}
	expect(t, got, "0", "1", "2", "3", "4")
	p, err := b.Progress(t.Context(), topology.EnrichRaw)
	if err != nil {
		t.Fatal(err)
	}
	tidied := func() uint64 {
		t.Helper()
		n, err := b.Tidied(t.Context(), topology.Raw, p.Created)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := tidied(); n != 0 {
		t.Errorf("%d before anything was tidied", n)
	}
	poll(t, func() error {
		if _, err := b.tidy(t.Context(), topology.EnrichRaw, time.Now().Add(time.Hour)); err != nil {
			return err
		}
		if n := tidied(); n != 6 {
			return fmt.Errorf("tidied up to %d, want 6", n)
		}
		return nil
	})
	if err := b.raise(t.Context(), topology.TidiedMark(topology.Raw.Name, p.Created), 3); err != nil || tidied() != 6 {
		t.Errorf("a mark fell to %d, %v", tidied(), err)
	}
	if n, err := b.Tidied(t.Context(), topology.Raw, p.Created.Add(time.Second)); err != nil || n != 0 {
		t.Errorf("another stream of that name: %d, %v", n, err)
	}
}

// Messages that are out with nobody come to a reader who waits; those that move are left alone.
func TestRevive(t *testing.T) {
	b := setup(t, 64<<20)
	consumer, err := b.js.Consumer(t.Context(), topology.Raw.Name, topology.EnrichRaw.Durable)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Publish(t.Context(), raw(2)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := consumer.Next(); err != nil {
			t.Fatal(err)
		}
	}
	revive := func(silence time.Duration) {
		t.Helper()
		if err := b.revive(t.Context(), topology.EnrichRaw, silence); err != nil {
			t.Fatal(err)
		}
	}
	pending := func() int {
		t.Helper()
		info, err := consumer.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return info.NumAckPending
	}
	revive(0)
	if n := pending(); n != 2 {
		t.Errorf("%d are out: nobody waits, and they came again", n)
	}
	got := reading(t, b)
	poll(t, func() error {
		if info, err := consumer.Info(t.Context()); err != nil || info.NumWaiting == 0 {
			return fmt.Errorf("nobody waits: %v", err)
		}
		return nil
	})
	revive(time.Hour)
	if n := pending(); n != 2 {
		t.Errorf("%d are out: not even an hour passed, and they came again", n)
	}
	revive(0)
	expect(t, got, "0*", "1*")
}
