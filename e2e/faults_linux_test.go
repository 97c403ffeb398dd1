package e2e

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"
)

const (
	// tellers send histories side by side.
	tellers = 3
	// chunkBytes are sent at once, some 25 events, and tellerPace is how often: together about as much as one aggregator keeps up
	// with while everything about it falls.
	chunkBytes = 8 << 10
	tellerPace = 250 * time.Millisecond
)

// These are full after some minutes, so that they come to be purged.
const (
	smallRaw     = 2 << 20
	smallRejects = 128 << 10
)

// thorough is how long a run must last for every seam to have its turn.
const thorough = 20 * time.Minute

// TestFaults: two of each service, NATS and ClickHouse, each a process of its own, are killed and paused, by chance and at
// every seam, ClickHouse also as it commits, and their connections are cut, half closed, stalled and slowed, while histories
// are told; in the end everything that was accepted is counted as the histories say. POLYPHONY_TEST_FAULTS is how long it
// goes on, _SEED what happens.
//
//	make faults DURATION=1h SEED=1
func TestFaults(t *testing.T) {
	t.Parallel()
	lasts := settingTime(t, "FAULTS", time.Minute)
	if testing.Short() {
		t.Skip("takes more than a minute")
	}
	seed := uint64(setting(t, "SEED", 1))
	rig := newRig(t, seed)
	rig.streams["RAW"], rig.streams["REJECTS"] = smallRaw, smallRejects
	rig.start()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var all [tellers][]told
	var telling sync.WaitGroup
	for i := range tellers {
		telling.Go(func() { all[i] = rig.tellHistories(ctx, i, rand.New(rand.NewPCG(seed, uint64(i)))) })
	}
	deeds := schedule(seed, lasts, rig.programsOf())
	t.Logf("seed %d: %d deeds in %v, written down with what came of them in %s, which is kept when the test fails", seed, len(deeds), lasts, rig.log.Name())
	rig.harm(deeds, lasts)
	stop()
	rig.heal()
	telling.Wait()
	settleAt(t, rig.at["nats"], max(time.Minute, lasts))
	histories := slices.Concat(all[:]...)
	t.Logf("seed %d: %d histories, %d requests answered otherwise than 202\n%s", seed, len(histories), rig.refused.Load(), rig.summary())
	rig.mustKnowItsSeams(lasts >= thorough)
	rig.mustLackNothing()
	copyFile := filepath.Join(t.TempDir(), "copy")
	rig.copied("--file", copyFile)
	rig.mustShow(histories, copyFile)
}

// harm does one thing after the other for as long as it is to last. Whatever ends is started again.
func (rig *rig) harm(deeds []deed, lasts time.Duration) {
	rig.t.Helper()
	began := time.Now()
	tendUntil := func(at time.Duration) {
		for time.Since(began) < at {
			rig.tend()
			time.Sleep(min(at-time.Since(began), pollStep))
		}
	}
	for _, d := range deeds {
		tendUntil(d.at)
		rig.tend()
		rig.do(d)
	}
	tendUntil(lasts)
}

// do does one thing; not to a process that is paused or has ended.
func (rig *rig) do(d deed) {
	a := rig.actors[d.actor]
	if a.held || a.exited() {
		return
	}
	switch d.what {
	case "kill":
		rig.note("kill", a, "")
		a.kill()
	case "kill before a commit", "kill after a commit":
		rig.killAtCommit(d.what)
	case "pause":
		rig.note("pause", a, fmt.Sprint("for ", d.lasts))
		a.stop()
		rig.holdFor(a, d.lasts)
	default:
		p := a.proxies[d.proxy%len(a.proxies)]
		rig.note(d.what, a, fmt.Sprint("for ", d.lasts))
		p.spoil(d.what)
		rig.later(d.lasts, p.flow)
	}
}

// tellHistories sends histories until ctx ends, each piece until it is accepted by one of the ingesters.
func (rig *rig) tellHistories(ctx context.Context, teller int, r *rand.Rand) (all []told) {
	const atOnce = 40
	client := &http.Client{Timeout: 15 * time.Second}
	defer client.CloseIdleConnections()
	around := time.Now().UTC().Truncate(time.Hour).Add(-48 * time.Hour)
	pace := time.NewTicker(rig.pace)
	defer pace.Stop()
	for ctx.Err() == nil {
		round := len(all)
		for range atOnce {
			h := inventHistory(r, around)
			all = append(all, h.tell(r, fmt.Sprintf("h%d.%d", teller, len(all)), pieces))
		}
		for piece := range pieces {
			var body bytes.Buffer
			for _, told := range all[round:] {
				for _, line := range told.pieces[piece] {
					body.WriteString(line + "\n")
				}
			}
			body.WriteString("and a line that is a reject\n")
			for part := range chunks(body.String(), chunkBytes) {
				<-pace.C
				rig.insist(client, r, []byte(part))
			}
		}
	}
	return all
}

// insist sends lines until one of the ingesters accepts them. Whatever else is answered, they may be stored or not.
func (rig *rig) insist(client *http.Client, r *rand.Rand, lines []byte) {
	ingesters := rig.of("ingester")
	for {
		a := ingesters[r.IntN(len(ingesters))]
		response, err := client.Post("http://"+a.addr+"/v1/events", "application/x-ndjson", bytes.NewReader(lines))
		if err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusAccepted {
				return
			}
		}
		rig.refused.Add(1)
		time.Sleep(5 * pollStep)
	}
}
