package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"polyphony/pkg/nodes"
	"polyphony/pkg/pseudonym"
	"polyphony/pkg/service"
	"polyphony/pkg/social"
	"polyphony/pkg/wire"
	"polyphony/services/enricher/enrich"
	"polyphony/services/ingester/ingest"
)

// tryCommand shows what events would become.
type tryCommand struct {
	Nodes   string `default:"./deploy/nodes" placeholder:"DIR" help:"The nodes directory (default ${default})."`
	Explain bool   `help:"Add which rule, term and position decided."`
	File    string `arg:"" optional:"" default:"-" placeholder:"FILE" help:"NDJSON events; - or none is standard input."`
}

// trySecret makes keys that are the same at every trial and worth nothing anywhere else.
const trySecret = "polyphony try: not a secret"

// verdict is one line of output.
type verdict struct {
	EventID  string            `json:"event_id"`
	Source   string            `json:"source"`
	Mentions []json.RawMessage `json:"mentions"`
	Reject   *rejectVerdict    `json:"reject"` // null when accepted
	Explain  []nodes.Reason    `json:"explain,omitempty"`
}

type rejectVerdict struct {
	Code   social.Code `json:"code"`
	Detail string      `json:"detail"`
}

func (t *tryCommand) Run(std streams) error {
	rules, err := loadNodes(t.Nodes, std)
	if err != nil {
		return err
	}
	in := std.in
	if t.File != "-" {
		file, err := os.Open(t.File)
		if err != nil {
			return &service.UsageError{Err: err}
		}
		defer file.Close()
		in = file
	}
	keyer, err := pseudonym.New([]byte(trySecret))
	if err != nil {
		panic("BUG: " + err.Error())
	}
	trial := &trial{rules: rules, matcher: rules.Matcher(), enrichment: enrich.NewEnrichment(keyer), explain: t.Explain}
	out := bufio.NewWriter(std.out)
	reader := bufio.NewReaderSize(in, 64<<10)
	const mark = "\xef\xbb\xbf" // a byte order mark is no part of the first event, for the ingester neither
	if start, _ := reader.Peek(len(mark)); string(start) == mark {
		_, _ = reader.Discard(len(mark))
	}
	for {
		line, err := reader.ReadBytes('\n')
		if line = bytes.TrimSpace(line); len(line) > 0 {
			if err := trial.write(out, line); err != nil {
				return fmt.Errorf("writing: %w", err)
			}
		}
		if err == io.EOF {
			return out.Flush()
		}
		if err != nil {
			return fmt.Errorf("reading events: %w", err)
		}
	}
}

// trial runs the pipeline's own steps on one event after the other.
type trial struct {
	rules      *nodes.Rules
	matcher    *nodes.Matcher
	decoder    wire.EventDecoder
	enrichment *enrich.Enrichment
	explain    bool
}

func (t *trial) write(w *bufio.Writer, line []byte) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(t.judge(line)); err != nil {
		return err
	}
	return w.Flush()
}

func (t *trial) judge(line []byte) verdict {
	now := time.Now().UTC()
	v := verdict{Mentions: []json.RawMessage{}}
	e, err := t.decoder.Decode(line)
	if err == nil {
		v.EventID, v.Source = e.ID, e.Source
		err = ingest.CheckTime(e, now, t.rules.Company().Lateness)
	} else {
		v.EventID, v.Source = identify(line)
	}
	var bad *social.Invalid
	if errors.As(err, &bad) {
		v.Reject = &rejectVerdict{bad.Code, bad.Detail}
		return v
	}
	if !e.Kind.IsStatement() {
		for m := range t.enrichment.Mentions(e, t.matcher.Match(e), t.rules.Version(), now.Truncate(time.Millisecond)) {
			v.Mentions = append(v.Mentions, wire.AppendMentionData(nil, m))
		}
	}
	if t.explain {
		v.Explain = t.matcher.Explain(e)
	}
	return v
}

// identify finds what a rejected event calls itself, as far as it can be read.
func identify(line []byte) (id, source string) {
	var e struct{ ID, Source any }
	_ = json.Unmarshal(line, &e)
	id, _ = e.ID.(string)
	source, _ = e.Source.(string)
	return id, source
}
