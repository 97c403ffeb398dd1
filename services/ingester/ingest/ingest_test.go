package ingest

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/prometheus/client_golang/prometheus"

	"polyphony/pkg/bus"
	"polyphony/pkg/embedded"
	"polyphony/pkg/embedded/enginetest"
	"polyphony/pkg/nodes"
	"polyphony/pkg/social"
	"polyphony/pkg/topology"
	"polyphony/pkg/wire"
)

func TestMain(m *testing.M) { enginetest.Main(m) }

// bundle is an ingester in front of a real NATS.
type bundle struct {
	t      *testing.T
	server *httptest.Server
	bus    *bus.Bus
	rules  *nodes.Rules
	stop   context.CancelFunc
}

const storage = 64 << 20

func setup(t *testing.T, tokens string, streamBytes int64) *bundle {
	t.Helper()
	var granted *Tokens
	if tokens != "" {
		var err error
		if granted, err = ReadTokens(strings.NewReader(tokens)); err != nil {
			t.Fatal(err)
		}
	}
	rules, err := nodes.Load(fstest.MapFS{
		"company.yaml":           {Data: []byte("company: acme\nlateness: 72h\n")},
		"divisions/heart.yaml":   {Data: []byte("division: heart\nproducts: [{id: cordia, names: [Cordia]}]\nlisten: products\n")},
		"territories/north.yaml": {Data: []byte("territory: north\ncountries: [SE]\ntimezone: Europe/Stockholm\n")},
	})
	if err != nil {
		t.Fatal(err)
	}
	n := enginetest.NATS(t)
	log := enginetest.Log(t)
	b, err := bus.Open(bus.Config{URL: n.URL(), Name: "test", Storage: streamBytes}, log)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	in := New(granted, b, log, prometheus.NewRegistry())
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- in.Run(ctx, rules, "") }()
	server := httptest.NewServer(in.Handler())
	t.Cleanup(func() {
		server.Close()
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		b.Close()
	})
	deadline := time.After(10 * time.Second)
	for in.Ready() != nil {
		select {
		case <-deadline:
			t.Fatal(in.Ready())
		case <-time.After(time.Millisecond):
		}
	}
	return &bundle{t: t, server: server, bus: b, rules: rules, stop: stop}
}

func (b *bundle) post(header http.Header, body []byte) (int, string) {
	b.t.Helper()
	request, err := http.NewRequest(http.MethodPost, b.server.URL+"/v1/events", bytes.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	for name, values := range header {
		request.Header[name] = values
	}
	response, err := b.server.Client().Do(request)
	if err != nil {
		b.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	if response.StatusCode == 429 || response.StatusCode == 503 {
		if response.Header.Get("Retry-After") == "" {
			b.t.Errorf("%d without Retry-After", response.StatusCode)
		}
	}
	return response.StatusCode, strings.TrimSpace(string(text))
}

// stored reads what a stream holds, as a reader of ours would.
func (b *bundle) stored(c topology.Consumer, messages int) []bus.Delivery {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), time.Minute)
	defer cancel()
	var got []bus.Delivery
	err := b.bus.Consume(ctx, c, bus.Limit{Messages: 1}, func(_ context.Context, d []bus.Delivery) error {
		if got = append(got, d...); len(got) >= messages {
			cancel()
		}
		return nil
	})
	if err != nil || len(got) < messages {
		b.t.Fatalf("%d messages of %d: %v", len(got), messages, err)
	}
	return got
}

// each reads what a stream holds, many messages at a time, until done.
func (b *bundle) each(c topology.Consumer, done func(bus.Delivery) bool) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 2*time.Minute)
	defer cancel()
	finished := false
	err := b.bus.Consume(ctx, c, bus.Limit{Messages: 1000}, func(_ context.Context, batch []bus.Delivery) error {
		for _, d := range batch {
			if done(d) {
				finished = true
				cancel()
			}
		}
		return nil
	})
	if err != nil || !finished {
		b.t.Fatalf("not all is stored: %v", err)
	}
}

func event(id string, at time.Time, more string) string {
	return fmt.Sprintf(`{"id":%q,"source":"bluesky","kind":"post","time":%q,"author":{"id":"a"}%s}`, id, at.Format(time.RFC3339Nano), more)
}

