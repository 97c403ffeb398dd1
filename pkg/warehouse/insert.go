package warehouse

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/ch-go/proto"

	"polyphony/pkg/seam"
)

// sender is a connection for inserts and the memory that their columns pass through. Inserts go through the driver's
// lower half, because there columns keep their memory from one batch to the next: building them anew costs more than
// everything else an insert asks of its sender.
type sender struct {
	client    *ch.Client
	facts     *factColumns
	locations *locationColumns
	originals *originalColumns
	counters  *counterColumns
	idle      time.Time // since when
}

// maxIdle is well below the hour after which ClickHouse hangs up.
const maxIdle = 10 * time.Minute

// send lends a sender out of idle to f. A connection on which anything failed is not used again.
func (w *Warehouse) send(ctx context.Context, idle chan *sender, f func(*sender) error) error {
	s, err := w.sender(ctx, idle)
	if err != nil {
		return err
	}
	err = f(s)
	if err != nil || s.client.IsClosed() {
		s.client.Close()
		return err
	}
	s.idle = time.Now()
	select {
	case idle <- s:
	default:
		s.client.Close()
	}
	return nil
}

// sender takes an idle one or dials.
func (w *Warehouse) sender(ctx context.Context, idle chan *sender) (*sender, error) {
	for range cap(idle) {
		select {
		case s := <-idle:
			if time.Since(s.idle) < maxIdle {
				return s, nil
			}
			s.client.Close()
			continue
		default:
		}
		break
	}
	client, err := w.dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("connecting to ClickHouse at %s: %w", w.config.Addr, err)
	}
	return &sender{client: client, facts: newFactColumns(), locations: newLocationColumns(), originals: newOriginalColumns(),
		counters: &counterColumns{observed: newTimes()}}, nil
}

// dial connects and shakes hands, and hangs up when ctx ends.
func (w *Warehouse) dial(ctx context.Context) (*ch.Client, error) {
	dialer := net.Dialer{Timeout: dialTimeout}
	conn, err := dialer.DialContext(ctx, "tcp", w.config.Addr)
	if err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	client, err := ch.Connect(ctx, conn, ch.Options{
		Database:         w.config.Database,
		User:             w.config.User,
		Password:         w.config.Password,
		HandshakeTimeout: dialTimeout,
		ReadTimeout:      readTimeout,
		Settings: []ch.Setting{
			// An acknowledged insert is a part of its table, and two batches never share one.
			ch.SettingInt("async_insert", 0),
			// Rows are told apart by key and version; the server must not swallow a block that it believes to know.
			ch.SettingInt("insert_deduplicate", 0),
			// Mentions arrive sorted and without repeated keys. What repeats within a block of another table is
			// settled as between two blocks: by merges, and by FINAL or a sum when it is read.
			ch.SettingInt("optimize_on_insert", 0),
		},
	})
	if err != nil {
		conn.Close()
	}
	return client, err
}

// insert sends one block to a table, every column by name so that no default of the server's ever fills one, and waits
// until it is stored.
func (s *sender) insert(ctx context.Context, table string, input proto.Input) error {
	if len(input) == 0 || input[0].Data.Rows() == 0 {
		return nil
	}
	// The driver notices the end of ctx only between two packets, and a server that stalls sends none.
	defer context.AfterFunc(ctx, func() { s.client.Close() })()
	seam.Before(seam.Insert, table)
	if err := s.client.Do(ctx, ch.Query{Body: input.Into(table), Input: input}); err != nil {
		return fmt.Errorf("inserting into %s: %w", table, err)
	}
	seam.After(seam.Insert, table)
	return nil
}
