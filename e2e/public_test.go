package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/s2"
	"github.com/nats-io/nats.go"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"sigs.k8s.io/yaml"

	"polyphony/pkg/topology"
)

// planted begins, or stands in, everything below that leads to a person. It is nowhere in what is public or stored in
// the open; phones are what cannot be spelt with it.
const planted = "zqplanted"

var phones = []string{"170 55501873", "170/55501873", "555-018-7344", "55501873"}

// TestPublicMessages: any NATS client reads what the contract describes, and neither it nor an analyst nor an operator
// finds a person in it.
func TestPublicMessages(t *testing.T) {
	t.Parallel()
	u := newUp(t)
	u.env = []string{"POLYPHONY_LOG_LEVEL=debug"}
	u.start()
	everything := subscribe(t, u.at["nats"], "social.>")
	listener := subscribe(t, u.at["nats"], "social.mentions.respiratory.dach")

	lines, mentions := plantedEvents(time.Now().UTC())
	answer := u.post(lines, "application/x-ndjson", nil)
	if answer.Accepted == 0 || len(answer.Rejected) == 0 {
		t.Fatalf("%+v", answer)
	}
	u.post(plantedCloudEvent(time.Now().UTC()), "application/json", http.Header{
		"Ce-Specversion": {"1.0"}, "Ce-Type": {"post"}, "Ce-Id": {planted + "-ce-id"}, "Ce-Source": {"/" + planted + "-ce-source"}, "Ce-Subject": {planted + "-ce-subject"},
	})
	mentions++
	u.settle()

	events := readBatches(t, listener.all())
	if len(events) != mentions {
		t.Errorf("%d mentions published, want %d", len(events), mentions)
	}
	seen := map[string]bool{}
	for _, e := range events {
		if e.Type() != "polyphony.mention.v1" || seen[e.Source()+" "+e.ID()] {
			t.Errorf("type %s, or seen before: %s", e.Type(), e.ID())
		}
		seen[e.Source()+" "+e.ID()] = true
	}
	u.mustEqualTable(events)
	for _, m := range everything.all() {
		if strings.HasPrefix(m.Subject, "social.raw.") || strings.HasPrefix(m.Subject, "social.rejects.") {
			continue // sealed: they hold events as they came
		}
		data := m.Data
		if m.Subject == topology.StatementsSubject {
			var err error
			if data, err = s2.Decode(nil, m.Data); err != nil {
				t.Fatal(err)
			}
		}
		nobodyIn(t, "a message on "+m.Subject, data)
		nobodyIn(t, "the header of a message on "+m.Subject, fmt.Append(nil, m.Header))
	}
	u.nobodyInTables()
	u.nobodyInFiles()
	for _, path := range []string{"/metrics", "/readyz"} {
		_, body := u.get(path)
		nobodyIn(t, path, []byte(body))
	}
}

