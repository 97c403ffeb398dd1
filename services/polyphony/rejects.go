package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"

	"polyphony/pkg/bus"
	"polyphony/pkg/service"
	"polyphony/pkg/social"
	"polyphony/pkg/topology"
	"polyphony/pkg/wire"
)

// rejectsCommand looks at what could not be processed.
type rejectsCommand struct {
	List   rejectsList   `cmd:"" help:"List what could not be processed, and why."`
	Show   rejectsShow   `cmd:"" help:"Show one with its original bytes."`
	Replay rejectsReplay `cmd:"" help:"Process again what could not be processed, after a fix. Safe to run twice."`
}

// rejectStream is where rejects are read.
type rejectStream struct {
	NATS            string `name:"nats" default:"nats://127.0.0.1:4222" placeholder:"URL" help:"NATS (default ${default})."`
	NATSCredentials string `name:"nats-credentials" type:"existingfile" placeholder:"FILE" help:"A NATS credentials file, if one is needed."`
}

// open connects, as long as a person may wait.
func (s *rejectStream) open(ctx context.Context) (*bus.Bus, error) {
	b, err := bus.Open(bus.Config{URL: s.NATS, Name: "polyphony rejects", Credentials: s.NATSCredentials}, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, connectPatience)
	defer cancel()
	if err := b.Connect(ctx); err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

// rejectFilter says which rejects are meant; an empty part means any.
type rejectFilter struct {
	Stage  []string `placeholder:"STAGE,..." help:"Where: ingest, enrich, aggregate."`
	Code   []string `placeholder:"CODE,..." help:"Why: invalid_json, missing_field, too_late, unprocessable, ..."`
	Source []string `placeholder:"SOURCE,..." help:"From which source, as far as it is known."`
	Since  string   `placeholder:"TIME" help:"Rejected not before: RFC 3339, or how long ago, such as 36h."`
	Until  string   `placeholder:"TIME" help:"Before: the same."`

	since, until time.Time
}

// stages are those that reject.
var stages = []string{"ingest", "enrich", "aggregate"}

// token is what a code looks like; anything else would be a pattern of subjects.
var token = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)

func (f *rejectFilter) read(now time.Time) (err error) {
	for _, t := range f.Stage {
		if !slices.Contains(stages, t) {
			return &service.UsageError{Err: fmt.Errorf("%q is no stage: they are %s", t, strings.Join(stages, ", "))}
		}
	}
	for _, t := range f.Code {
		if !token.MatchString(t) {
			return &service.UsageError{Err: fmt.Errorf("%q is no code: want one such as invalid_json", t)}
		}
	}
	if f.Since != "" {
		if f.since, err = since("--since", f.Since, now); err != nil {
			return err
		}
	}
	if f.Until != "" {
		if f.until, err = since("--until", f.Until, now); err == nil && !f.until.After(f.since) {
			err = &service.UsageError{Err: fmt.Errorf("--until %s is not after --since %s", f.Until, f.Since)}
		}
	}
	return err
}

func (f *rejectFilter) empty() bool {
	return len(f.Stage) == 0 && len(f.Code) == 0 && len(f.Source) == 0 && f.Since == "" && f.Until == ""
}

// subjects are where rejects of the filter's stages and codes lie.
func (f *rejectFilter) subjects() (subjects []string) {
	anyOf := func(list []string) []string {
		if len(list) == 0 {
			return []string{"*"}
		}
		return list
	}
	for _, stage := range anyOf(f.Stage) {
		for _, code := range anyOf(f.Code) {
			subjects = append(subjects, topology.RejectSubject(stage, code))
		}
	}
	slices.Sort(subjects)
	return slices.Compact(subjects)
}

func (f *rejectFilter) takes(r *reject) bool {
	return (len(f.Source) == 0 || slices.Contains(f.Source, r.Source)) && !r.stored.Before(f.since) &&
		(f.until.IsZero() || r.stored.Before(f.until))
}

// reject is one with where it lies.
type reject struct {
	wire.Reject
	stored   time.Time // when it became one; what it is made of may have been accepted long before
	sequence uint64
	position int // within the message, from 1
	stage    string
	rules    string
}

// name is how a person calls it.
func (r *reject) name() string { return fmt.Sprintf("%d.%d", r.sequence, r.position) }

// origin is where it was found.
func (r *reject) origin() string {
	switch {
	case r.Origin == nil:
		return "a request"
	case r.Origin.Line == 0:
		return fmt.Sprintf("%s %d", r.Origin.Stream, r.Origin.Sequence)
	case r.Origin.Sequence == 0:
		return r.Origin.Stream
	}
	return fmt.Sprintf("%s %d, line %d", r.Origin.Stream, r.Origin.Sequence, r.Origin.Line)
}

