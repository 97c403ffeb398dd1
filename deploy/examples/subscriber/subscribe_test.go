package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"polyphony/pkg/embedded"
	"polyphony/pkg/embedded/enginetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is for a machine that is busy with something else.
const patience = 30 * time.Second

// world is a NATS of its own with the stream.
type world struct {
	*testing.T
	url string
	js  jetstream.JetStream
}

func setup(t *testing.T) *world {
	t.Helper()
	w := connect(t, enginetest.NATS(t).URL())
	w.create()
	return w
}

func connect(t *testing.T, url string) *world {
	t.Helper()
	conn, err := nats.Connect(url, nats.MaxReconnects(-1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	return &world{t, url, js}
}

func (w *world) create() {
	w.Helper()
	if _, err := w.js.CreateStream(w.Context(), jetstream.StreamConfig{Name: streamName, Subjects: []string{"social.mentions.*.*"}}); err != nil {
		w.Fatal(err)
	}
}

func (w *world) remove() {
	w.Helper()
	if err := w.js.DeleteStream(w.Context(), streamName); err != nil {
		w.Fatal(err)
	}
}

// tell publishes each event as a message of its own.
func (w *world) tell(events ...told) {
	w.Helper()
	for _, e := range events {
		w.publish(e.node, batch(e.json()))
	}
}

func (w *world) publish(node string, message []byte) {
	w.Helper()
	if _, err := w.js.Publish(w.Context(), "social.mentions."+strings.ReplaceAll(node, "/", "."), message); err != nil {
		w.Fatal(err)
	}
}

func (w *world) config(file string) config {
	cfg, err := parse([]string{"--nats", w.url, "--division", "cardiology", "--territory", "*"})
	if err != nil {
		w.Fatal(err)
	}
	cfg.file = file
	cfg.saveEvery, cfg.checkEvery, cfg.retryAfter = time.Millisecond, 20*time.Millisecond, time.Millisecond
	return cfg
}

// once runs the program with --once and compares what it prints; it returns what it has to say besides.
func (w *world) once(cfg config, want ...told) string {
	w.Helper()
	ctx, stop := context.WithTimeout(w.Context(), patience)
	defer stop()
	cfg.once = true
	cfg.checkEvery = time.Hour // it knows the end when it sees it
	var out, said bytes.Buffer
	if err := subscribe(ctx, cfg, &out, log.New(&said, "", 0)); err != nil {
		w.Fatal(err)
	}
	if ctx.Err() != nil {
		w.Fatalf("it does not end; it said: %s", said.String())
	}
	var lines strings.Builder
	for _, e := range want {
		lines.WriteString(e.data() + "\n")
	}
	if diff := cmp.Diff(lines.String(), out.String()); diff != "" {
		w.Errorf("printed (-want +got):\n%s", diff)
	}
	return said.String()
}

// following is the program without --once.
type following struct {
	w     *world
	lines chan string // of standard output
	said  *said
	stop  context.CancelFunc
	ended chan error
}

func (w *world) follow(cfg config) *following {
	ctx, stop := context.WithCancel(w.Context())
	r, out := io.Pipe()
	f := &following{w, make(chan string, 1000), &said{more: make(chan struct{}, 1)}, stop, make(chan error, 1)}
	go func() {
		err := subscribe(ctx, cfg, out, log.New(f.said, "", 0))
		out.Close()
		f.ended <- err
	}()
	go func() {
		for lines := bufio.NewScanner(r); lines.Scan(); {
			f.lines <- lines.Text()
		}
		close(f.lines)
	}()
	w.Cleanup(stop)
	return f
}

// prints waits for the changes, in this order.
func (f *following) prints(want ...told) {
	f.w.Helper()
	for _, e := range want {
		select {
		case line := <-f.lines:
			if line != e.line() {
				f.w.Fatalf("printed %q, want %q", line, e.line())
			}
		case err := <-f.ended:
			f.w.Fatalf("ended: %v", err)
		case <-time.After(patience):
			f.w.Fatalf("waited for %q; it said: %s", e.line(), f.said)
		}
	}
}

// ends stops the program as Ctrl-C does; it has nothing more to print.
func (f *following) ends() {
	f.w.Helper()
	f.stop()
	for line := range f.lines {
		f.w.Errorf("printed %q as well", line)
	}
	if err := <-f.ended; err != nil {
		f.w.Fatal(err)
	}
}

// said is standard error.
type said struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{}
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case s.more <- struct{}{}:
	default:
	}
	return s.text.Write(p)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// says waits until standard error contains text.
func (f *following) says(text string) {
	f.w.Helper()
	for limit := time.After(patience); !strings.Contains(f.said.String(), text); {
		select {
		case <-f.said.more:
		case <-limit:
			f.w.Fatalf("waited for %q; it said: %s", text, f.said)
		}
	}
}

func mustSay(t *testing.T, said string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(said, part) {
			t.Errorf("it said %q, want %q", said, part)
		}
	}
	if len(parts) == 0 && said != "" {
		t.Errorf("it said %q, want nothing", said)
	}
}