// What was accepted lies in RAW, stamped, byte for byte; what was rejected in REJECTS, with its bytes.
func TestAcceptedIsStored(t *testing.T) {
	b := setup(t, "", storage)
	now := time.Now().UTC()
	lines := []string{event("1", now, ""), `{"broken`, event("2", now.Add(-80*time.Hour), ""), event("3", now.Add(11*time.Minute), ""), event("4", now.Add(-70*time.Hour), `,"text":"ä"`)}
	status, answer := b.post(nil, []byte(strings.Join(lines, "\n")))
	want := `{"accepted":2,"rejected":[{"line":2,"code":"invalid_json","detail":"not a JSON object on its own"},` +
		`{"line":3,"code":"too_late","detail":"time: older than the company's lateness"},` +
		`{"line":4,"code":"in_future","detail":"time: more than 10 minutes ahead"}]}`
	if status != 202 || answer != want {
		t.Fatalf("%d\n got %s\nwant %s", status, answer, want)
	}
	raw := b.stored(topology.EnrichRaw, 1)[0]
	frame, err := wire.DecodeFrame(nil, raw.Data, len(lines[0])+len(lines[4])+2)
	if err != nil || string(frame) != lines[0]+"\n"+lines[4]+"\n" {
		t.Fatalf("%v: %s", err, frame)
	}
	if raw.Subject != "social.raw.bluesky" || raw.Header.Get(topology.HeaderRules) != b.rules.Version() || raw.Header.Get(topology.HeaderEvents) != "2" {
		t.Fatalf("%s %v", raw.Subject, raw.Header)
	}
	byCode := map[string]string{}
	for _, d := range b.stored(topology.AggregateRejects, 3) {
		var size int
		fmt.Sscan(d.Header.Get(topology.HeaderSize), &size)
		rejects, err := wire.DecodeFrame(nil, d.Data, size)
		if err != nil {
			t.Fatal(err)
		}
		for r, err := range wire.DecodeRejects(rejects) {
			if err != nil {
				t.Fatal(err)
			}
			byCode[d.Subject] = string(r.Bytes)
		}
	}
	for subject, line := range map[string]string{
		"social.rejects.ingest.invalid_json": lines[1], "social.rejects.ingest.too_late": lines[2], "social.rejects.ingest.in_future": lines[3],
	} {
		if byCode[subject] != line {
			t.Errorf("%s holds %q", subject, byCode[subject])
		}
	}
}

// Every way to send the contract names ends in the same frame.
func TestForms(t *testing.T) {
	b := setup(t, "", storage)
	e := event("1", time.Now(), `,"text":"x"`)
	gz := func(s string) []byte {
		var buf bytes.Buffer
		w := gzip.NewWriter(&buf)
		_, _ = w.Write([]byte(s))
		_ = w.Close()
		return buf.Bytes()
	}
	zst := func(s string) []byte {
		w, _ := zstd.NewWriter(nil)
		defer w.Close()
		return w.EncodeAll([]byte(s), nil)
	}
	f := func(body []byte, header ...string) {
		t.Helper()
		h := http.Header{}
		for i := 0; i < len(header); i += 2 {
			h.Set(header[i], header[i+1])
		}
		if status, answer := b.post(h, body); status != 202 || answer != `{"accepted":1,"rejected":[]}` {
			t.Fatalf("%v: %d %s", header, status, answer)
		}
		d := b.stored(topology.EnrichRaw, 1)[0]
		if frame, err := wire.DecodeFrame(nil, d.Data, len(e)+1); err != nil || string(frame) != e+"\n" {
			t.Fatalf("%v: %v: %q", header, err, frame)
		}
	}
	f([]byte(e))
	f([]byte(e+"\n"), "Content-Type", "application/x-ndjson")
	f([]byte("["+e+"]"), "Content-Type", "application/json")
	f(gz(e), "Content-Encoding", "gzip")
	f(gz(e), "Content-Encoding", "GZIP")
	f(gz(e), "Content-Encoding", "x-gzip")
	f(gz(e), "Content-Encoding", "identity, gzip,")
	f(zst(e), "Content-Encoding", "zstd")
	f(zst(e), "Content-Encoding", " Zstd ")
	f([]byte(e), "Content-Encoding", "Identity")
	f([]byte(`{"specversion":"1.0","id":"x","source":"y","type":"z","data":`+e+`}`), "Content-Type", "application/cloudevents+json")
	f([]byte(`[{"specversion":"1.0","id":"x","source":"y","type":"z","data":`+e+`}]`), "Content-Type", "application/cloudevents-batch+json")
	f([]byte(e), "Content-Type", "application/json", "ce-specversion", "1.0", "ce-id", "x", "ce-source", "y", "ce-type", "z")
	var pretty bytes.Buffer
	_ = json.Indent(&pretty, []byte(e), "", "  ")
	f(pretty.Bytes(), "Content-Type", "application/json")
}

