package enrich

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/cespare/xxhash/v2"
	cloudevents "github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"polyphony/pkg/bus"
	"polyphony/pkg/embedded/enginetest"
	"polyphony/pkg/nodes"
	"polyphony/pkg/pseudonym"
	"polyphony/pkg/social"
	"polyphony/pkg/topology"
	"polyphony/pkg/wire"
)

func TestMain(m *testing.M) { enginetest.Main(m) }

const secret = "a secret for tests only"

func company(t testing.TB) *nodes.Rules {
	t.Helper()
	return rulesOf(t, fstest.MapFS{
		"company.yaml":           {Data: []byte("company: acme\n")},
		"divisions/heart.yaml":   {Data: []byte("division: heart\nproducts: [{id: cordia, names: [Cordia]}]\nlisten: products\ntopics: [{id: cost, query: 'price'}]\n")},
		"divisions/lung.yaml":    {Data: []byte("division: lung\nproducts: [{id: airia, names: [Airia]}]\nlisten: products\n")},
		"territories/north.yaml": {Data: []byte("territory: north\ncountries: [SE]\ntimezone: Europe/Stockholm\n")},
		"business-units/heart-north.yaml": {Data: []byte(
			"business_unit: heart-north\ndivision: heart\nterritories: [north]\naccounts: [{source: facebook, id: page}]\n")},
	})
}

func rulesOf(t testing.TB, directory fstest.MapFS) *nodes.Rules {
	t.Helper()
	rules, err := nodes.Load(directory)
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

// bundle is a NATS with the rules in their bucket, or not.
type bundle struct {
	t     *testing.T
	bus   *bus.Bus
	rules *nodes.Rules
}

func setup(t *testing.T) *bundle { return setupWith(t, 64<<20) }

// setupWith gives all streams together so many bytes.
func setupWith(t *testing.T, storage int64) *bundle {
	t.Helper()
	n := enginetest.NATS(t)
	b, err := bus.Open(bus.Config{URL: n.URL(), Name: "test", Storage: storage}, enginetest.Log(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	if err := b.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	return &bundle{t: t, bus: b, rules: company(t)}
}

func (b *bundle) publishRules() {
	b.t.Helper()
	if err := b.bus.PutOnce(b.t.Context(), topology.RulesBucket, topology.RulesKey(b.rules.Version()), b.rules.Archive()); err != nil {
		b.t.Fatal(err)
	}
}

// enricher makes an enricher that does nothing yet.
func (b *bundle) enricher() *Enricher {
	b.t.Helper()
	keyer, err := pseudonym.New([]byte(secret))
	if err != nil {
		b.t.Fatal(err)
	}
	return New(keyer, b.bus, enginetest.Log(b.t), prometheus.NewRegistry())
}

// enrich starts an enricher that lives as long as the test.
func (b *bundle) enrich() *Enricher {
	b.t.Helper()
	en := b.enricher()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- en.Run(ctx, 2) }()
	b.t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			b.t.Error(err)
		}
	})
	return en
}

var recorded = time.Date(2026, 5, 25, 14, 0, 0, 5e6, time.UTC)

func (b *bundle) publishFrame(lines string) {
	b.t.Helper()
	for frame, info := range wire.EncodeFrame([]byte(lines)) {
		b.publish(frame, bus.Header{
			topology.HeaderRules: {b.rules.Version()}, topology.HeaderSize: {strconv.Itoa(info.Size)},
			topology.HeaderRecorded: {strconv.FormatInt(recorded.UnixMilli(), 10)},
		})
	}
}

func (b *bundle) publish(data []byte, header bus.Header) {
	b.t.Helper()
	if err := b.bus.Publish(b.t.Context(), []bus.Message{{Subject: topology.RawSubject("facebook"), Data: data, Header: header}}); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bundle) read(c topology.Consumer, messages int) []bus.Delivery {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), time.Minute)
	defer cancel()
	var got []bus.Delivery
	if err := b.bus.Consume(ctx, c, bus.Limit{Messages: 1}, func(_ context.Context, d []bus.Delivery) error {
		if got = append(got, d...); len(got) >= messages {
			cancel()
		}
		return nil
	}); err != nil || len(got) < messages {
		b.t.Fatalf("%d messages of %d: %v", len(got), messages, err)
	}
	slices.SortFunc(got, func(x, y bus.Delivery) int { return strings.Compare(x.Subject, y.Subject) })
	return got
}

