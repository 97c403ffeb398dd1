package service

import (
	"bytes"
	"context"
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"
)

// A part's error is a fault, also while the process drains; that it was told to stop is none.
func TestFaultWhileDraining(t *testing.T) {
	f := func(atStop func(context.Context) error, exit int, logged string) {
		t.Helper()
		var out, log bytes.Buffer
		got := execute("test", "", nil, nil, &out, &log, func(ctx context.Context, p *Process, _ struct{}) error {
			ready := func(net.Addr) {
				if err := syscall.Kill(syscall.Getpid(), syscall.SIGTERM); err != nil {
					t.Error(err)
				}
			}
			return p.Run(ctx, "127.0.0.1:0", ready, Part{Name: "worker", Ready: func() error { return nil }, Run: func(ctx context.Context) error {
				<-ctx.Done()
				return atStop(ctx)
			}})
		})
		if got != exit {
			t.Errorf("exit %d, want %d", got, exit)
		}
		if !strings.Contains(log.String(), logged) || logged == "" && strings.Contains(log.String(), "level=ERROR") {
			t.Errorf("want %q in the log:\n%s", logged, log.String())
		}
	}
	f(func(context.Context) error { return nil }, ExitOK, "")
	f(func(ctx context.Context) error { return ctx.Err() }, ExitOK, "")
	f(func(context.Context) error { return errors.New("BUG: a gap") }, ExitFault, `level=ERROR msg=draining error="worker: BUG: a gap"`)
}

// What ends by itself ends the process, is said once, and every other fault is said too.
func TestFaultEndsTheProcess(t *testing.T) {
	var log bytes.Buffer
	p := NewProcess(ProcessConfig{}, &log)
	ready := func() error { return nil }
	err := p.Run(t.Context(), "127.0.0.1:0", nil,
		Part{Name: "first", Ready: ready, Run: func(context.Context) error { return errors.New("BUG: here") }},
		Part{Name: "second", Ready: ready, Run: func(ctx context.Context) error { <-ctx.Done(); return errors.New("BUG: there") }})
	if err == nil || err.Error() != "first: BUG: here" {
		t.Errorf("%v", err)
	}
	if s := log.String(); strings.Count(s, "BUG: here") != 1 || strings.Count(s, "second: BUG: there") != 1 {
		t.Errorf("%s", s)
	}
}
