package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"polyphony/pkg/embedded"
	"polyphony/pkg/social"
	"polyphony/pkg/wire"
)

func TestMain(m *testing.M) {
	embedded.RunChildIfAsked()
	if len(os.Args) > 2 && os.Args[1] == workerArg {
		os.Exit(work(context.Background(), os.Args[2], os.Args[3:]))
	}
	os.Exit(m.Run())
}

// The whole of it, small: every part measures something, everything is exact, and nothing is left behind.
func TestBenchIsExact(t *testing.T) {
	if testing.Short() {
		t.Skip("starts everything several times")
	}
	bin, tmp := t.TempDir(), t.TempDir()
	build := exec.Command("go", "build", "-o", bin, "polyphony/services/polyphony", "polyphony/services/ingester")
	build.Env = append(build.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building: %v: %s", err, out)
	}
	if library, err := filepath.Abs("../../deploy/embedded/node_modules/@chdb/lib-linux-x64-gnu/libchdb.so"); err == nil {
		_ = os.Symlink(library, filepath.Join(bin, "libchdb.so")) // elsewhere a clickhouse on PATH is used
	}
	o := options{bin: bin, nodes: "../../deploy/nodes", tmp: tmp, events: 5000, connections: 2, rate: 1000,
		duration: time.Second, idle: time.Second, settle: time.Second, pause: time.Second, timeout: time.Minute}
	r := report{}
	if err := measure(t.Context(), o, tmp, &r); err != nil {
		t.Fatal(err)
	}
	var shown strings.Builder
	r.print(&shown)
	if !r.exact() || len(r.Throughput) != 2 || len(r.Idle) != 2 {
		t.Fatalf("inexact or incomplete:\n%s", shown.String())
	}
	for _, run := range r.Throughput {
		want := int(float64(run.Events) * run.Matching)
		if d := run.Concerning - want; d < -want/5 || d > want/5 || run.Rows < run.Concerning {
			t.Errorf("%d events and %d rows concern a node, want about %d", run.Concerning, run.Rows, want)
		}
		if run.Processes[0].CPU <= 0 || run.Bare.JetStream.CPU <= 0 || run.Bare.ClickHouse.CPU <= 0 {
			t.Errorf("no CPU was measured:\n%s", shown.String())
		}
	}
	if r.Latency.Probes < 20 || r.Latency.P50 <= 0 || r.Latency.P99 < r.Latency.P50 {
		t.Errorf("latency: %+v", r.Latency)
	}
	if _, err := json.Marshal(&r); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(filepath.Join(tmp, "*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestDifference(t *testing.T) {
	f := func(got truth, want string) {
		t.Helper()
		truth := truth{"d\tt\t0": "2\t1", "d\tt\t3600": "1\t1"}
		if d := difference(truth, got); !strings.Contains(d, want) || want == "" && d != "" {
			t.Errorf("%v: %q, want %q", got, d, want)
		}
	}
	f(truth{"d\tt\t0": "2\t1", "d\tt\t3600": "1\t1"}, "")
	f(truth{"d\tt\t0": "2\t1"}, "1 of 2 node-hours differ")
	f(truth{"d\tt\t0": "2\t2", "d\tt\t3600": "1\t1"}, `want mentions and voices "2\t1", got "2\t2"`)
	f(truth{"d\tt\t0": "2\t1", "d\tt\t3600": "1\t1", "d\tx\t0": "1\t1"}, "1 of 3 node-hours differ")
	f(truth{}, "2 of 2 node-hours differ")
}

func TestInexactFails(t *testing.T) {
	f := func(r report, want bool) {
		t.Helper()
		if got := r.exact(); got != want {
			t.Errorf("exact: %v, want %v", got, want)
		}
	}
	f(report{Throughput: []*throughputRun{{}}, Latency: &latencyRun{}}, true)
	f(report{Throughput: []*throughputRun{{}, {Inexact: "one lost"}}}, false)
	f(report{Latency: &latencyRun{Inexact: "one lost"}}, false)
}

func TestParseStat(t *testing.T) {
	f := func(stat string, parent int, ticks int64, ok bool) {
		t.Helper()
		p, n, err := parseStat([]byte(stat))
		if p != parent || n != ticks || (err == nil) != ok {
			t.Errorf("%q: %d %d %v", stat, p, n, err)
		}
	}
	f("12 (a name) S 7 1 1 0 -1 0 0 0 0 0 30 12 0 0 20 0 4 0", 7, 42, true)
	f("12 (odd) S 9 (x) R 7 1 1 0 -1 0 0 0 0 0 1 2 0 0 20 0", 7, 3, true)
	f("12 (short) S 7", 0, 0, false)
	f("", 0, 0, false)
}

func TestParsePeak(t *testing.T) {
	if got := parsePeak([]byte("Name:\tx\nVmHWM:\t   2048 kB\nVmRSS:\t 1 kB\n")); got != 2<<20 {
		t.Errorf("got %d", got)
	}
	if got := parsePeak(nil); got != 0 {
		t.Errorf("got %d of nothing", got)
	}
}

func TestPercentile(t *testing.T) {
	f := func(values []time.Duration, p int, want float64) {
		t.Helper()
		if got := percentile(values, p); got != want {
			t.Errorf("p%d of %v: %v, want %v", p, values, got, want)
		}
	}
	var hundred []time.Duration
	for i := range 100 {
		hundred = append(hundred, time.Duration(100-i)*time.Millisecond)
	}
	f(nil, 50, 0)
	f(hundred[:1], 99, 100)
	f(hundred, 50, 50)
	f(hundred, 99, 99)
	f(hundred, 100, 100)
}

// Bodies are whole lines, all of them, in order.
func TestNextBody(t *testing.T) {
	long := strings.Repeat("x", 200_000)
	var file strings.Builder
	for i := range 30 {
		file.WriteString(long[:i*1000+1] + "\n" + long + "\n")
	}
	r := bufio.NewReaderSize(strings.NewReader(file.String()), 16)
	var all strings.Builder
	for err := error(nil); err == nil; {
		var body []byte
		body, err = nextBody(nil, r)
		if err != nil && err != io.EOF {
			t.Fatal(err)
		}
		if len(body) > 0 && body[len(body)-1] != '\n' || err == nil && len(body) < bodyBytes {
			t.Fatalf("a body of %d bytes ends in %q", len(body), body[max(0, len(body)-3):])
		}
		all.Write(body)
	}
	if all.String() != file.String() {
		t.Error("bodies do not add up to the file")
	}
}

// However large a batch is, its messages are of the public size and hold all of it.
func TestCutBatch(t *testing.T) {
	const mentions = 2000
	batch := wire.BeginBatch(nil)
	for i := range mentions {
		batch = wire.AppendMention(batch, "test", &social.Mention{
			Node: social.Node{Division: "d", Territory: "t"}, EventKey: social.Key{byte(i), byte(i >> 8), 1}, Source: "s", Kind: social.Post,
			Via: social.ViaText, Time: time.Unix(int64(i), 0).UTC(), RecordedTime: time.Unix(0, 0).UTC(), Text: strings.Repeat("a", 100)})
	}
	var got []social.Mention
	for piece, rest := cutBatch(wire.EndBatch(batch)); len(piece) > 0; {
		if len(piece) > wire.MaxBatch+8 {
			t.Errorf("a message of %d bytes", len(piece))
		}
		var err error
		if got, err = wire.DecodeBatch(got, piece); err != nil {
			t.Fatal(err)
		}
		if piece = nil; len(rest) > 0 {
			piece, rest = cutBatch(rest)
		}
	}
	if len(got) != mentions || got[mentions-1].EventKey == got[0].EventKey {
		t.Errorf("%d mentions, want %d", len(got), mentions)
	}
}

func TestCounter(t *testing.T) {
	page := "# HELP a_total x\na_total 12\na_total_more 3\nb{x=\"y\"} 4\nc 1.5e+06\n"
	for name, want := range map[string]int{"a_total": 12, "c": 1_500_000, "d": 0} {
		if got := counter(page, name); got != want {
			t.Errorf("%s: %d, want %d", name, got, want)
		}
	}
}
