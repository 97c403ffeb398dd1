package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"polyphony/pkg/bus"
	"polyphony/pkg/embedded/enginetest"
	"polyphony/pkg/topology"
)

// startConfigured runs a server by nats.conf, with the variables of the stateful set as the dev overlay fills them, and
// returns its URLs for a service, as its pod gets it, and for a subscriber.
func startConfigured(t *testing.T) (service, subscriber string) {
	t.Helper()
	m := build(t, "overlays/dev")
	t.Setenv("POD_NAME", "nats-0")
	value := func(pod, variable string) string {
		for _, e := range m.pods[pod].Containers[0].Env {
			if e.Name == variable {
				ref := e.ValueFrom.SecretKeyRef
				return string(m.secrets[ref.Name].Data[ref.Key])
			}
		}
		t.Fatalf("%s: no variable %s", pod, variable)
		return ""
	}
	for _, name := range []string{"NATS_PASSWORD", "NATS_SUBSCRIBER_PASSWORD"} {
		t.Setenv(name, value("nats", name))
	}
	o, err := server.ProcessConfigFile("../nats/nats.conf")
	if err != nil {
		t.Fatal(err)
	}
	o.Host, o.Port, o.HTTPPort, o.StoreDir, o.NoLog, o.NoSigs = "127.0.0.1", -1, 0, t.TempDir(), true, true
	s, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	go s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the server does not start")
	}
	addr := s.Addr().String()
	for _, name := range services[1:] {
		if value(name, "POLYPHONY_NATS_URL") != value(services[0], "POLYPHONY_NATS_URL") {
			t.Errorf("%s has another URL than %s", name, services[0])
		}
	}
	service = strings.Replace(value(services[0], "POLYPHONY_NATS_URL"), "nats:4222", addr, 1)
	return service, fmt.Sprintf("nats://subscriber:%s@%s", value("nats", "NATS_SUBSCRIBER_PASSWORD"), addr)
}