// plantedEvents are events of every kind and every reject, with a person in every field that may hold one. mentions is
// how many of them respiratory.dach must get.
func plantedEvents(now time.Time) (lines []byte, mentions int) {
	n := 0
	add := func(mention bool, change func(e map[string]any)) {
		n++
		text := fmt.Sprintf("Aerilan helps me. @%[1]s-h%[2]d, @%[1]s@%[1]s.example, %[1]s.mail+x@example.org, mailto:%[1]s%[2]d@example.org; "+
			"call +49 170 55501873 or (0170) 55501873 or 0170/55501873 or 555-018-7344, see https://example.org/%[1]s?x=%[1]s, "+
			"example.org/%[1]s/1, www.%[1]s.example and www.example.org/u/%[1]s; thanks %[1]s-handle, %[1]s-friend, u/%[1]s_u, ＠%[1]s and jo＠%[1]s.example.", planted, n)
		e := map[string]any{
			"id": fmt.Sprintf("at://did:plc:%s/app.bsky.feed.post/%d", planted, n), "source": "bluesky", "kind": "post",
			"time": now.Add(-time.Duration(n) * time.Minute).Format(time.RFC3339Nano), "lang": "de",
			"title": "Aerilan and @" + planted + "title", "text": text, "url": "https://bsky.example/profile/" + planted,
			"author": map[string]any{
				"id": "did:plc:" + planted + "-author", "handle": planted + "-handle", "name": "Zoe " + planted, "bio": "I am " + planted,
				"location": planted + "ville", "country": "DE", "followers": 12,
			},
			"mentions": []any{map[string]any{"id": "did:plc:" + planted + "-friend", "handle": planted + "-friend"}},
			"links":    []string{"https://example.org/" + planted}, "hashtags": []string{"aerilan", planted},
		}
		change(e)
		line, err := json.Marshal(e)
		if err != nil {
			panic(err)
		}
		lines = append(append(lines, line...), '\n')
		if mention {
			mentions++
		}
	}
	ref := func(what string) map[string]any {
		return map[string]any{"id": planted + what, "author_id": planted + what + "-author"}
	}
	for range 300 { // several lines in a batch
		add(true, func(map[string]any) {})
	}
	add(true, func(e map[string]any) {
		e["kind"], e["in_reply_to"], e["root_id"] = "reply", ref("parent"), planted+"root"
	})
	add(true, func(e map[string]any) { e["kind"], e["object"] = "share", ref("shared") })
	add(true, func(e map[string]any) { e["account"] = planted + "account" }) // nobody's account
	add(true, func(e map[string]any) { e["counters"] = map[string]any{"likes": 3} })
	for _, kind := range []string{"reaction", "follow", "view"} { // on an owned account
		add(true, func(e map[string]any) {
			e["kind"], e["source"], e["account"], e["object"] = kind, "facebook", "204815002", ref("object")
		})
	}
	add(true, func(e map[string]any) { // the company answers
		e["kind"], e["source"], e["account"], e["in_reply_to"] = "reply", "facebook", "204815002", ref("asker")
		e["author"] = map[string]any{"id": "204815002", "handle": planted + "-handle"}
	})
	add(false, func(e map[string]any) { // nobody listens
		e["title"], e["text"], e["hashtags"] = "", "hello @"+planted, nil
	})
	add(false, func(e map[string]any) { e["kind"], e["object"] = "edit", ref("edited") })
	add(false, func(e map[string]any) { e["kind"], e["object"] = "delete", ref("deleted") })
	add(false, func(e map[string]any) {
		e["kind"], e["object"] = "delete", map[string]any{"author_id": planted + "leaver"}
	})
	add(false, func(e map[string]any) {
		e["kind"], e["object"], e["counters"] = "counters", ref("counted"), map[string]any{"views": 10}
	})
	for field, value := range map[string]any{
		"kind": planted, "time": planted, "source": "Zq " + planted, "id": 17055501873, "author": planted,
		"place": map[string]any{"country": planted}, "counters": map[string]any{"likes": planted},
		"in_reply_to": []string{planted}, "mentions": planted, "text": map[string]any{planted: planted},
	} {
		add(false, func(e map[string]any) { e[field] = value })
	}
	add(false, func(e map[string]any) { e["time"] = now.AddDate(-5, 0, 0).Format(time.RFC3339) })
	add(false, func(e map[string]any) { e["time"] = now.AddDate(0, 0, 5).Format(time.RFC3339) })
	lines = append(lines, `{"id":"`+planted+`","source":"bluesky","kind":"post" `+planted+"\n"...)
	lines = append(lines, planted+" is no JSON\n"...)
	lines = append(lines, `{"id":"`+planted+"\xff\"}\n"...)
	return lines, mentions
}

func plantedCloudEvent(now time.Time) []byte {
	return fmt.Appendf(nil, `{"id":"%s-ce","source":"bluesky","kind":"post","time":"%s","text":"Aerilan in a CloudEvent","place":{"country":"DE"},"author":{"id":"%s-ce-author"}}`,
		planted, now.Format(time.RFC3339), planted)
}

