package embedded_test

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"polyphony/pkg/embedded"
	"polyphony/pkg/embedded/enginetest"
)

// BenchmarkStartClickHouse is the time from nothing to an engine that answers, and to its orderly end.
//
//	go test -run '^$' -bench StartClickHouse -benchtime 20x ./pkg/embedded
func BenchmarkStartClickHouse(b *testing.B) {
	dir := b.TempDir()
	var closing time.Duration
	for b.Loop() {
		c, err := start(b.Context(), dir, "", enginetest.Log(b))
		if err != nil {
			b.Fatal(err)
		}
		began := time.Now()
		if err := c.Close(context.Background()); err != nil {
			b.Fatal(err)
		}
		closing += time.Since(began)
	}
	b.ReportMetric(float64(closing.Milliseconds())/float64(b.N), "close-ms/op")
}

// BenchmarkIdle is what the two engines cost while nobody asks anything, as the share of one core, and the memory of
// ClickHouse. Half a minute, whatever -benchtime says.
//
//	go test -run '^$' -bench Idle -benchtime 1x ./pkg/embedded
func BenchmarkIdle(b *testing.B) {
	c := enginetest.ClickHouse(b)
	n, err := embedded.StartNATS(embedded.NATSConfig{Dir: b.TempDir(), Addr: "127.0.0.1:0", Log: enginetest.Log(b)})
	if err != nil {
		b.Fatal(err)
	}
	defer n.Close()
	const settle, watch = 5 * time.Second, 30 * time.Second
	time.Sleep(settle) // real time is what is measured here
	clickhouse, self := cpuSeconds(b, c.PID()), cpuSeconds(b, os.Getpid())
	time.Sleep(watch)
	b.ReportMetric(100*(cpuSeconds(b, c.PID())-clickhouse)/watch.Seconds(), "clickhouse-%core")
	b.ReportMetric(100*(cpuSeconds(b, os.Getpid())-self)/watch.Seconds(), "nats-%core")
	b.ReportMetric(residentMB(b, c.PID()), "clickhouse-MB")
	b.ReportMetric(0, "ns/op")
}

// cpuSeconds is what a process has used so far, in steps of 10 ms.
func cpuSeconds(b *testing.B, pid int) float64 {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	field := strings.Fields(rest)
	user, _ := strconv.Atoi(field[11])
	system, _ := strconv.Atoi(field[12])
	const ticksPerSecond = 100
	return float64(user+system) / ticksPerSecond
}

func residentMB(b *testing.B, pid int) float64 {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		b.Fatal(err)
	}
	pages, _ := strconv.Atoi(strings.Fields(string(text))[1])
	return float64(pages*os.Getpagesize()) / (1 << 20)
}
