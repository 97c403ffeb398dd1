package e2e

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestOutages: while an engine is away, full, slow or unwilling, the services that need it say so and why on /readyz and in
// metrics, wait for as long as it takes, and take up where they were; in the end everything is counted as the histories say.
// Each outage lasts longer than every time-out on the way but one: that a server which is silent has lost its connection is
// noticed after five minutes, see TestFrozenClickHouse. How long ClickHouse is away at first POLYPHONY_TEST_OUTAGE says:
//
//	POLYPHONY_TEST_OUTAGE=20m go test -count=1 -timeout 1h -v -run TestOutages ./e2e
func TestOutages(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes two minutes")
	}
	rig := newRig(t, 1)
	rig.gentle, rig.pace = true, 2*tellerPace
	lasts := settingTime(t, "OUTAGE", outageTime)
	room := 256<<20 + int(lasts.Seconds())<<19 // more than what is told takes, all of which NATS keeps
	natsDisk := mount(t, filepath.Join(rig.data, "nats"), room)
	clickhouseDisk := mount(t, filepath.Join(rig.data, "clickhouse"), room)
	rig.start()
	rig.awaitReady()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var all []told
	var telling sync.WaitGroup
	telling.Go(func() { all = rig.tellHistories(ctx, 0, rand.New(rand.NewPCG(1, 1))) })

	nats, clickhouse := rig.of("nats")[0], rig.of("clickhouse")[0]
	longest := lasts
	outage := func(what, services, says string, begin, end func()) {
		t.Helper()
		t.Log(what)
		begin()
		rig.mustSay(services, says)
		time.Sleep(lasts)
		rig.mustSay(services, says)
		end()
		rig.awaitReadyFor(max(readyWait, 2*lasts)) // what came meanwhile must go first
		lasts = outageTime
	}
	again := func(a *actor) func() {
		return func() {
			if err := a.start(); err != nil {
				t.Fatal(err)
			}
		}
	}
	end := func(a *actor) func() {
		return func() {
			a.kill()
			rig.await(a.name+" to end", func() error {
				if !a.exited() {
					return errNone
				}
				return nil
			})
		}
	}
	sql := func(query string) func() { return func() { rig.sql(query) } }
	// with runs ClickHouse with other settings for its user, which it reads when it starts.
	with := func(settings string) func() {
		return func() {
			end(clickhouse)()
			file := filepath.Join(rig.data, "clickhouse", "users.d", "outage.xml")
			_ = os.Remove(file)
			if settings != "" {
				text := "<clickhouse><profiles><default>" + settings + "</default></profiles></clickhouse>"
				if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			again(clickhouse)()
		}
	}

	outage("ClickHouse is away", "aggregator", "connect", end(clickhouse), again(clickhouse))
	outage("NATS is away", "ingester enricher aggregator", "nats at ", end(nats), again(nats))
	outage("ClickHouse has too many parts", "aggregator", "252",
		sql("ALTER TABLE mentions_store MODIFY SETTING parts_to_throw_insert = 1, max_delay_to_insert = 0"),
		sql("ALTER TABLE mentions_store RESET SETTING parts_to_throw_insert, max_delay_to_insert"))
	outage("ClickHouse has no memory for a query", "aggregator", "241", with("<max_memory_usage>1000</max_memory_usage>"), with(""))
	outage("ClickHouse's disk is full", "aggregator", "space", clickhouseDisk.fill, clickhouseDisk.free)
	outage("NATS' disk is full", "ingester", "storing events", natsDisk.fill, func() {
		natsDisk.free()
		end(nats)() // it does not write to a file again on which that failed once
		again(nats)()
	})

	t.Log("ClickHouse is slow")
	for _, a := range rig.of("aggregator") {
		a.proxies[1].spoil("slow")
	}
	time.Sleep(outageTime)
	for _, a := range rig.of("aggregator") {
		a.proxies[1].flow()
	}
	rig.awaitReady()

	stop()
	telling.Wait()
	settleAt(t, rig.at["nats"], max(3*time.Minute, longest))
	rig.mustLackNothing()
	t.Logf("%d histories, %d requests answered otherwise than 202", len(all), rig.refused.Load())
	copyFile := filepath.Join(t.TempDir(), "copy")
	rig.copied("--file", copyFile)
	rig.mustShow(all, copyFile)
}

// outageTime is longer than the ten seconds after which a message is delivered again, the longest time-out but that of a silent
// server.
const outageTime = 12 * time.Second

// mustSay waits until one process of each of the services says on /readyz what it waits for, and that it does in its metrics.
func (rig *rig) mustSay(services, says string) {
	rig.t.Helper()
	for service := range strings.FieldsSeq(services) {
		rig.mustSayOne(service, says)
	}
}

func (rig *rig) mustSayOne(service, says string) {
	rig.t.Helper()
	rig.await("a "+service+" to say "+says, func() error {
		var heard []string
		for _, a := range rig.of(service) {
			status, text := rig.ask(a, "/readyz")
			if status == http.StatusServiceUnavailable && strings.Contains(text, says) {
				if _, metrics := rig.ask(a, "/metrics"); !strings.Contains(metrics, fmt.Sprintf("polyphony_ready{service=%q} 0\n", service)) {
					return fmt.Errorf("its metrics say that it is ready")
				}
				return nil
			}
			heard = append(heard, fmt.Sprint(status, " ", strings.TrimSpace(text)))
		}
		return fmt.Errorf("%q", heard)
	})
}

func (rig *rig) ask(a *actor, path string) (status int, text string) {
	rig.t.Helper()
	response, err := http.Get("http://" + a.addr + path)
	if err != nil {
		rig.t.Fatalf("%s has ended: %v", a.name, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		rig.t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

// disk is a small one of its own.
type disk struct {
	t   *testing.T
	dir string
}

// mount makes a directory a disk of a size; the test needs the right to.
func mount(t *testing.T, dir string, size int) *disk {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprint("size=", size)); err != nil {
		t.Fatalf("mounting a small disk, which root may: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return &disk{t, dir}
}

func (d *disk) ballast() string { return filepath.Join(d.dir, "ballast") }

// fill leaves no byte.
func (d *disk) fill() {
	d.t.Helper()
	file, err := os.Create(d.ballast())
	if err != nil {
		d.t.Fatal(err)
	}
	defer file.Close()
	block := make([]byte, 4<<10)
	for {
		if _, err := file.Write(block); err != nil {
			return
		}
	}
}

func (d *disk) free() {
	d.t.Helper()
	if err := os.Remove(d.ballast()); err != nil {
		d.t.Fatal(err)
	}
}
