// Command enricher turns raw frames into mentions per node.
package main

import (
	"context"
	"runtime"

	"polyphony/pkg/bus"
	"polyphony/pkg/pseudonym"
	"polyphony/pkg/service"
	"polyphony/services/enricher/enrich"
)

type config struct {
	service.HTTPConfig
	service.NATSConfig
	AuthorKeyFile string `env:"POLYPHONY_AUTHOR_KEY_FILE" help:"file with the secret that keys are made with, at least 16 random bytes, the same for all enrichers for ever"`
	Workers       int    `env:"POLYPHONY_WORKERS" help:"enriching in parallel (default: the number of cores)"`
}

func main() {
	service.Main("enricher", "Finds the nodes that each event concerns and publishes their mentions.", run)
}

func run(ctx context.Context, p *service.Process, cfg config) error {
	secret, err := service.ReadSecret("POLYPHONY_AUTHOR_KEY_FILE", cfg.AuthorKeyFile)
	if err != nil {
		return err
	}
	keyer, err := pseudonym.New(secret)
	if err != nil {
		return &service.UsageError{Err: err}
	}
	b, err := bus.Open(bus.Config{URL: cfg.NATSURL, Name: "enricher", Credentials: cfg.NATSCredentials, Storage: cfg.StreamBytes}, p.Log)
	if err != nil {
		return err
	}
	defer b.Close()
	workers := cfg.Workers
	if workers == 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	en := enrich.New(keyer, b, p.Log, p.Registry)
	return p.Run(ctx, cfg.HTTPAddr, nil, service.Part{
		Name: "enricher", Ready: en.Ready,
		Run: func(ctx context.Context) error { return en.Run(ctx, workers) },
	})
}
