package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"
)

const (
	// bodyBytes of one request: about 1,500 events.
	bodyBytes = 1 << 20
	// retryPause follows an answer that says to send again.
	retryPause = 100 * time.Millisecond
)

// sent is what the client says of a file.
type sent struct {
	Start    time.Time // of the first request
	Seconds  float64   // until the last answer
	Accepted int
	Rejected int
	Repeats  int // requests sent again because the pipeline was full
	Peak     int64
}

// clientWorker sends a file: URL FILE CONNECTIONS.
func clientWorker(ctx context.Context, args []string) error {
	connections, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	file, err := os.Open(args[1])
	if err != nil {
		return err
	}
	defer file.Close()
	c := newClient(args[0], connections)
	if err := c.sendAll(ctx, file, connections); err != nil {
		return err
	}
	c.sent.Seconds, c.sent.Peak = time.Since(c.sent.Start).Seconds(), ownPeak()
	return json.NewEncoder(os.Stdout).Encode(&c.sent)
}

// client posts bodies over connections that it keeps.
type client struct {
	url  string
	http http.Client
	mu   sync.Mutex
	sent sent
}

func newClient(addr string, connections int) *client {
	return &client{url: "http://" + addr + "/v1/events", sent: sent{Start: time.Now()}, http: http.Client{
		Transport: &http.Transport{MaxIdleConnsPerHost: connections, WriteBufferSize: 64 << 10}}}
}

// sendAll sends the lines of r over so many connections at once.
func (c *client) sendAll(ctx context.Context, r io.Reader, connections int) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	full, free := make(chan []byte), make(chan []byte, connections+1)
	for range cap(free) {
		free <- make([]byte, 0, bodyBytes+64<<10)
	}
	var sending sync.WaitGroup
	for range connections {
		sending.Go(func() {
			for body := range full {
				if err := c.post(ctx, body); err != nil {
					cancel(err)
				}
				free <- body
			}
		})
	}
	reader := bufio.NewReaderSize(r, 64<<10)
	for more := true; more && ctx.Err() == nil; {
		body, err := nextBody((<-free)[:0], reader)
		if more = err == nil; err != nil && err != io.EOF {
			cancel(fmt.Errorf("reading events: %w", err))
		}
		if len(body) > 0 {
			full <- body
		}
	}
	close(full)
	sending.Wait()
	return context.Cause(ctx)
}

// nextBody appends whole lines to body until it is full. The error is io.EOF after the last line.
func nextBody(body []byte, r *bufio.Reader) ([]byte, error) {
	for len(body) < bodyBytes {
		line, err := r.ReadSlice('\n')
		body = append(body, line...)
		if err != nil && err != bufio.ErrBufferFull {
			return body, err
		}
	}
	for !bytes.HasSuffix(body, []byte{'\n'}) { // a line longer than the reader's memory
		line, err := r.ReadSlice('\n')
		body = append(body, line...)
		if err != nil && err != bufio.ErrBufferFull {
			return body, err
		}
	}
	return body, nil
}

// post sends one body until it is accepted.
func (c *client) post(ctx context.Context, body []byte) error {
	for {
		status, answer, err := c.postOnce(ctx, body)
		if err != nil {
			return err
		}
		switch status {
		case http.StatusAccepted:
			var told struct {
				Accepted int
				Rejected []struct{ Line int }
			}
			if err := json.Unmarshal(answer, &told); err != nil {
				return fmt.Errorf("reading an answer: %w", err)
			}
			c.mu.Lock()
			c.sent.Accepted += told.Accepted
			c.sent.Rejected += len(told.Rejected)
			c.mu.Unlock()
			return nil
		case http.StatusServiceUnavailable, http.StatusTooManyRequests:
			c.mu.Lock()
			c.sent.Repeats++
			c.mu.Unlock()
			select {
			case <-time.After(retryPause):
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		default:
			return fmt.Errorf("answer %d: %.200s", status, answer)
		}
	}
}

func (c *client) postOnce(ctx context.Context, body []byte) (status int, answer []byte, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	request.Header.Set("Content-Type", "application/x-ndjson")
	response, err := c.http.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	answer, err = io.ReadAll(response.Body)
	return response.StatusCode, answer, err
}
