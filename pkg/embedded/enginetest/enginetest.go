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
// engine waits for its clients.
func ClickHouse(tb testing.TB) *embedded.ClickHouse {
	tb.Helper()
	c, err := embedded.StartClickHouse(tb.Context(), embedded.ClickHouseConfig{
		Dir: tb.TempDir(), Addr: "127.0.0.1:0", HTTPAddr: "127.0.0.1:0", Log: Log(tb),
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := c.Close(context.Background()); err != nil {
			tb.Errorf("closing ClickHouse: %v", err)
		}
	})
	return c
}

// Log writes to the test's output, warnings and errors only.
func Log(tb testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(tb.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
}
