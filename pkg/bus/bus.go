// Package bus is Polyphony's only way to NATS JetStream: it ensures the map of pkg/topology, publishes until
// acknowledged, hands batches to a handler whose return is the acknowledgement, and keeps streams in their bounds.
// It moves bytes and knows nothing of what they mean.
package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"polyphony/pkg/topology"
)

// Bus is a connection to JetStream. It is safe for concurrent use.
type Bus struct {
	conn    *nats.Conn
	js      jetstream.JetStream
	log     *slog.Logger
	url     string // of the server, without passwords
	storage int64
	turn    chan struct{}         // holds one while a trial is under way
	lacks   atomic.Pointer[error] // why Prepare has not done its work yet, nil when it has
}

// Config says where NATS is and how this process is called there.
type Config struct {
	URL         string
	Name        string
	Credentials string // path of a NATS credentials file, empty for none
	Storage     int64  // bytes that all streams together may take, used when they are created
	// Dial connects to a server in this process, past the network; nil for URL.
	Dial func() (net.Conn, error)
}

const (
	// publishTimeout is how long one attempt waits for its acknowledgement; a stream answers in milliseconds. It leaves
	// those who wait ten seconds for a publish room for a second attempt.
	publishTimeout = 4 * time.Second
	// maxInFlight bounds unacknowledged publishes; more than a few hundred starve consumers of the same server.
	maxInFlight = 512
	// writeBuffer lets one write carry several frames of up to 256 KiB.
	writeBuffer = 256 << 10
)

// Open begins to connect and does not wait: see Prepare. From then on it stays connected for as long as the process
// lives.
func Open(cfg Config, log *slog.Logger) (*Bus, error) {
	options := []nats.Option{
		nats.Name(cfg.Name), nats.MaxReconnects(-1), nats.ReconnectWait(250 * time.Millisecond),
		nats.WriteBufferSize(writeBuffer), nats.RetryOnFailedConnect(true),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				log.Warn("nats disconnected", "error", err)
			}
		}),
		nats.ReconnectHandler(func(*nats.Conn) { log.Info("nats connected") }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { log.Warn("nats", "error", err) }),
	}
	if cfg.Credentials != "" {
		options = append(options, nats.UserCredentials(cfg.Credentials))
	}
	if cfg.Dial != nil {
		options = append(options, nats.InProcessServer(inProcess(cfg.Dial)))
	}
	conn, err := nats.Connect(cfg.URL, options...)
	if err != nil {
		return nil, fmt.Errorf("connecting to nats at %s: %w", redacted(cfg.URL), err)
	}
	js, err := jetstream.New(conn,
		jetstream.WithPublishAsyncMaxPending(maxInFlight), jetstream.WithPublishAsyncTimeout(publishTimeout))
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("opening jetstream: %w", err)
	}
	b := &Bus{conn: conn, js: js, log: log, url: redacted(cfg.URL), storage: cfg.Storage, turn: make(chan struct{}, 1)}
	b.lacks.Store(&errUnprepared)
	return b, nil
}

var errUnprepared = errors.New("the streams have not been looked at yet")

// redacted leaves the passwords out of a list of server addresses.
func redacted(urls string) string {
	list := strings.Split(urls, ",")
	for i, text := range list {
		if text = strings.TrimSpace(text); !strings.Contains(text, "://") { // as the client understands it
			text = "nats://" + text
		}
		if u, err := url.Parse(text); err == nil {
			list[i] = u.Redacted()
		} else {
			list[i] = "(not a URL)"
		}
	}
	return strings.Join(list, ",")
}

// inProcess makes a server's connection of a function.
type inProcess func() (net.Conn, error)

func (dial inProcess) InProcessConn() (net.Conn, error) { return dial() }

// Prepare ensures that streams, durables and buckets are there; it comes before everything else, and may be repeated. It
// waits for NATS, and for what NATS refuses, until ctx ends, so that services may start in any order.
func (b *Bus) Prepare(ctx context.Context) error {
	return backoff.RetryNotify(func() error {
		err := b.ensure(ctx)
		if err != nil {
			b.lacks.Store(&err)
			return err
		}
		b.lacks.Store(nil)
		return nil
	}, backoff.WithContext(Forever(), ctx), func(err error, wait time.Duration) {
		b.log.Warn("waiting for nats", "error", err, "wait", wait)
	})
}

// Connect waits until there is a connection, for tools that make nothing of their own; see Prepare.
func (b *Bus) Connect(ctx context.Context) error {
	for !b.conn.IsConnected() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("no NATS answers at %s: is it running, and is this its address?", b.url)
		case <-time.After(connectStep):
		}
	}
	return nil
}

// connectStep is how often Connect looks.
const connectStep = 20 * time.Millisecond

// Close ends the connection when the server has heard what was said, as acknowledgements are; a server that is away is not waited
// for. What was not acknowledged will be delivered again.
func (b *Bus) Close() {
	if b.conn.IsConnected() {
		_ = b.conn.FlushTimeout(lastWords)
	}
	b.conn.Close()
}

// Ready is nil while connected and prepared.
func (b *Bus) Ready() error {
	if !b.conn.IsConnected() {
		return fmt.Errorf("nats at %s: %s", b.url, strings.ToLower(b.conn.Status().String()))
	}
	if lacks := b.lacks.Load(); lacks != nil {
		return fmt.Errorf("nats: %w", *lacks)
	}
	return nil
}

// ensure creates the streams, durables and buckets of pkg/topology where they are missing and leaves existing ones to
// their operator.
func (b *Bus) ensure(ctx context.Context) error {
	if !b.conn.IsConnected() {
		return b.Ready()
	}
	for _, s := range topology.Streams() {
		_, err := b.js.CreateStream(ctx, jetstream.StreamConfig{
			Name: s.Name, Subjects: []string{s.Subject},
			Storage: jetstream.FileStorage, Retention: jetstream.LimitsPolicy,
			// A full stream refuses, it never forgets: no MaxAge, see Janitor.
			Discard: jetstream.DiscardNew, MaxBytes: b.storage / 100 * int64(s.Share),
			Duplicates: 2 * time.Minute, AllowDirect: true,
		})
		if err != nil && !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			return fmt.Errorf("creating stream %s: %w", s.Name, err)
		}
	}
	for _, c := range topology.Consumers() {
		_, err := b.js.CreateConsumer(ctx, c.Stream.Name, jetstream.ConsumerConfig{
			Durable: c.Durable, AckPolicy: jetstream.AckExplicitPolicy, AckWait: ackWait,
			MaxDeliver: -1, MaxAckPending: maxAckPending,
		})
		if err != nil && !errors.Is(err, jetstream.ErrConsumerExists) {
			return fmt.Errorf("creating consumer %s of %s: %w", c.Durable, c.Stream.Name, err)
		}
	}
	for _, bucket := range topology.Buckets() {
		_, err := b.js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: bucket.Name, History: 1, TTL: bucket.Keep})
		if err != nil && !errors.Is(err, jetstream.ErrBucketExists) {
			return fmt.Errorf("creating bucket %s: %w", bucket.Name, err)
		}
	}
	return nil
}