// answer is the body of a 202.
type answer struct {
	Accepted int
	Rejected []struct {
		Line         int
		Code, Detail string
	}
}

// post sends a body that must be accepted.
func (u *up) post(body []byte, contentType string, header http.Header) (a answer) {
	u.t.Helper()
	request, err := http.NewRequestWithContext(u.t.Context(), http.MethodPost, "http://"+u.at["http"]+"/v1/events", bytes.NewReader(body))
	if err != nil {
		u.t.Fatal(err)
	}
	for name, values := range header {
		request.Header[name] = values
	}
	request.Header.Set("Content-Type", contentType)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		u.t.Fatal(err)
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(&a); err != nil || response.StatusCode != http.StatusAccepted {
		u.t.Fatalf("%s, %v", response.Status, err)
	}
	return a
}

// readBatches reads messages as a subscriber would: with the CloudEvents SDK, and by lines.
func readBatches(t *testing.T, messages []*nats.Msg) (events []event.Event) {
	t.Helper()
	schema := batchSchema(t)
	for _, m := range messages {
		if got := m.Header.Get("Content-Type"); got != "application/cloudevents-batch+json" {
			t.Fatalf("content type %q", got)
		}
		value, err := jsonschema.UnmarshalJSON(bytes.NewReader(m.Data))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(value); err != nil {
			t.Fatalf("%v\n%.2000s", err, m.Data)
		}
		var batch []event.Event
		if err := json.Unmarshal(m.Data, &batch); err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSuffix(string(m.Data), "\n"), "\n")
		if len(lines) != len(batch)+2 || lines[0] != "[" || lines[len(lines)-1] != "]" {
			t.Fatalf("%d events do not stand on lines of their own:\n%.2000s", len(batch), m.Data)
		}
		for i, e := range batch {
			var line event.Event
			if err := json.Unmarshal([]byte(strings.TrimSuffix(lines[i+1], ",")), &line); err != nil || line.ID() != e.ID() {
				t.Fatalf("line %d is not event %d: %v", i+1, i, err)
			}
			if err := e.Validate(); err != nil {
				t.Fatal(err)
			}
			events = append(events, e)
		}
	}
	return events
}

// batchSchema is what schemas/asyncapi.yaml says of a message of mentions.
func batchSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	text, err := os.ReadFile("../schemas/asyncapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	document, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		t.Fatal(err)
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(document))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.AssertFormat()
	if err := c.AddResource("../schemas/asyncapi.yaml", value); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("../schemas/asyncapi.yaml#/components/messages/mentions/payload")
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// contractColumns are those of the table mentions, as the contract lists them.
var contractColumns = strings.Fields(`division territory time recorded_time source kind event_key author_key parent_key root_key
	parent_author_key via account owned by_company bot role role_confidence lang country country_method sentiment products
	competitors topics needs is_question ae_elements ae_screened ae_serious offlabel cluster_id followers text rules_version`)