// Malformed, huge, truncated, nested and compressed-bomb input gets an answer that says what to do, and no crash.
func TestBadBodies(t *testing.T) {
	b := setup(t, "", storage)
	f := func(status int, says string, body []byte, header ...string) {
		t.Helper()
		h := http.Header{}
		for i := 0; i < len(header); i += 2 {
			h.Set(header[i], header[i+1])
		}
		got, answer := b.post(h, body)
		if got != status || !strings.Contains(answer, says) {
			t.Fatalf("want %d %s, got %d %.300s", status, says, got, answer)
		}
	}
	bomb := func() []byte {
		var buf bytes.Buffer
		w := gzip.NewWriter(&buf)
		zeros := make([]byte, 1<<20)
		for range 64 {
			_, _ = w.Write(zeros)
		}
		_ = w.Close()
		return buf.Bytes()
	}()
	z, _ := zstd.NewWriter(nil)
	defer z.Close()
	f(400, "empty", nil)
	f(400, "empty", []byte(" \n "))
	f(400, "want events", []byte("hello"))
	f(400, "no event", []byte("[]"))
	f(400, "cannot be read", []byte("plain"), "Content-Encoding", "gzip")
	f(400, "cannot be read", bomb[:len(bomb)/2][:100], "Content-Encoding", "gzip")
	f(400, "cannot be read", []byte("plain"), "Content-Encoding", "zstd")
	f(415, "gzip, zstd", []byte("x"), "Content-Encoding", "br")
	f(415, "gzip, zstd", []byte("x"), "Content-Encoding", "gzip, zstd")
	f(400, "--long=31", zstdHeader(32), "Content-Encoding", "zstd")
	f(413, "16 MiB", bomb, "Content-Encoding", "gzip")
	f(413, "16 MiB", z.EncodeAll(make([]byte, 64<<20), nil), "Content-Encoding", "zstd")
	f(413, "16 MiB", bytes.Repeat([]byte("x"), 17<<20))
	f(202, `"accepted":0,"rejected":[{"line":1,"code":"too_large"`, []byte(event("1", time.Now(), `,"text":"`+strings.Repeat("x", 1<<20)+`"`)))
	f(202, `"code":"invalid_utf8"`, []byte("{\"id\":\"\xff\"}"))
	f(202, `"code":"invalid_json"`, []byte(strings.Repeat(`{"a":`, 100_000)))
	f(202, `nested more than`, []byte(`{"a":`+strings.Repeat("[", 400_000)+strings.Repeat("]", 400_000)+"}"))
	f(202, `"rejected_not_listed":2`, []byte(strings.Repeat("{\n", 10_002)))
	f(202, `{"accepted":1,`, []byte(event("1", time.Now(), `,"text":"`+strings.Repeat("x", 1<<20-200)+`"`)))
	f(202, `{"accepted":1,`, []byte(event("still alive", time.Now(), "")))
}

// zstdHeader is the beginning of a frame of unknown size that declares a window of 1<<log bytes.
func zstdHeader(log int) []byte { return []byte{0x28, 0xb5, 0x2f, 0xfd, 0, byte(log-10) << 3} }

