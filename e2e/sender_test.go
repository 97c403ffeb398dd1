package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// sender is a client as the contract wants it: it sends a piece again until it is answered 202, whatever happens to
// the receiver meanwhile. Pieces are sent by several at a time, so that many requests are open when something happens.
type sender struct {
	url      string
	client   *http.Client
	answered chan int      // how many pieces were answered so far, after each
	slowest  time.Duration // of those answered 202
}

// senders is how many requests are open at once.
const senders = 4

// newSender sends to the address, on connections of its own. It runs at most ahead pieces before whoever receives from
// answered.
func newSender(addr string, ahead int) *sender {
	return &sender{
		url: "http://" + addr + "/v1/events", answered: make(chan int, ahead),
		client: &http.Client{Timeout: 15 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: senders}},
	}
}

// send sends all pieces and returns when each was answered 202. An answer that no repeat can mend is an error.
func (s *sender) send(ctx context.Context, pieces [][]byte) error {
	defer s.client.CloseIdleConnections()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var mu sync.Mutex
	next, done := 0, 0
	var sending sync.WaitGroup
	for range senders {
		sending.Go(func() {
			for {
				mu.Lock()
				i := next
				next++
				mu.Unlock()
				if i >= len(pieces) {
					return
				}
				took, err := s.insist(ctx, pieces[i])
				if err != nil {
					stop(err)
					return
				}
				mu.Lock()
				s.slowest = max(s.slowest, took)
				done++
				now := done
				mu.Unlock()
				select {
				case s.answered <- now:
				case <-ctx.Done():
					return
				}
			}
		})
	}
	sending.Wait()
	close(s.answered)
	return context.Cause(ctx)
}

// insist sends one piece until it is answered 202, and says how long the last attempt took.
func (s *sender) insist(ctx context.Context, piece []byte) (time.Duration, error) {
	for {
		start := time.Now()
		status, body, err := s.post(ctx, piece)
		switch {
		case ctx.Err() != nil:
			return 0, context.Cause(ctx)
		case err == nil && status == http.StatusAccepted:
			return time.Since(start), nil
		case err == nil && status != http.StatusTooManyRequests && status != http.StatusServiceUnavailable:
			return 0, fmt.Errorf("answered %d: %s", status, body)
		}
		select {
		case <-time.After(pollStep):
		case <-ctx.Done():
		}
	}
}

func (s *sender) post(ctx context.Context, piece []byte) (status int, body []byte, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(piece))
	if err != nil {
		return 0, nil, err
	}
	request.Header.Set("Content-Type", "application/x-ndjson")
	response, err := s.client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	body, err = io.ReadAll(response.Body)
	return response.StatusCode, body, err
}
