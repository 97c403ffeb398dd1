package generate

import (
	"context"
	"io"
	"math"
	"time"
)

const (
	// beat is how often a paced generator writes: often enough to look steady, seldom enough to cost nothing.
	beat = 20 * time.Millisecond
	// chunk is how much is written at once: little beside the memory of any reader, much beside the cost of a call.
	chunk = 256 << 10
)

// Write writes n lines to w, at most rate a second (0: as fast as w takes them). It stops early, without error, when
// ctx is done. With live set, events arrive when they are written, and n may be 0 for "until ctx is done". Every call
// of w.Write gets whole lines.
func (g *Generator) Write(ctx context.Context, w io.Writer, n, rate int, live bool) error {
	if n == 0 && live {
		n = math.MaxInt
	}
	ticker := time.NewTicker(beat)
	defer ticker.Stop()
	start := time.Now()
	lines := make([]byte, 0, chunk+8<<10)
	for written := 0; written < n && ctx.Err() == nil; {
		if live {
			g.At(time.Now())
		}
		due := n
		if rate > 0 {
			due = min(n, int(time.Since(start).Seconds()*float64(rate))+1)
		}
		for lines = lines[:0]; written < due && len(lines) < chunk; written++ {
			lines = g.Next(lines)
		}
		if len(lines) > 0 {
			if _, err := w.Write(lines); err != nil {
				return err
			}
		}
		if written < due || written == n {
			continue
		}
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
	}
	return nil
}