// The window that a zstd body declares is allowed, and allocated for nobody.
func TestZstdWindows(t *testing.T) {
	var b budget
	read := func(packed []byte) ([]byte, uint64, error) {
		t.Helper()
		request := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(packed))
		request.Header.Set("Content-Encoding", "zstd")
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		body, held, err := b.read(nil, httptest.NewRecorder(), request)
		runtime.ReadMemStats(&after)
		b.release(held)
		if b.held.Load() != 0 {
			t.Errorf("%d bytes stay held", b.held.Load())
		}
		return body, after.TotalAlloc - before.TotalAlloc, err
	}
	for _, log := range []int{10, 23, 24, 25, 27, 30} {
		small := append(zstdHeader(log), 5<<3|1, 0, 0) // one block, the last, raw, 5 bytes
		body, took, err := read(append(small, "hello"...))
		if err != nil || string(body) != "hello" || took > 2<<20 {
			t.Errorf("a window of 1<<%d: %q, %d bytes allocated: %v", log, body, took, err)
		}
	}
	noise := make([]byte, maxBody+1)
	random := rand.New(rand.NewPCG(3, 4))
	for i := range noise {
		noise[i] = 'a' + byte(random.IntN(4))
	}
	pack := func(plain []byte) []byte {
		var packed bytes.Buffer
		z, err := zstd.NewWriter(&packed, zstd.WithWindowSize(32<<20), zstd.WithEncoderConcurrency(1))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = z.Write(plain) // in pieces: the size stands nowhere
		_ = z.Flush()
		_ = z.Close()
		return packed.Bytes()
	}
	zeros := make([]byte, maxBody) // compresses beyond what is first made room for
	for _, plain := range [][]byte{noise[:maxBody], zeros, noise[:3<<20], zeros[:1<<17], {'x'}} {
		if body, _, err := read(pack(plain)); err != nil || !bytes.Equal(body, plain) {
			t.Errorf("%d bytes come back as %d: %v", len(plain), len(body), err)
		}
	}
	two := append(pack(zeros[:1<<20]), pack(noise[:1<<20])...)
	if body, _, err := read(two); err != nil || len(body) != 2<<20 {
		t.Errorf("two frames come back as %d bytes: %v", len(body), err)
	}
	for _, plain := range [][]byte{noise, make([]byte, 20*maxBody)} {
		if _, took, err := read(pack(plain)); !errors.Is(err, errTooLarge) || took > 64<<20 {
			t.Errorf("%d bytes: %d allocated, %v", len(plain), took, err)
		}
	}
}

// Bodies full of bad lines are kept without taking a multiple of their size, and spoil no good line.
func TestManyBadLines(t *testing.T) {
	b := setup(t, "", storage)
	f := func(body []byte, accepted, rejected int) map[string]int {
		t.Helper()
		var packed bytes.Buffer
		z := gzip.NewWriter(&packed)
		_, _ = z.Write(body)
		_ = z.Close()
		status, text := b.post(http.Header{"Content-Type": {"application/x-ndjson"}, "Content-Encoding": {"gzip"}}, packed.Bytes())
		var got answer
		if err := json.Unmarshal([]byte(text), &got); err != nil || status != 202 || got.Accepted != accepted || len(got.Rejected)+got.More != rejected {
			t.Fatalf("%d %.300s", status, text)
		}
		stored := map[string]int{}
		n := 0
		b.each(topology.AggregateRejects, func(d bus.Delivery) bool {
			var size, events, lines int
			fmt.Sscan(d.Header.Get(topology.HeaderSize), &size)
			fmt.Sscan(d.Header.Get(topology.HeaderEvents), &events)
			rejects, err := wire.DecodeFrame(nil, d.Data, size)
			if err != nil {
				t.Error(err)
			}
			for r, err := range wire.DecodeRejects(rejects) {
				if err != nil || r.Size != r.Kept {
					t.Errorf("%v: %d kept of %d", err, r.Kept, r.Size)
				}
				for line := range bytes.SplitSeq(r.Bytes, []byte("\n")) {
					stored[string(r.Code)+" "+string(line)]++
					lines++
				}
			}
			if lines != events {
				t.Errorf("%d lines declared as %d", lines, events)
			}
			n += lines
			return n == rejected
		})
		return stored
	}
	good := event("1", time.Now(), "")
	stored := f([]byte(strings.Repeat("{}\n", 200_000)+good), 1, 200_000)
	if diff := cmp.Diff(map[string]int{"missing_field {}": 200_000}, stored); diff != "" {
		t.Error(diff)
	}
	stored = f([]byte(strings.Repeat("x\n{}\n{\"source\":\"x\"}\n", 100_000)+good+"\n"+strings.Repeat("y", 100_000)), 1, 300_001)
	if diff := cmp.Diff(map[string]int{"invalid_json x": 100_000, "missing_field {}": 100_000, "missing_field {\"source\":\"x\"}": 100_000, "invalid_json " + strings.Repeat("y", 100_000): 1}, stored); diff != "" {
		t.Error(diff)
	}
	late := event("1", time.Now().Add(-80*time.Hour), `,"text":"`+strings.Repeat("x", 150)+`"`)
	n := maxBody / (len(late) + 1)
	if stored = f([]byte(strings.Repeat(late+"\n", n)), 0, n); stored["too_late "+late] != n {
		t.Errorf("%d of %d late events are stored", stored["too_late "+late], n)
	}
}

