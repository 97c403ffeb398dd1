package bus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"polyphony/pkg/embedded"
	"polyphony/pkg/embedded/enginetest"
	"polyphony/pkg/topology"
)

func TestMain(m *testing.M) { enginetest.Main(m) }

func setup(t *testing.T, storage int64) *Bus {
	t.Helper()
	b, err := Open(Config{URL: enginetest.NATS(t).URL(), Name: "test", Storage: storage}, enginetest.Log(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	if err := b.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	return b
}

func raw(n int) []Message {
	var out []Message
	for i := range n {
		out = append(out, Message{Subject: topology.RawSubject("x"), Data: fmt.Append(nil, i), ID: fmt.Sprint(i)})
	}
	return out
}

var limit = Limit{Bytes: 1 << 20, Messages: 1000, Wait: 20 * time.Millisecond}

// A handler's nil acknowledges its batch: nothing comes twice, and nothing is left.
func TestReturnIsAcknowledgement(t *testing.T) {
	b := setup(t, 64<<20)
	if err := b.Publish(t.Context(), raw(1000)); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	seen := map[string]int{}
	if err := b.Consume(ctx, topology.EnrichRaw, limit, func(_ context.Context, batch []Delivery) error {
		for _, d := range batch {
			seen[string(d.Data)]++
		}
		if len(seen) == 1000 {
			stop()
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for data, n := range seen {
		if n != 1 {
			t.Errorf("%s came %d times", data, n)
		}
	}
	poll(t, func() error {
		info, err := b.consumer(t)
		if err == nil && (info.NumAckPending > 0 || info.NumPending > 0) {
			err = fmt.Errorf("%d unacknowledged, %d waiting", info.NumAckPending, info.NumPending)
		}
		return err
	})
}

func (b *Bus) consumer(t *testing.T) (*jetstream.ConsumerInfo, error) {
	c, err := b.js.Consumer(t.Context(), topology.Raw.Name, topology.EnrichRaw.Durable)
	if err != nil {
		return nil, err
	}
	return c.Info(t.Context())
}

// stored is how many messages RAW holds. Unlike a consumer's pending messages, which the server counts a moment later, this
// is true as soon as a publish was acknowledged.
func (b *Bus) stored(t *testing.T) int {
	t.Helper()
	s, err := b.js.Stream(t.Context(), topology.Raw.Name)
	if err != nil {
		t.Fatal(err)
	}
	return int(s.CachedInfo().State.Msgs)
}

func poll(t *testing.T, check func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if err = check(); err == nil {
			return
		}
	}
	t.Fatal(err)
}

// A handler's error ends Consume, and everything of its batch comes again at once.
func TestErrorLeavesTheBatch(t *testing.T) {
	b := setup(t, 64<<20)
	if err := b.Publish(t.Context(), raw(10)); err != nil {
		t.Fatal(err)
	}
	bug := errors.New("bug")
	if err := b.Consume(t.Context(), topology.EnrichRaw, limit, func(context.Context, []Delivery) error { return bug }); !errors.Is(err, bug) {
		t.Fatal(err)
	}
	b.comeAgain(t, 10)
}

// What a handler has in hand when its reader is stopped it can finish, also with its own messages: nothing comes again.
func TestStoppedBatchIsFinished(t *testing.T) {
	b := setup(t, 64<<20)
	other, err := Open(Config{URL: b.url, Name: "stopped", Storage: 64 << 20}, enginetest.Log(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Publish(t.Context(), raw(10)); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	finished := 0
	if err := other.Consume(ctx, topology.EnrichRaw, limit, func(work context.Context, batch []Delivery) error {
		stop()
		finished += len(batch)
		return other.Publish(work, []Message{{Subject: topology.MentionSubject("x", "y")}})
	}); err != nil {
		t.Fatal(err)
	}
	other.Close()
	poll(t, func() error {
		info, err := b.consumer(t)
		if err == nil && (finished == 0 || info.AckFloor.Stream != uint64(finished) || info.NumAckPending > 0) {
			err = fmt.Errorf("%d are finished, %d acknowledged, %d not", finished, info.AckFloor.Stream, info.NumAckPending)
		}
		return err
	})
}

// What a handler had in hand when it was stopped, and could not finish for long, was not worked on: all of it comes again at once.
func TestStoppedBatchComesAgain(t *testing.T) {
	b := setup(t, 64<<20)
	if err := b.Publish(t.Context(), raw(10)); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	if err := b.Consume(ctx, topology.EnrichRaw, limit, func(ctx context.Context, _ []Delivery) error {
		stop()
		<-ctx.Done()
		return ctx.Err()
	}); err != nil {
		t.Fatal(err)
	}
	b.comeAgain(t, 10)
}

// comeAgain reads messages that were delivered before.
func (b *Bus) comeAgain(t *testing.T, messages int) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), ackWait/2)
	defer stop()
	seen := map[string]bool{}
	if err := b.Consume(ctx, topology.EnrichRaw, limit, func(_ context.Context, batch []Delivery) error {
		for _, d := range batch {
			if d.Deliveries < 2 {
				t.Errorf("%s: delivery %d", d.Data, d.Deliveries)
			}
			if seen[string(d.Data)] = true; len(seen) == messages {
				stop()
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if len(seen) != messages {
		t.Errorf("%d of %d came again", len(seen), messages)
	}
}

// What a handler is done with does not come again, whatever becomes of the batch.
func TestDoneBeforeTheBatch(t *testing.T) {
	b := setup(t, 64<<20)
	if err := b.Publish(t.Context(), raw(10)); err != nil {
		t.Fatal(err)
	}
	bug := errors.New("bug")
	done := map[string]bool{}
	if err := b.Consume(t.Context(), topology.EnrichRaw, limit, func(ctx context.Context, batch []Delivery) error {
		for i := range batch[:len(batch)/2] {
			if err := batch[i].Done(ctx); err != nil {
				t.Error(err)
			}
			done[string(batch[i].Data)] = true
		}
		return bug
	}); !errors.Is(err, bug) || len(done) == 0 {
		t.Fatal(err, done)
	}
	ctx, stop := context.WithTimeout(t.Context(), ackWait/2)
	defer stop()
	left := 10 - len(done)
	if err := b.Consume(ctx, topology.EnrichRaw, limit, func(ctx context.Context, batch []Delivery) error {
		if err := batch[0].Done(ctx); err != nil { // and once more with its batch
			t.Error(err)
		}
		for _, d := range batch {
			if done[string(d.Data)] {
				t.Errorf("%s came again", d.Data)
			}
		}
		if left -= len(batch); left == 0 {
			stop()
		}
		return nil
	}); err != nil || left != 0 {
		t.Fatal(err, left)
	}
}

// That ctx ended is no error of Consume, but what else a handler says then is.
func TestErrorWhileStopping(t *testing.T) {
	b := setup(t, 64<<20)
	bug := errors.New("bug")
	f := func(says func(context.Context) error, want error) {
		t.Helper()
		if err := b.Publish(t.Context(), []Message{{Subject: topology.RawSubject("x")}}); err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		if err := b.Consume(ctx, topology.EnrichRaw, limit, func(ctx context.Context, _ []Delivery) error {
			stop()
			return says(ctx)
		}); !errors.Is(err, want) {
			t.Errorf("%v, want %v", err, want)
		}
	}
	f(func(ctx context.Context) error { <-ctx.Done(); return fmt.Errorf("waiting: %w", ctx.Err()) }, nil)
	f(func(context.Context) error { return bug }, bug)
}

// Two readers share a durable: each message goes to one of them.
func TestReadersShare(t *testing.T) {
	b := setup(t, 64<<20)
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	var mu sync.Mutex
	seen := map[string]int{}
	var reading sync.WaitGroup
	for range 2 {
		reading.Go(func() {
			if err := b.Consume(ctx, topology.EnrichRaw, limit, func(_ context.Context, batch []Delivery) error {
				mu.Lock()
				defer mu.Unlock()
				for _, d := range batch {
					seen[string(d.Data)]++
				}
				if len(seen) == 500 {
					stop()
				}
				return nil
			}); err != nil {
				t.Error(err)
			}
		})
	}
	if err := b.Publish(t.Context(), raw(500)); err != nil {
		t.Fatal(err)
	}
	reading.Wait()
	if len(seen) != 500 {
		t.Errorf("%d of 500", len(seen))
	}
}

// Progress is exact: all that was stored before Until is acknowledged, and not a message more is claimed.
func TestProgress(t *testing.T) {
	b := setup(t, 64<<20)
	const messages = 3
	if err := b.Publish(t.Context(), raw(messages)); err != nil {
		t.Fatal(err)
	}
	progress := func() Progress {
		t.Helper()
		p, err := b.Progress(t.Context(), topology.EnrichRaw)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	if err := b.Consume(ctx, topology.EnrichRaw, Limit{Messages: 1}, func(_ context.Context, batch []Delivery) error {
		d := batch[0]
		poll(t, func() error { // acknowledgements are not awaited
			p := progress()
			if p.Until.After(d.Stored) {
				t.Fatalf("message %d, stored %s, is in hand: %+v", d.Sequence, d.Stored, p)
			}
			if p.Floor != d.Sequence-1 || p.Last != messages || !p.Until.Equal(d.Stored) {
				return fmt.Errorf("before message %d, stored %s: %+v", d.Sequence, d.Stored, p)
			}
			return nil
		})
		if d.Sequence == messages {
			stop()
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	var all Progress
	poll(t, func() error {
		if all = progress(); all.Floor != messages {
			return fmt.Errorf("after all messages: %+v", all)
		}
		return nil
	})
	if err := b.Publish(t.Context(), raw(messages + 1)[messages:]); err != nil {
		t.Fatal(err)
	}
	if p := progress(); p.Until.Before(all.Until) {
		t.Errorf("all before %s was acknowledged, then only before %s", all.Until, p.Until)
	}
}

// The same publish again is stored once.
func TestPublishIDs(t *testing.T) {
	b := setup(t, 64<<20)
	for range 3 {
		if err := b.Publish(t.Context(), raw(5)); err != nil {
			t.Fatal(err)
		}
	}
	if n := b.stored(t); n != 5 {
		t.Fatalf("%d are stored of 5 that were published three times", n)
	}
}

// A full stream refuses with ErrFull, also one message among others; the janitor makes room of what was acknowledged, and of nothing else.
func TestFullStreamAndJanitor(t *testing.T) {
	b := setup(t, 1<<20)
	blob := bytes.Repeat([]byte("x"), 50_000)
	stored := 0
	publish := func() error {
		return b.Publish(t.Context(), []Message{{Subject: topology.RawSubject("x"), Data: blob}})
	}
	for publish() == nil {
		if stored++; stored > 100 {
			t.Fatal("a stream of 400 KiB took 5 MB")
		}
	}
	if err := publish(); !errors.Is(err, ErrFull) {
		t.Fatalf("got %v", err)
	}
	small := Message{Subject: topology.MentionSubject("heart", "north")}
	if err := b.Publish(t.Context(), []Message{small, {Subject: topology.RawSubject("x"), Data: blob}, small}); !errors.Is(err, ErrFull) {
		t.Fatalf("the second of three was refused: got %v", err)
	}
	fill, err := b.tidy(t.Context(), topology.EnrichRaw, time.Now().Add(time.Hour))
	if err != nil || fill.Unread != fill.Bytes || fill.Ratio() < .8 || fill.Ratio() > 1 {
		t.Fatalf("%+v, %v", fill, err)
	}
	if n := b.stored(t); n != stored {
		t.Fatalf("the janitor took what nobody has read: %d left of %d", n, stored)
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	read := 0
	if err := b.Consume(ctx, topology.EnrichRaw, Limit{Messages: 1}, func(_ context.Context, batch []Delivery) error {
		if read += len(batch); read >= stored {
			stop()
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	poll(t, func() error {
		if fill, err := b.tidy(t.Context(), topology.EnrichRaw, time.Now().Add(-time.Hour)); err != nil || fill.Unread > 0 {
			return fmt.Errorf("%+v, %w", fill, err)
		}
		return publish()
	})
}

// A stream that comes near its limit is said to, once, and that it has room again; not one full of what was read.
func TestAlarm(t *testing.T) {
	var said strings.Builder
	log, alarmed := slog.New(slog.NewTextHandler(&said, nil)), map[string]bool{}
	f := func(bytes, unread uint64, want string) {
		t.Helper()
		said.Reset()
		alarm(log, alarmed, Fill{Stream: "RAW", Bytes: bytes, Max: 100, Unread: unread})
		if got := said.String(); want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%d bytes, %d unread: %q, want %q", bytes, unread, got, want)
		}
	}
	f(90, 0, "")
	f(80, 80, "")
	f(99, 81, "nearly full")
	f(99, 99, "")
	f(99, 90, "")
	f(90, 61, "")
	f(99, 90, "")
	f(90, 60, "room again")
	f(90, 70, "")
	f(95, 95, "nearly full")
	f(10, 10, "room again")
	f(0, 0, "")
}

// Whoever waits for a full stream publishes to it alone meanwhile: what other streams took is there once.
func TestWaitingForAFullStream(t *testing.T) {
	b := setup(t, 1<<20)
	fact := Message{Subject: topology.OriginalsSubject, Data: bytes.Repeat([]byte("x"), 10_000)}
	facts := 0
	for b.Publish(t.Context(), []Message{fact}) == nil {
		if facts++; facts > 100 {
			t.Fatal("a stream of 100 KiB took 1 MB")
		}
	}
	messages := []Message{fact}
	const mentions = 5
	for i := range mentions {
		messages = append(messages, Message{Subject: topology.MentionSubject("heart", "north"), Data: fmt.Append(nil, i)})
	}
	waited := make(chan error, 100)
	published := make(chan error, 1)
	go func() { published <- b.PublishPatiently(t.Context(), messages, func(why error) { waited <- why }) }()
	for range 4 {
		if why := <-waited; !errors.Is(why, ErrFull) {
			t.Fatalf("waits for %v", why)
		}
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	read := 0
	if err := b.Consume(ctx, topology.AggregateFacts, limit, func(_ context.Context, batch []Delivery) error {
		if read += len(batch); read >= facts {
			stop()
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	poll(t, func() error {
		_, err := b.tidy(t.Context(), topology.AggregateFacts, time.Now().Add(time.Hour))
		return err
	})
	if err := <-published; err != nil {
		t.Fatal(err)
	}
	stream, err := b.js.Stream(t.Context(), topology.Mentions.Name)
	if err != nil || stream.CachedInfo().State.LastSeq != mentions {
		t.Fatalf("%d mentions were stored %d times in all: %v", mentions, stream.CachedInfo().State.LastSeq, err)
	}
}

// link is a connection whose server can be made deaf for one answer.
type link struct {
	net.Conn
	loses *atomic.Bool
	lost  chan struct{}
}

func (l link) Read(p []byte) (int, error) {
	for {
		n, err := l.Conn.Read(p)
		if n == 0 || err != nil || !l.loses.CompareAndSwap(true, false) {
			return n, err
		}
		close(l.lost)
	}
}

// A lost acknowledgement is made up for within the ten seconds that a request waits, and what it was for is stored once.
func TestLostAcknowledgement(t *testing.T) {
	n := enginetest.NATS(t)
	loses, lost := new(atomic.Bool), make(chan struct{})
	b, err := Open(Config{URL: n.URL(), Name: "test", Storage: 64 << 20, Dial: func() (net.Conn, error) {
		conn, err := net.Dial("tcp", n.Addr())
		return link{conn, loses, lost}, err
	}}, enginetest.Log(t))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := b.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	loses.Store(true)
	if err := b.Publish(ctx, raw(1)); err != nil {
		t.Fatal(err)
	}
	select {
	case <-lost:
	default:
		t.Fatal("no acknowledgement was lost")
	}
	if n := b.stored(t); n != 1 {
		t.Fatalf("%d are stored of one whose acknowledgement was lost", n)
	}
}

// A publish ends when its context does, however much is still to be sent to a server that does not answer.
func TestPublishEndsWithItsContext(t *testing.T) {
	n := enginetest.NATS(t)
	b, err := Open(Config{URL: n.URL(), Name: "test", Storage: 64 << 20}, enginetest.Log(t))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := b.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	began := time.Now()
	if err := b.Publish(ctx, raw(maxInFlight+50)); err == nil {
		t.Fatal("published without a server")
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("ended %s after its context", took)
	}
}

// What is acknowledged stays until its age is up.
func TestJanitorKeepsTheYoung(t *testing.T) {
	b := setup(t, 64<<20)
	if err := b.Publish(t.Context(), raw(20)[:15]); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	read := 0
	if err := b.Consume(ctx, topology.EnrichRaw, limit, func(_ context.Context, batch []Delivery) error {
		if read += len(batch); read == 15 {
			stop()
		}
		return nil
	}); err != nil || read != 15 {
		t.Fatalf("%d read: %v", read, err)
	}
	if err := b.Publish(t.Context(), raw(20)[15:]); err != nil {
		t.Fatal(err)
	}
	if _, err := b.tidy(t.Context(), topology.EnrichRaw, time.Now().Add(-time.Hour)); err != nil || b.stored(t) != 20 {
		t.Fatalf("%v: %d left of 20 young ones", err, b.stored(t))
	}
	poll(t, func() error {
		if _, err := b.tidy(t.Context(), topology.EnrichRaw, time.Now().Add(time.Hour)); err != nil {
			return err
		}
		if n := b.stored(t); n != 5 {
			return fmt.Errorf("%d left, 5 are unread", n)
		}
		return nil
	})
}

// Publishing survives a server that goes away and comes back.
func TestPublishSurvivesReconnect(t *testing.T) {
	dir := t.TempDir()
	start := func(addr string) *embedded.NATS {
		n, err := embedded.StartNATS(embedded.NATSConfig{Dir: dir, Addr: addr, Log: enginetest.Log(t)})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	n := start("127.0.0.1:0")
	addr := n.Addr()
	b, err := Open(Config{URL: n.URL(), Name: "test", Storage: 64 << 20}, enginetest.Log(t))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := b.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.Close()
	published := make(chan error, 1)
	go func() { published <- b.Publish(t.Context(), raw(100)) }()
	poll(t, func() error {
		if b.Ready() == nil {
			return errors.New("still connected")
		}
		return nil
	})
	n = start(addr)
	defer n.Close()
	if err := <-published; err != nil {
		t.Fatal(err)
	}
	if n := b.stored(t); n != 100 {
		t.Fatalf("%d of 100 are stored", n)
	}
}

// A service starts before its NATS: it waits, says for what and never with which password, and goes on by itself.
func TestPrepareWaits(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := free.Addr().String()
	free.Close()
	b, err := Open(Config{URL: "nats://user:secret@" + addr, Name: "test", Storage: 64 << 20}, enginetest.Log(t))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := b.Prepare(ctx); err == nil {
		t.Fatal("prepared without a server")
	}
	if err := b.Ready(); err == nil || !strings.Contains(err.Error(), addr) || strings.Contains(err.Error(), "secret") {
		t.Errorf("not ready: %v", err)
	}
	prepared := make(chan error, 1)
	go func() { prepared <- b.Prepare(t.Context()) }()
	n, err := embedded.StartNATS(embedded.NATSConfig{Dir: t.TempDir(), Addr: addr, Log: enginetest.Log(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if err := <-prepared; err != nil {
		t.Fatal(err)
	}
	if err := b.Ready(); err != nil {
		t.Error(err)
	}
}

// Keys written once stay as they were.
func TestBucket(t *testing.T) {
	b, ctx := setup(t, 64<<20), t.Context()
	if _, err := b.Get(ctx, topology.RulesBucket, "k"); !errors.Is(err, ErrNoKey) {
		t.Fatalf("got %v", err)
	}
	for _, value := range []string{"first", "second"} {
		if err := b.PutOnce(ctx, topology.RulesBucket, "k", []byte(value)); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := b.Get(ctx, topology.RulesBucket, "k"); err != nil || string(got) != "first" {
		t.Fatalf("%s %v", got, err)
	}
	for range 2 { // the second time there is nothing to remove
		if err := b.Delete(ctx, topology.RulesBucket, "k"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.Get(ctx, topology.RulesBucket, "k"); !errors.Is(err, ErrNoKey) {
		t.Fatalf("got %v", err)
	}
}

// go test -run '^$' -bench Publish -benchmem ./pkg/bus
func BenchmarkPublish(b *testing.B) {
	for _, size := range []int{1 << 10, 64 << 10, 256 << 10} {
		b.Run(fmt.Sprintf("size=%d", size), func(b *testing.B) {
			bus, err := Open(Config{URL: enginetest.NATS(b).URL(), Name: "bench", Storage: 64 << 30}, enginetest.Log(b))
			if err != nil {
				b.Fatal(err)
			}
			defer bus.Close()
			if err := bus.Prepare(b.Context()); err != nil {
				b.Fatal(err)
			}
			batch := make([]Message, 32)
			for i := range batch {
				batch[i] = Message{Subject: topology.RawSubject("x"), Data: make([]byte, size)}
			}
			b.SetBytes(int64(size * len(batch)))
			for b.Loop() {
				if err := bus.Publish(b.Context(), batch); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
