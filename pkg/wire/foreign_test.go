package wire

import (
	"strings"
	"testing"
)

// TestForeignFacts: what nobody of ours can have written is refused where it is read, before it reaches a table.
func TestForeignFacts(t *testing.T) {
	const key = "01000000000000000000000000000000"
	const statement = `{"kind":"edit","key":"` + key + `","source":"x","object_key":"` + key + `","time":1000,"recorded_time":1000}`
	const reference = `{"until":2000,"targets":["` + key + `"],"kept":true,"event_key":"` + key + `","time":1000,"recorded_time":1000}`
	f := func(line, old, replacement string, good bool) {
		t.Helper()
		changed := strings.Replace(line, old, replacement, 1)
		_, err := DecodeStatements(nil, []byte(changed+"\n"))
		if line == reference {
			_, err = DecodeReferences(nil, []byte(changed+"\n"))
		}
		if (err == nil) != good {
			t.Errorf("%s: %v", changed, err)
		}
	}
	f(statement, "", "", true)
	f(statement, `"edit"`, `"post"`, false)
	f(statement, `"key":"`+key, `"key":"`, false)
	f(statement, `"object_key":"`+key, `"object_key":"`, false)
	f(statement, `"edit"`, `"counters"`, false)
	f(statement, `"time":1000`, `"time":-1`, false)
	f(statement, `"recorded_time":1000`, `"recorded_time":9999999999999`, false)
	f(reference, "", "", true)
	f(reference, `["`+key+`"]`, `[]`, false)
	f(reference, `["`+key+`"]`, `[""]`, false)
	f(reference, `"event_key":"`+key, `"event_key":"`, false)
	f(reference, `"until":2000`, `"until":9999999999999`, false)
	f(reference, `"time":1000`, `"time":-1`, false)
	f(reference, `"kept":true`, `"kept":false`, false)
}
