package embedded

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

func TestNewer(t *testing.T) {
	f := func(a, b string, want bool) {
		t.Helper()
		if got := newer(a, b); got != want {
			t.Errorf("newer(%q, %q) = %t", a, b, got)
		}
	}
	f("26.8", "26.7.3", true)
	f("27.1", "26.12.1", true)
	f("26.7.9", "26.7.3", false)
	f("26.7", "26.7.3", false)
	f("26.6", "26.7", false)
	f("25.12", "26.1", false)
	f("", "26.1", false)
	f("26.1", "", true)
}

// TestLockWaitEnds: whoever holds a directory for too long is named.
func TestLockWaitEnds(t *testing.T) {
	dir := t.TempDir()
	held, err := lockDir(t.Context(), dir, time.Minute, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := noteHolder(held, 4242); err != nil {
		t.Fatal(err)
	}
	_, err = lockDir(t.Context(), dir, time.Millisecond, slog.New(slog.DiscardHandler))
	if want := "the data directory " + dir + " is still used by process 4242: stop that process, or choose another directory with --data"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	held.Close()
	again, err := lockDir(t.Context(), dir, time.Minute, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if got := holder(again); got != os.Getpid() {
		t.Errorf("the lock names process %d, want this one", got)
	}
}

// TestPortTakenMeanwhile: somebody else takes the ports between our look and the engine's, and answers every question.
// That must neither pass for our engine nor be blamed on anything else.
func TestPortTakenMeanwhile(t *testing.T) {
	foreign := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "Ok.\n") })}
	defer foreign.Close()
	taken := func() string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go foreign.Serve(l)
		return l.Addr().String()
	}
	free := func() string {
		addr, err := freeAddr(t.Context(), "127.0.0.1:0", tcpFlag)
		if err != nil {
			t.Fatal(err)
		}
		return addr
	}
	f := func(name, addr, httpAddr string) {
		t.Run(name, func(t *testing.T) {
			dir, log := t.TempDir(), slog.New(slog.DiscardHandler)
			engine, err := findEngine("", log)
			if err != nil {
				t.Fatal(err)
			}
			lock, err := lockDir(t.Context(), dir, time.Minute, log)
			if err != nil {
				t.Fatal(err)
			}
			defer lock.Close()
			behind := free()
			if err := writeConfig(dir, "polyphony-token", "127.0.0.1", portOf(behind), portOf(httpAddr)); err != nil {
				t.Fatal(err)
			}
			c := newClickHouse(dir, addr, httpAddr, log)
			if err := c.spawn(engine, behind, nil, lock); err != nil {
				t.Fatal(err)
			}
			defer c.Close(t.Context())
			err = c.awaitReady(t.Context(), "polyphony-token")
			if !errors.Is(err, errAddrInUse) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %v, want one line about an address in use", err)
			}
		})
	}
	f("native", taken(), free())
	f("http", free(), taken())
	f("both", taken(), taken())
}
