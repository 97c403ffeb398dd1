package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// poisonWord is what kills who reads it, as SEAM_POISON says.
const poisonWord = "zzpoison"

// TestPoison: an event of which its readers die, in each of the two services that read, becomes a reject with its bytes, and so does an
// edit of which enrichers die when they are asked where it belongs; everything that was sent together with it and later is counted; and
// replayed to readers that were mended it counts as well, once.
// It crashes them. With POLYPHONY_TEST_POISON=all it also hangs them, and takes all memory, which needs some minutes: a reader
// that hangs ends itself after ten seconds, and what it had is delivered again after as long.
func TestPoison(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes a minute")
	}
	kinds := []string{"crash"}
	if os.Getenv("POLYPHONY_TEST_POISON") == "all" {
		kinds = append(kinds, "hang", "exhaust")
	}
	for _, kind := range kinds {
		for _, of := range []poisoning{{"enricher", "event", "unprocessable"}, {"enricher", "edit", "unroutable_edit"}, {"aggregator", "event", "unprocessable"}} {
			t.Run(fmt.Sprintf("%s %s %s", of.program, kind, of.what), func(t *testing.T) {
				t.Parallel()
				poisoned(t, kind, of)
			})
		}
	}
}

// poisoning is what program dies of what, and what becomes of that.
type poisoning struct{ program, what, code string }

func poisoned(t *testing.T, kind string, of poisoning) {
	t.Helper()
	program, code := of.program, of.code
	rig := newRig(t, 1)
	rig.gentle, rig.poison = true, map[string]string{program: kind + "," + poisonWord}
	rig.start()
	rig.awaitReady()
	const requests, atOnce = 6, 20
	at := time.Now().UTC().Truncate(time.Hour).Add(-2 * time.Hour)
	send := func(n int) {
		t.Helper()
		var body bytes.Buffer
		for i := range atOnce {
			word := "fine"
			switch poisonous := n == 2 && i == 7; {
			case poisonous && of.what == "event":
				word = poisonWord
			case poisonous:
				fmt.Fprintf(&body, `{"source":"reddit","kind":"edit","time":%q,"object":{"id":"e0.0"},"text":"Alphavir is %s"}`+"\n",
					at.Add(time.Minute).Format(time.RFC3339), poisonWord)
			}
			fmt.Fprintf(&body, `{"id":"e%d.%d","source":"reddit","kind":"post","time":%q,"text":"Alphavir is %s","author":{"id":"a%d","country":"DE"}}`+"\n",
				n, i, at.Format(time.RFC3339), word, i)
		}
		response, err := http.Post("http://"+rig.of("ingester")[0].addr+"/v1/events", "application/x-ndjson", &body)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if text, _ := io.ReadAll(response.Body); response.StatusCode != http.StatusAccepted {
			t.Fatalf("%s: %s", response.Status, text)
		}
	}
	for n := range requests {
		send(n)
	}
	counted := func(want string) {
		t.Helper()
		got, deadline := "", time.Now().Add(10*time.Minute)
		for got != want {
			if time.Now().After(deadline) {
				t.Fatalf("%s %s: counted %s, want %s", kind, program, got, want)
			}
			rig.tend()
			time.Sleep(10 * pollStep)
			answer, err := ask(t.Context(), rig.at["clickhouse-http"], fmt.Sprintf(`SELECT concat((SELECT toString(sum(mentions)) FROM node_metrics_1h), ' ',
				(SELECT toString(count()) FROM mentions WHERE text LIKE '%%%s%%'), ' ',
				(SELECT toString(count()) FROM rejects WHERE code = '%s')) FORMAT TSV`, poisonWord, code))
			if got = strings.TrimSpace(string(answer)); err != nil {
				got = err.Error()
			}
		}
	}
	if of.what == "event" {
		counted(fmt.Sprint(requests*atOnce-1, " 0 1"))
	} else {
		counted(fmt.Sprint(requests*atOnce, " 0 1"))
	}
	deaths := 0
	for _, a := range rig.of(program) {
		deaths += a.starts - 1
	}
	t.Logf("%s: %d %ss died of it", kind, deaths, program)
	if deaths < 5 {
		t.Error("too few for what is noted to be why it was given up")
	}
	list := polyphony(t, "rejects", "list", "--nats", rig.at["nats"], "--code", code)
	name, _, _ := strings.Cut(list, " ")
	if got := polyphony(t, "rejects", "show", "--nats", rig.at["nats"], name, "--bytes"); of.what == "event" && !strings.Contains(got, poisonWord) || strings.Contains(got, "fine") {
		t.Errorf("the reject holds %q", got)
	}

	rig.poison = nil
	for _, a := range rig.of(program) {
		a.kill()
	}
	for range 2 {
		if got := polyphony(t, "rejects", "replay", "--nats", rig.at["nats"], "--code", code); !strings.Contains(got, "put back into streams 1;") {
			t.Errorf("replay printed %q", got)
		}
		counted(fmt.Sprint(requests*atOnce, " 1 1"))
	}
	rig.heal()
	settleAt(t, rig.at["nats"], time.Minute)
	counted(fmt.Sprint(requests*atOnce, " 1 1"))
}

// scarce is how much address space, in KiB, a service gets that is to run out of it: more than one needs that does not.
const scarce = 6 << 20