// The rejects of the worst body take no more memory than its size twice.
func TestRejectsAreBounded(t *testing.T) {
	for _, line := range []string{"x\n", "{}\n{\"\n"} {
		body := bytes.Repeat([]byte(line), maxBody/len(line))
		j := new(judge)
		j.begin(time.Now(), 72*time.Hour, "v", nil)
		for n, e := range lines.events(body) {
			j.take(n, e)
		}
		j.end()
		if most := len(body) + maxOverhead + 1<<20; j.accepted != 0 || j.size() > most {
			t.Errorf("%q: %d accepted, %d MiB to store", line, j.accepted, j.size()>>20)
		}
	}
}

// A reject names the source of its event where that can be read, so that it can be found by it.
func TestRejectsNameTheirSource(t *testing.T) {
	j := new(judge)
	j.begin(time.Now(), 72*time.Hour, "v", nil)
	for n, line := range []string{`{"source":"x","id":5}`, `{"source":"x","kind"`, `{"source":"x","kind":"post"}`, `{"source":"Not A Name"}`, event("1", time.Now().Add(-80*time.Hour), "")} {
		j.take(n+1, []byte(line))
	}
	j.end()
	got := map[string]string{}
	for _, b := range j.rejects.list {
		for r, err := range wire.DecodeRejects(b.content) {
			if err != nil {
				t.Fatal(err)
			}
			got[string(r.Code)+": "+r.Detail] = r.Source
		}
	}
	want := map[string]string{
		"invalid_field: id: a JSON number does not fit": "x", "invalid_json: not a JSON object on its own": "x", "missing_field: time": "x",
		"invalid_field: source: want [a-z][a-z0-9-]{0,31}": "", "too_late: time: older than the company's lateness": "bluesky",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// Many sources in one request cost neither the square of their number nor a message each.
func TestManySources(t *testing.T) {
	b := setup(t, "", 1<<30)
	f := func(sources int) {
		t.Helper()
		var body bytes.Buffer
		for i := range 10_000 {
			body.WriteString(strings.Replace(event("1", time.Now(), ""), "bluesky", fmt.Sprintf("s%d", i%sources), 1) + "\n")
		}
		if got, answer := b.post(nil, body.Bytes()); got != 202 || !strings.Contains(answer, `{"accepted":10000,`) {
			t.Errorf("%d sources: %d %.300s", sources, got, answer)
		}
		events := 0
		b.each(topology.EnrichRaw, func(d bus.Delivery) bool {
			var n int
			fmt.Sscan(d.Header.Get(topology.HeaderEvents), &n)
			events += n
			return events == 10_000
		})
	}
	f(1000)
	f(5000) // more than one commit takes
}

// Both times of an event are held to both bounds, which themselves are allowed.
func TestCheckTime(t *testing.T) {
	now := time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
	f := func(at, observed time.Time, lateness time.Duration, want string) {
		t.Helper()
		e := &social.Event{Time: at, Counters: &social.Counters{ObservedAt: observed}}
		got := ""
		var bad *social.Invalid
		if errors.As(CheckTime(e, now, lateness), &bad) {
			got = string(bad.Code) + " " + bad.Detail
		}
		if got != want {
			t.Errorf("%s, observed %s: %q, want %q", at, observed, got, want)
		}
	}
	oldest, latest := now.Add(-72*time.Hour), now.Add(maxAhead)
	f(now, now, 72*time.Hour, "")
	f(oldest, latest, 72*time.Hour, "")
	f(latest, oldest, 72*time.Hour, "")
	f(oldest.Add(-1), now, 72*time.Hour, "too_late time: older than the company's lateness")
	f(latest.Add(1), now, 72*time.Hour, "in_future time: more than 10 minutes ahead")
	f(now, oldest.Add(-1), 72*time.Hour, "too_late counters.observed_at: older than the company's lateness")
	f(now, latest.Add(1), 72*time.Hour, "in_future counters.observed_at: more than 10 minutes ahead")
	f(now, time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC), 100*365*24*time.Hour, "too_late counters.observed_at: older than the company's lateness")
}

// What requests hold is given back, with all its copies.
func TestBudgetIsGivenBack(t *testing.T) {
	var b budget
	body := bytes.Repeat([]byte("x"), 1<<20)
	request := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(body))
	_, held, err := b.read(nil, httptest.NewRecorder(), request)
	if err != nil || held < copies<<20 || held > copies<<20+copies<<17 || b.held.Load() != held {
		t.Fatalf("%d held for a MiB, %d in all: %v", held, b.held.Load(), err)
	}
	b.release(held)
	if b.held.Load() != 0 || !b.take(maxHeld) || b.take(1) {
		t.Errorf("%d left", b.held.Load())
	}
}

