package generate

import (
	"bufio"
	"context"
	"io"
	"time"
)

// beat is how often a paced generator writes: often enough to look steady, seldom enough to cost nothing.
const beat = 20 * time.Millisecond

// Write writes n lines to w, at most rate a second (0: as fast as w takes them). It stops early, without error, when
// ctx is done. With live set, events arrive when they are written; n may then be 0 for "until ctx is done".
func (g *Generator) Write(ctx context.Context, w io.Writer, n, rate int, live bool) error {
	out := bufio.NewWriterSize(w, 256<<10)
	line := make([]byte, 0, 4<<10)
	ticker := time.NewTicker(beat)
	defer ticker.Stop()
	start := time.Now()
	for written := 0; (n == 0 && live || written < n) && ctx.Err() == nil; {
		due := written + 1024 // without a rate: a look at ctx now and then
		if rate > 0 {
			due = int(time.Since(start).Seconds()*float64(rate)) + 1
		}
		if n > 0 {
			due = min(due, n)
		}
		if live {
			g.At(time.Now())
		}
		for ; written < due; written++ {
			line = g.Next(line[:0])
			if _, err := out.Write(line); err != nil {
				return err
			}
		}
		if rate == 0 {
			continue
		}
		if err := out.Flush(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
	}
	return out.Flush()
}
