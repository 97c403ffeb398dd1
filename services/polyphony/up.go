package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	example "polyphony/deploy/nodes"
	"polyphony/pkg/bus"
	"polyphony/pkg/embedded"
	"polyphony/pkg/nodes"
	"polyphony/pkg/pseudonym"
	"polyphony/pkg/service"
	"polyphony/pkg/warehouse"
	"polyphony/services/aggregator/aggregate"
	"polyphony/services/enricher/enrich"
	"polyphony/services/ingester/ingest"
)

// upCommand runs everything in one process.
type upCommand struct {
	Data           string `default:"./.polyphony" placeholder:"DIR" help:"Where NATS, ClickHouse and the secret live (default ${default})."`
	Nodes          string `placeholder:"DIR" help:"The nodes directory (default ./deploy/nodes, else the example company)."`
	HTTP           string `name:"http" default:"127.0.0.1:8080" placeholder:"ADDR" help:"Events, health and metrics (default ${default}). Port 0 takes any free one, here and below."`
	NATS           string `name:"nats" default:"127.0.0.1:4222" placeholder:"ADDR" help:"NATS clients (default ${default})."`
	ClickHouse     string `name:"clickhouse" default:"127.0.0.1:9000" placeholder:"ADDR" help:"ClickHouse, native protocol (default ${default})."`
	ClickHouseHTTP string `name:"clickhouse-http" default:"127.0.0.1:8123" placeholder:"ADDR" help:"ClickHouse over HTTP (default ${default})."`
	Demo           bool   `help:"Feed invented events and show the busiest nodes."`
}

// upSettings are what the environment may say besides.
type upSettings struct {
	Process       service.ProcessConfig
	TokensFile    string `env:"POLYPHONY_TOKENS_FILE" help:"who may send: lines 'sha256:HEX source[,source]|*'"`
	AuthorKeyFile string `env:"POLYPHONY_AUTHOR_KEY_FILE" help:"the secret that keys are made with (default: made once, in the data directory)"`
	ClickHouseBin string `env:"POLYPHONY_CLICKHOUSE_BIN" help:"a clickhouse binary to use instead of the fetched library"`
	StreamBytes   int64  `env:"POLYPHONY_STREAM_BYTES" default:"8589934592" form:"storage" help:"disk space for all streams together"`
}

// memoryLimit makes the garbage collector work harder before the process grows past it.
const memoryLimit = 430 << 20

func (up *upCommand) Run(ctx context.Context, std streams) error {
	debug.SetMemoryLimit(memoryLimit)
	var settings upSettings
	if err := service.Load(service.Environ(), &settings); err != nil {
		return &service.UsageError{Err: err}
	}
	if up.Demo {
		settings.Process.LogLevel = max(settings.Process.LogLevel, slog.LevelWarn)
	}
	process := service.NewProcess(settings.Process, std.err)
	tokens, err := ingest.OpenTokens(settings.TokensFile)
	if err != nil {
		return &service.UsageError{Err: err}
	}
	if err := service.CheckExposure(up.HTTP, tokens != nil); err != nil {
		return err
	}
	rules, watched, err := up.rules(std)
	if err != nil {
		return err
	}
	keyer, err := up.keyer(settings.AuthorKeyFile)
	if err != nil {
		return err
	}
	engines, err := up.startEngines(ctx, settings.ClickHouseBin, process.Log)
	if err != nil {
		return stoppedOr(ctx, err)
	}
	defer engines.close()

	b, err := bus.Open(bus.Config{URL: engines.nats.URL(), Dial: engines.nats.Conn, Name: "polyphony", Storage: settings.StreamBytes}, process.Log)
	if err != nil {
		return err
	}
	defer b.Close()
	store, err := warehouse.Open(warehouse.Config{Addr: engines.current().Addr()})
	if err != nil {
		return err
	}
	defer store.Close()

	in := ingest.New(tokens, b, process.Log, process.Registry)
	en := enrich.New(keyer, b, process.Log, process.Registry)
	ag := aggregate.New(b, store, process.Log, process.Registry)
	var demo demo
	demoCtx, stopDemo := context.WithCancel(ctx)
	defer func() { stopDemo(); demo.wait() }()
	ready := func(addr net.Addr) {
		fmt.Fprintf(std.out, "ready http=%s nats=%s clickhouse=%s clickhouse-http=%s\n",
			addr, engines.nats.Addr(), engines.current().Addr(), engines.current().HTTPAddr())
		if up.Demo {
			demo.start(demoCtx, std, rules, store, addr.String(), engines)
		}
	}
	return process.Run(ctx, up.HTTP, ready,
		service.Part{Name: "ingester", Run: func(ctx context.Context) error { return in.Run(ctx, rules, watched) }, Ready: in.Ready, Handler: in.Handler()},
		service.Part{Name: "enricher", Run: func(ctx context.Context) error { return en.Run(ctx, runtime.GOMAXPROCS(0)) }, Ready: en.Ready},
		service.Part{Name: "aggregator", Run: ag.Run, Ready: ag.Ready},
		service.Part{Name: "clickhouse", Run: engines.watch, Ready: func() error { return nil }})
}