// mustEqualTable: the table has the contract's columns, and says of each mention what the message said.
func (u *up) mustEqualTable(events []event.Event) {
	u.t.Helper()
	var columns []string
	for _, c := range rows[struct{ Name string }](u, "SELECT name FROM system.columns WHERE database = 'polyphony' AND table = 'mentions' ORDER BY position") {
		columns = append(columns, c.Name)
	}
	if diff := cmp.Diff(contractColumns, columns); diff != "" {
		u.t.Errorf("columns of mentions (-contract +table)\n%s", diff)
	}
	stored := map[string]map[string]any{}
	for _, row := range rows[map[string]any](u, `SELECT * REPLACE (
			formatDateTime(time, '%Y-%m-%dT%H:%i:%S.', 'UTC') || leftPad(toString(toUnixTimestamp64Milli(time) % 1000), 3, '0') || 'Z' AS time,
			formatDateTime(recorded_time, '%Y-%m-%dT%H:%i:%S.', 'UTC') || leftPad(toString(toUnixTimestamp64Milli(recorded_time) % 1000), 3, '0') || 'Z' AS recorded_time,
			if(cluster_id = 0, '', lower(hex(cluster_id))) AS cluster_id)
		FROM mentions WHERE division = 'respiratory' AND territory = 'dach'`) {
		stored[row["event_key"].(string)] = row
	}
	carried := 0
	for _, e := range events {
		var sent map[string]any
		if err := json.Unmarshal(e.Data(), &sent); err != nil {
			u.t.Fatal(err)
		}
		if e.Time().UTC().Format("2006-01-02T15:04:05.000Z") != sent["time"] {
			u.t.Errorf("time %v outside, %v inside", e.Time(), sent["time"])
		}
		delete(sent, "version") // the table keeps the highest
		if c, ok := sent["counters"].(map[string]any); ok && c["likes"] == 3.0 {
			carried++
		}
		delete(sent, "counters") // metrics have them
		if diff := cmp.Diff(sent, stored[sent["event_key"].(string)]); diff != "" {
			u.t.Fatalf("(-message +table)\n%s", diff)
		}
	}
	if carried == 0 {
		u.t.Error("no message has the totals that its event carried")
	}
	if len(stored) != len(events) {
		u.t.Errorf("%d mentions in the table, %d published", len(stored), len(events))
	}
}

// nobodyInTables looks through every stored row, superseded ones too. Even the originals do not hold a person in the
// open; that they hold one at all is what their number says.
func (u *up) nobodyInTables() {
	u.t.Helper()
	tables := rows[struct{ Name string }](u, `SELECT name FROM system.tables WHERE database = 'polyphony' AND (engine NOT LIKE '%View'
		OR name IN ('mentions', 'node_metrics_1m', 'node_metrics_1h', 'node_metrics_1d', 'rejects', 'nodes', 'rules', 'freshness'))`)
	if len(tables) < 12 {
		u.t.Fatalf("only %d tables: %v", len(tables), tables)
	}
	for _, table := range tables {
		nobodyIn(u.t, "table "+table.Name, u.sql("SELECT * FROM `"+table.Name+"` FORMAT TSVRaw"))
	}
	for query, atLeast := range map[string]int{
		"SELECT count() AS n FROM originals FINAL": 300, "SELECT count() AS n FROM rejects": 15, "SELECT count() AS n FROM statements FINAL": 3,
		"SELECT count() AS n FROM counters FINAL": 1,
	} {
		if got := rows[struct{ N int }](u, query)[0].N; got < atLeast {
			u.t.Errorf("%s: %d, want %d or more", query, got, atLeast)
		}
	}
}

// nobodyInFiles looks through what is on disk besides the streams: ClickHouse's files and the log.
func (u *up) nobodyInFiles() {
	u.t.Helper()
	text, err := os.ReadFile(u.log.Name())
	if err != nil {
		u.t.Fatal(err)
	}
	if len(text) == 0 {
		u.t.Error("the log is empty")
	}
	nobodyIn(u.t, "the log", text)
	err = filepath.WalkDir(filepath.Join(u.data, "clickhouse"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil // merges remove files meanwhile
		}
		if text, err := os.ReadFile(path); err == nil {
			nobodyIn(u.t, path, text)
		}
		return nil
	})
	if err != nil {
		u.t.Error(err)
	}
}

// nobodyIn fails when somebody planted is found.
func nobodyIn(t *testing.T, where string, text []byte) {
	t.Helper()
	text = bytes.ToLower(text)
	for _, needle := range append([]string{planted}, phones...) {
		if at := bytes.Index(text, []byte(needle)); at >= 0 {
			t.Errorf("%s holds %s: %q", where, needle, text[max(0, at-80):min(len(text), at+80)])
			return
		}
	}
}
