package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"time"

	"golang.org/x/term"

	"polyphony/pkg/nodes"
	"polyphony/pkg/warehouse"
	"polyphony/services/polyphony/generate"
)

const (
	// demoRate is lively and leaves the machine idle.
	demoRate = 200
	// demoPast is how many events of the last days are sent at once, so that there is something to see.
	demoPast = 5_000
	// demoNodes fit on a small terminal.
	demoNodes = 12
	demoBeat  = time.Second
	plainBeat = 5 * time.Second
)

// demo feeds invented events through the front door and shows what comes out at the other end.
type demo struct{ running sync.WaitGroup }

func (d *demo) start(ctx context.Context, std streams, rules *nodes.Rules, store *warehouse.Warehouse, http string, e *engines) {
	d.running.Go(func() {
		if err := feed(ctx, planOf(rules), "http://"+http); err != nil && ctx.Err() == nil {
			fmt.Fprintln(std.err, "demo: feeding events:", err)
		}
	})
	d.running.Go(func() { show(ctx, std, rules, store, http, e) })
}

func (d *demo) wait() { d.running.Wait() }

// feed sends the last three days at once, then goes on at a steady rate, until ctx ends.
func feed(ctx context.Context, plan generate.Plan, url string) error {
	now := time.Now().UTC()
	g, err := generate.New(plan, generate.Default(uint64(now.UnixNano()), demoPast, now))
	if err != nil {
		return err
	}
	c := &client{url: url + "/v1/events", http: &http.Client{Timeout: sendTimeout}, std: streams{out: io.Discard, err: io.Discard}}
	poster := posting{ctx, c}
	if err := g.Write(ctx, poster, demoPast, 0, false); err != nil {
		return err
	}
	return g.Write(ctx, poster, 0, demoRate, true)
}

// posting posts what is written to it; writes hold whole lines, as the generator's do.
type posting struct {
	ctx context.Context
	c   *client
}

func (p posting) Write(b []byte) (int, error) {
	return len(b), p.c.post(p.ctx, b, "demo", 1)
}

// show prints the busiest nodes again and again: in place on a terminal, a few lines elsewhere.
func show(ctx context.Context, std streams, rules *nodes.Rules, store *warehouse.Warehouse, http string, e *engines) {
	file, _ := std.out.(*os.File)
	live := file != nil && term.IsTerminal(int(file.Fd()))
	beat := plainBeat
	if live {
		beat = demoBeat
	}
	hints := hintsFor(rules, http, e)
	if !live {
		fmt.Fprint(std.out, hints)
	}
	ticker := time.NewTicker(demoBeat)
	defer ticker.Stop()
	for first := true; ; {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		rows, err := store.Busiest(ctx, demoNodes)
		if err != nil || len(rows) == 0 {
			continue
		}
		var page bytes.Buffer
		if live {
			page.WriteString("\x1b[H\x1b[2J") // to the top, clear
		}
		printNodes(&page, rows)
		if live {
			page.WriteString("\n" + hints + "\nCtrl-C drains and stops.\n")
		}
		_, _ = std.out.Write(page.Bytes())
		if first {
			ticker.Reset(beat)
			first = false
		}
	}
}

func printNodes(w io.Writer, rows []warehouse.NodeRow) {
	fmt.Fprintf(w, "%-16s %-10s %9s %8s %8s %8s %11s %8s   last 24 h, %s\n", "division", "territory",
		"mentions", "voices", "posts", "replies", "broadcasts", "answers", time.Now().UTC().Format("15:04:05 UTC"))
	for _, r := range rows {
		fmt.Fprintf(w, "%-16s %-10s %9d %8d %8d %8d %11d %8d\n",
			r.Division, r.Territory, r.Mentions, r.Voices, r.Posts, r.Replies, r.Broadcasts, r.Answers)
	}
}

// hintsFor names three things to try next.
func hintsFor(rules *nodes.Rules, http string, e *engines) string {
	division, territory := "company", "zz"
	for _, unit := range rules.BusinessUnits() {
		if unit.Division != division && len(unit.Territories) > 0 {
			division, territory = unit.Division, unit.Territories[0]
			break
		}
	}
	return fmt.Sprintf(`Try next:
  SQL        curl 'http://%s/?query=SELECT+*+FROM+polyphony.node_metrics_1h+ORDER+BY+bucket+DESC+LIMIT+5+FORMAT+PrettyCompact'
  subscribe  nats sub --server nats://%s 'social.mentions.%s.%s'
  send       bin/polyphony generate --events 1000 --out events.ndjson && bin/polyphony send --http http://%s events.ndjson
`, e.current().HTTPAddr(), e.nats.Addr(), division, territory, http)
}
