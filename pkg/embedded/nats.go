package embedded

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

const (
	natsFlag = "--nats"
	// natsMaxPayload leaves room for the largest message of Polyphony (256 KiB) and for one reject with its bytes.
	natsMaxPayload = 8 << 20
	// natsMaxMemory: every stream is kept on disk; this is for the memory streams of a curious client.
	natsMaxMemory = 64 << 20
	// natsMaxStore is only what streams may promise together. It is not taken from the free disk, since a smaller
	// figure than the streams' limits together would refuse to create them on a small disk; a full disk then refuses
	// messages, which senders see as back-pressure.
	natsMaxStore = 1 << 40
	natsStart    = 20 * time.Second
)

// NATSConfig says where the embedded NATS keeps its streams and listens.
type NATSConfig struct {
	Dir  string       // created if need be; belongs to one server at a time
	Addr string       // loopback HOST:PORT; port 0 takes any free one
	Log  *slog.Logger // what the server has to say: errors and warnings as such, the rest at debug level
}

// NATS is a NATS server with JetStream inside this process.
type NATS struct {
	server *server.Server
	lock   *os.File
	close  sync.Once
}

// StartNATS starts a server and returns when it accepts connections. A directory that an earlier run still holds is
// waited for, up to half a minute.
func StartNATS(cfg NATSConfig) (*NATS, error) {
	n, err := startNATS(cfg)
	if err != nil {
		return nil, fmt.Errorf("starting NATS: %w", err)
	}
	return n, nil
}

func startNATS(cfg NATSConfig) (*NATS, error) {
	host, port, err := loopback(cfg.Addr, natsFlag)
	if err != nil {
		return nil, err
	}
	lock, err := lockDir(context.Background(), cfg.Dir, lockWait, cfg.Log)
	if err != nil {
		return nil, err
	}
	n := &NATS{lock: lock}
	if port == 0 {
		port = server.RANDOM_PORT
	} else if _, err := freeAddr(context.Background(), cfg.Addr, natsFlag); err != nil {
		n.Close()
		return nil, err
	}
	n.server, err = server.NewServer(&server.Options{
		ServerName:         "polyphony",
		Host:               host,
		Port:               port,
		MaxPayload:         natsMaxPayload,
		NoSigs:             true,
		JetStream:          true,
		StoreDir:           cfg.Dir,
		JetStreamMaxMemory: natsMaxMemory,
		JetStreamMaxStore:  natsMaxStore,
	})
	if err != nil {
		n.Close()
		return nil, err
	}
	log := &natsLog{to: cfg.Log}
	n.server.SetLoggerV2(log, false, false, false)
	n.server.Start()
	if !n.server.ReadyForConnections(natsStart) || !n.server.JetStreamEnabled() {
		n.Close()
		if why := log.fatal(); why != "" {
			return nil, fmt.Errorf("%s; choose another directory with --data or another address with %s", why, natsFlag)
		}
		return nil, fmt.Errorf("not ready after %s; the log says why", natsStart)
	}
	return n, nil
}

// URL is what clients connect to, such as nats://127.0.0.1:4222.
func (n *NATS) URL() string { return "nats://" + n.Addr() }

// Conn connects within the process, past the network.
func (n *NATS) Conn() (net.Conn, error) { return n.server.InProcessConn() }

// Addr is the HOST:PORT the server listens on.
func (n *NATS) Addr() string { return n.server.Addr().String() }

// Close stops the server and returns when its files are closed. It may be called more than once.
func (n *NATS) Close() {
	n.close.Do(func() {
		if n.server != nil {
			n.server.Shutdown()
			n.server.WaitForShutdown()
		}
		n.lock.Close()
	})
}

// natsLog turns the server's log into slog and remembers why a start failed. The server itself never ends the process.
type natsLog struct {
	to  *slog.Logger
	mu  sync.Mutex
	why string
}

var _ server.Logger = (*natsLog)(nil)

func (l *natsLog) Noticef(format string, args ...any) {
	l.to.Debug("nats: " + fmt.Sprintf(format, args...))
}
func (l *natsLog) Warnf(format string, args ...any) {
	l.to.Warn("nats: " + fmt.Sprintf(format, args...))
}
func (l *natsLog) Errorf(format string, args ...any) {
	l.to.Error("nats: " + fmt.Sprintf(format, args...))
}
func (l *natsLog) Debugf(string, ...any) {}
func (l *natsLog) Tracef(string, ...any) {}

// Fatalf is called once for what stops a start. It is not logged: the caller gets it as an error.
func (l *natsLog) Fatalf(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.why == "" {
		l.why = strings.TrimSpace(fmt.Sprintf(format, args...))
	}
}

func (l *natsLog) fatal() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.why
}