func TestTokens(t *testing.T) {
	b := setup(t, "sha256:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b reddit\n", storage)
	if status, _ := b.post(nil, []byte("{}")); status != 401 {
		t.Errorf("without a token: %d", status)
	}
	header := http.Header{"Authorization": {"Bearer secret"}}
	if status, answer := b.post(header, []byte(event("1", time.Now(), ""))); status != 202 || !strings.Contains(answer, `"code":"invalid_field","detail":"source: `) {
		t.Errorf("a source of somebody else: %d %s", status, answer)
	}
	own := strings.Replace(event("1", time.Now(), ""), "bluesky", "reddit", 1)
	if status, answer := b.post(header, []byte(own)); status != 202 || !strings.Contains(answer, `"accepted":1`) {
		t.Errorf("an own source: %d %s", status, answer)
	}
}

// A full stream is told as 429, and what was answered 202 before is all there.
func TestFullStream(t *testing.T) {
	b := setup(t, "", 1<<20) // RAW gets 400 KiB
	noise, random := make([]byte, 40_000), rand.New(rand.NewPCG(1, 2))
	for i := range noise {
		noise[i] = 'a' + byte(random.IntN(26)) // hardly compresses
	}
	accepted := 0
	for i := range 200 {
		status, answer := b.post(nil, []byte(event(fmt.Sprint(i), time.Now(), fmt.Sprintf(`,"text":"%d%s"`, i, noise))))
		if status == 202 {
			accepted++
			continue
		}
		if status != 429 {
			t.Fatalf("%d %s", status, answer)
		}
		got := 0
		for _, d := range b.stored(topology.EnrichRaw, accepted) {
			var n int
			fmt.Sscan(d.Header.Get(topology.HeaderEvents), &n)
			got += n
		}
		if got != accepted {
			t.Fatalf("%d events stored, %d accepted", got, accepted)
		}
		return
	}
	t.Fatal("400 KiB took 200 large events")
}

// Requests that come together share frames; each gets its own answer.
func TestGroupCommit(t *testing.T) {
	b := setup(t, "", storage)
	const requests = 200
	var sending sync.WaitGroup
	for i := range requests {
		sending.Go(func() {
			if status, answer := b.post(nil, []byte(event(fmt.Sprint(i), time.Now(), "")+"\nbroken{\n")); status != 202 || !strings.HasPrefix(answer, `{"accepted":1,"rejected":[{"line":2,`) {
				t.Errorf("%d %s", status, answer)
			}
		})
	}
	sending.Wait()
	events, frames := 0, 0
	b.each(topology.EnrichRaw, func(d bus.Delivery) bool {
		var n int
		fmt.Sscan(d.Header.Get(topology.HeaderEvents), &n)
		events += n
		frames++
		return events >= requests
	})
	if events != requests || frames >= requests {
		t.Fatalf("%d events in %d frames", events, frames)
	}
}

