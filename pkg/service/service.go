// Package service gives every service the same start, configuration from the environment, logs, health, metrics and
// drain. It is the only package that reads the environment. Services themselves do not import it: their mains do.
package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// Exit codes of all programs.
const (
	ExitOK    = 0 // also after a drain
	ExitFault = 1
	ExitUsage = 2
)

// Main is a service's main: help, configuration, signals, run, exit code. run must return when ctx ends; the first
// SIGTERM or Ctrl-C ends it, a second one kills the process as usual.
func Main[C any](name, about string, run func(context.Context, *Process, C) error) {
	os.Exit(execute(name, about, os.Args[1:], os.Environ(), os.Stdout, os.Stderr, run))
}

func execute[C any](name, about string, args, environ []string, stdout, stderr io.Writer, run func(context.Context, *Process, C) error) int {
	var settings struct {
		Process ProcessConfig
		Service C
	}
	for _, arg := range args {
		switch arg {
		case "-h", "--help", "help":
			fmt.Fprintf(stdout, "%s %s\n\n%s\n\nConfigured by environment variables alone:\n", name, Version(), about)
			describe(stdout, &settings)
			fmt.Fprint(stdout, stopping)
			return ExitOK
		case "--version", "version":
			fmt.Fprintln(stdout, name, Version())
			return ExitOK
		default:
			fmt.Fprintf(stderr, "%s: unknown argument %q: configuration comes from the environment, see --help\n", name, arg)
			return ExitUsage
		}
	}
	if err := Load(environ, &settings); err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", name, err)
		return ExitUsage
	}
	ctx, stop := SignalContext()
	defer stop()
	p := NewProcess(settings.Process, stderr)
	p.Log.Info("starting", "service", name, "version", Version())
	err := run(ctx, p, settings.Service)
	var usage *UsageError
	switch {
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "%s: %v\n", name, err)
		return ExitUsage
	case err != nil && !(ctx.Err() != nil && errors.Is(err, context.Canceled)): // a fault while draining is one
		fmt.Fprintf(stderr, "%s: %v\n", name, err)
		return ExitFault
	}
	p.Log.Info("stopped", "service", name)
	return ExitOK
}

const stopping = `
SIGTERM or Ctrl-C: what is in hand is finished within seconds, then exit 0. A second one ends at once. Neither loses
anything that was acknowledged, nor does kill -9.
`

// UsageError is a setting or argument that only its giver can mend: exit 2.
type UsageError struct{ Err error }

func (e *UsageError) Error() string { return e.Err.Error() }
func (e *UsageError) Unwrap() error { return e.Err }

// SignalContext ends at the first SIGTERM or Ctrl-C; then signals act as usual again, so a second one kills.
func SignalContext() (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

// Version is the module version or revision that this program was built from.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	revision := ""
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			revision = s.Value[:12]
		}
	}
	if revision == "" || info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return revision
}

// ProcessConfig is what every process may be told.
type ProcessConfig struct {
	LogLevel   slog.Level `env:"POLYPHONY_LOG_LEVEL" default:"info" help:"debug, info, warn or error"`
	ProfileDir string     `env:"POLYPHONY_PROFILE_DIR" help:"a directory for cpu.pprof, a CPU profile from start to drain; empty for none"`
}

// HTTPConfig is where a service answers.
type HTTPConfig struct {
	HTTPAddr string `env:"POLYPHONY_HTTP_ADDR" default:"127.0.0.1:8080" form:"addr" help:"HTTP address: /healthz, /readyz, /metrics and, of the ingester, /v1/events"`
}

// NATSConfig is where a service finds JetStream.
type NATSConfig struct {
	NATSURL         string `env:"POLYPHONY_NATS_URL" default:"nats://127.0.0.1:4222" form:"nats" help:"NATS with JetStream"`
	NATSCredentials string `env:"POLYPHONY_NATS_CREDENTIALS_FILE" help:"NATS credentials file"`
	StreamBytes     int64  `env:"POLYPHONY_STREAM_BYTES" default:"8589934592" form:"storage" help:"disk space for all streams together, used when they are created"`
}

// Process is what the services in one process share.
type Process struct {
	Log      *slog.Logger
	Registry *prometheus.Registry

	profileDir string
}

// NewProcess logs to w, a line of text an event.
func NewProcess(cfg ProcessConfig, w io.Writer) *Process {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "polyphony_build_info", Help: "Always 1; the label says what runs.", ConstLabels: prometheus.Labels{"version": Version()}})
	build.Set(1)
	registry.MustRegister(build)
	return &Process{Log: slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: cfg.LogLevel})), Registry: registry, profileDir: cfg.ProfileDir}
}

// Part is one service within a process.
type Part struct {
	Name    string
	Run     func(context.Context) error // until ctx ends; an error is a bug or a lost resource
	Ready   func() error                // nil when it can do its work, else what is missing
	Handler http.Handler                // served under /v1/, nil for none
}