const (
	threeEvents = `{"id":"native-1","source":"facebook","kind":"reply","time":"2026-05-25T14:00:00Z","text":"Cordia and Airia @native-handle, price?","url":"https://facebook.example/native-link","lang":"en","author":{"id":"native-author","handle":"native-handle","name":"Native Name","country":"SE","followers":7},"in_reply_to":{"id":"native-0","author_id":"native-author-0"},"root_id":"native-root","counters":{"likes":3}}
{"id":"native-2","source":"facebook","kind":"post","time":"2026-05-25T14:00:01Z","text":"nothing of ours","author":{"id":"native-author-2"}}
{"id":"native-3","source":"facebook","kind":"post","time":"2026-05-25T14:00:02Z","text":"welcome","author":{"id":"page"},"account":"page"}
{"source":"facebook","kind":"delete","time":"2026-05-25T14:00:03Z","object":{"id":"native-9"}}
{"source":"facebook","kind":"edit","time":"2026-05-25T14:00:04Z","object":{"id":"native-1"},"text":"Cordia only, mail native@mail.example"}
`
)

// One message a node; public, pseudonymised, and parsed by the CloudEvents SDK.
func TestEnrichment(t *testing.T) {
	b := setup(t)
	b.publishRules()
	b.publishFrame(threeEvents)
	b.enrich()
	got := b.read(topology.AggregateMentions, 2)
	f := func(d bus.Delivery, subject string, ids ...string) []map[string]any {
		t.Helper()
		if d.Subject != subject || d.Header.Get("Content-Type") != wire.BatchContentType {
			t.Errorf("%s %v", d.Subject, d.Header)
		}
		var events []cloudevents.Event
		if err := json.Unmarshal(d.Data, &events); err != nil {
			t.Fatal(err)
		}
		var all []map[string]any
		for _, e := range events {
			if err := e.Validate(); err != nil {
				t.Error(err)
			}
			var data map[string]any
			if err := json.Unmarshal(e.Data(), &data); err != nil {
				t.Fatal(err)
			}
			all = append(all, data)
		}
		if strings.Contains(string(d.Data), "native") || strings.Contains(string(d.Data), "Native") {
			t.Errorf("a native id, handle, link or name is public:\n%s", d.Data)
		}
		return all
	}
	heart := f(got[0], "social.mentions.heart.north")
	lung := f(got[1], "social.mentions.lung.north")
	if len(heart) != 2 || len(lung) != 1 {
		t.Fatalf("heart %d, lung %d", len(heart), len(lung))
	}
	first := heart[0]
	for name, want := range map[string]any{
		"products": "[cordia]", "topics": "[cost]", "via": "text", "country": "SE", "country_method": "author", "owned": false,
		"text": "Cordia and Airia [handle], price?", "followers": 7.0, "role": "unknown", "sentiment": nil, "rules_version": b.rules.Version(),
	} {
		if fmt.Sprint(first[name]) != fmt.Sprint(want) {
			t.Errorf("%s is %v, want %v", name, first[name], want)
		}
	}
	if heart[1]["by_company"] != true || heart[1]["owned"] != true || heart[1]["account"] != "page" || heart[1]["via"] != "account" {
		t.Errorf("%v", heart[1])
	}
	keyer, _ := pseudonym.New([]byte(secret))
	if first["event_key"] != keyer.Key("facebook", "native-1").String() || first["parent_key"] != keyer.Key("facebook", "native-0").String() ||
		first["author_key"] != keyer.Key("facebook", "native-author").String() || first["root_key"] != keyer.Key("facebook", "native-root").String() {
		t.Errorf("%v", first)
	}
	b.checkFacts(keyer)
}

