// Package enginetest gives tests real engines: each its own NATS and ClickHouse, on free ports, gone when the test is.
//
// A package that uses it has this TestMain:
//
//	func TestMain(m *testing.M) { enginetest.Main(m) }
package enginetest

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"polyphony/pkg/embedded"
)

// Main is the body of TestMain: it lets the test program be the engine when it is started again as one, runs the tests,
// and fails when they leave goroutines behind.
func Main(m *testing.M) {
	embedded.RunChildIfAsked()
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, "goroutines left behind:", err)
			code = 1
		}
	}
	os.Exit(code)
}

// NATS starts an empty server with JetStream that lives as long as the test.
func NATS(tb testing.TB) *embedded.NATS {
	tb.Helper()
	n, err := embedded.StartNATS(embedded.NATSConfig{Dir: tb.TempDir(), Addr: "127.0.0.1:0", Log: Log(tb)})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(n.Close)
	return n
}

// ClickHouse starts an empty engine that lives as long as the test. Close connections to it before the test ends: the
// engine waits for its clients. An engine that ends by itself fails the test, and shows what it had to say.
func ClickHouse(tb testing.TB) *embedded.ClickHouse {
	tb.Helper()
	dir := tb.TempDir()
	c, err := embedded.StartClickHouse(tb.Context(), embedded.ClickHouseConfig{
		Dir: dir, Addr: "127.0.0.1:0", HTTPAddr: "127.0.0.1:0", Log: Log(tb),
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		select {
		case err := <-c.Done():
			log, _ := os.ReadFile(filepath.Join(dir, "engine.log"))
			tb.Errorf("%v\n%s", err, log[max(0, len(log)-maxShown):])
		default:
		}
		if err := c.Close(context.Background()); err != nil {
			tb.Errorf("closing ClickHouse: %v", err)
		}
	})
	return c
}

// LastingClickHouse is ClickHouse for tests that kill its clients, by its addresses. The engine aborts itself now and
// then when a client is gone in the middle of what it sends ("Terminate called for uncaught exception", Connection reset
// by peer); like `polyphony up`, this starts it again on the same ports.
func LastingClickHouse(tb testing.TB) (addr, httpAddr string) {
	tb.Helper()
	config := embedded.ClickHouseConfig{Dir: tb.TempDir(), Addr: "127.0.0.1:0", HTTPAddr: "127.0.0.1:0", Log: Log(tb)}
	c, err := embedded.StartClickHouse(tb.Context(), config)
	if err != nil {
		tb.Fatal(err)
	}
	config.Addr, config.HTTPAddr = c.Addr(), c.HTTPAddr()
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			case err := <-c.Done():
				tb.Logf("the engine ended, starting it again: %v", err)
			}
			again, err := embedded.StartClickHouse(context.Background(), config)
			if err != nil {
				tb.Errorf("starting ClickHouse again: %v", err)
				return
			}
			c = again
		}
	}()
	tb.Cleanup(func() {
		close(stop)
		<-stopped
		if err := c.Close(context.Background()); err != nil {
			tb.Errorf("closing ClickHouse: %v", err)
		}
	})
	return config.Addr, config.HTTPAddr
}

// maxShown of an engine's log is enough for the stacks of a crash.
const maxShown = 64 << 10

// Log writes to the test's output, warnings and errors only.
func Log(tb testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(tb.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
}
