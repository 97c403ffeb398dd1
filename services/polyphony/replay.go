package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"polyphony/pkg/bus"
	"polyphony/pkg/service"
	"polyphony/pkg/topology"
	"polyphony/pkg/warehouse"
	"polyphony/services/aggregator/aggregate"
)

// replayCommand has everything read again, from a time on.
type replayCommand struct {
	From            string `required:"" placeholder:"TIME" help:"Since when events were accepted: RFC 3339, or how long ago, such as 36h."`
	NATS            string `name:"nats" default:"nats://127.0.0.1:4222" placeholder:"URL" help:"NATS (default ${default})."`
	NATSCredentials string `name:"nats-credentials" type:"existingfile" placeholder:"FILE" help:"A NATS credentials file, if one is needed."`
	ClickHouse      string `name:"clickhouse" default:"127.0.0.1:9000" placeholder:"ADDR" help:"ClickHouse, native protocol (default ${default})."`
	User            string `default:"default" help:"A user who may write there (default ${default})."`
	Password        string `help:"Its password, if any."`
	NoWait          bool   `name:"no-wait" help:"Do not wait until the services have read everything."`
}

// Help teaches when to use it.
func (replayCommand) Help() string {
	return `Has the enrichers and aggregators read again what the streams still hold from a time on, while they work on. Facts are
written by key, so nothing is counted twice, whatever was read before; subscribers see messages again that they have seen,
with the same ids. It makes ClickHouse complete again after it lost what it had stored (a restored backup, a power cut), and
after messages were lost on the way (a stream deleted, purged or restored). The aggregator's log says what was lost and
from when to replay; "freshness" in ClickHouse says until when the metrics are complete, and what was accepted since then is
read again whatever TIME says.

Frames of a rules version that is no longer in the bucket polyphony-rules wait until that is restored, and hold up "freshness".
What was accepted and is no longer in the stream RAW cannot be replayed: let the sources send it again, repeats are harmless.

  polyphony replay --from 2026-11-23T08:00:00Z
  polyphony replay --from 36h`
}

const (
	// connectPatience is how long an engine may take to answer a person who waits.
	connectPatience = 10 * time.Second
	// replayStep is how often progress is looked at, and replayHint how long none may be seen until that is said.
	replayStep = 500 * time.Millisecond
	replayHint = 30 * time.Second
)

func (r *replayCommand) Run(ctx context.Context, std streams) error {
	from, err := since("--from", r.From, time.Now())
	if err != nil {
		return err
	}
	b, err := bus.Open(bus.Config{URL: r.NATS, Name: "polyphony replay", Credentials: r.NATSCredentials}, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer b.Close()
	store, err := warehouse.Open(warehouse.Config{Addr: r.ClickHouse, User: r.User, Password: r.Password})
	if err != nil {
		return err
	}
	defer store.Close()
	connecting, cancel := context.WithTimeout(ctx, connectPatience)
	defer cancel()
	if err := b.Connect(connecting); err != nil {
		return err
	}
	held, err := store.Freshness(connecting, topology.Mentions.Name)
	if err != nil {
		return fmt.Errorf("ClickHouse at %s: %w", r.ClickHouse, err)
	}
	noted, err := aggregate.Noted(connecting, b)
	if err != nil {
		return err
	}
	if held.CompleteUntil.Before(from) { // what lies between is not known to be complete, and a later claim would say it is
		from = held.CompleteUntil
		known := "until " + from.UTC().Format(time.RFC3339)
		if from.Unix() <= 0 {
			known = "at no time"
		}
		fmt.Fprintf(std.out, "the metrics are known to be complete %s: all that was accepted since then is read again\n", known)
	}
	began := time.Now()
	total, err := setBack(ctx, b, from, std.out)
	if err != nil {
		return fmt.Errorf("%w; run it again, that is safe", err)
	}
	// Only now: a claim of this epoch rests on what is read from now on.
	positions, err := aggregate.Positions(ctx, b)
	if err != nil {
		return fmt.Errorf("%w; run it again, that is safe", err)
	}
	epoch := warehouse.Freshness{Epoch: max(held.Epoch, noted.Epoch) + 1, CompleteUntil: from, Positions: positions}
	if err := store.PutFreshness(ctx, topology.Mentions.Name, epoch); err != nil {
		return fmt.Errorf("%w; run it again, that is safe", err)
	}
	if r.NoWait {
		fmt.Fprintln(std.out, "the services read it while they work on; freshness in ClickHouse says how far they are")
		return nil
	}
	return awaitReplay(ctx, b, store, total, epoch.Epoch, began, std)
}

// oldest is before all that Polyphony ever stored, and a time that NATS and ClickHouse have a place for.
var oldest = time.Unix(0, 0).UTC()

// since reads a time, or how long ago it was, of an option.
func since(option, text string, now time.Time) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, text)
	if ago, notAgo := time.ParseDuration(text); notAgo == nil && ago >= 0 {
		t, err = now.Add(-ago), nil
	}
	if err != nil || t.After(now) || t.Before(oldest) {
		return t, &service.UsageError{Err: fmt.Errorf("%s %q: want a time such as 2026-11-23T08:00:00Z, since %d, or how long ago such as 36h", option, text, oldest.Year())}
	}
	return t, nil
}