// unpack hands over the rejects of a message.
func unpack(d *bus.Delivery, each func(*reject) error) error {
	size, err := strconv.Atoi(d.Header.Get(topology.HeaderSize))
	if err != nil {
		return fmt.Errorf("message %d of %s was not written by Polyphony", d.Sequence, topology.Rejects.Name)
	}
	frame, err := wire.DecodeFrame(nil, d.Data, size)
	if err != nil {
		return fmt.Errorf("message %d of %s: %w", d.Sequence, topology.Rejects.Name, err)
	}
	position := 0
	for r, err := range wire.DecodeRejects(frame) {
		if err != nil {
			return fmt.Errorf("message %d of %s: %w", d.Sequence, topology.Rejects.Name, err)
		}
		position++
		if err := each(&reject{Reject: r, stored: d.Stored, sequence: d.Sequence, position: position, stage: topology.RejectStage(d.Subject), rules: d.Header.Get(topology.HeaderRules)}); err != nil {
			return err
		}
	}
	return nil
}

// find hands over every reject that the filter takes, and says which messages it cannot read.
func find(ctx context.Context, b *bus.Bus, f *rejectFilter, std streams, each func(*reject) error) error {
	var ours error
	return b.Read(ctx, topology.Rejects, f.subjects(), f.since, func(d *bus.Delivery) error {
		err := unpack(d, func(r *reject) error {
			if f.takes(r) {
				ours = each(r)
			}
			return ours
		})
		if err != nil && ours == nil {
			fmt.Fprintln(std.err, err)
			return nil
		}
		return ours
	})
}

// rejectsList lists.
type rejectsList struct {
	rejectFilter
	rejectStream
	JSON bool `help:"One JSON object a line, for other programs."`
}

// Help tells what the columns are and what is not there.
func (rejectsList) Help() string {
	return `Each line is one reject: its name for show and replay, when it was rejected, where (stage), why (code), the source, its size in
bytes, and what is wrong. Nothing of what people wrote is listed. Rejects are kept with their bytes for as long as raw data
(privacy.retain.raw); the table "rejects" in ClickHouse knows of older ones.

  polyphony rejects list --since 24h --stage ingest
  polyphony rejects list --code too_late,in_future --json`
}

