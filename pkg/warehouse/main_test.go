package warehouse

import (
	"context"
	"testing"

	"polyphony/pkg/embedded/enginetest"
)

func TestMain(m *testing.M) { enginetest.Main(m) }

// start gives a warehouse with its schema, on an engine of its own.
func start(tb testing.TB) *Warehouse {
	tb.Helper()
	engine := enginetest.ClickHouse(tb)
	return open(tb, Config{Addr: engine.Addr()})
}

func open(tb testing.TB, config Config) *Warehouse {
	tb.Helper()
	w, err := Open(config)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := w.Close(); err != nil {
			tb.Errorf("closing: %v", err)
		}
	})
	if err := w.Migrate(tb.Context(), func(string) {}); err != nil {
		tb.Fatal(err)
	}
	return w
}

// query reads one column of strings.
func query(tb testing.TB, w *Warehouse, sql string, args ...any) []string {
	tb.Helper()
	rows, err := w.conn.Query(context.Background(), sql, args...)
	if err != nil {
		tb.Fatalf("%s: %v", sql, err)
	}
	defer rows.Close()
	list := []string{}
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			tb.Fatalf("%s: %v", sql, err)
		}
		list = append(list, s)
	}
	if err := rows.Err(); err != nil {
		tb.Fatalf("%s: %v", sql, err)
	}
	return list
}
