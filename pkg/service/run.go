package service

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const (
	// drainTime is how long requests in progress may take after a stop was asked for; Kubernetes grants 30 s for all.
	drainTime = 10 * time.Second
	// readTime bounds how slowly a client may send a body of 16 MiB.
	readTime = 2 * time.Minute
)

// Run serves the parts on one address and runs them until ctx ends or one fails. The drain goes downstream: first
// requests are finished, then each part in order. An error of a part is one at any time, while draining as well. ready
// is called once with the address served on, when every part says it can work.
func (p *Process) Run(ctx context.Context, addr string, ready func(net.Addr), parts ...Part) error {
	profiled, err := startProfile(p.profileDir)
	if err != nil {
		return err
	}
	defer profiled()
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("listening for HTTP: %w; stop what uses the address, or choose another (of up with --http, of a service with POLYPHONY_HTTP_ADDR)", err)
	}
	p.showReadiness(parts)
	server := &http.Server{
		Handler: p.mux(parts), ReadHeaderTimeout: drainTime, ReadTimeout: readTime, IdleTimeout: readTime,
		MaxHeaderBytes: 64 << 10,
	}
	failed := make(chan error, len(parts)+1)
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			failed <- fmt.Errorf("serving HTTP: %w", err)
		}
	}()
	running := make([]*running, len(parts))
	for i, part := range parts {
		running[i] = start(part, failed)
	}
	announced := make(chan struct{})
	go func() {
		defer close(announced)
		if awaitReady(ctx, parts) && ready != nil {
			ready(listener.Addr())
		}
	}()

	var fault error
	select {
	case <-ctx.Done():
		p.Log.Info("draining; a second signal ends at once")
	case fault = <-failed:
		p.Log.Error("stopping", "error", fault)
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
	defer cancel()
	if err := server.Shutdown(drain); err != nil {
		_ = server.Close()
	}
	for _, r := range running {
		r.stop()
		err := <-r.ended
		if err == nil || err == fault { // said already
			continue
		}
		p.Log.Error("draining", "error", err)
		if fault == nil {
			fault = err
		}
	}
	if fault == nil {
		<-announced
	}
	return fault
}

// running is a part at work.
type running struct {
	stop  context.CancelFunc
	ended chan error // gets why it ended, nil when it was asked to
}

func start(part Part, failed chan<- error) *running {
	ctx, stop := context.WithCancel(context.Background())
	r := &running{stop: stop, ended: make(chan error, 1)}
	go func() {
		err := part.Run(ctx)
		asked := ctx.Err() != nil
		switch {
		case asked && errors.Is(err, context.Canceled):
			err = nil
		case !asked && err == nil:
			err = errors.New("ended by itself")
		}
		if err != nil {
			err = fmt.Errorf("%s: %w", part.Name, err)
		}
		if !asked {
			failed <- err
		}
		r.ended <- err
	}()
	return r
}

// awaitReady asks until every part is ready.
func awaitReady(ctx context.Context, parts []Part) bool {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		if missing(parts) == "" {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-ticker.C:
		}
	}
}

// missing says what the parts lack, "" when nothing.
func missing(parts []Part) string {
	var lacks []string
	for _, part := range parts {
		if err := part.Ready(); err != nil {
			lacks = append(lacks, part.Name+": "+err.Error())
		}
	}
	return strings.Join(slices.Compact(lacks), "\n")
}

// showReadiness has /metrics say what /readyz says, but for the reason.
func (p *Process) showReadiness(parts []Part) {
	for _, part := range parts {
		p.Registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "polyphony_ready", Help: "1 when the service can do its work, 0 while it waits for what /readyz says.", ConstLabels: prometheus.Labels{"service": part.Name},
		}, func() float64 {
			if part.Ready() != nil {
				return 0
			}
			return 1
		}))
	}
}

func (p *Process) mux(parts []Part) *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if lacks := missing(parts); lacks != "" {
			http.Error(w, lacks, http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ready")
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(p.Registry, promhttp.HandlerOpts{}))
	for _, part := range parts {
		if part.Handler != nil {
			mux.Handle("/v1/", part.Handler)
		}
	}
	return mux
}

// CheckExposure refuses an address that others can reach while everybody may send.
func CheckExposure(addr string, tokens bool) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return &UsageError{fmt.Errorf("HTTP address %q: want HOST:PORT", addr)}
	}
	ip := net.ParseIP(host)
	if tokens || host == "localhost" || ip != nil && ip.IsLoopback() {
		return nil
	}
	return &UsageError{fmt.Errorf("HTTP address %s is not loopback: set POLYPHONY_TOKENS_FILE, or use 127.0.0.1", addr)}
}
