package main

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"polyphony/pkg/bus"
	"polyphony/pkg/nodes"
	"polyphony/pkg/pseudonym"
	"polyphony/pkg/social"
	"polyphony/pkg/topology"
	"polyphony/pkg/wire"
	"polyphony/services/enricher/enrich"
)

const (
	// sampleEvents of a file are prepared for the bare limits, in memory, and repeated.
	sampleEvents = 100_000
	// cycleBodies is how many bodies of the client one cycle of the enricher sees under load, roughly.
	cycleBodies = 4
)

// sample is what the pipeline makes of the beginning of a file: the same bytes for JetStream and the same rows for
// ClickHouse, made before anything is measured.
type sample struct {
	events    int
	groups    [][]bus.Message // each published as one, as the ingester and the enricher do
	mentions  []social.Mention
	originals []social.Original
}

// sampler makes a sample with the pipeline's own parts.
type sampler struct {
	sample
	decoder    wire.EventDecoder
	matcher    *nodes.Matcher
	keyer      *pseudonym.Keyer
	enrichment *enrich.Enrichment
	version    string
	recorded   time.Time

	batches map[social.Node][]byte
	fresh   []social.Original // of the cycle
}

func makeSample(file, nodesDir string) (*sample, error) {
	rules, err := nodes.LoadDir(nodesDir)
	if err != nil {
		return nil, err
	}
	keyer, err := pseudonym.New([]byte("a secret of the benchmark alone"))
	if err != nil {
		return nil, err
	}
	in, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	s := &sampler{
		matcher: rules.Matcher(), keyer: keyer, enrichment: enrich.NewEnrichment(keyer), version: rules.Version(),
		recorded: time.Now().UTC().Truncate(time.Millisecond), batches: map[social.Node][]byte{},
	}
	if err := s.read(bufio.NewReaderSize(in, 64<<10)); err != nil {
		return nil, fmt.Errorf("preparing the bare limits: %w", err)
	}
	return &s.sample, nil
}

func (s *sampler) read(r *bufio.Reader) error {
	for bodies := 1; s.events < sampleEvents; bodies++ {
		body, err := nextBody(nil, r)
		if err != nil && err != io.EOF {
			return err
		}
		if err := s.body(body); err != nil {
			return err
		}
		if bodies%cycleBodies == 0 || err == io.EOF || s.events >= sampleEvents {
			if err := s.cycle(); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
	}
	return nil
}

// body makes the raw frames of a request, and collects what follows from its events.
func (s *sampler) body(body []byte) error {
	bySource := map[string][]byte{}
	for line := range bytes.Lines(body) {
		e, err := s.decoder.Decode(line)
		if err != nil {
			return fmt.Errorf("a generated event: %w", err)
		}
		bySource[e.Source] = append(bySource[e.Source], line...)
		s.events++
		matches := s.matcher.Match(e)
		if len(matches) == 0 {
			continue
		}
		var last *social.Mention
		for m := range s.enrichment.Mentions(e, matches, s.version, s.recorded) {
			batch, ok := s.batches[m.Node]
			if !ok {
				batch = wire.BeginBatch(nil)
			}
			s.batches[m.Node] = wire.AppendMention(batch, "polyphony/bench", m)
			last = m
		}
		s.fresh = append(s.fresh, social.Original{
			EventKey: last.EventKey, Version: last.Version.Words(), Source: strings.Clone(e.Source), RecordedTime: s.recorded,
			Sealed: s.keyer.Seal(nil, wire.AppendIdentity(nil, e, last.Text)),
		})
	}
	var group []bus.Message
	for source, lines := range bySource {
		for frame, info := range wire.EncodeFrame(lines) {
			group = append(group, bus.Message{Subject: topology.RawSubject(source), Data: bytes.Clone(frame), ID: rand.Text(),
				Header: bus.Header{
					topology.HeaderRules: {s.version}, topology.HeaderRecorded: {strconv.FormatInt(s.recorded.UnixMilli(), 10)},
					topology.HeaderSize: {strconv.Itoa(info.Size)}, topology.HeaderEvents: {strconv.Itoa(info.Events)},
				}})
		}
	}
	s.groups = append(s.groups, group)
	return nil
}

// cycle makes the messages of an enricher's cycle, and the rows of them.
func (s *sampler) cycle() error {
	var group []bus.Message
	for node, batch := range s.batches {
		batch = wire.EndBatch(batch)
		for len(batch) > 0 {
			var piece []byte
			piece, batch = cutBatch(batch)
			group = append(group, bus.Message{Subject: topology.MentionSubject(node.Division, node.Territory), Data: piece,
				Header: bus.Header{"Content-Type": {wire.BatchContentType}}})
			var err error
			if s.mentions, err = wire.DecodeBatch(s.mentions, piece); err != nil {
				return err
			}
		}
	}
	for piece := range slices.Chunk(s.fresh, originalsBatch) {
		var batch []byte
		for i := range piece {
			batch = wire.AppendOriginal(batch, &piece[i])
		}
		group = append(group, bus.Message{Subject: topology.OriginalsSubject, Data: batch})
	}
	s.originals = append(s.originals, s.fresh...)
	s.fresh = s.fresh[:0]
	clear(s.batches)
	if len(group) > 0 {
		s.groups = append(s.groups, group)
	}
	return nil
}

// originalsBatch of originals are about as large as a message may be.
const originalsBatch = 1000

// cutBatch takes one public message of at most wire.MaxBatch off a batch of any size.
func cutBatch(batch []byte) (piece, rest []byte) {
	if len(batch) <= wire.MaxBatch {
		return batch, nil
	}
	end := bytes.LastIndexByte(batch[:wire.MaxBatch], '\n') + 1
	piece = wire.EndBatch(bytes.Clone(batch[:end]))
	return piece, append(wire.BeginBatch(nil), batch[end:]...)
}

// bareResult is what a worker measured: itself and the engine that it used, from the first byte to the last.
type bareResult struct {
	Events  int
	Seconds float64
	CPU     float64
	Inexact string
	Peak    int64
}

// measured runs work and counts the CPU of this process and of the engine's processes.
func measured(engine func() ([]int, error), events int, work func() error) (*bareResult, error) {
	runtime.GC() // what the preparation left behind is not part of the work
	pids, err := engine()
	if err != nil {
		return nil, err
	}
	pids = append(pids, os.Getpid())
	before, err := cpuOf(pids)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	if err := work(); err != nil {
		return nil, err
	}
	took := time.Since(began)
	after, err := cpuOf(pids)
	if err != nil {
		return nil, err
	}
	return &bareResult{Events: events, Seconds: took.Seconds(), CPU: (after - before).Seconds(), Peak: ownPeak()}, nil
}

func cpuOf(pids []int) (sum time.Duration, err error) {
	var faults []error
	for _, pid := range pids {
		u, err := usageOf(pid)
		faults = append(faults, err)
		sum += u.cpu
	}
	return sum, errors.Join(faults...)
}
