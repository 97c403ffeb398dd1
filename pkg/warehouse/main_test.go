package warehouse

import (
	"context"
	"net"
	"sync"
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

// before gives an address from which all is passed on to that of a ClickHouse, each piece after do has seen it.
func before(t *testing.T, addr string, do func(sent []byte)) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var passing sync.WaitGroup
	t.Cleanup(func() {
		listener.Close()
		passing.Wait()
	})
	pass := func(to, from net.Conn, see func([]byte)) {
		defer to.Close()
		buffer := make([]byte, 1<<20)
		for {
			n, err := from.Read(buffer)
			if err != nil {
				return
			}
			see(buffer[:n])
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
	}
	passing.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			engine, err := net.Dial("tcp", addr)
			if err != nil {
				t.Error(err)
				client.Close()
				continue
			}
			passing.Go(func() { pass(engine, client, do) })
			passing.Go(func() { pass(client, engine, func([]byte) {}) })
		}
	})
	return listener.Addr().String()
}