// TestLastGroupIsStored: what was handed in when the service ends is stored before its request is answered, and nothing is taken
// after it.
func TestLastGroupIsStored(t *testing.T) {
	b := setup(t, "", storage)
	c := newCommitter(b.bus, enginetest.Log(t), newMetrics(prometheus.NewRegistry()))
	last := new(submission)
	last.accept("bluesky", []byte(event("last", time.Now(), "")))
	g, err := c.join(last)
	if err != nil {
		t.Fatal(err)
	}
	<-c.begun // the end comes before anybody knows of the group
	ended, end := context.WithCancel(t.Context())
	end()
	c.run(ended, b.rules.Version)
	<-g.done
	if p, err := b.bus.Progress(t.Context(), topology.EnrichRaw); g.err != nil || p.Last != 1 {
		t.Errorf("answered with %v, %d frames are stored: %v", g.err, p.Last, err)
	}
	if err := c.commit(last); !errors.Is(err, errStopping) {
		t.Errorf("taken after the end: %v", err)
	}
}

// go test -run '^$' -bench Serve -benchmem ./services/ingester/ingest
func BenchmarkServe(b *testing.B) {
	var body bytes.Buffer
	for i := range 1000 {
		body.WriteString(event(fmt.Sprint(i), time.Now(), `,"text":"`+strings.Repeat("Somebody wrote a few words. ", 18)+`"`))
		body.WriteByte('\n')
	}
	j := new(judge)
	b.SetBytes(int64(body.Len()))
	b.ReportAllocs()
	for b.Loop() {
		j.begin(time.Now(), 72*time.Hour, "v", nil)
		for line, e := range lines.events(body.Bytes()) {
			j.take(line, e)
		}
		if j.accepted != 1000 {
			b.Fatal(j.rows)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/event")
}

// A change of the rules that falls into an absence of NATS is in force when NATS is back.
func TestRulesChangeWithoutNATS(t *testing.T) {
	directory, data := t.TempDir(), t.TempDir()
	write := func(company string) *nodes.Rules {
		if err := os.WriteFile(filepath.Join(directory, "company.yaml"), []byte(company), 0o644); err != nil {
			t.Fatal(err)
		}
		rules, err := nodes.LoadDir(directory)
		if err != nil {
			t.Fatal(err)
		}
		return rules
	}
	startNATS := func(addr string) *embedded.NATS {
		n, err := embedded.StartNATS(embedded.NATSConfig{Dir: data, Addr: addr, Log: enginetest.Log(t)})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	n := startNATS("127.0.0.1:0")
	addr := n.Addr()
	b, err := bus.Open(bus.Config{URL: n.URL(), Name: "test", Storage: storage}, enginetest.Log(t))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := b.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	failed := make(chan struct{})
	log := writerFunc(sync.OnceFunc(func() { close(failed) }))
	in := New(nil, b, slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelWarn})), prometheus.NewRegistry())
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	rules := write("company: acme\n")
	go func() { ended <- in.Run(ctx, rules, directory) }()
	until := func(what string, ok func() bool) {
		for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("waiting for ", what)
			}
		}
	}
	until("the first rules", func() bool { return in.Ready() == nil })
	n.Close()
	changed := write("company: acme\nlateness: 5h\n")
	until("the absence to be noticed", func() bool { return in.Ready() != nil })
	follow := make(chan struct{})
	go func() { in.follow(ctx, changed); close(follow) }()
	<-failed // an attempt takes five seconds
	n = startNATS(addr)
	defer n.Close()
	<-follow
	if got := in.rules.Load().Version(); got != changed.Version() {
		t.Errorf("in force is %s, want %s", got, changed.Version())
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// Rules that somebody removes from NATS are put back: frames that name them wait for them.
func TestRemovedRulesAreBack(t *testing.T) {
	b := setup(t, "", storage)
	f := func(what string, remove func() error) {
		t.Helper()
		if err := remove(); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			archive, err := b.bus.Get(t.Context(), topology.RulesBucket, topology.RulesKey(b.rules.Version()))
			if err == nil && bytes.Equal(archive, b.rules.Archive()) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: %v", what, err)
			}
		}
	}
	f("all of it", func() error {
		for _, key := range []string{topology.RulesKey(b.rules.Version()), topology.RulesCurrent} {
			if err := b.bus.Delete(t.Context(), topology.RulesBucket, key); err != nil {
				return err
			}
		}
		return nil
	})
	f("what is announced", func() error {
		return b.bus.Delete(t.Context(), topology.RulesBucket, topology.RulesKey(b.rules.Version()))
	})
	f("what is announced, by being overwritten", func() error {
		return b.bus.Put(t.Context(), topology.RulesBucket, topology.RulesKey(b.rules.Version()), []byte("garbage"))
	})
	f("an older copy, in which another version is in force", func() error {
		if err := b.bus.Put(t.Context(), topology.RulesBucket, topology.RulesCurrent, []byte("another")); err != nil {
			return err
		}
		return b.bus.Delete(t.Context(), topology.RulesBucket, topology.RulesKey(b.rules.Version()))
	})
}

