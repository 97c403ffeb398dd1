// Command aggregator stores mentions and facts in ClickHouse and keeps the node metrics sealed.
package main

import (
	"context"

	"polyphony/pkg/bus"
	"polyphony/pkg/service"
	"polyphony/pkg/warehouse"
	"polyphony/services/aggregator/aggregate"
)

type config struct {
	service.HTTPConfig
	service.NATSConfig
	ClickHouseAddr         string `env:"POLYPHONY_CLICKHOUSE_ADDR" default:"127.0.0.1:9000" form:"addr" help:"ClickHouse, native protocol"`
	ClickHouseUser         string `env:"POLYPHONY_CLICKHOUSE_USER" default:"default" help:"a user who may create tables and write"`
	ClickHousePasswordFile string `env:"POLYPHONY_CLICKHOUSE_PASSWORD_FILE" help:"file with its password"`
}

func main() {
	service.Main("aggregator", "Stores mentions and facts and keeps the node metrics sealed.", run)
}

func run(ctx context.Context, p *service.Process, cfg config) error {
	password, err := service.ReadPassword("POLYPHONY_CLICKHOUSE_PASSWORD_FILE", cfg.ClickHousePasswordFile)
	if err != nil {
		return err
	}
	b, err := bus.Open(bus.Config{URL: cfg.NATSURL, Name: "aggregator", Credentials: cfg.NATSCredentials, Storage: cfg.StreamBytes}, p.Log)
	if err != nil {
		return err
	}
	defer b.Close()
	store, err := warehouse.Open(warehouse.Config{Addr: cfg.ClickHouseAddr, User: cfg.ClickHouseUser, Password: password})
	if err != nil {
		return err
	}
	defer store.Close()
	ag := aggregate.New(b, store, p.Log, p.Registry)
	return p.Run(ctx, cfg.HTTPAddr, nil, service.Part{Name: "aggregator", Ready: ag.Ready, Run: ag.Run})
}