// checkFacts reads the facts that follow from threeEvents.
func (b *bundle) checkFacts(keyer *pseudonym.Keyer) {
	t := b.t
	t.Helper()
	facts := append(b.read(topology.AggregateFacts, 1), b.read(topology.AggregateThreads, 2)...) // in the order of their subjects
	originals, err := wire.DecodeOriginals(nil, facts[0].Data)
	if err != nil {
		t.Fatal(err)
	}
	lines := linesOf(t, facts[1])
	references, err := wire.DecodeReferences(nil, lines)
	if err != nil || len(references) != 1 {
		t.Fatalf("%v, %d references", err, len(references))
	}
	if r := references[0]; r.Mention.EventKey != keyer.Key("facebook", "native-1") || !r.Kept || !r.Until.Equal(recorded.Add(24*time.Hour)) ||
		!slices.Equal(r.Targets, []social.Key{keyer.Key("facebook", "native-0"), keyer.Key("facebook", "native-root")}) {
		t.Errorf("%+v", r)
	}
	if bytes.Contains(lines, []byte("native")) {
		t.Errorf("a native id is in the references: %s", lines)
	}
	lines = linesOf(t, facts[2])
	if bytes.Contains(lines, []byte("native")) || bytes.Contains(facts[0].Data, []byte("native")) {
		t.Errorf("a native id is in the facts: %s", lines)
	}
	statements, err := wire.DecodeStatements(nil, lines)
	if err != nil {
		t.Fatal(err)
	}
	var kinds []social.Kind
	for _, s := range statements {
		kinds = append(kinds, s.Kind)
	}
	slices.Sort(kinds)
	if !slices.Equal(kinds, []social.Kind{social.Delete, social.Edit}) || len(originals) != 2 {
		t.Fatalf("%v, %d originals", kinds, len(originals))
	}
	plain, err := keyer.Open(originals[0].Sealed)
	if err != nil || !strings.Contains(string(plain), `"id":"native-1"`) || !strings.Contains(string(plain), `"url":"https://facebook.example/native-link"`) {
		t.Errorf("%v: %s", err, plain)
	}
}