func (l *rejectsList) Run(ctx context.Context, std streams) error {
	if err := l.read(time.Now()); err != nil {
		return err
	}
	b, err := l.open(ctx)
	if err != nil {
		return err
	}
	defer b.Close()
	n, kinds := 0, map[string]int{}
	err = find(ctx, b, &l.rejectFilter, std, func(r *reject) error {
		n++
		kinds[r.stage+" "+string(r.Code)]++
		return l.print(std.out, r)
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(std.err, "%d rejects\n", n)
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		fmt.Fprintf(std.err, "%8d %s\n", kinds[kind], kind)
	}
	return nil
}

func (l *rejectsList) print(out io.Writer, r *reject) error {
	if l.JSON {
		return json.NewEncoder(out).Encode(map[string]any{"name": r.name(), "time": r.stored, "recorded_time": r.RecordedTime, "stage": r.stage, "code": r.Code, "source": r.Source,
			"rules_version": r.rules, "origin": r.origin(), "size": r.Size, "kept": r.Kept, "detail": r.Detail})
	}
	_, err := fmt.Fprintf(out, "%-10s %s %-9s %-15s %-12s %8d  %s\n", r.name(), r.stored.UTC().Format(time.RFC3339), r.stage, r.Code, r.Source, r.Size, r.Detail)
	return err
}

// rejectsShow shows one.
type rejectsShow struct {
	rejectStream
	Bytes bool   `help:"Its bytes alone, as they came."`
	Name  string `arg:"" placeholder:"NAME" help:"As list calls it, such as 1204.1."`
}

// Help says what one does with it.
func (rejectsShow) Help() string {
	return `The bytes are what somebody sent: they may hold names, handles and words of people. Show them to nobody who need not see them.
What would become of an event by the rules of a directory, try says:

  polyphony rejects show 1204.1 --bytes | polyphony try --nodes deploy/nodes --explain -`
}

func (s *rejectsShow) Run(ctx context.Context, std streams) error {
	b, err := s.open(ctx)
	if err != nil {
		return err
	}
	defer b.Close()
	r, err := named(ctx, b, s.Name)
	if err != nil {
		return err
	}
	if !s.Bytes {
		fmt.Fprintf(std.out, "name     %s\ntime     %s\naccepted %s\nstage    %s\ncode     %s\ndetail   %s\nsource   %s\nrules    %s\nfrom     %s\nbytes    %d", r.name(),
			r.stored.UTC().Format(time.RFC3339Nano), r.RecordedTime.Format(time.RFC3339Nano), r.stage, r.Code, r.Detail, r.Source, r.rules, r.origin(), r.Size)
		if r.Kept < r.Size {
			fmt.Fprintf(std.out, ", of which %d were kept", r.Kept)
		}
		fmt.Fprint(std.out, "\n\n")
	}
	_, err = fmt.Fprintf(std.out, "%s\n", r.Bytes)
	return err
}

// named finds the reject of a name.
func named(ctx context.Context, b *bus.Bus, name string) (*reject, error) {
	first, second, _ := strings.Cut(name, ".")
	sequence, err := strconv.ParseUint(first, 10, 64)
	position, err2 := strconv.Atoi(second)
	if err != nil || err2 != nil || sequence < 1 || position < 1 {
		return nil, &service.UsageError{Err: fmt.Errorf("%q is no name of a reject: want one that polyphony rejects list shows, such as 1204.1", name)}
	}
	d, err := b.Message(ctx, topology.Rejects, sequence)
	if errors.Is(err, bus.ErrGone) {
		return nil, fmt.Errorf("reject %s is not there, or no more: they are kept for as long as raw data", name)
	}
	if err != nil {
		return nil, err
	}
	var found *reject
	err = unpack(d, func(r *reject) error {
		if r.position == position {
			found = r
		}
		return nil
	})
	if err == nil && found == nil {
		err = fmt.Errorf("message %d holds no reject %d", sequence, position)
	}
	return found, err
}

// rejectsReplay puts rejects back to where they came from.
type rejectsReplay struct {
	rejectFilter
	rejectStream
	HTTP  string   `name:"http" default:"http://127.0.0.1:8080" placeholder:"URL" help:"The ingester, for what it refused (default ${default})."`
	Token string   `type:"existingfile" placeholder:"FILE" help:"File with the bearer token to send."`
	Names []string `arg:"" optional:"" placeholder:"NAME" help:"As list calls them, such as 1204.1; none: all that the filters take."`
}

// Help says what becomes of which.
func (rejectsReplay) Help() string {
	return `What an ingester refused is sent to it again and judged as if it came now. What was refused later is put back into the stream it
came from, with the time and the rules version it had: so it becomes what it would have become. An event is counted once however
often it is replayed, also when it was accepted meanwhile. What was sent with a token that is not for its source is not sent again.
What is still wrong becomes a reject again, beside the one it was; of those that are the same one is replayed.

  polyphony rejects replay --code too_late        # after lateness in company.yaml was raised
  polyphony rejects replay --stage enrich         # after a release that mends an enricher`
}

func (c *rejectsReplay) Run(ctx context.Context, std streams) error {
	if err := c.read(time.Now()); err != nil {
		return err
	}
	if len(c.Names) > 0 && !c.empty() {
		return &service.UsageError{Err: errors.New("give names, or filters, not both")}
	}
	base, err := baseURL(c.HTTP)
	if err != nil {
		return err
	}
	b, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer b.Close()
	re := &replayer{seen: map[[sha256.Size]byte]bool{}, bus: b, std: std, bar: counter(std.err, -1, "rejects"),
		client: client{url: base + "/v1/events", http: &http.Client{Timeout: sendTimeout}, std: std}}
	re.client.called = func(line int) string { return "reject " + re.sent[line-1] }
	if c.Token != "" {
		if re.client.token, err = readToken(c.Token); err != nil {
			return err
		}
	}
	if err := c.each(ctx, b, std, func(r *reject) error { return re.take(ctx, r) }); err != nil {
		return err
	}
	if err := re.post(ctx); err != nil {
		return err
	}
	_ = re.bar.Finish()
	fmt.Fprintf(std.out, "sent again %d: accepted %d, rejected %d; put back into streams %d; cannot be replayed %d\n",
		re.client.accepted+re.client.rejected, re.client.accepted, re.client.rejected, re.put, re.lost)
	if !re.mentions.IsZero() {
		fmt.Fprintf(std.out, "mentions were put back: for what refers to them, and for edits of them, run polyphony replay --from %s as well\n",
			re.mentions.UTC().Format(time.RFC3339))
	}
	return nil
}

// each hands over the rejects that are meant, as they are now: what becomes a reject again is not.
func (c *rejectsReplay) each(ctx context.Context, b *bus.Bus, std streams, do func(*reject) error) error {
	if len(c.Names) == 0 {
		return find(ctx, b, &c.rejectFilter, std, do)
	}
	for _, name := range c.Names {
		r, err := named(ctx, b, name)
		if err != nil {
			return err
		}
		if err := do(r); err != nil {
			return err
		}
	}
	return nil
}

// replayer collects what is to be sent, and puts back the rest.
type replayer struct {
	seen      map[[sha256.Size]byte]bool // by identity: what was replayed before and is still wrong is there more than once
	bus       *bus.Bus
	client    client
	std       streams
	bar       *progressbar.ProgressBar
	piece     []byte
	sent      []string // whose lines those of piece are
	put, lost int
	mentions  time.Time // when the first was published of those put back that are mentions
}

// take replays one.
func (re *replayer) take(ctx context.Context, r *reject) error {
	_ = re.bar.Add(1)
	if r.Detail == social.ForeignSource { // who replays may send for every source, and would vouch for it
		re.lost++
		fmt.Fprintf(re.std.err, "reject %s was sent by somebody who may not send for source %s\n", r.name(), r.Source)
		return nil
	}
	if r.Kept < r.Size {
		re.lost++
		fmt.Fprintf(re.std.err, "reject %s: of %d bytes only %d were kept\n", r.name(), r.Size, r.Kept)
		return nil
	}
	is, err := r.identity()
	if err != nil {
		return err
	}
	if re.seen[is] {
		return nil
	}
	re.seen[is] = true
	if r.Origin == nil {
		return re.send(ctx, r)
	}
	if key := bus.Header(r.Origin.Header).Get(topology.HeaderTrial); key != "" { // it is tried as if for the first time
		if err := re.bus.Delete(ctx, topology.TrialsBucket, key); err != nil {
			return fmt.Errorf("replaying reject %s: %w", r.name(), err)
		}
		delete(r.Origin.Header, topology.HeaderTrial)
	}
	messages := []bus.Message{{Subject: r.Origin.Subject, Header: r.Origin.Header, Data: r.Bytes}}
	if holdsFrames := r.Origin.Stream == topology.Raw.Name || r.Origin.Stream == topology.Threads.Name; holdsFrames && r.Origin.Line > 0 {
		messages = framed(r)
	}
	err = re.bus.PublishPatiently(ctx, messages, func(why error) { fmt.Fprintf(re.std.err, "waiting: %v\n", why) })
	if err != nil {
		return fmt.Errorf("putting back reject %s: %w", r.name(), err)
	}
	re.put++
	if r.Origin.Stream == topology.Mentions.Name && (re.mentions.IsZero() || r.RecordedTime.Before(re.mentions)) {
		re.mentions = r.RecordedTime
	}
	return nil
}

// identity is the same of rejects that would be replayed in the same way: wherever it stood, the same bytes under the same subject and
// headers, but for the trial that each has of its own.
func (r *reject) identity() ([sha256.Size]byte, error) {
	var stood wire.Origin
	if r.Origin != nil {
		stood = wire.Origin{Stream: r.Origin.Stream, Subject: r.Origin.Subject, Header: maps.Clone(r.Origin.Header)}
		delete(stood.Header, topology.HeaderTrial)
	}
	encoded, err := json.Marshal([]any{r.stage, stood})
	if err != nil {
		return [sha256.Size]byte{}, fmt.Errorf("BUG: encoding where reject %s stood: %w", r.name(), err)
	}
	return sha256.Sum256(append(encoded, r.Bytes...)), nil
}

// framed makes a frame again of a line of one.
func framed(r *reject) (messages []bus.Message) {
	for frame, info := range wire.EncodeFrame(append(bytes.Clone(r.Bytes), '\n')) {
		header := bus.Header{}
		maps.Copy(header, r.Origin.Header)
		header[topology.HeaderSize], header[topology.HeaderEvents] = []string{strconv.Itoa(info.Size)}, []string{strconv.Itoa(info.Events)}
		messages = append(messages, bus.Message{Subject: r.Origin.Subject, Header: header, Data: frame})
	}
	return messages
}

// send sends the lines of a reject with others.
func (re *replayer) send(ctx context.Context, r *reject) error {
	lines := bytes.TrimSpace(r.Bytes)
	if len(lines) == 0 {
		re.lost++
		fmt.Fprintf(re.std.err, "reject %s holds no bytes\n", r.name())
		return nil
	}
	if json.Valid(lines) { // an event of several lines, as one may stand in an array
		var line bytes.Buffer
		if err := json.Compact(&line, lines); err == nil {
			lines = line.Bytes()
		}
	}
	if len(re.piece)+len(lines) > sendBytes {
		if err := re.post(ctx); err != nil {
			return err
		}
	}
	re.piece = append(append(re.piece, lines...), '\n')
	for range bytes.Count(lines, []byte{'\n'}) + 1 {
		re.sent = append(re.sent, r.name())
	}
	return nil
}

// post sends what was collected.
func (re *replayer) post(ctx context.Context) error {
	if err := re.client.post(ctx, re.piece, "", 1); err != nil {
		return fmt.Errorf("after %d accepted: %w; run it again, that is safe", re.client.accepted, err)
	}
	re.piece, re.sent = re.piece[:0], re.sent[:0]
	return nil
}
