package main

import (
	"bufio"
	"bytes"
	"io"
	"runtime"
	"strings"
	"testing"

	"polyphony/pkg/wire"
)

// endless is a line of n bytes that needs no memory.
func endless(n int64) io.Reader { return io.LimitReader(xs{}, n) }

type xs struct{}

func (xs) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 'x'
	}
	return len(b), nil
}

// A line of any size takes no more memory than an event, and its neighbours keep their bytes and numbers.
func TestReadLines(t *testing.T) {
	most := strings.Repeat("y", wire.MaxEvent)
	in := io.MultiReader(strings.NewReader("a\n"), endless(300<<20), strings.NewReader("\nb\n"+most+"\r\n"), endless(wire.MaxEvent+1),
		strings.NewReader("\n\nc\nd"))
	var told bytes.Buffer
	c := &client{std: streams{err: &told}}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	var all []byte
	reader, line, total := bufio.NewReaderSize(in, 64<<10), 1, 0
	for {
		piece, read, err := c.readLines(reader, "file", line)
		all = append(all, piece...)
		line += bytes.Count(piece, []byte("\n"))
		if total += read; err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	if want := "a\n\nb\n" + most + "\r\n\n\nc\nd"; string(all) != want {
		t.Errorf("%d bytes are sent, want %d", len(all), len(want))
	}
	if want := "file:2: too_large: event over 1 MiB; not sent\nfile:5: too_large: event over 1 MiB; not sent\n"; told.String() != want || c.rejected != 2 {
		t.Errorf("%d rejected: %s", c.rejected, told.String())
	}
	if want := 2 + 300<<20 + 1 + 2 + wire.MaxEvent + 2 + wire.MaxEvent + 1 + 2 + 3; total != want {
		t.Errorf("%d bytes read, want %d", total, want)
	}
	if took := after.TotalAlloc - before.TotalAlloc; took > 32<<20 {
		t.Errorf("%d MiB allocated", took>>20)
	}
}

// The byte order mark that some editors write is no part of the first event, and nowhere else is it one.
func TestTryTakesByteOrderMark(t *testing.T) {
	const mark = "\xef\xbb\xbf"
	f := func(in, want string) {
		t.Helper()
		var out, fault bytes.Buffer
		code := execute(t.Context(), []string{"try", "--nodes", "../../deploy/nodes"}, streams{strings.NewReader(in), &out, &fault})
		var codes []string
		for line := range strings.Lines(out.String()) {
			_, code, _ := strings.Cut(line, `"code":"`)
			code, _, _ = strings.Cut(code, `"`)
			codes = append(codes, code)
		}
		if got := strings.Join(codes, " "); code != 0 || got != want {
			t.Errorf("%q: exit %d, %q, want %q; %s", in, code, got, want, fault.String())
		}
	}
	f(mark+"{}\n{}\n", "missing_field missing_field")
	f("{}\n"+mark+"{}\n", "missing_field invalid_json")
	f("{}", "missing_field")
	f(mark, "")
	f(mark[:2], "invalid_utf8")
}
