package ingest

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"polyphony/pkg/bus"
	"polyphony/pkg/social"
	"polyphony/pkg/wire"
)

const (
	// maxBody bounds a request decompressed, as the contract promises.
	maxBody = 16 << 20
	// maxAhead is how far clocks of sources may run fast.
	maxAhead = 10 * time.Minute
	// maxListed bounds the rejects listed in an answer; all of them are stored.
	maxListed = 10_000
	// maxOverhead bounds what the rejects of one request take beyond their own bytes, up to 190 each: a body's worth has
	// room for all of the largest body when its events are posts. The short lines behind it share rejects.
	maxOverhead = maxBody
	// maxShared is when a reject takes no more lines.
	maxShared = 64 << 10
	// maxSources is how many sources of a request are stored at once: each takes some hundred bytes, and is a message of
	// its own, of which a group can publish ten times as many in its time. Nobody follows a thousand networks.
	maxSources = 4096
	// maxHeld bounds what all requests hold between their first byte and their answer: four of the largest. Memory that
	// grows takes up to twice that for a while.
	maxHeld = 192 << 20
	// copies is how often a byte of a body is held: as it was read, judged in a submission, and in its group.
	copies = 3
)

// answer is the body of a 202.
type answer struct {
	Accepted int           `json:"accepted"`
	Rejected []rejectedRow `json:"rejected"`
	More     int           `json:"rejected_not_listed,omitempty"`
}

type rejectedRow struct {
	Line   int         `json:"line"`
	Code   social.Code `json:"code"`
	Detail string      `json:"detail"`
}

// serve takes one request from its bytes to its answer: read, judge every event, commit, answer.
func (in *Ingester) serve(w http.ResponseWriter, r *http.Request) {
	grant, ok := in.tokens.grant(r.Header.Get("Authorization"))
	if !ok {
		w.Header().Set("WWW-Authenticate", "Bearer")
		in.refuse(w, http.StatusUnauthorized, "the token is not in POLYPHONY_TOKENS_FILE")
		return
	}
	rules := in.rules.Load()
	if rules == nil {
		in.refuse(w, http.StatusServiceUnavailable, "the rules are not published yet")
		return
	}
	buffer := bodies.Get().(*[]byte)
	defer keep(buffer)
	body, held, err := in.budget.read((*buffer)[:0], w, r)
	defer in.budget.release(held)
	if *buffer = body[:0]; err != nil {
		in.refuseBody(w, err)
		return
	}
	form, err := formOf(r.Header, body)
	if err != nil {
		in.refuse(w, http.StatusBadRequest, err.Error())
		return
	}

	j := judges.Get().(*judge)
	defer keepJudge(j)
	j.begin(time.Now().UTC(), rules.Company().Lateness, rules.Version(), grant)
	for line, event := range form.events(body) {
		j.take(line, event)
		if len(j.sources.list) == maxSources {
			if err := in.commits.commit(&submission{sources: j.sources}); err != nil {
				in.refuseCommit(w, err)
				return
			}
			j.sources = batches{}
		}
	}
	j.end()
	if j.accepted == 0 && j.refused == 0 {
		in.refuse(w, http.StatusBadRequest, "no event in the body")
		return
	}
	overhead := (copies - 1) * int64(max(0, j.size()-len(body)))
	if !in.budget.take(overhead) {
		in.refuseBody(w, errBusy)
		return
	}
	defer in.budget.release(overhead)
	if err := in.commits.commit(&j.submission); err != nil {
		in.refuseCommit(w, err)
		return
	}
	in.full.Store(0)
	in.failed.Store(nil)
	in.metrics.count(j)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusAccepted)
	_ = json.NewEncoder(w).Encode(answer{Accepted: j.accepted, Rejected: j.rows, More: j.refused - len(j.rows)})
}

