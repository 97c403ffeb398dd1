package warehouse

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"polyphony/pkg/embedded/enginetest"
	"polyphony/pkg/social"
)

// go test -run '^$' -bench InsertMentions -benchtime 40x ./pkg/warehouse
//
// client and server are microseconds of processor time for each mention, the server's until its merges are done too.
func BenchmarkInsertMentions(b *testing.B) {
	for _, size := range []int{5_000, 100_000} {
		b.Run(fmt.Sprintf("rows=%d", size), func(b *testing.B) {
			bench := newInsertBench(b, size)
			for b.Loop() {
				bench.next()
				bench.measure(func() { insert(b, bench.w, bench.mentions...) })
			}
			bench.report()
		})
	}
}

// go test -run '^$' -bench BareInsert -benchtime 40x ./pkg/warehouse
//
// The limit: the same rows, columns ready made, into mentions_store alone.
func BenchmarkBareInsert(b *testing.B) {
	bench := newInsertBench(b, 100_000)
	err := bench.w.send(b.Context(), bench.w.mentionSenders, func(s *sender) error {
		for b.Loop() {
			bench.next()
			input := s.facts.input()
			input.Reset()
			rows, _ := sortRows(bench.mentions)
			for _, r := range rows {
				s.facts.append(&bench.mentions[r.index], storedVersion(&bench.mentions[r.index]))
			}
			bench.measure(func() {
				if err := s.insert(b.Context(), "mentions_store", input); err != nil {
					b.Fatal(err)
				}
			})
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	bench.report()
}

type insertBench struct {
	b        *testing.B
	w        *Warehouse
	pid      int
	r        *rand.Rand
	mentions []social.Mention
	second   int

	client, server, first time.Duration
	rows                  int
}

// newInsertBench makes mentions of 320 nodes with texts of 350 bytes.
func newInsertBench(b *testing.B, size int) *insertBench {
	engine := enginetest.ClickHouse(b)
	bench := &insertBench{b: b, w: open(b, Config{Addr: engine.Addr()}), pid: engine.PID(), r: newRand(61)}
	bench.mentions = history(bench.r, size)
	for i := range bench.mentions {
		m := &bench.mentions[i]
		m.Node = social.Node{Division: "division-" + strconv.Itoa(bench.r.IntN(10)), Territory: "territory-" + strconv.Itoa(bench.r.IntN(32))}
		m.Text = prose(bench.r, 350)
		if m.Kind == social.Reply {
			m.ParentKey, m.RootKey, m.ParentAuthorKey = key(bench.r), key(bench.r), key(bench.r)
		}
	}
	bench.first = cpuOf(b, bench.pid)
	return bench
}

// next turns the mentions into those of the next second: new events, most of them just written, one in twenty up to
// three days late.
func (bench *insertBench) next() {
	bench.second++
	now := epoch.Add(time.Duration(bench.second) * time.Second)
	for i := range bench.mentions {
		m, other := &bench.mentions[i], &bench.mentions[bench.r.IntN(len(bench.mentions))]
		m.Text, other.Text = other.Text, m.Text
		m.EventKey, m.AuthorKey, m.RecordedTime = key(bench.r), key(bench.r), now
		late := bench.r.ExpFloat64() * 20
		if i%20 == 0 {
			late = bench.r.Float64() * 72 * 3600
		}
		m.Time = now.Add(-time.Duration(late * float64(time.Second))).Truncate(time.Millisecond)
	}
}

func (bench *insertBench) measure(do func()) {
	client, server := ownCPU(bench.b), cpuOf(bench.b, bench.pid)
	do()
	bench.client += ownCPU(bench.b) - client
	bench.server += cpuOf(bench.b, bench.pid) - server
	bench.rows += len(bench.mentions)
}

// report waits until the server has nothing left to merge.
func (bench *insertBench) report() {
	for range 30 {
		before := cpuOf(bench.b, bench.pid)
		time.Sleep(2 * time.Second) // there is nothing to wait on: a merge announces itself by nothing but its work
		if cpuOf(bench.b, bench.pid)-before < 100*time.Millisecond {
			break
		}
	}
	per := func(d time.Duration) float64 { return float64(d.Microseconds()) / float64(bench.rows) }
	bench.b.ReportMetric(per(bench.client), "client-us/row")
	bench.b.ReportMetric(per(bench.server), "server-us/row")
	bench.b.ReportMetric(per(cpuOf(bench.b, bench.pid)-bench.first), "merged-us/row")
	bench.b.ReportMetric(0, "ns/op")
}

func prose(r *rand.Rand, size int) string {
	words := strings.Fields(`the treatment helped my mother a lot but she has been tired since the second week does anybody
		know whether Examplumab is covered by insurance here we asked the clinic and nobody could tell us thank you all for
		your answers it is good to read that others went through this and came out again with some of their old strength`)
	var b bytes.Buffer
	for b.Len() < size {
		b.WriteString(words[r.IntN(len(words))])
		b.WriteByte(" .,!?\n"[min(5, int(r.ExpFloat64()))])
	}
	return b.String()
}

func ownCPU(b *testing.B) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// cpuOf is the processor time of a process so far, in steps of 10 ms.
func cpuOf(b *testing.B, pid int) time.Duration {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Skip(err)
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+2:]))
	user, err := strconv.Atoi(fields[11])
	if err != nil {
		b.Fatal(err)
	}
	system, err := strconv.Atoi(fields[12])
	if err != nil {
		b.Fatal(err)
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}