// Who starts with a broken nodes directory takes the rules in force, and says what is broken where there are none.
func TestStartWithABrokenDirectory(t *testing.T) {
	b := setup(t, "", storage)
	broken := errors.New("company.yaml:1:10: not valid YAML")
	other := New(nil, b.bus, enginetest.Log(t), prometheus.NewRegistry())
	rules, err := other.LastGood(t.Context(), broken)
	if err != nil || rules.Version() != b.rules.Version() {
		t.Fatalf("%v, %v", rules, err)
	}
	n := enginetest.NATS(t)
	empty, err := bus.Open(bus.Config{URL: n.URL(), Name: "test", Storage: storage}, enginetest.Log(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(empty.Close)
	if rules, err = New(nil, empty, enginetest.Log(t), prometheus.NewRegistry()).LastGood(t.Context(), broken); !errors.Is(err, broken) {
		t.Fatalf("%v, %v", rules, err)
	}
	ended, stop := context.WithCancel(t.Context())
	stop()
	if rules, err = other.LastGood(ended, broken); rules != nil || err != nil {
		t.Fatalf("%v, %v", rules, err)
	}
}

// A sender is told to come again the later the longer the streams refuse; it begins anew once something was stored.
func TestRetryAfter(t *testing.T) {
	in, began := &Ingester{}, time.Now()
	f := func(after time.Duration, want int) {
		t.Helper()
		if got := in.retryAfter(began.Add(after)); got != want {
			t.Errorf("after %v: %d s, want %d", after, got, want)
		}
	}
	f(0, 5)
	f(3*time.Second, 5)
	f(40*time.Second, 15)
	f(time.Hour, 60)
	in.full.Store(0)
	f(time.Hour, 5)
}

// breaks is a connection that breaks when it is to carry what is given, once.
type breaks struct {
	net.Conn
	at   []byte
	once *sync.Once
}

func (c *breaks) Write(p []byte) (n int, err error) {
	if bytes.Contains(p, c.at) {
		c.once.Do(func() { err = c.Close() })
		if err != nil {
			return 0, err
		}
	}
	return c.Conn.Write(p)
}

// A service that starts while the connection breaks puts its rules in force all the same.
func TestFirstRulesOverABrokenConnection(t *testing.T) {
	n := enginetest.NATS(t)
	once := new(sync.Once)
	b, err := bus.Open(bus.Config{URL: n.URL(), Name: "test", Storage: storage, Dial: func() (net.Conn, error) {
		conn, err := net.Dial("tcp", n.Addr())
		return &breaks{conn, []byte("$KV." + topology.RulesBucket + "." + topology.RulesKey("")), once}, err
	}}, enginetest.Log(t))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	rules, err := nodes.Load(fstest.MapFS{"company.yaml": {Data: []byte("company: acme\n")}})
	if err != nil {
		t.Fatal(err)
	}
	in := New(nil, b, enginetest.Log(t), prometheus.NewRegistry())
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- in.Run(ctx, rules, "") }()
	for deadline := time.Now().Add(30 * time.Second); in.Ready() != nil; time.Sleep(5 * time.Millisecond) {
		select {
		case err := <-ended:
			t.Fatal("ended: ", err)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatal(in.Ready())
		}
	}
	once.Do(func() { t.Error("the connection never broke") })
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// writerFunc is called for each line of a log.
type writerFunc func()

func (f writerFunc) Write(line []byte) (int, error) { f(); return len(line), nil }
