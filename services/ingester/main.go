// Command ingester accepts events over HTTP and stores them in JetStream.
package main

import (
	"context"
	"os"

	"polyphony/pkg/bus"
	"polyphony/pkg/nodes"
	"polyphony/pkg/service"
	"polyphony/services/ingester/ingest"
)

type config struct {
	service.HTTPConfig
	service.NATSConfig
	NodesDir   string `env:"POLYPHONY_NODES_DIR" default:"deploy/nodes" help:"the nodes directory; changes take effect without a restart"`
	TokensFile string `env:"POLYPHONY_TOKENS_FILE" help:"who may send: lines 'sha256:HEX source[,source]|*'; needed unless the address is loopback"`
}

func main() {
	service.Main("ingester", "Accepts events at POST /v1/events and answers 202 when they are stored.", run)
}

func run(ctx context.Context, p *service.Process, cfg config) error {
	tokens, err := ingest.OpenTokens(cfg.TokensFile)
	if err != nil {
		return &service.UsageError{Err: err}
	}
	if err := service.CheckExposure(cfg.HTTPAddr, tokens != nil); err != nil {
		return err
	}
	rules, broken := nodes.LoadDir(cfg.NodesDir)
	if _, err := os.Stat(cfg.NodesDir); err != nil {
		return broken // nothing is there that could be mended
	}
	b, err := bus.Open(bus.Config{URL: cfg.NATSURL, Name: "ingester", Credentials: cfg.NATSCredentials, Storage: cfg.StreamBytes}, p.Log)
	if err != nil {
		return err
	}
	defer b.Close()
	in := ingest.New(tokens, b, p.Log, p.Registry)
	return p.Run(ctx, cfg.HTTPAddr, nil, service.Part{
		Name: "ingester", Ready: in.Ready, Handler: in.Handler(),
		Run: func(ctx context.Context) error {
			if broken != nil {
				if rules, err = in.LastGood(ctx, broken); err != nil || rules == nil {
					return err
				}
			}
			return in.Run(ctx, rules, cfg.NodesDir)
		},
	})
}