var (
	one      = told{1, "cardiology/at", 5, false, 0}
	oneGone  = told{1, "cardiology/at", 6, true, 0}
	two      = told{2, "cardiology/at", 5, false, 0}
	twoThere = told{2, "cardiology/zz", 5, false, 0}
	three    = told{3, "cardiology/at", 5, false, 0}
	foreign  = told{4, "oncology/at", 5, false, 0}
)

func TestOnce(t *testing.T) {
	w := setup(t)
	cfg := w.config("")
	mustSay(t, w.once(cfg)) // an empty stream
	w.tell(foreign)
	mustSay(t, w.once(cfg)) // nothing of this division
	w.tell(one, two, twoThere, one)
	w.publish(one.node, []byte("pigeon"))
	w.tell(oneGone, one, three, foreign) // the last message is another node's
	mustSay(t, w.once(cfg, three, two, twoThere), "message 6 is skipped")
	cfg.territory = "zz"
	mustSay(t, w.once(cfg, twoThere))
	cfg.division, cfg.territory = "*", "*"
	w.once(cfg, foreign, three, two, twoThere)
}

// What is published while --once reads is not waited for, and not taken in.
func TestOnceEndsWhereTheStreamEnded(t *testing.T) {
	for name, before := range map[string][]told{"at its last message": {one}, "at another division's": {one, foreign}} {
		t.Run(name, func(t *testing.T) {
			w := setup(t)
			w.tell(before...)
			s := &subscriber{config: w.config(""), say: log.New(t.Output(), "", 0)}
			s.once = true
			s.js = meanwhile{w.js, func() { w.tell(two, three) }}
			if err := s.session(t.Context()); err != nil {
				t.Fatal(err)
			}
			mustHold(t, &s.held, one)
			if s.at.Sequence != uint64(len(before)) {
				t.Errorf("the position is %d, want %d", s.at.Sequence, len(before))
			}
		})
	}
}

// meanwhile does something after the stream was looked at and before it is read.
type meanwhile struct {
	jetstream.JetStream
	do func()
}

func (m meanwhile) OrderedConsumer(ctx context.Context, stream string, cfg jetstream.OrderedConsumerConfig) (jetstream.Consumer, error) {
	m.do()
	return m.JetStream.OrderedConsumer(ctx, stream, cfg)
}

func TestFollow(t *testing.T) {
	w := setup(t)
	file := filepath.Join(t.TempDir(), "state")
	w.tell(one, foreign)
	f := w.follow(w.config(file))
	f.prints(one)
	w.tell(two, one, foreign, twoThere, oneGone, one)
	f.prints(two, twoThere, oneGone)
	w.publish(two.node, []byte("pigeon"))
	w.publish(two.node, batch(two.json(), `7`, three.json()))
	f.prints(three)
	f.ends()
	mustSay(t, f.said.String(), "message 9 is skipped", "message 10 is skipped, or a part of it: 1 of 3 events are bad")

	// Resumed: nothing comes twice, and what was taken back stays so.
	w.tell(one, two, told{5, "cardiology/at", 5, false, 0})
	f = w.follow(w.config(file))
	f.prints(told{5, "cardiology/at", 5, false, 0})
	f.ends()
	mustSay(t, f.said.String())
	mustSay(t, w.once(w.config(file), told{5, "cardiology/at", 5, false, 0}, three, two, twoThere))

	// The file is of one subject.
	other := w.config(file)
	other.territory = "at"
	if err := subscribe(t.Context(), other, io.Discard, log.New(io.Discard, "", 0)); err == nil || !strings.Contains(err.Error(), "choose another file") {
		t.Errorf("a file of another subject: %v", err)
	}
}

// The copy is saved while the program runs, not only when it ends well. Its position moves on past what is another
// division's, so that the removal of that is no loss.
func TestSavesAsItGoes(t *testing.T) {
	w := setup(t)
	file := filepath.Join(t.TempDir(), "state")
	f := w.follow(w.config(file))
	w.tell(one, foreign)
	f.prints(one)
	var at Position
	var held Copy
	for deadline := time.Now().Add(patience); at.Sequence < 2; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the file stays at %+v", at)
		}
		var err error
		if at, held, err = load(file, w.config(file).subject()); err != nil {
			t.Fatal(err)
		}
	}
	mustHold(t, &held, one)
	f.ends()
}

func TestStreamRecreated(t *testing.T) {
	w := setup(t)
	file := filepath.Join(t.TempDir(), "state")
	w.tell(one, two, oneGone)
	w.once(w.config(file), two)
	w.remove()
	w.create()
	w.tell(one, three, foreign, foreign, foreign) // longer than the position
	mustSay(t, w.once(w.config(file), three, two), "deleted and created again")
	mustSay(t, w.once(w.config(file), three, two))

	// And under a program that follows.
	f := w.follow(w.config(file))
	w.tell(twoThere)
	f.prints(twoThere)
	w.remove()
	f.says("not found")
	w.create()
	w.tell(one, told{6, "cardiology/at", 5, false, 0})
	f.prints(told{6, "cardiology/at", 5, false, 0})
	w.remove() // and before anybody looks
	w.create()
	w.tell(told{7, "cardiology/at", 5, false, 0})
	f.prints(told{7, "cardiology/at", 5, false, 0})
	f.ends()
	mustSay(t, f.said.String(), "deleted and created again")
}

