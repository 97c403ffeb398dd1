package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"polyphony/pkg/service"
	"polyphony/pkg/social"
	"polyphony/pkg/wire"
)

const (
	// sendBytes of one request: large enough that a request costs little, small enough to show progress.
	sendBytes = 1 << 20
	// sendTimeout bounds one request: an ingester tries for ten seconds to store what it has read, and may have as much
	// to store before. A request that is given up is sent again.
	sendTimeout = 30 * time.Second
	// sendPatience is how long an ingester may be full or away.
	sendPatience = 5 * time.Minute
	// shownRejects is how many rejects are listed; all are counted.
	shownRejects = 10
)

// sendCommand posts files.
type sendCommand struct {
	HTTP  string   `name:"http" default:"http://127.0.0.1:8080" placeholder:"URL" help:"The ingester (default ${default})."`
	Token string   `type:"existingfile" placeholder:"FILE" help:"File with the bearer token to send."`
	Files []string `arg:"" type:"existingfile" placeholder:"FILE" help:"NDJSON files; - is standard input."`
}

func (s *sendCommand) Run(ctx context.Context, std streams) error {
	base, err := baseURL(s.HTTP)
	if err != nil {
		return err
	}
	c := &client{url: base + "/v1/events", http: &http.Client{Timeout: sendTimeout}, std: std}
	if s.Token != "" {
		if c.token, err = readToken(s.Token); err != nil {
			return err
		}
	}
	for _, name := range s.Files {
		if err := c.sendFile(ctx, name); err != nil {
			return fmt.Errorf("%s: after %d accepted: %w", name, c.accepted, err)
		}
	}
	fmt.Fprintf(std.out, "accepted %d, rejected %d\n", c.accepted, c.rejected)
	return nil
}

// readToken reads a bearer token.
func readToken(path string) (string, error) {
	token, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("reading the token: %w", err)
	}
	return string(bytes.TrimSpace(token)), nil
}

// baseURL allows the address alone.
func baseURL(s string) (string, error) {
	if !strings.Contains(s, "://") {
		s = "http://" + s
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return "", &service.UsageError{Err: fmt.Errorf("--http %q: want http://HOST:PORT", s)}
	}
	return strings.TrimSuffix(s, "/"), nil
}

// client posts lines and counts the answers.
type client struct {
	url, token         string
	http               *http.Client
	std                streams
	called             func(line int) string // what is sent is no file: the name of a line
	accepted, rejected int
}

// sendFile posts a file in pieces of whole lines.
func (c *client) sendFile(ctx context.Context, name string) error {
	in, size := c.std.in, int64(-1)
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return err
		}
		defer file.Close()
		if info, err := file.Stat(); err == nil {
			size = info.Size()
		}
		in = file
	}
	bar := progress(c.std.err, size, name)
	defer func() { _ = bar.Close() }()
	reader := bufio.NewReaderSize(in, 64<<10)
	for line := 1; ; {
		piece, read, err := c.readLines(reader, name, line)
		if len(piece) > 0 {
			if err := c.post(ctx, piece, name, line); err != nil {
				return err
			}
			line += bytes.Count(piece, []byte{'\n'})
		}
		_ = bar.Add(read)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading: %w", err)
		}
	}
}

// progress is a bar on a terminal and silent elsewhere.
func progress(w io.Writer, size int64, name string) *progressbar.ProgressBar {
	file, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return progressbar.DefaultBytesSilent(size, name)
	}
	return progressbar.DefaultBytes(size, name)
}

// readLines gives about sendBytes of whole lines, of which the last may lack its newline, and how much was read. A line
// that no ingester accepts for its size is rejected here and leaves an empty one: it would cost its neighbours theirs.
func (c *client) readLines(r *bufio.Reader, name string, line int) (piece []byte, read int, err error) {
	for ; len(piece) < sendBytes; line++ {
		start, tooLarge := len(piece), false
		for {
			var part []byte
			part, err = r.ReadSlice('\n')
			read += len(part)
			piece = append(piece, part...)
			if len(bytes.TrimRight(piece[start:], "\r\n")) > wire.MaxEvent {
				piece, tooLarge = piece[:start], true
			}
			if !errors.Is(err, bufio.ErrBufferFull) {
				break
			}
		}
		if tooLarge {
			piece = append(piece[:start], '\n')
			c.reject(name, line, string(social.TooLarge), "event over 1 MiB; not sent")
		}
		if err != nil {
			return piece, read, err
		}
	}
	return piece, read, nil
}

// post sends a piece until it is answered for good. Repeats are harmless, so every doubt means sending again.
func (c *client) post(ctx context.Context, piece []byte, name string, firstLine int) error {
	if len(bytes.TrimSpace(piece)) == 0 {
		return nil
	}
	policy := backoff.NewExponentialBackOff(backoff.WithInitialInterval(200*time.Millisecond),
		backoff.WithMaxInterval(5*time.Second), backoff.WithMaxElapsedTime(sendPatience))
	return backoff.RetryNotify(func() error { return c.postOnce(ctx, piece, name, firstLine) }, backoff.WithContext(policy, ctx),
		func(err error, wait time.Duration) {
			fmt.Fprintf(c.std.err, "%v; again in %v\n", err, wait.Round(100*time.Millisecond))
		})
}

func (c *client) postOnce(ctx context.Context, piece []byte, name string, firstLine int) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(piece))
	if err != nil {
		return backoff.Permanent(err)
	}
	request.Header.Set("Content-Type", "application/x-ndjson")
	if c.token != "" {
		request.Header.Set("Authorization", "Bearer "+c.token)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return fmt.Errorf("no answer from %s (is it running? start one with: polyphony up): %w", c.url, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	switch {
	case response.StatusCode == http.StatusAccepted:
		return c.count(body, name, firstLine)
	case response.StatusCode == http.StatusTooManyRequests || response.StatusCode >= 500:
		return fmt.Errorf("answered %s: %s", response.Status, bytes.TrimSpace(body))
	}
	return backoff.Permanent(fmt.Errorf("answered %s: %s", response.Status, bytes.TrimSpace(body)))
}

func (c *client) count(body []byte, name string, firstLine int) error {
	var answer struct {
		Accepted int
		Rejected []struct {
			Line         int
			Code, Detail string
		}
		NotListed int `json:"rejected_not_listed"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return backoff.Permanent(errors.New("the answer is no ingester's: is the address right?"))
	}
	for _, r := range answer.Rejected {
		c.reject(name, firstLine+r.Line-1, r.Code, r.Detail)
	}
	c.rejected += answer.NotListed
	c.accepted += answer.Accepted
	return nil
}

// reject counts a reject and tells of the first ones.
func (c *client) reject(name string, line int, code, detail string) {
	if c.rejected++; c.rejected <= shownRejects {
		where := fmt.Sprintf("%s:%d", name, line)
		if c.called != nil {
			where = c.called(line)
		}
		fmt.Fprintf(c.std.err, "%s: %s: %s\n", where, code, detail)
	}
}
