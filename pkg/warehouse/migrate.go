package warehouse

import (
	"context"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"polyphony/schemas"
)

// Migrate checks that the server can keep Polyphony's promises, then creates or upgrades the schema: the numbered files of schemas/clickhouse that the database has not seen yet,
// in order. It only goes forward, may be repeated, and may run in several processes at once, because every statement
// in those files gives the same result however often it runs. A schema newer than this binary is refused.
// log gets one line for each file applied. Everything else here needs the schema.
func (w *Warehouse) Migrate(ctx context.Context, log func(string)) error {
	migrations, err := readMigrations(schemas.ClickHouseFS)
	if err != nil {
		return err
	}
	if err := checkServer(ctx, w.config); err != nil {
		return err
	}
	return w.migrate(ctx, migrations, log)
}

// migration is one file: its number, its name and its statements.
type migration struct {
	number     uint32
	name       string
	statements []string
}

func readMigrations(files fs.FS) ([]migration, error) {
	names, err := fs.Glob(files, "clickhouse/*.sql")
	if err != nil {
		return nil, fmt.Errorf("listing migrations: %w", err)
	}
	var migrations []migration
	for _, name := range names { // Glob sorts by name
		text, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, fmt.Errorf("reading migrations: %w", err)
		}
		base := path.Base(name)
		number, err := strconv.ParseUint(base[:4], 10, 32)
		if err != nil || int(number) != len(migrations)+1 {
			return nil, fmt.Errorf("BUG: migration %s is not number %04d", base, len(migrations)+1)
		}
		migrations = append(migrations, migration{uint32(number), base, statements(string(text))})
	}
	return migrations, nil
}

// statements splits a file at the semicolons that end a line.
func statements(text string) []string {
	var list []string
	for s := range strings.SplitSeq(text, ";\n") {
		if s = strings.TrimSuffix(strings.TrimSpace(s), ";"); s != "" {
			list = append(list, s)
		}
	}
	return list
}

func (w *Warehouse) migrate(ctx context.Context, migrations []migration, log func(string)) error {
	if err := w.createDatabase(ctx); err != nil {
		return err
	}
	err := w.conn.Exec(ctx, `CREATE TABLE IF NOT EXISTS migrations
		(number UInt32, name String, applied DateTime64(3, 'UTC'))
		ENGINE = ReplacingMergeTree ORDER BY number`)
	if err != nil {
		return fmt.Errorf("creating the table of migrations: %w", err)
	}
	var have uint32
	if err := w.conn.QueryRow(ctx, `SELECT max(number) FROM migrations`).Scan(&have); err != nil {
		return fmt.Errorf("reading the schema's number: %w", err)
	}
	if int(have) > len(migrations) {
		return fmt.Errorf("%w: the schema of database %s is number %d and this binary knows %d: use a newer binary", ErrUnfit, w.config.Database, have, len(migrations))
	}
	for _, m := range migrations[have:] {
		for i, statement := range m.statements {
			if err := w.conn.Exec(ctx, statement); err != nil {
				return fmt.Errorf("migration %s, statement %d: %w", m.name, i+1, err)
			}
		}
		if err := w.conn.Exec(ctx, `INSERT INTO migrations (number, name, applied) SELECT ?, ?, now64(3)`, m.number, m.name); err != nil {
			return fmt.Errorf("recording migration %s: %w", m.name, err)
		}
		log("schema: applied " + m.name)
	}
	return nil
}

// createDatabase goes over a connection of its own: the pool's connections cannot be opened before the database is there.
func (w *Warehouse) createDatabase(ctx context.Context) error {
	conn, err := connect(w.config, "default")
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.Exec(ctx, "CREATE DATABASE IF NOT EXISTS "+w.config.Database); err != nil {
		return fmt.Errorf("creating database %s: %w", w.config.Database, err)
	}
	return nil
}