// client connects and collects what the server refuses.
func client(t *testing.T, url string) (*nats.Conn, chan error) {
	t.Helper()
	refused := make(chan error, 16)
	conn, err := nats.Connect(url, nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { refused <- err }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	return conn, refused
}

func TestNobodyReachesNatsWithoutAPassword(t *testing.T) {
	service, _ := startConfigured(t)
	_, addr, _ := strings.Cut(service, "@")
	for _, who := range []string{"", "polyphony@", "polyphony:wrong@", "subscriber:developmentOnly@"} {
		if conn, err := nats.Connect("nats://" + who + addr); !errors.Is(err, nats.ErrAuthorization) {
			conn.Close()
			t.Errorf("as %q: %v", who, err)
		}
	}
}

// What services do, the service's user may: streams, durables, bucket, publishing and reading.
func TestServicesMayUseNats(t *testing.T) {
	service, _ := startConfigured(t)
	b := openBus(t, service)
	if err := b.Put(t.Context(), topology.RulesBucket, topology.RulesCurrent, []byte("v")); err != nil {
		t.Error(err)
	}
	publish(t, b, topology.RawSubject("reddit"), topology.MentionSubject("heart", "north"))
	for _, c := range []topology.Consumer{topology.EnrichRaw, topology.AggregateMentions} {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		got := 0
		err := b.Consume(ctx, c, bus.Limit{Bytes: 1, Wait: time.Millisecond}, func(_ context.Context, d []bus.Delivery) error {
			got += len(d)
			cancel()
			return nil
		})
		if cancel(); err != nil || got != 1 {
			t.Errorf("%s read %d messages of %s: %v", c.Durable, got, c.Stream.Name, err)
		}
	}
}

func openBus(t *testing.T, url string) *bus.Bus {
	t.Helper()
	b, err := bus.Open(bus.Config{URL: url, Name: "test", Storage: 16 << 20}, enginetest.Log(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	if err := b.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	return b
}

func publish(t *testing.T, b *bus.Bus, subjects ...string) {
	t.Helper()
	for _, s := range subjects {
		if err := b.Publish(t.Context(), []bus.Message{{Subject: s, Data: []byte("for " + s)}}); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

// A subscriber sees public subjects as they come, reads back what was published, and reads from a durable of its own.
func TestSubscribersReadWhatIsPublic(t *testing.T) {
	service, subscriber := startConfigured(t)
	b := openBus(t, service)
	operator, _ := client(t, service)
	js, err := jetstream.New(operator)
	if err != nil {
		t.Fatal(err)
	}
	stream := topology.Mentions.Name
	if _, err := js.CreateConsumer(t.Context(), stream, jetstream.ConsumerConfig{Durable: "crm", AckPolicy: jetstream.AckExplicitPolicy}); err != nil {
		t.Fatal(err)
	}

	conn, refused := client(t, subscriber)
	subject := topology.MentionSubject("heart", "north")
	live, err := conn.SubscribeSync("social.mentions.heart.*")
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	publish(t, b, subject)
	if m, err := live.NextMsg(10 * time.Second); err != nil || string(m.Data) != "for "+subject {
		t.Errorf("live: %v %v", m, err)
	}
	again, err := conn.Request("$JS.polyphony.API.DIRECT.GET."+stream+"."+subject, nil, 10*time.Second)
	if err != nil || string(again.Data) != "for "+subject {
		t.Errorf("read back: %v %v", again, err)
	}
	reading, err := jetstream.NewWithDomain(conn, "polyphony")
	if err != nil {
		t.Fatal(err)
	}
	durable, err := reading.Consumer(t.Context(), stream, "crm")
	if err != nil {
		t.Fatal(err)
	}
	m, err := durable.Next(jetstream.FetchMaxWait(10 * time.Second))
	if err != nil || string(m.Data()) != "for "+subject {
		t.Fatalf("durable: %v %v", m, err)
	}
	if err := m.DoubleAck(t.Context()); err != nil {
		t.Errorf("acknowledging: %v", err)
	}
	if info, err := durable.Info(t.Context()); err != nil || info.AckFloor.Stream != 1 {
		t.Errorf("acknowledged: %+v %v", info, err)
	}
	select {
	case err := <-refused:
		t.Error(err)
	default:
	}
}

// A subscriber sees nothing internal and changes nothing, neither directly nor through JetStream.
func TestSubscribersGetNoFurther(t *testing.T) {
	service, subscriber := startConfigured(t)
	b := openBus(t, service)
	operator, _ := client(t, service)
	conn, refused := client(t, subscriber)
	denied := func(what string) {
		t.Helper()
		select {
		case err := <-refused:
			if !errors.Is(err, nats.ErrPermissionViolation) {
				t.Errorf("%s: %v", what, err)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("%s is not refused", what)
		}
	}
	for _, subject := range []string{"social.raw.>", "social.rejects.>", "social.facts.originals", "social.>", ">", "$JS.ACK.>", "$KV.>"} {
		if _, err := conn.SubscribeSync(subject); err != nil {
			t.Fatal(err)
		}
		denied("subscribing to " + subject)
	}
	for _, subject := range []string{
		"social.mentions.x.y", "social.raw.x", "$JS.API.STREAM.INFO.RAW", "$JS.API.STREAM.PURGE.MENTIONS", "$JS.API.STREAM.DELETE.MENTIONS",
		"$JS.API.STREAM.MSG.GET.RAW", "$JS.API.DIRECT.GET.RAW", "$JS.API.CONSUMER.CREATE.MENTIONS", "$JS.API.CONSUMER.CREATE.MENTIONS.x",
		"$JS.API.CONSUMER.CREATE.RAW.x", "$JS.API.CONSUMER.DURABLE.CREATE.MENTIONS.x", "$JS.API.CONSUMER.DELETE.MENTIONS.aggregator",
		"$JS.API.CONSUMER.MSG.NEXT.MENTIONS.aggregator", "$JS.polyphony.API.CONSUMER.MSG.NEXT.MENTIONS.aggregator",
		"$JS.polyphony.API.CONSUMER.CREATE.MENTIONS.x", "$JS.polyphony.API.DIRECT.GET.RAW.social.raw.x", "$JS.ACK.MENTIONS.aggregator.1.1.1.1.1", "$JS.ACK.MENTIONS.hash.MENTIONS.aggregator.1.1.1.1.1.1", "$KV.polyphony-rules.current",
	} {
		if err := conn.Publish(subject, nil); err != nil {
			t.Fatal(err)
		}
		denied("publishing to " + subject)
	}

	// The answer to a request goes where the asker says, within its own account.
	raw, err := operator.SubscribeSync("social.raw.>")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(operator.Flush(), conn.PublishRequest("$JS.polyphony.API.STREAM.INFO.MENTIONS", "social.raw.x", nil), conn.Flush()); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Request("$JS.polyphony.API.STREAM.INFO.MENTIONS", nil, 10*time.Second); err != nil { // it was answered by now
		t.Fatal(err)
	}
	publish(t, b, "social.raw.last")
	if m, err := raw.NextMsg(10 * time.Second); err != nil || m.Subject != "social.raw.last" {
		t.Errorf("an answer reached %v: %v", m, err)
	}
}