// stoppedOr is nil when the command was told to stop while it was starting.
func stoppedOr(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// rules loads the nodes directory and says which directory to watch: none for the copy in the program.
func (up *upCommand) rules(std streams) (*nodes.Rules, string, error) {
	dir := up.Nodes
	if dir == "" {
		if _, err := os.Stat("deploy/nodes"); errors.Is(err, fs.ErrNotExist) {
			rules, err := nodes.Load(example.Files)
			return rules, "", err
		}
		dir = "deploy/nodes"
	}
	rules, err := loadNodes(dir, std)
	return rules, dir, err
}

// keyer has the company's secret, or makes one for this data directory.
func (up *upCommand) keyer(file string) (*pseudonym.Keyer, error) {
	secret, err := []byte(nil), error(nil)
	if file != "" {
		secret, err = service.ReadSecret("POLYPHONY_AUTHOR_KEY_FILE", file)
	} else {
		secret, err = service.KeepSecret(filepath.Join(up.Data, "author.key"))
		if err != nil {
			err = fmt.Errorf("%w; choose another directory with --data", err)
		}
	}
	if err != nil {
		return nil, err
	}
	return pseudonym.New(secret)
}

// engines are the two servers of `up`.
type engines struct {
	nats *embedded.NATS
	log  *slog.Logger

	config     embedded.ClickHouseConfig // with the ports that were free at the start
	mu         sync.Mutex
	clickhouse *embedded.ClickHouse // the present one
}

// startEngines starts both at once: each takes a fraction of a second.
func (up *upCommand) startEngines(ctx context.Context, bin string, log *slog.Logger) (*engines, error) {
	e := &engines{log: log, config: embedded.ClickHouseConfig{
		Dir: filepath.Join(up.Data, "clickhouse"), Addr: up.ClickHouse, HTTPAddr: up.ClickHouseHTTP, Bin: bin, Log: log}}
	var natsErr, clickhouseErr error
	var starting sync.WaitGroup
	starting.Go(func() {
		e.nats, natsErr = embedded.StartNATS(embedded.NATSConfig{Dir: filepath.Join(up.Data, "nats"), Addr: up.NATS, Log: log})
	})
	starting.Go(func() { clickhouseErr = e.startClickHouse(ctx) })
	starting.Wait()
	if err := cmp.Or(natsErr, clickhouseErr); err != nil { // one is enough to mend: often they have the same cause
		e.close()
		return nil, err
	}
	return e, nil
}

func (e *engines) startClickHouse(ctx context.Context) error {
	started, err := embedded.StartClickHouse(ctx, e.config)
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.clickhouse = started
	e.config.Addr, e.config.HTTPAddr = started.Addr(), started.HTTPAddr()
	return nil
}

func (e *engines) current() *embedded.ClickHouse {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.clickhouse
}

const (
	// maxRestarts within restartSpan: an engine that ends more often has a cause that starting again does not mend.
	maxRestarts = 5
	restartSpan = 10 * time.Minute
)

// watch starts ClickHouse again, on the same ports, when it ends by itself. Meanwhile events are accepted and mentions
// published as ever, and the aggregator waits.
func (e *engines) watch(ctx context.Context) error {
	var ends []time.Time
	for {
		var reason error
		select {
		case <-ctx.Done():
			return nil
		case reason = <-e.current().Done():
		}
		for reason != nil { // an engine may also end while it starts
			ends = append(ends, time.Now())
			if n := len(ends); n > maxRestarts && ends[n-1].Sub(ends[n-1-maxRestarts]) < restartSpan {
				return fmt.Errorf("it ended by itself %d times within %v; nothing accepted is lost: %w", maxRestarts+1, restartSpan, reason)
			}
			e.log.Error("clickhouse ended by itself, starting it again; nothing accepted is lost", "error", reason)
			if reason = e.startClickHouse(ctx); ctx.Err() != nil {
				return nil
			}
		}
		e.log.Info("clickhouse is back")
	}
}

// engineStop bounds the end of the engines; what they have acknowledged survives a kill.
const engineStop = 10 * time.Second

func (e *engines) close() {
	ctx, cancel := context.WithTimeout(context.Background(), engineStop)
	defer cancel()
	if clickhouse := e.current(); clickhouse != nil {
		_ = clickhouse.Close(ctx) // killed if it does not end; its data survive that
	}
	if e.nats != nil {
		e.nats.Close()
	}
}