// Of a source whose threads are off, nothing refers to anything.
func TestThreadsOff(t *testing.T) {
	rules, err := nodes.Load(fstest.MapFS{
		"company.yaml":           {Data: []byte("company: acme\nsources: {whole: {threads: off}, other: {}}\n")},
		"divisions/heart.yaml":   {Data: []byte("division: heart\nproducts: [{id: cordia, names: [Cordia]}]\nlisten: products\n")},
		"territories/north.yaml": {Data: []byte("territory: north\ncountries: [SE]\ntimezone: Europe/Stockholm\n")},
	})
	if err != nil {
		t.Fatal(err)
	}
	keyer, err := pseudonym.New([]byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	m, en := newMatcher(rules, "v"), NewEnrichment(keyer)
	f := func(source, text string, want bool) {
		t.Helper()
		e := &social.Event{Source: source, ID: "2", Kind: social.Reply, Time: recorded, Text: text, Author: social.Author{ID: "a"}, InReplyTo: social.Ref{ID: "1"}}
		matches := m.Match(e)
		if got := en.reference(e, m, matches, recorded); (got != nil) != want || (len(matches) > 0) != (text == "Cordia") {
			t.Errorf("%s, %q: %v, %d matches", source, text, got, len(matches))
		}
	}
	for _, text := range []string{"Cordia", "nothing"} {
		f("whole", text, false)
		f("other", text, true)
		f("unnamed", text, true)
	}
}

func linesOf(t *testing.T, d bus.Delivery) []byte {
	t.Helper()
	size, _ := strconv.Atoi(d.Header.Get(topology.HeaderSize))
	lines, err := wire.DecodeFrame(nil, d.Data, size)
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// The same frame gives the same bytes, however often it comes.
func TestEnrichmentIsDeterministic(t *testing.T) {
	b := setup(t)
	b.publishRules()
	b.publishFrame(threeEvents)
	b.enrich()
	first := b.read(topology.AggregateMentions, 2)
	b.publishFrame(threeEvents)
	second := b.read(topology.AggregateMentions, 2)
	for i := range first {
		if !bytes.Equal(first[i].Data, second[i].Data) {
			t.Errorf("%s\n%s", first[i].Data, second[i].Data)
		}
	}
}

// A frame waits for the rules it was accepted under, and /readyz says so; no other rules will do.
func TestFrameWaitsForItsRules(t *testing.T) {
	b := setup(t)
	b.publishFrame(threeEvents)
	en := b.enrich()
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if err := b.bus.Consume(ctx, topology.AggregateMentions, bus.Limit{Messages: 1}, func(context.Context, []bus.Delivery) error {
		t.Error("a mention without its rules")
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := en.Ready(); err == nil || !strings.Contains(err.Error(), "rules "+b.rules.Version()) {
		t.Errorf("ready, or says something else: %v", err)
	}
	b.publishRules()
	if got := b.read(topology.AggregateMentions, 2); len(got) != 2 {
		t.Fatalf("%d messages", len(got))
	}
	if err := en.Ready(); err != nil {
		t.Error(err)
	}
}

// TestFrameKeepsItsRules: frames of several versions come in any order, also the older ones after newer ones: each is enriched by its
// own.
func TestFrameKeepsItsRules(t *testing.T) {
	b := setup(t)
	older, newer := b.rules, rulesOf(t, fstest.MapFS{
		"company.yaml":           {Data: []byte("company: acme\n")},
		"divisions/heart.yaml":   {Data: []byte("division: heart\nproducts: [{id: airia, names: [Airia]}]\nlisten: products\n")},
		"divisions/lung.yaml":    {Data: []byte("division: lung\nproducts: [{id: cordia, names: [Cordia]}]\nlisten: products\n")},
		"territories/north.yaml": {Data: []byte("territory: north\ncountries: [SE]\ntimezone: Europe/Stockholm\n")},
	})
	type made struct{ Division, Rules string }
	want := map[social.Key]made{}
	keyer, err := pseudonym.New([]byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	for i, rules := range []*nodes.Rules{older, newer, older, newer, older} {
		b.rules = rules
		b.publishRules()
		id := fmt.Sprint(i)
		b.publishFrame(fmt.Sprintf(`{"id":%q,"source":"facebook","kind":"post","time":"2026-05-25T14:00:00Z","text":"Cordia","author":{"id":"a","country":"SE"}}`, id) + "\n")
		division := "heart"
		if rules == newer {
			division = "lung"
		}
		want[keyer.Key("facebook", id)] = made{division, rules.Version()}
	}
	b.enrich()
	got := map[social.Key]made{}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	if err := b.bus.Consume(ctx, topology.AggregateMentions, bus.Limit{Messages: 1}, func(_ context.Context, batch []bus.Delivery) error {
		for _, d := range batch {
			mentions, err := wire.DecodeBatch(nil, d.Data)
			if err != nil {
				return err
			}
			for i := range mentions {
				got[mentions[i].EventKey] = made{mentions[i].Node.Division, mentions[i].RulesVersion}
			}
		}
		if len(got) == len(want) {
			stop()
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// What is no frame becomes a reject with its bytes, and what is behind it goes on.
func TestUnreadableFrame(t *testing.T) {
	b := setup(t)
	b.publishRules()
	b.publish([]byte("hello"), nil)
	b.publish([]byte("hello"), bus.Header{topology.HeaderRules: {"x"}, topology.HeaderRecorded: {"1"}, topology.HeaderSize: {"5"}})
	b.publishFrame("{\"broken\n" + threeEvents)
	b.enrich()
	if got := b.read(topology.AggregateMentions, 2); len(got) != 2 {
		t.Fatalf("%d messages", len(got))
	}
	var subjects []string
	for _, d := range b.read(topology.AggregateRejects, 3) {
		subjects = append(subjects, d.Subject)
		for r, err := range wire.DecodeRejects(linesOf(t, d)) {
			if err != nil {
				t.Fatal(err)
			}
			want := recorded
			switch {
			case r.Code == "invalid_frame" && strings.Contains(r.Detail, "header"): // by the server's clock, just now
				want = d.Stored.Truncate(time.Hour)
				r.RecordedTime = r.RecordedTime.Truncate(time.Hour)
			case r.Code == "invalid_frame":
				want = time.UnixMilli(1)
			}
			if r.Source != "facebook" || !r.RecordedTime.Equal(want) {
				t.Errorf("%s: source %q, recorded %v, want %v", d.Subject, r.Source, r.RecordedTime, want)
			}
		}
	}
	if want := []string{"social.rejects.enrich.invalid_frame", "social.rejects.enrich.invalid_frame", "social.rejects.enrich.invalid_json"}; !slices.Equal(subjects, want) {
		t.Errorf("%v", subjects)
	}
}

// lives lets one process after the other read until all raw frames are acknowledged, and counts how many of them died.
func (b *bundle) lives(en *Enricher, enrichment *Enrichment) (deaths int) {
	b.t.Helper()
	ctx, stop := context.WithTimeout(b.t.Context(), time.Minute)
	defer stop()
	go func() {
		for ctx.Err() == nil {
			if p, err := b.bus.Progress(ctx, topology.EnrichRaw); err == nil && p.Floor == p.Last {
				stop()
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	died := errors.New("died")
	for ctx.Err() == nil {
		w := &worker{Enricher: en, enrichment: enrichment, matchers: map[string]*matcher{}}
		err := b.bus.Consume(ctx, topology.EnrichRaw, bus.Limit{Bytes: cycleBytes, Messages: cycleFrames, Wait: cycleWait}, func(ctx context.Context, frames []bus.Delivery) (err error) {
			defer func() {
				if recover() != nil {
					err = died
				}
			}()
			return w.cycle(ctx, frames)
		})
		if errors.Is(err, died) {
			deaths++
		} else if err != nil {
			b.t.Fatal(err)
		}
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		b.t.Fatalf("not at the end after %d deaths", deaths)
	}
	return deaths
}

// An event that its readers die of becomes a reject, and it alone: neither the frames that were read together with it
// nor the events beside it in its frame do, however often they came.
func TestOnlyTheKillerIsCondemned(t *testing.T) {
	event := func(id, text string) string {
		return fmt.Sprintf(`{"id":%q,"source":"facebook","kind":"post","time":"2026-05-25T14:00:00Z","text":%q,"author":{"id":"a"}}`+"\n", id, text)
	}
	neighbour := func(i int) string { return event(fmt.Sprint("n", i), "nothing of ours") }
	f := func(frames []string, line int, killers ...string) {
		t.Helper()
		b := setup(t)
		b.publishRules()
		most := 0
		for _, frame := range frames {
			b.publishFrame(frame)
			if strings.Contains(frame, "Cordia") {
				most += bus.SuspectAfter + bus.CondemnedAfter*min(2, strings.Count(frame, "\n")) // its event once more where it is not alone
			}
		}
		if deaths := b.lives(b.enricher(), &Enrichment{}); deaths < bus.CondemnedAfter || deaths > most { // without a keyer it dies of whatever concerns a node
			t.Errorf("%d deaths, want at most %d", deaths, most)
		}
		var condemned []string
		for _, d := range b.all(topology.AggregateRejects) {
			for r, err := range wire.DecodeRejects(linesOf(t, d)) {
				if err != nil || r.Code != "unprocessable" || r.Source != "facebook" || !r.RecordedTime.Equal(recorded) ||
					r.Origin == nil || r.Origin.Subject != "social.raw.facebook" || r.Origin.Line != line || d.Header.Get(topology.HeaderRules) == "" {
					t.Errorf("%+v %v", r, err)
				}
				condemned = append(condemned, string(r.Bytes)+"\n")
			}
		}
		slices.Sort(condemned)
		if diff := cmp.Diff(killers, condemned); diff != "" {
			t.Error(diff)
		}
	}
	killer, second := event("k1", "Cordia"), event("k2", "Cordia again")
	var frames []string
	for i := range 40 {
		frames = append(frames, neighbour(i))
	}
	frames[10], frames[20] = killer, second
	f(frames, 1, killer, second)
	f([]string{neighbour(1), neighbour(2) + killer + neighbour(3), neighbour(4)}, 2, killer)
}

// Waiting is said at /readyz, and however often a process is stopped while it waits, its frames are not condemned.
func TestStoppedWhileWaiting(t *testing.T) {
	t.Parallel()
	b := setupWith(t, 1<<20)
	b.publishRules()
	filler := bus.Message{Subject: topology.MentionSubject("heart", "north"), Data: bytes.Repeat([]byte(" "), 30_000)}
	fillers := 0
	for b.bus.Publish(t.Context(), []bus.Message{filler}) == nil {
		if fillers++; fillers > 100 {
			t.Fatal("a stream of 350 KiB took 3 MB")
		}
	}
	filler.Data = filler.Data[:100]
	for b.bus.Publish(t.Context(), []bus.Message{filler}) == nil {
		fillers++
	}
	reply, _, _ := strings.Cut(threeEvents, "\n")
	b.publishFrame(reply + "\n")
	stopped := func(run func(context.Context) error, en *Enricher) {
		t.Helper()
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		ended := make(chan error, 1)
		go func() { ended <- run(ctx) }()
		deadline := time.Now().Add(20 * time.Second)
		for err := en.Ready(); err == nil || !strings.Contains(err.Error(), bus.ErrFull.Error()); err = en.Ready() {
			if time.Now().After(deadline) {
				t.Fatal("does not say that it waits for a full stream: ", err)
			}
			time.Sleep(time.Millisecond)
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	for range bus.SuspectAfter + bus.CondemnedAfter + 3 {
		en := b.enricher()
		stopped(func(ctx context.Context) error { return en.Run(ctx, 1) }, en)
	}
	b.enrich()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var keeping sync.WaitGroup
	defer keeping.Wait()
	keeping.Go(func() {
		_ = b.bus.Janitor(ctx, func() time.Duration { return 0 }, func(bus.Fill) {}, topology.AggregateMentions)
	})
	if got := b.read(topology.AggregateMentions, fillers+2); len(got) != fillers+2 {
		t.Errorf("%d messages", len(got))
	}
	stop()
	if p, err := b.bus.Progress(t.Context(), topology.AggregateRejects); err != nil || p.Last != 0 {
		t.Errorf("%d rejects: %v", p.Last, err)
	}
}

// Spam that compresses well and concerns many nodes is published piece by piece: what a worker holds is bounded, nothing
// is lost, and no fact is stored before its mention.
func TestSpamIsBounded(t *testing.T) {
	t.Parallel()
	b := setupWith(t, 1<<30)
	files := fstest.MapFS{
		"company.yaml":           {Data: []byte("company: acme\n")},
		"territories/north.yaml": {Data: []byte("territory: north\ncountries: [SE]\ntimezone: Europe/Stockholm\n")},
	}
	for i := range 20 {
		files[fmt.Sprintf("divisions/d%d.yaml", i)] = &fstest.MapFile{Data: fmt.Appendf(nil, "division: d%d\nlisten: cordia\n", i)}
	}
	var err error
	if b.rules, err = nodes.Load(files); err != nil {
		t.Fatal(err)
	}
	b.publishRules()
	const frames, events = 2, 2000
	for f := range frames {
		var lines []byte
		for i := range events {
			lines = fmt.Appendf(lines, `{"id":"%d-%d","source":"facebook","kind":"reply","time":"2026-05-25T14:00:00Z","text":"Cordia","author":{"id":"a"},"in_reply_to":{"id":"p"}}`+"\n", f, i)
		}
		b.publishFrame(string(lines))
	}
	en := b.enricher()
	w := &worker{Enricher: en, enrichment: NewEnrichment(en.keyer), matchers: map[string]*matcher{}}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	read := 0
	if err := b.bus.Consume(ctx, topology.EnrichRaw, bus.Limit{Messages: 1}, func(ctx context.Context, batch []bus.Delivery) error {
		w.out.reset()
		if err := w.frame(ctx, &batch[0]); err != nil {
			return err
		}
		if held := w.out.bytes(); held > outboxBytes+wire.MaxBatch || w.out.mentions*500 < 2*outboxBytes {
			t.Errorf("%d bytes are held of %d mentions", held, w.out.mentions)
		}
		if read++; read == frames {
			stop()
		}
		return w.flush(context.WithoutCancel(ctx))
	}); err != nil || read != frames {
		t.Fatal(err, read)
	}
	stored := map[social.Key]time.Time{}
	for _, d := range b.all(topology.AggregateMentions) {
		mentions, err := wire.DecodeBatch(nil, d.Data)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range mentions {
			if d.Stored.After(stored[m.EventKey]) {
				stored[m.EventKey] = d.Stored
			}
		}
	}
	if len(stored) != frames*events {
		t.Errorf("mentions of %d events of %d", len(stored), frames*events)
	}
	references := 0
	for _, d := range b.all(topology.AggregateThreads) {
		list, err := wire.DecodeReferences(nil, linesOf(t, d))
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range list {
			if references++; d.Stored.Before(stored[r.Mention.EventKey]) {
				t.Fatal("a fact was stored before its mention")
			}
		}
	}
	if references != frames*events {
		t.Errorf("%d references of %d", references, frames*events)
	}
}

// bytes is what an outbox holds.
func (o *outbox) bytes() (sum int) {
	for _, b := range o.nodes {
		sum += len(b.batch)
	}
	for _, m := range append(slices.Clone(o.ready), o.facts...) {
		sum += len(m.Data)
	}
	return sum + len(o.originals) + len(o.references) + len(o.statements)
}

// all reads everything that a stream holds now.
func (b *bundle) all(c topology.Consumer) []bus.Delivery {
	b.t.Helper()
	p, err := b.bus.Progress(b.t.Context(), c)
	if err != nil {
		b.t.Fatal(err)
	}
	return b.read(c, int(p.Last-p.Floor))
}

// all is everything that a cycle publishes.
func all(o *outbox) []bus.Message { return append(o.mentionMessages(), o.factMessages()...) }

// A busy node's cycle is split into messages within the bound, none lost.
func TestBatchesAreSplit(t *testing.T) {
	var o outbox
	o.reset()
	m := social.Mention{Node: social.Node{Division: "heart", Territory: "north"}, EventKey: social.Key{1}, Text: strings.Repeat("x", 10_000),
		Kind: social.Post, Via: social.ViaText, Time: recorded, RecordedTime: recorded}
	for i := range 1000 {
		m.Followers = int64(i)
		o.mention("/polyphony/acme", &m)
	}
	seen := 0
	for _, message := range all(&o) {
		if len(message.Data) > wire.MaxBatch+4 {
			t.Errorf("%d bytes", len(message.Data))
		}
		mentions, err := wire.DecodeBatch(nil, message.Data)
		if err != nil {
			t.Fatal(err)
		}
		for _, got := range mentions {
			if got.Followers != int64(seen) {
				t.Fatalf("mention %d came as number %d", got.Followers, seen)
			}
			seen++
		}
	}
	if seen != 1000 {
		t.Fatalf("%d of 1000", seen)
	}
}

// TestVersionTellsWhatIsShown: copies of an event of which one shows more than another, or belongs elsewhere, have versions
// of different words; those that differ in what no mention tells have not.
func TestVersionTellsWhatIsShown(t *testing.T) {
	keyer, err := pseudonym.New([]byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	en := NewEnrichment(keyer)
	version := func(change func(*social.Event)) social.Version {
		e := &social.Event{Source: "x", ID: "native-1", Kind: social.Post, Time: recorded, Text: "janedoe says a word", Author: social.Author{ID: "native-author"}}
		change(e)
		m := en.mention(e, "SE", "rules", recorded)
		return m.Version.Words()
	}
	plain := version(func(*social.Event) {})
	f := func(what string, other bool, change func(*social.Event)) {
		t.Helper()
		if got := version(change); (got != plain) != other {
			t.Errorf("%s: %x, %x", what, got, plain)
		}
	}
	f("a name that is masked", true, func(e *social.Event) { e.Mentions = []social.Person{{Handle: "janedoe"}} })
	f("an author's handle that is masked", true, func(e *social.Event) { e.Author.Handle = "janedoe" })
	f("a link", true, func(e *social.Event) { e.Links = []string{"https://cordia.example/"} })
	f("a tag", true, func(e *social.Event) { e.Hashtags = []string{"https://cordia.example/"} })
	f("a name that is not there", false, func(e *social.Event) { e.Mentions = []social.Person{{Handle: "somebody"}} })
	f("an author's other handle", false, func(e *social.Event) { e.Author.Handle = "somebody" })
	f("totals", false, func(e *social.Event) { e.Counters = &social.Counters{Likes: 5, ObservedAt: recorded} })
	if plain = version(func(*social.Event) {}); plain == social.OwnVersion(time.Time{}, recorded, xxhash.Sum64(en.content)).Words() {
		t.Error("the words of a version can be found without the secret, and masked names by trying")
	}
}

// go test -run '^$' -bench Event -benchmem ./services/enricher/enrich
func BenchmarkEvent(b *testing.B) {
	rules := company(b)
	keyer, err := pseudonym.New([]byte(secret))
	if err != nil {
		b.Fatal(err)
	}
	text := strings.Repeat("Somebody wrote a few words about how it went. ", 8)
	for name, text := range map[string]string{"miss": text, "hit": text + "Cordia."} {
		b.Run(name, func(b *testing.B) {
			line := []byte(`{"id":"post-0000000000000001","source":"bluesky","kind":"post","time":"2026-05-25T14:23:28.757Z","text":"` + text +
				`","lang":"en","url":"https://social.example/p/1","author":{"id":"author-000001","handle":"somebody.example","name":"Some Body","country":"SE","followers":120}}`)
			w := &worker{enrichment: NewEnrichment(keyer)}
			m := &matcher{Matcher: rules.Matcher(), version: rules.Version(), origin: "/polyphony/acme"}
			b.SetBytes(int64(len(line)))
			b.ReportAllocs()
			w.out.reset()
			for i := 0; b.Loop(); i++ {
				if i%1000 == 0 {
					all(&w.out)
					w.out.reset()
				}
				if err := w.event(b.Context(), m, &bus.Delivery{}, line, recorded); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
