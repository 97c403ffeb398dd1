package ingest

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// Each form of body yields its events with the numbers that an answer will name.
func TestEvents(t *testing.T) {
	f := func(contentType, body string, want ...string) {
		t.Helper()
		header := http.Header{}
		if contentType != "" {
			header.Set("Content-Type", contentType)
		}
		form, err := formOf(header, []byte(body))
		if err != nil {
			t.Fatalf("%q: %v", body, err)
		}
		var got []string
		for n, event := range form.events([]byte(body)) {
			got = append(got, fmt.Sprintf("%d:%s", n, event))
		}
		if strings.Join(got, " | ") != strings.Join(want, " | ") {
			t.Fatalf("%s %q:\n got %s\nwant %s", contentType, body, strings.Join(got, " | "), strings.Join(want, " | "))
		}
	}
	ndjson, plain := "application/x-ndjson", "application/json"
	f(ndjson, "{\"a\":1}\n{\"b\":2}\n", `1:{"a":1}`, `2:{"b":2}`)
	f(ndjson, "\n{\"a\":1}\r\n\n{\"b\":2}", `2:{"a":1}`, `4:{"b":2}`)
	f(ndjson, "\xef\xbb\xbf{\"a\":1}\nbroken\n", `1:{"a":1}`, `2:broken`)
	f(ndjson, "[{\"a\":1}]\n", `1:[{"a":1}]`)
	f("", "{\"a\":1}\n{\"b\":2}\n", `1:{"a":1}`, `2:{"b":2}`)
	f("application/x-www-form-urlencoded", "{\"a\":1}\nbroken", `1:{"a":1}`, `2:broken`)
	f(plain, "{\n \"a\": 1\n}\n", `1:{"a":1}`)
	f(plain, " [ {\"a\":\"],[\\\"\"} ,\n{\n\"b\":[1,{}]} ] ", `1:{"a":"],[\""}`, `2:{"b":[1,{}]}`)
	f(plain, "[]")
	f(plain, "[1,,2]", "1:1", "2:", "3:2")
	f(plain, `[{"a":1},{"b":`, `1:{"a":1}`, `2:{"b":`)
	f(plain, `[{"a":1},`, `1:{"a":1}`, `2:`)
	f(plain, `[{"a":1} `, `1:{"a":1}`, `2:`)
	f(plain, `[{"a":1}] x`, `1:{"a":1}`, `2:x`)
	f(plain, `[`)
	good := `{"id":"1"}`
	f(plain, "[oops\n"+good+"\n"+good, "1:[oops", "2:"+good, "3:"+good)
	f("", "[1]\n"+good+"\r\n\n"+good+"\n", "1:[1]", "2:"+good, "4:"+good)
	f("", "[oops\""+"\n"+good, "1:[oops\"", "2:"+good)
	f("", "[[{\n"+good, "1:[[{", "2:"+good)
	f(plain, "[{\"a\":1},\n{\"x\": oops\n{\"b\":1}\n}]", `1:{"a":1}`, `2:{"x": oops`, `3:{"b":1}`, "4:}]")
	f(plain, "[\n{\"a\":1}\n{\"b\":1},\n{\"c\":1}]", "1:[", `2:{"a":1}`, `3:{"b":1}`, `4:{"c":1}`)
	f("", "[oops,\n"+good+"\n"+good, "1:[oops,", "2:"+good, "3:"+good)
	f("", "["+good+"]\n"+good, "1:["+good+"]", "2:"+good)
	f(plain, "[\n"+good+",\n\n"+good+"\n]", "1:"+good, "2:"+good)
	f(plain, "[\n"+good+"\n, "+good+"\n]", "1:"+good, "2:"+good)
	f(plain, "["+good+",\n"+good+",\n{", "1:"+good, "2:"+good, "3:{")
	f(plain, "[{\"a\":\n{\"b\":1}\n,\"mentions\": [\n{\"c\":1}\n]},\n{oops}]", `1:{"a":{"b":1},"mentions":[{"c":1}]}`, "2:{oops}")
	f(plain, `[{"a":1} {"b":1}]`, `1:{"a":1} {"b":1}`)
	f("application/cloudevents+json", `{"specversion":"1.0","data":{"a":1}}`, `1:{"a":1}`)
	f("application/cloudevents+json; charset=utf-8", `{"data_base64":"eyJhIjoxfQ=="}`, `1:{"a":1}`)
	f("application/cloudevents+json", `{"specversion":"1.0"}`, `1:{}`)
	f("application/cloudevents+json", `{"specversion":`, `1:{"specversion":`)
	f("application/cloudevents-batch+json", "[{\"data\":{\"a\":1}},\n{\"data\":\n{\"b\":2}}]", `1:{"a":1}`, `2:{"b":2}`)
	f("application/cloudevents-batch+json", `{"data":{}}`, `1:{}`)
}

func TestFormRefuses(t *testing.T) {
	for _, body := range []string{"", " \n\t", "\xef\xbb\xbf", "hello"} {
		if _, err := formOf(http.Header{}, []byte(body)); err == nil {
			t.Errorf("%q was taken for events", body)
		}
	}
}

// Whatever the body, every byte that is not white space or punctuation between events is in some event, and nothing
// panics.
func FuzzEvents(f *testing.F) {
	f.Add("application/json", []byte(`[{"a":1},{"b":"]"}]`))
	f.Add("application/cloudevents-batch+json", []byte(`[{"data":{"a":1}}]`))
	f.Add("", []byte("{\n}\n{"))
	f.Add("", []byte("[1]\n{}\n[{\n{}"))
	f.Fuzz(func(t *testing.T, contentType string, body []byte) {
		form, err := formOf(http.Header{"Content-Type": {contentType}}, body)
		if err != nil {
			return
		}
		last := 0
		for n, event := range form.events(body) {
			if n <= last {
				t.Fatalf("numbers go from %d to %d", last, n)
			}
			if last = n; n > len(body)+1 || len(event) > len(body) {
				t.Fatalf("event %d of %d bytes from %d bytes", n, len(event), len(body))
			}
		}
	})
}

func TestReadTokens(t *testing.T) {
	const token = "sha256:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b" // of "secret"
	tokens, err := ReadTokens(strings.NewReader("# who may send\n\n" + token + " x,bluesky\n"))
	if err != nil {
		t.Fatal(err)
	}
	g, ok := tokens.grant("Bearer secret")
	if !ok || !g.allows("x") || !g.allows("bluesky") || g.allows("reddit") {
		t.Fatal("the token's sources are not its sources")
	}
	for _, header := range []string{"", "Bearer", "Bearer wrong", "Basic secret", "secret"} {
		if _, ok := tokens.grant(header); ok {
			t.Errorf("%q is let in", header)
		}
	}
	for _, file := range []string{"", "# nobody\n", token, token + " X", "sha256:zz x", "secret x", token + " x y"} {
		if _, err := ReadTokens(strings.NewReader(file)); err == nil {
			t.Errorf("%q is read", file)
		} else if strings.Contains(err.Error(), "2bb80d53") {
			t.Errorf("the message repeats the file: %v", err)
		}
	}
}
