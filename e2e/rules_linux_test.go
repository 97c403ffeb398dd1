package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"polyphony/pkg/embedded/enginetest"
	"polyphony/pkg/topology"
	"polyphony/pkg/wire"
)

const (
	// ruleIngesters each follow a directory of their own: a change takes two looks of a second, so four make a hundred changes
	// in a minute.
	ruleIngesters, changesEach = 4, 25
	// ruleWords are the names that products of a version have.
	ruleWords = 10
)

// TestHundredRules: rules change a hundred times under load while enrichers are killed. Every mention carries a version that an
// ingester stamped on a frame of its event, and is routed by exactly that one; none is lost, none is double in one node, and the
// table of rules knows what each version said.
func TestHundredRules(t *testing.T) {
	t.Parallel()
	changes := changesEach
	if testing.Short() {
		changes = 3
	}
	server := enginetest.NATS(t)
	clickhouse, clickhouseHTTP := enginetest.LastingClickHouse(t)
	secret := filepath.Join(t.TempDir(), "author.key")
	if err := os.WriteFile(secret, []byte("an invented secret of the tests\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	common := []string{"POLYPHONY_NATS_URL=" + server.URL(), "POLYPHONY_LOG_LEVEL=warn"}
	enricher := func() *service {
		return startService(t, "enricher", append(common, "POLYPHONY_AUTHOR_KEY_FILE="+secret)...)
	}
	enrichers := []*service{enricher(), enricher()}
	startService(t, "aggregator", append(common, "POLYPHONY_CLICKHOUSE_ADDR="+clickhouse)...).awaitReady()
	var directories []string
	var told [ruleIngesters]int // events
	var stop [ruleIngesters]func()
	for i := range ruleIngesters {
		directories = append(directories, companyWith(t, ruleVersion(i), ""))
		ingester := startService(t, "ingester", append(common, "POLYPHONY_NODES_DIR="+directories[i])...)
		ingester.awaitReady()
		stop[i] = tellWords(t, ingester.addr, i, &told[i])
	}

	js, err := jetstream.New(natsAt(t, server.URL()))
	if err != nil {
		t.Fatal(err)
	}
	for round := range changes {
		for i, directory := range directories {
			replaceFiles(t, directory, ruleVersion(ruleIngesters*(round+1)+i))
		}
		await(t, fmt.Sprintf("the rules of round %d", round), func() error {
			if n := archived(t, js); n < ruleIngesters*(round+2) {
				return fmt.Errorf("%d versions", n)
			}
			return nil
		})
		n := round % len(enrichers)
		enrichers[n].kill()
		enrichers[n] = enricher()
	}
	for i := range stop {
		stop[i]()
	}
	settleAt(t, server.Addr(), time.Minute)

	stamped := stampedVersions(t, js)
	said := map[string]int{} // by version
	ask := func(query string) []byte {
		text, err := ask(t.Context(), clickhouseHTTP, query)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	number := regexp.MustCompile(`id: v(\d+)\b`)
	for _, row := range decodeLines[struct{ Version, Document string }](t, ask("SELECT rules_version AS Version, document AS Document FROM rules FORMAT JSONEachRow")) {
		said[row.Version], _ = strconv.Atoi(number.FindStringSubmatch(row.Document)[1])
	}
	want := map[string][]string{} // by division and text: the versions that put it there
	seen := map[string]bool{}
	for text, versions := range stamped {
		for version := range versions {
			v, ok := said[version]
			if !ok {
				t.Fatalf("the table of rules does not know %s", version)
			}
			seen[version] = true
			for _, division := range routedTo(text, v) {
				key := division + " " + text
				want[key] = append(want[key], version)
			}
		}
	}
	sent := 0
	for i := range told {
		sent += told[i]
	}
	t.Logf("%d events, %d versions stamped, %d mentions", sent, len(seen), len(want))
	if len(stamped) != sent || len(seen) < ruleIngesters*(changes+1)*9/10 {
		t.Fatalf("%d of %d events are in RAW, with %d versions: this shows too little", len(stamped), sent, len(seen))
	}
	check := func(where string, got map[string][]ruledMention) {
		t.Helper()
		if diff := cmp.Diff(slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(got))); diff != "" {
			t.Fatalf("%s: which event is in which node (-want +got)\n%.3000s", where, diff)
		}
		for key, list := range got {
			for _, m := range list {
				if !slices.Contains(want[key], m.Version) || !slices.Equal(m.Products, []string{fmt.Sprint("v", said[m.Version])}) {
					t.Errorf("%s: %s by version %d names %v, want one of %v", where, key, said[m.Version], m.Products, want[key])
				}
			}
		}
	}
	stored := map[string][]ruledMention{}
	for _, m := range decodeLines[ruledMention](t, ask("SELECT division AS Division, text AS Text, rules_version AS Version, products AS Products FROM mentions FORMAT JSONEachRow")) {
		stored[m.Division+" "+m.Text] = append(stored[m.Division+" "+m.Text], m)
	}
	check("mentions", stored)
	for key, list := range stored {
		if len(list) != 1 {
			t.Errorf("%s is %d times in mentions", key, len(list))
		}
	}
	check("the stream", publishedMentions(t, js))
	if got := strings.TrimSpace(string(ask("SELECT sum(mentions) FROM node_metrics_1h FORMAT TSV"))); got != strconv.Itoa(len(want)) {
		t.Errorf("%s mentions are counted, want %d", got, len(want))
	}
}

// ruledMention is what there is to say of a mention here.
type ruledMention struct {
	Division, Text, Version string
	Products                []string
}

// ruleVersion is the vth version of a company: its two divisions each listen to one word, and its products are called after it.
func ruleVersion(v int) map[string]string {
	division := func(name string, word int) string {
		return fmt.Sprintf("division: %s\nproducts: [{id: v%d, names: [%s]}]\nlisten: products\n", name, v, ruleWord(word))
	}
	return map[string]string{"company.yaml": "company: rules\n", "territories/east.yaml": "territory: east\ncountries: [DE]\n",
		"divisions/alpha.yaml": division("alpha", v%ruleWords), "divisions/beta.yaml": division("beta", v/ruleWords%ruleWords)}
}

func ruleWord(n int) string { return string("Aerilan"+string(rune('a'+n))) + "x" }

// routedTo are the divisions that a text concerns by the vth version.
func routedTo(text string, v int) (divisions []string) {
	for division, n := range map[string]int{"alpha": v % ruleWords, "beta": v / ruleWords % ruleWords} {
		if strings.Contains(text, ruleWord(n)) {
			divisions = append(divisions, division)
		}
	}
	return divisions
}

// replaceFiles changes a directory the way an operator does, file by file.
func replaceFiles(t *testing.T, directory string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(directory, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// tellWords sends posts that each name two words of the rules, until stop.
func tellWords(t *testing.T, addr string, teller int, told *int) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var stopped atomic.Bool
	s := newSender(addr, 0)
	r := rand.New(rand.NewPCG(7, uint64(teller)))
	at := time.Now().UTC().Truncate(time.Hour).Add(-5 * time.Hour)
	var telling sync.WaitGroup
	telling.Go(func() {
		defer s.client.CloseIdleConnections()
		for !stopped.Load() {
			var body bytes.Buffer
			for range 5 {
				fmt.Fprintf(&body, `{"id":"%d.%d","source":"forum","kind":"post","time":%q,"text":"%s and %s, %s","author":{"id":"a","country":"DE"}}`+"\n", teller, *told,
					at.Add(time.Duration(*told)*time.Second).Format(time.RFC3339), ruleWord(r.IntN(ruleWords)), ruleWord(r.IntN(ruleWords)), inLetters(teller, *told))
				*told++
			}
			if _, err := s.insist(ctx, body.Bytes()); err != nil {
				return // the test has failed already
			}
			time.Sleep(20 * time.Millisecond) // a load, not a flood
		}
	})
	t.Cleanup(cancel)
	return func() {
		stopped.Store(true)
		telling.Wait()
	}
}

// inLetters is a name of its own for the nth event of a teller; digits could be taken for a telephone number.
func inLetters(teller, n int) string {
	word := string(rune('a' + teller))
	for ; n > 0; n /= 26 {
		word += string(rune('a' + n%26))
	}
	return word
}

func natsAt(t *testing.T, url string) *nats.Conn {
	t.Helper()
	conn, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	return conn
}

// archived counts the versions that were ever in force.
func archived(t *testing.T, js jetstream.JetStream) (n int) {
	t.Helper()
	bucket, err := js.KeyValue(t.Context(), topology.RulesBucket)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := bucket.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		if strings.HasPrefix(key, topology.RulesKey("")) {
			n++
		}
	}
	return n
}

// readStream gives each message of a stream.
func readStream(t *testing.T, js jetstream.JetStream, name string, each func(jetstream.Msg)) {
	t.Helper()
	consumer, err := js.OrderedConsumer(t.Context(), name, jetstream.OrderedConsumerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	messages, err := consumer.Messages()
	if err != nil {
		t.Fatal(err)
	}
	defer messages.Stop()
	for range consumer.CachedInfo().NumPending {
		m, err := messages.Next()
		if err != nil {
			t.Fatal(err)
		}
		each(m)
	}
}

// stampedVersions reads from RAW which versions are stamped on the frames of each event, which its text tells.
func stampedVersions(t *testing.T, js jetstream.JetStream) map[string]map[string]bool {
	t.Helper()
	stamped := map[string]map[string]bool{}
	readStream(t, js, topology.Raw.Name, func(m jetstream.Msg) {
		size, err := strconv.Atoi(m.Headers().Get(topology.HeaderSize))
		if err != nil {
			t.Fatal(err)
		}
		frame, err := wire.DecodeFrame(nil, m.Data(), size)
		if err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(frame) {
			var event struct{ Text string }
			if err := json.Unmarshal(line, &event); err != nil {
				t.Fatal(err)
			}
			if stamped[event.Text] == nil {
				stamped[event.Text] = map[string]bool{}
			}
			stamped[event.Text][m.Headers().Get(topology.HeaderRules)] = true
		}
	})
	return stamped
}

// publishedMentions reads the public stream, by division and text, repeats dropped.
func publishedMentions(t *testing.T, js jetstream.JetStream) map[string][]ruledMention {
	t.Helper()
	published, seen := map[string][]ruledMention{}, map[string]bool{}
	readStream(t, js, topology.Mentions.Name, func(m jetstream.Msg) {
		var events []struct {
			ID, Source string
			Data       struct {
				Division, Text string
				RulesVersion   string `json:"rules_version"`
				Products       []string
			}
		}
		if err := json.Unmarshal(m.Data(), &events); err != nil {
			t.Fatal(errors.Join(err, fmt.Errorf("%.300s", m.Data())))
		}
		for _, e := range events {
			if id := e.Source + " " + e.ID; !seen[id] {
				seen[id] = true
				key := e.Data.Division + " " + e.Data.Text
				published[key] = append(published[key], ruledMention{e.Data.Division, e.Data.Text, e.Data.RulesVersion, e.Data.Products})
			}
		}
	})
	return published
}
