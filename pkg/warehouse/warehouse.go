// Package warehouse keeps Polyphony's facts in ClickHouse and recomputes the node metrics from them. It is the only
// importer of the driver.
//
// A fact is written by key and version: writing it again, in any order and by any number of writers, changes nothing.
// Whoever changes the facts of a node-hour touches it afterwards, and a sealed node-hour holds only for the touches it
// was made from. So every function here may be repeated after any failure.
package warehouse

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// Warehouse is a pool of connections to one ClickHouse. It is safe for concurrent use.
type Warehouse struct {
	config Config
	conn   driver.Conn // asks questions and changes the schema
	// Idle senders. Each keeps the memory of the largest batch it has sent, so the two sorts do not lend to each other.
	mentionSenders, recordSenders chan *sender
	dirty                         dirtyHours
}

// Config says where ClickHouse is. Zero values mean the defaults named.
type Config struct {
	Addr     string // host:port of the native protocol
	User     string // "default"
	Password string
	Database string // "polyphony"; tests use others
	Conns    int    // connections of each sort at most: 4, for an insert, a seal, a read and a spare
}

const (
	dialTimeout = 5 * time.Second
	// readTimeout bounds the wait for one packet. ClickHouse reports progress much more often; a statement that is
	// silent for so long has lost its server, and is tried again.
	readTimeout = 5 * time.Minute
)

var databaseName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,62}$`)

// Open prepares to connect and does not: see Migrate.
func Open(config Config) (*Warehouse, error) {
	if config.User == "" {
		config.User = "default"
	}
	if config.Database == "" {
		config.Database = "polyphony"
	}
	if config.Conns == 0 {
		config.Conns = 4
	}
	if !databaseName.MatchString(config.Database) {
		return nil, fmt.Errorf("database name %q: want lower-case letters, digits and _", config.Database)
	}
	conn, err := connect(config, config.Database)
	if err != nil {
		return nil, err
	}
	return &Warehouse{config: config, conn: conn,
		mentionSenders: make(chan *sender, config.Conns), recordSenders: make(chan *sender, config.Conns)}, nil
}

// connect makes a pool; it dials on first use.
func connect(config Config, database string) (driver.Conn, error) {
	conn, err := clickhouse.Open(&clickhouse.Options{
		Addr:         []string{config.Addr},
		Auth:         clickhouse.Auth{Database: database, Username: config.User, Password: config.Password},
		DialTimeout:  dialTimeout,
		ReadTimeout:  readTimeout,
		MaxOpenConns: config.Conns,
		MaxIdleConns: config.Conns,
		Settings: clickhouse.Settings{
			"async_insert":       0,
			"insert_deduplicate": 0,
			// All references to one table in one query see the same parts: the views rest on it.
			"enable_shared_storage_snapshot_in_query": 1,
		},
	})
	if err != nil {
		return nil, fmt.Errorf("configuring ClickHouse at %s: %w", config.Addr, err)
	}
	return conn, nil
}

// ErrUnfit is a ClickHouse that Polyphony does not work with until its operator, or a newer Polyphony, changes that.
var ErrUnfit = errors.New("unfit")

// checkServer refuses a server that forgets deletions, and tells a server that is not there from one that says no.
func checkServer(ctx context.Context, config Config) error {
	conn, err := connect(config, "default")
	if err != nil {
		return err
	}
	defer conn.Close()
	var cleanup string
	err = conn.QueryRow(ctx, `SELECT max(value) FROM system.merge_tree_settings
		WHERE name = 'allow_experimental_replacing_merge_with_cleanup'`).Scan(&cleanup)
	if refused := (*clickhouse.Exception)(nil); errors.As(err, &refused) {
		return fmt.Errorf("ClickHouse at %s turned user %s away: %w", config.Addr, config.User, err)
	}
	if err != nil {
		return fmt.Errorf("no ClickHouse answers at %s (is it running, and is this its native port?): %w", config.Addr, err)
	}
	if cleanup == "1" {
		return fmt.Errorf("%w: ClickHouse at %s has allow_experimental_replacing_merge_with_cleanup on, which forgets deletions: turn it off in its merge_tree settings", ErrUnfit, config.Addr)
	}
	return nil
}

// Close gives up all connections that are not in use.
func (w *Warehouse) Close() error {
	for {
		select {
		case s := <-w.mentionSenders:
			s.client.Close()
			continue
		case s := <-w.recordSenders:
			s.client.Close()
			continue
		default:
		}
		return w.conn.Close()
	}
}
