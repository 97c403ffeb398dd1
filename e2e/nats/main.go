// Command nats is a NATS server with JetStream in a process of its own, until SIGTERM: what the tests kill and pause.
package main

import (
	"context"
	"flag"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"polyphony/pkg/embedded"
)

func main() {
	dir, addr := flag.String("dir", "", "where its streams are"), flag.String("addr", "", "HOST:PORT")
	flag.Parse()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	n, err := embedded.StartNATS(embedded.NATSConfig{Dir: *dir, Addr: *addr, Log: log})
	if err != nil {
		log.Error("starting", "error", err)
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	<-ctx.Done()
	n.Close()
}
