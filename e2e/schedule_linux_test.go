package e2e

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// deed is a harm: what is done to whom and when. It follows from a seed alone, so the same seed does the same again.
type deed struct {
	at    time.Duration // since the harm began
	actor int           // in the order of the rig
	proxy int           // of the actor's, for what is done to connections
	what  string
	lasts time.Duration // of a pause and of what is done to connections for a while
}

func (d deed) String() string { return fmt.Sprintf("%v %s for %v", d.at, d.what, d.lasts) }

// longPause is longer than every time-out on the way: what a paused process was about to do was done by others meanwhile.
const longPause = 14 * time.Second

// enginePause is shorter: nothing goes on without an engine.
const enginePause = 6 * time.Second

// spell is how long harm is done by chance; as long after it services fall at their seams alone, to which few of them come
// while everything around them falls.
const spell = 30 * time.Second

// schedule says what is done to processes of these programs in a while: about three deeds a second, of which few take long.
// Between two harms to an engine there must be time for the services to come to their seams, where most of them end.
func schedule(seed uint64, lasts time.Duration, programs []string) (deeds []deed) {
	r := rand.New(rand.NewPCG(seed, 0))
	for at := time.Duration(0); at < lasts; at += time.Duration(50+r.IntN(600)) * time.Millisecond {
		if at/spell%2 == 1 {
			continue
		}
		d := deed{at: at, actor: r.IntN(len(programs)), proxy: r.IntN(2), lasts: pauseTime(r)}
		k := r.IntN(20)
		switch program := programs[d.actor]; program {
		case "nats", "clickhouse":
			d.lasts = min(d.lasts, enginePause)
			switch {
			case k < 6:
				d.what = "kill"
			case k < 8:
				d.what = "pause"
			case k < 14 && program == "clickhouse":
				d.what = []string{"kill before a commit", "kill after a commit"}[k%2]
			default:
				continue
			}
		default:
			d.what = [20]string{"kill", "kill", "pause", "pause", "stall", "slow", "slow", "cut", "cut", "cut", "cut", "half close", "half close", "half close"}[k]
			if d.what == "" {
				continue
			}
		}
		deeds = append(deeds, d)
	}
	return deeds
}

// planned is at how many seams a process may end, wherever it comes to first.
const planned = 6

func pauseTime(r *rand.Rand) time.Duration {
	if r.IntN(4) == 0 {
		return longPause
	}
	return time.Duration(100+r.IntN(3000)) * time.Millisecond
}

// plan is at which of some seams the nth process of an actor ends, or stops for a while: soon at those where the fewest fell so
// far, in an order of the actor's own, and should it come to none of them, later at others.
func plan(seed uint64, actor, n int, seams []string, fell map[string]int) (text string, lasts time.Duration) {
	order := slices.Clone(seams)
	r := rand.New(rand.NewPCG(seed, uint64(actor)+1))
	r.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	slices.SortStableFunc(order, func(a, b string) int { return cmp.Compare(fell[a], fell[b]) })
	r = rand.New(rand.NewPCG(seed, uint64(actor+1)<<32|uint64(n)))
	how := []string{"kill", "kill", "kill", "stop"}[r.IntN(4)]
	var falls []string
	for i, name := range order[:min(planned, len(order))] {
		count := 1
		if i > 0 {
			count += r.IntN(2)
		}
		if i > 0 && fell[name] > fell[order[0]] {
			count = 60 + r.IntN(60) // after a minute or two: some of the first wait for a claim
		}
		falls = append(falls, fmt.Sprintf("%s,%d,%s", name, count, how))
	}
	return strings.Join(falls, ";"), pauseTime(r)
}

// seams are the points at which a program is ended or stopped, before and after each of these. What the aggregator
// publishes to mentions are adoptions and retractions.
var seams = map[string][]string{
	"ingester": around("publish social.raw", "publish social.rejects", "put polyphony-rules"),
	"enricher": around("publish social.mentions", "publish social.facts", "publish social.threads", "acknowledge social.raw", "purge RAW",
		"put polyphony-trials", "answer polyphony.route"),
	"aggregator": around("publish social.mentions", "request polyphony.route",
		"acknowledge social.mentions", "acknowledge social.facts", "acknowledge social.threads", "acknowledge social.rejects", "purge FACTS", "purge THREADS", "purge REJECTS", "put polyphony-marks", "put polyphony-trials",
		"insert locations", "insert mentions_store", "insert touches", "insert node_hours", "insert originals", "insert statements", "insert counters",
		"insert edges", "insert selves", "insert notes", "insert heads", "insert author_heads", "insert gains", "insert rejects_store", "insert rules_store",
		"insert nodes_store", "insert clocks_store", "insert freshness_store", "insert settled"),
}

func around(effects ...string) (seams []string) {
	for _, e := range effects {
		seams = append(seams, "before "+e, "after "+e)
	}
	return seams
}

// TestSchedule: a seed says everything, another says something else, and every kind of harm comes to everybody.
func TestSchedule(t *testing.T) {
	programs := []string{"nats", "clickhouse", "ingester", "ingester", "enricher", "enricher", "aggregator", "aggregator"}
	once := schedule(1, thorough, programs)
	if !slices.Equal(once, schedule(1, thorough, programs)) || slices.Equal(once, schedule(2, thorough, programs)) {
		t.Error("the schedule does not follow from the seed")
	}
	came := map[string]bool{}
	for _, d := range once {
		came[fmt.Sprint(d.actor, " ", d.what)] = true
	}
	for i, program := range programs {
		kinds := []string{"kill", "pause", "cut", "half close", "stall", "slow"}
		switch program {
		case "nats":
			kinds = kinds[:2]
		case "clickhouse":
			kinds = []string{"kill", "pause", "kill before a commit", "kill after a commit"}
		}
		for _, kind := range kinds {
			if !came[fmt.Sprint(i, " ", kind)] {
				t.Errorf("%s never comes to %s", kind, program)
			}
		}
	}
	for program, list := range seams {
		fell := map[string]int{}
		for n := range list {
			text, _ := plan(1, 3, n, list, fell)
			name, _, _ := strings.Cut(text, ",")
			fell[name]++
		}
		if len(fell) != len(list) {
			t.Errorf("%d of %d seams of the %s have their turn", len(fell), len(list), program)
		}
	}
}