// setBack has the readers of every stream begin anew, and gives how many messages they read again.
func setBack(ctx context.Context, b *bus.Bus, from time.Time, out io.Writer) (total int, err error) {
	for _, c := range topology.Consumers() {
		replayed, err := b.Replay(ctx, c, from)
		if err != nil {
			return total, err
		}
		n := int(replayed.Last + 1 - replayed.From)
		total += n
		switch {
		case replayed.Oldest.IsZero():
			fmt.Fprintf(out, "%-8s holds nothing\n", c.Stream.Name)
		case replayed.Oldest.After(from):
			fmt.Fprintf(out, "%-8s %d messages are read again; it holds nothing older than %s\n", c.Stream.Name, n, replayed.Oldest.Format(time.RFC3339))
		default:
			fmt.Fprintf(out, "%-8s %d messages are read again\n", c.Stream.Name, n)
		}
	}
	return total, nil
}

// awaitReplay waits until the metrics are complete again up to when the replay began.
func awaitReplay(ctx context.Context, b *bus.Bus, store *warehouse.Warehouse, total int, epoch uint32, began time.Time, std streams) error {
	bar := counter(std.err, total, "messages to read")
	defer func() { _ = bar.Close() }()
	least, moved := total, time.Now()
	tick := time.NewTicker(replayStep)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return errors.New("nobody waits any more; the services go on reading, and freshness in ClickHouse says how far they are")
		case <-tick.C:
		}
		held, err := store.Freshness(ctx, topology.Mentions.Name)
		if err == nil && held.Epoch >= epoch && held.CompleteUntil.After(began) {
			_ = bar.Finish()
			fmt.Fprintf(std.out, "complete until %s\n", held.CompleteUntil.Format(time.RFC3339))
			return nil
		}
		left := 0
		for _, c := range topology.Consumers() {
			if p, err := b.Progress(ctx, c); err == nil {
				left += int(p.Last - min(p.Last, p.Floor))
			}
		}
		_ = bar.Set(max(0, total-left))
		if left < least {
			least, moved = left, time.Now()
		} else if time.Since(moved) > replayHint {
			fmt.Fprintf(std.err, "\n%d messages are left and nobody reads: are the enrichers and aggregators running, and what does their /readyz say?\n", left)
			moved = time.Now()
		}
	}
}

// counter is a bar on a terminal and silent elsewhere.
func counter(w io.Writer, n int, what string) *progressbar.ProgressBar {
	file, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return progressbar.DefaultSilent(int64(n), what)
	}
	return progressbar.Default(int64(n), what)
}
