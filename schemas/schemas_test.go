package schemas

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"sigs.k8s.io/yaml"

	"polyphony/pkg/social"
	"polyphony/pkg/wire"
)

// compile compiles a schema of this folder.
func compile(t *testing.T, name string) *jsonschema.Schema {
	t.Helper()
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	schema, err := c.Compile(name)
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// The schema and the decoder take and refuse the same events.
func TestEventSchemaAgreesWithDecoder(t *testing.T) {
	schema := compile(t, "events/event.v1.schema.json")
	const post = `"id":"1","source":"x","kind":"post","time":"2026-05-25T14:23:28Z","author":{"id":"a"}`
	for _, line := range []string{
		`{` + post + `}`,
		`{` + post + `,"text":null,"place":null,"counters":{"likes":1,"observed_at":"2026-05-25T14:23:28+02:00"},"unknown":[1]}`,
		`{` + post + `,"hashtags":["#a"],"mentions":[{"id":"m"}],"links":["l"],"in_reply_to":{"id":"2","author_id":"b"}}`,
		`{` + post + `,"hashtags":[null],"mentions":[null],"links":[null,"l"]}`,
		`{"id":"1","source":"x","kind":"post","time":"2026-05-25T1:23:28Z","author":{"id":"a"}}`,
		`{"id":"1","source":"x","kind":"post","time":"2026-05-25T14:23:28,5Z","author":{"id":"a"}}`,
		`{"id":"1","source":"x","kind":"post","time":"2026-05-25T14:23:28+24:00","author":{"id":"a"}}`,
		`{"id":"1","source":"x","kind":"post","time":"2016-12-31T23:59:60Z","author":{"id":"a"}}`,
		`{"source":"x","kind":"delete","time":"2026-05-25T14:23:28Z","object":{"author_id":"a"}}`,
		`{"source":"x","kind":"edit","time":"2026-05-25T14:23:28Z","object":{"id":"1"},"text":"t"}`,
		`{"source":"x","kind":"counters","time":"2026-05-25T14:23:28Z","object":{"id":"1"},"counters":{"views":0}}`,
		`{"source":"x","kind":"counters","time":"2026-05-25T14:23:28Z","object":{"id":"1"}}`,
		`{"source":"x","kind":"counters","time":"2026-05-25T14:23:28Z","object":{"id":"1"},"counters":{}}`,
		`{"source":"x","kind":"delete","time":"2026-05-25T14:23:28Z"}`,
		`{"source":"x","kind":"share","time":"2026-05-25T14:23:28Z","id":"1","author":{"id":"a"}}`,
		`{"source":"x","kind":"post","time":"2026-05-25T14:23:28Z","id":"1","author":{}}`,
		`{"source":"x","kind":"post","time":"2026-05-25T14:23:28Z","id":"1"}`,
		`{"source":"X","kind":"post","time":"2026-05-25T14:23:28Z","id":"1","author":{"id":"a"}}`,
		`{"source":"x","kind":"shout","time":"2026-05-25T14:23:28Z","id":"1","author":{"id":"a"}}`,
		`{"source":"x","kind":"post","time":"now","id":"1","author":{"id":"a"}}`,
		`{` + post + `,"text":5}`, `{` + post + `,"place":{"country":"Germany"}}`, `{` + post + `,"counters":{"likes":-1}}`, `{` + post + `,"counters":{"views":9007199254740992}}`,
		`{` + post + `,"root_id":"` + strings.Repeat("r", 1025) + `"}`, `{"source":"x"}`, `{}`, `[]`,
	} {
		value, err := jsonschema.UnmarshalJSON(strings.NewReader(line))
		if err != nil {
			t.Fatal(err)
		}
		bySchema := schema.Validate(value)
		_, byDecoder := new(wire.EventDecoder).Decode([]byte(line))
		if (bySchema == nil) != (byDecoder == nil) {
			t.Errorf("%.120s\nschema: %v\ndecoder: %v", line, bySchema, byDecoder)
		}
	}
}

// The mention schema describes what the wire writes, field for field, and a batch is what asyncapi.yaml says.
func TestMentionSchemaAgreesWithWire(t *testing.T) {
	at := time.Date(2026, 5, 25, 14, 23, 28, 0, time.UTC)
	m := social.Mention{
		Node: social.Node{Division: "heart", Territory: "north"}, EventKey: social.Key{1}, Source: "x", Kind: social.Post, Via: social.ViaText,
		Time: at, RecordedTime: at, Version: social.OwnVersion(time.Time{}, at, 5), Role: social.RoleUnknown, CountryMethod: social.CountryNone,
		Counters: &social.Counters{Likes: 3, Replies: social.Unreported, ObservedAt: at},
	}
	var data map[string]any
	if err := json.Unmarshal(wire.AppendMentionData(nil, &m), &data); err != nil {
		t.Fatal(err)
	}
	if err := compile(t, "events/mention.v1.schema.json").Validate(data); err != nil {
		t.Error(err)
	}
	var described struct{ Properties map[string]any }
	text, err := os.ReadFile("events/mention.v1.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &described); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(keys(described.Properties), keys(data)); diff != "" {
		t.Errorf("described and written fields differ:\n%s", diff)
	}
	gone := m
	gone.Retracted, gone.Version = true, social.Deleted()
	validateBatch(t, wire.EndBatch(wire.AppendMention(wire.AppendMention(wire.BeginBatch(nil), "/polyphony/acme", &m), "/polyphony/acme", &gone)))
}

// validateBatch holds a public message against the payload that asyncapi.yaml describes.
func validateBatch(t *testing.T, batch []byte) {
	t.Helper()
	text, err := os.ReadFile("asyncapi.yaml")
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
	if err := c.AddResource("asyncapi.yaml", value); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("asyncapi.yaml#/components/messages/mentions/payload")
	if err != nil {
		t.Fatal(err)
	}
	message, err := jsonschema.UnmarshalJSON(bytes.NewReader(batch))
	if err != nil {
		t.Fatal(err)
	}
	if err := schema.Validate(message); err != nil {
		t.Errorf("%v\n%s", err, batch)
	}
}

func keys(m map[string]any) map[string]bool {
	set := map[string]bool{}
	for k := range m {
		set[k] = true
	}
	return set
}
