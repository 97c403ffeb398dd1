package main

import (
	"context"
	"fmt"

	"polyphony/pkg/warehouse"
)

// migrateCommand creates or upgrades the schema.
type migrateCommand struct {
	ClickHouse string `name:"clickhouse" default:"127.0.0.1:9000" placeholder:"ADDR" help:"ClickHouse, native protocol (default ${default})."`
	User       string `default:"default" help:"A user who may create databases (default ${default})."`
	Password   string `help:"Its password, if any."`
}

func (m *migrateCommand) Run(ctx context.Context, std streams) error {
	store, err := warehouse.Open(warehouse.Config{Addr: m.ClickHouse, User: m.User, Password: m.Password})
	if err != nil {
		return err
	}
	defer store.Close()
	if err := store.Migrate(ctx, func(line string) { fmt.Fprintln(std.out, line) }); err != nil {
		return err
	}
	fmt.Fprintln(std.out, "the schema is up to date")
	return nil
}
