package warehouse

import (
	"context"
	"errors"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"polyphony/pkg/embedded/enginetest"
)

// TestFrozenServerHoldsNobody: whatever waits for a server that stalls gives up as soon as it is told to, and can be
// repeated once the server goes on.
func TestFrozenServerHoldsNobody(t *testing.T) {
	engine := enginetest.ClickHouse(t)
	w := open(t, Config{Addr: engine.Addr()})
	mentions := history(rand.New(rand.NewPCG(1, 1)), 1000)
	insert := func(w *Warehouse) func(context.Context) error {
		return func(ctx context.Context) error { return w.InsertMentions(ctx, mentions) }
	}
	if err := insert(w)(t.Context()); err != nil { // from now on it has a connection
		t.Fatal(err)
	}
	for what, do := range map[string]func(context.Context) error{
		"insert": insert(w), "insert and dial": insert(open(t, Config{Addr: engine.Addr()})),
		"seal": func(ctx context.Context) error { _, _, err := w.Seal(ctx, SealOptions{}); return err },
	} {
		freeze(t, engine.PID())
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- do(ctx) }()
		select {
		case err := <-ended:
			t.Fatalf("%s of a frozen server: %v", what, err)
		case <-time.After(100 * time.Millisecond): // it waits
		}
		cancel()
		select {
		case err := <-ended:
			if err == nil || !Retry(err) && !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v", what, err)
			}
		case <-time.After(3 * time.Second):
			t.Errorf("%s waits on", what)
		}
		thaw(t, engine.PID())
		if err := do(t.Context()); err != nil {
			t.Errorf("%s again: %v", what, err)
		}
	}
}

func freeze(t *testing.T, pid int) { signal(t, pid, syscall.SIGSTOP) }
func thaw(t *testing.T, pid int)   { signal(t, pid, syscall.SIGCONT) }

func signal(t *testing.T, pid int, s syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(pid, s); err != nil {
		t.Fatal(err)
	}
}