func TestPurged(t *testing.T) {
	w := setup(t)
	file := filepath.Join(t.TempDir(), "state")
	w.tell(one, foreign, foreign)
	w.once(w.config(file), one)
	stream, err := w.js.Stream(t.Context(), streamName)
	if err != nil {
		t.Fatal(err)
	}
	purge := func() {
		if err := stream.Purge(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	purge() // nothing that was not read: the last two are another division's
	w.tell(two)
	mustSay(t, w.once(w.config(file), two, one))
	w.tell(three)
	purge()
	w.tell(twoThere)
	mustSay(t, w.once(w.config(file), two, twoThere, one), "messages 5 to 5 were removed")
	mustSay(t, w.once(w.config(file), two, twoThere, one))
}

// The server may go away for a while.
func TestServerRestarts(t *testing.T) {
	dir := t.TempDir()
	server, err := embedded.StartNATS(embedded.NATSConfig{Dir: dir, Addr: "127.0.0.1:0", Log: enginetest.Log(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	w := connect(t, server.URL())
	w.create()
	f := w.follow(w.config(""))
	w.tell(one)
	f.prints(one)
	addr := server.Addr()
	server.Close()
	f.says("nats is gone")
	if server, err = embedded.StartNATS(embedded.NATSConfig{Dir: dir, Addr: addr, Log: enginetest.Log(t)}); err != nil {
		t.Fatal(err)
	}
	f.says("nats is back")
	later := connect(t, server.URL())
	later.tell(one, two)
	f.prints(two)
	f.ends()
}

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	const subject = "social.mentions.cardiology.*"
	var held Copy
	if _, err := held.Apply(batch(one.json(), two.json(), oneGone.json())); err != nil {
		t.Fatal(err)
	}
	at := Position{subject, time.Date(2031, 5, 1, 12, 0, 0, 123456789, time.UTC), 1<<63 + 1}
	for range 2 {
		if err := save(path, at, &held); err != nil {
			t.Fatal(err)
		}
		gotAt, got, err := load(path, subject)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(at, gotAt); diff != "" {
			t.Errorf("position (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(held.entries, got.entries); diff != "" {
			t.Errorf("copy (-want +got):\n%s", diff)
		}
	}
	if list, err := os.ReadDir(filepath.Dir(path)); err != nil || len(list) != 1 {
		t.Errorf("left behind: %v, %v", list, err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, broken := range [][]byte{nil, whole[:20], whole[:len(whole)-20], append(whole, "{}"...)} {
		if err := os.WriteFile(path, broken, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := load(path, subject); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("load of %d bytes: %v", len(broken), err)
		}
	}
	if err := save(filepath.Join(t.TempDir(), "no", "such"), at, &held); err == nil {
		t.Error("saved in a directory that is not there")
	}
}

func TestCommandLine(t *testing.T) {
	all := func(more ...string) []string {
		return append([]string{"--nats", "nats://127.0.0.1:1", "--division", "cardiology", "--territory", "at"}, more...)
	}
	for _, test := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"--help"}, 0, ""},
		{nil, 2, "--nats URL is missing"},
		{all()[:4], 2, "--territory NAME is missing"},
		{all()[:3], 2, "flag needs an argument: -division"},
		{all("--pigeon"), 2, "flag provided but not defined: -pigeon"},
		{all("pigeon"), 2, `unexpected "pigeon"`},
		{all("--territory", "at.>"), 2, `--territory "at.>" is not a name and not *`},
		{all("--division", "At"), 2, `--division "At" is not a name and not *`},
		{all("--file", ""), 2, "--file has no path"},
		{all(), 1, "connecting to nats"},
	} {
		var out, said bytes.Buffer
		if code := run(t.Context(), test.args, &out, &said); code != test.code {
			t.Errorf("%q: exit code %d, want %d", test.args, code, test.code)
		}
		mustSay(t, said.String(), test.says)
		if test.code != 0 && strings.Count(said.String(), "\n") != 1 {
			t.Errorf("%q: not one line: %s", test.args, said.String())
		}
		if (out.String() == help) != (test.code == 0) {
			t.Errorf("%q: printed %q", test.args, out.String())
		}
	}
}

// A stream that is not there at the start is a fault, not something to wait for.
func TestNoStream(t *testing.T) {
	w := connect(t, enginetest.NATS(t).URL())
	var said bytes.Buffer
	if code := run(t.Context(), []string{"--nats", w.url, "--division", "*", "--territory", "*"}, io.Discard, &said); code != 1 {
		t.Errorf("exit code %d", code)
	}
	mustSay(t, said.String(), fmt.Sprintf("looking at stream %s", streamName))
}
