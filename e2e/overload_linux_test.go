package e2e

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	// crowd is how many senders there are, none of which waits when it is told to.
	crowd = 8
	// crowdChunk is what each sends at once, some 200 events.
	crowdChunk = 64 << 10
	// mostMemory is what a service may take at most, in MB, whatever is offered.
	mostMemory = 512
	// refusedWithin is when a crowd that is not read from must have filled a small stream, on the slowest machine.
	refusedWithin = 2 * time.Minute
)

// TestOverload: senders offer more than the system takes for as long as POLYPHONY_TEST_OVERLOAD says, into small streams. They are told
// to wait, and for how long; memory stays within its bounds; everything that was accepted arrives, once. When it is to be short, enrichers
// are held until a sender has been told to wait, and the crowd stays until then: how fast the machine is does not decide whether the test
// shows something.
func TestOverload(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes a minute")
	}
	lasts := settingTime(t, "OVERLOAD", 4*time.Second)
	short := lasts < refusedWithin
	rig := newRig(t, 1)
	rig.gentle = true
	maps.Copy(rig.streams, map[string]int64{"RAW": 2 << 20, "THREADS": 6 << 20, "FACTS": 12 << 20}) // full before long
	rig.start()
	rig.awaitReady()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var all [crowd][]told
	answers := answered{statuses: map[int]int{}, waits: map[int]int{}, refused: make(chan struct{})}
	var sending sync.WaitGroup
	began := time.Now()
	sending.Go(func() {
		defer stop()
		if short {
			rig.holdEnrichers(answers.refused)
		}
		time.Sleep(lasts)
	})
	for i := range crowd {
		sending.Go(func() { all[i] = rig.press(ctx, &answers, i) })
	}
	sending.Wait()
	took := time.Since(began)
	settleAt(t, rig.at["nats"], max(5*time.Minute, 2*lasts))
	worked := time.Since(began)
	histories := slices.Concat(all[:]...)
	t.Logf("offered %d events/s for %v, took %d/s until everything was worked off after %v; %d histories; %s", int(float64(answers.offered)/took.Seconds()),
		took.Round(time.Second), int(float64(answers.taken)/worked.Seconds()), worked.Round(time.Second), len(histories), &answers)
	if answers.statuses[http.StatusTooManyRequests] == 0 {
		t.Error("nobody was told to wait: this shows nothing")
	}
	for _, a := range rig.actors {
		peak := peakMemory(t, a.pid())
		t.Logf("%s took %d MB at most", a.name, peak)
		if a.addr != "" && peak > mostMemory {
			t.Errorf("%s took %d MB, over %d", a.name, peak, mostMemory)
		}
	}
	copyFile := filepath.Join(t.TempDir(), "copy")
	rig.copied("--file", copyFile)
	rig.mustShow(histories, copyFile)
}

// holdEnrichers pauses them until somebody was refused.
func (rig *rig) holdEnrichers(refused <-chan struct{}) {
	for _, a := range rig.of("enricher") {
		a.stop()
		defer a.goOn()
	}
	select {
	case <-refused:
	case <-time.After(refusedWithin):
	}
}

// answered counts what senders were answered.
type answered struct {
	refused        chan struct{} // closed when a sender was told to wait
	mu             sync.Mutex
	offered, taken int // events
	statuses       map[int]int
	waits          map[int]int // seconds that senders were told to wait
}

func (a *answered) String() string {
	return fmt.Sprintf("answers %v, told to wait for %v s", a.statuses, a.waits)
}

// press sends histories as fast as they are taken or refused until ctx ends, and gives those that were taken.
func (rig *rig) press(ctx context.Context, answers *answered, sender int) (all []told) {
	const atOnce = 40
	r := rand.New(rand.NewPCG(1, uint64(sender)))
	client := &http.Client{Timeout: 30 * time.Second}
	defer client.CloseIdleConnections()
	around := time.Now().UTC().Truncate(time.Hour).Add(-48 * time.Hour)
	for ctx.Err() == nil {
		var body bytes.Buffer
		for range atOnce {
			h := inventHistory(r, around)
			told := h.tell(r, fmt.Sprintf("h%d.%d", sender, len(all)), pieces)
			for _, piece := range told.pieces {
				body.WriteString(strings.Join(piece, "\n"))
				body.WriteString("\n")
			}
			all = append(all, told)
		}
		for part := range chunks(body.String(), crowdChunk) {
			for !rig.offer(client, answers, rig.of("ingester")[r.IntN(2)], part) {
				if ctx.Err() != nil { // the crowd has gone, and what is begun is ended
					time.Sleep(time.Second)
				}
			}
		}
	}
	return all
}

// offer sends once and tells whether it was taken.
func (rig *rig) offer(client *http.Client, answers *answered, to *actor, lines string) bool {
	response, err := client.Post("http://"+to.addr+"/v1/events", "application/x-ndjson", strings.NewReader(lines))
	events := strings.Count(lines, "\n")
	answers.mu.Lock()
	defer answers.mu.Unlock()
	answers.offered += events
	if err != nil {
		return false
	}
	response.Body.Close()
	answers.statuses[response.StatusCode]++
	if response.StatusCode == http.StatusAccepted {
		answers.taken += events
		return true
	}
	wait, err := strconv.Atoi(response.Header.Get("Retry-After"))
	if err != nil || wait < 1 || wait > 60 {
		rig.t.Errorf("answered %d with Retry-After %q", response.StatusCode, response.Header.Get("Retry-After"))
	}
	if response.StatusCode == http.StatusTooManyRequests && answers.statuses[http.StatusTooManyRequests] == 1 {
		close(answers.refused)
	}
	answers.waits[wait]++
	return false
}

// peakMemory is the most that a process ever took, in MB.
func peakMemory(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); fields[0] == "VmHWM:" {
			kb, err := strconv.Atoi(fields[1])
			if err != nil {
				t.Fatal(err)
			}
			return kb >> 10
		}
	}
	t.Fatalf("process %d has no memory", pid)
	return 0
}