func (in *Ingester) refuse(w http.ResponseWriter, status int, message string) {
	in.metrics.refused.WithLabelValues(strconv.Itoa(status)).Inc()
	switch status {
	case http.StatusServiceUnavailable:
		w.Header().Set("Retry-After", "1")
	case http.StatusTooManyRequests:
		w.Header().Set("Retry-After", strconv.Itoa(in.retryAfter(time.Now())))
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": message})
}

func (in *Ingester) refuseBody(w http.ResponseWriter, err error) {
	switch {
	case errors.Is(err, errTooLarge):
		in.refuse(w, http.StatusRequestEntityTooLarge, "a body may hold 16 MiB decompressed: send it in parts")
	case errors.Is(err, errBusy):
		in.refuse(w, http.StatusServiceUnavailable, "too many bytes in flight: send the same again")
	case errors.Is(err, errEncoding):
		in.refuse(w, http.StatusUnsupportedMediaType, "Content-Encoding: want gzip, zstd or none")
	default:
		in.refuse(w, http.StatusBadRequest, "the body cannot be read: "+err.Error())
	}
}

func (in *Ingester) refuseCommit(w http.ResponseWriter, err error) {
	if errors.Is(err, bus.ErrFull) {
		in.refuse(w, http.StatusTooManyRequests, "the pipeline is full until its readers catch up: send the same again")
		return
	}
	if !errors.Is(err, errStopping) {
		in.failed.Store(&failure{err, time.Now()})
	}
	in.refuse(w, http.StatusServiceUnavailable, "not stored, or not known to be: send the same again")
}

const (
	// soonest is when a stream that just became full may have room: it is tidied every five seconds.
	soonest = 5
	// latest bounds how long senders are told to wait, in seconds: when there is room it should be used.
	latest = 60
)

// retryAfter is when a sender is to come again to streams that refuse, in seconds: the later the longer they have refused,
// for a quarter of that time. Who waits for readers that are away for an hour need not ask every second.
func (in *Ingester) retryAfter(now time.Time) int {
	in.full.CompareAndSwap(0, now.UnixMilli())
	refused := now.Sub(time.UnixMilli(in.full.Load()))
	return min(latest, soonest+int(refused/(4*time.Second)))
}

// bodies and judges spare a burst of requests its allocations.
var (
	bodies = sync.Pool{New: func() any { return new([]byte) }}
	judges = sync.Pool{New: func() any { return new(judge) }}
)

// maxKept is up to which size memory goes back to its pool: rare large bodies leave none behind.
const maxKept = 2 << 20

func keep(buffer *[]byte) {
	if cap(*buffer) <= maxKept {
		bodies.Put(buffer)
	}
}

func keepJudge(j *judge) {
	if j.size() <= maxKept {
		judges.Put(j)
	}
}

// judge decides what becomes of each event of a request. Its submission is what is to be stored.
type judge struct {
	decoder  wire.EventDecoder
	now      time.Time
	lateness time.Duration
	grant    grant
	accepted int
	refused  int
	rows     []rejectedRow
	overhead int // bytes that rejects take beyond their own
	shared   []sharedReject
	submission
}

// sharedReject is a reject for several lines of one code.
type sharedReject struct {
	wire.Reject // of the first of them
	lines       int
}

func (j *judge) begin(now time.Time, lateness time.Duration, rules string, g grant) {
	j.now, j.lateness, j.rules, j.grant = now, lateness, rules, g
	j.accepted, j.refused, j.rows, j.overhead, j.shared = 0, 0, []rejectedRow{}, 0, nil
	j.submission.reset()
}

// take judges one event. Its bytes go into the submission either way.
func (j *judge) take(line int, event []byte) {
	e, err := j.decoder.Decode(event)
	source := ""
	if e != nil {
		source = e.Source
	} else {
		source = wire.SourceOf(event)
	}
	if source != "" && !j.grant.allows(source) { // before whatever else is wrong: that may be mended one day
		err = &social.Invalid{Code: social.InvalidField, Detail: social.ForeignSource}
	}
	if err == nil {
		err = CheckTime(e, j.now, j.lateness)
	}
	if err == nil {
		j.accepted++
		j.submission.accept(e.Source, event)
		return
	}
	var bad *social.Invalid
	if !errors.As(err, &bad) {
		panic("BUG: a judgement that is no *social.Invalid: " + err.Error())
	}
	j.refused++
	if len(j.rows) < maxListed {
		j.rows = append(j.rows, rejectedRow{Line: line, Code: bad.Code, Detail: bad.Detail})
	}
	r := wire.Reject{Code: bad.Code, Detail: bad.Detail, Source: source, RecordedTime: j.now, Bytes: event}
	if j.overhead > maxOverhead && len(event) < maxShared {
		j.share(r)
		return
	}
	before := j.rejects.size
	j.submission.reject(&r, 1)
	j.overhead += max(0, j.rejects.size-before-len(event))
}

// share adds a bad line to those of its code, so that a body of nothing else takes no multiple of its size.
func (j *judge) share(r wire.Reject) {
	at := slices.IndexFunc(j.shared, func(s sharedReject) bool { return s.Code == r.Code })
	if at < 0 {
		r.Bytes = slices.Clone(r.Bytes)
		j.shared = append(j.shared, sharedReject{r, 1})
		return
	}
	s := &j.shared[at]
	if s.Source != r.Source {
		s.Source = ""
	}
	s.lines++
	if s.Bytes = append(append(s.Bytes, '\n'), r.Bytes...); len(s.Bytes) >= maxShared {
		j.rejectShared(s)
		j.shared = slices.Delete(j.shared, at, at+1)
	}
}

func (j *judge) rejectShared(s *sharedReject) {
	if s.lines > 1 {
		s.Detail = fmt.Sprintf("%d lines, the first: %s", s.lines, s.Detail)
	}
	j.submission.reject(&s.Reject, s.lines)
}

// end is to be called after the last event.
func (j *judge) end() {
	for i := range j.shared {
		j.rejectShared(&j.shared[i])
	}
	j.shared = nil
}

// CheckTime holds the times of an event, and of its counters, against the clock: its verdict is given once, at
// acceptance. The error is a *social.Invalid.
func CheckTime(e *social.Event, now time.Time, lateness time.Duration) error {
	latest, oldest := now.Add(maxAhead), now.Add(-lateness)
	if oldest.Before(epoch) {
		oldest = epoch
	}
	if err := within(e.Time, oldest, latest, "time"); err != nil || e.Counters == nil {
		return err
	}
	return within(e.Counters.ObservedAt, oldest, latest, "counters.observed_at")
}

func within(at, oldest, latest time.Time, field string) error {
	switch {
	case at.After(latest):
		return &social.Invalid{Code: social.InFuture, Detail: field + ": more than 10 minutes ahead"}
	case at.Before(oldest):
		return &social.Invalid{Code: social.TooLate, Detail: field + ": older than the company's lateness"}
	}
	return nil
}

// epoch bounds every lateness: no social network is older, and buckets count from here.
var epoch = time.Unix(0, 0)

// budget bounds the bytes that requests hold at once, every copy counted.
type budget struct{ held atomic.Int64 }

// take reports whether n bytes more may be held. Those are to be released.
func (b *budget) take(n int64) bool {
	if b.held.Add(n) > maxHeld {
		b.held.Add(-n)
		return false
	}
	return true
}

var (
	errBusy     = errors.New("over the budget")
	errTooLarge = errors.New("body too large")
)

func (b *budget) release(held int64) { b.held.Add(-held) }
