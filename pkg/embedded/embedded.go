// Package embedded runs NATS and ClickHouse for `polyphony up` and for tests, with nothing installed by hand.
//
// NATS runs inside the process. ClickHouse runs in a child process that is this very program started again, so main
// and TestMain begin with RunChildIfAsked. The child never outlives its parent, whatever ends the parent, and a start
// waits until an earlier run's engine has let go of its directory.
//
// It opens the ports it is told to, and one behind the native port of the library's engine, all on loopback. It does not know what Polyphony keeps in the
// engines: streams are pkg/bus's business, tables pkg/warehouse's.
package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// lockWait bounds the wait for an earlier run to let go of a directory: a drain or the end of a killed engine with
	// gigabytes of memory takes seconds, never half a minute.
	lockWait = 30 * time.Second
	// portWait covers the moment in which a process that has already lost its lock still holds its sockets.
	portWait = time.Second
	pollStep = 20 * time.Millisecond
)

// lockDir creates dir if need be and takes its lock file, waiting for an earlier run to let go of it. The lock lives
// as long as any process holds the returned file open; its content is the pid to name to whoever waits.
func lockDir(ctx context.Context, dir string, wait time.Duration, log *slog.Logger) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("cannot create the data directory %s: %w; choose another with --data", dir, cause(err))
	}
	file, err := os.OpenFile(filepath.Join(dir, "polyphony.lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("cannot write to the data directory %s: %w; choose another with --data", dir, cause(err))
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	for told := false; ; {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return file, noteHolder(file, os.Getpid())
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			file.Close()
			return nil, fmt.Errorf("cannot lock the data directory %s: %w; choose another with --data", dir, err)
		}
		if !told {
			told = true
			log.Info("waiting for an earlier run to let go of its data directory", "dir", dir, "pid", holder(file))
		}
		select {
		case <-ctx.Done():
			pid := holder(file)
			file.Close()
			if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return nil, ctx.Err()
			}
			return nil, fmt.Errorf("the data directory %s is still used by process %d: stop that process, or choose another directory with --data", dir, pid)
		case <-time.After(pollStep):
		}
	}
}

// noteHolder writes pid into a lock file.
func noteHolder(file *os.File, pid int) error {
	if err := file.Truncate(0); err != nil {
		return fmt.Errorf("writing %s: %w", file.Name(), err)
	}
	if _, err := file.WriteAt([]byte(strconv.Itoa(pid)+"\n"), 0); err != nil {
		return fmt.Errorf("writing %s: %w", file.Name(), err)
	}
	return nil
}

// holder reads what noteHolder wrote, 0 if nothing yet.
func holder(file *os.File) int {
	var buf [20]byte
	n, _ := file.ReadAt(buf[:], 0)
	pid, _ := strconv.Atoi(strings.TrimSpace(string(buf[:n])))
	return pid
}

// freeAddr gives addr with port 0 replaced by a free port, and proves that the address can be listened on. Nothing
// keeps others from taking the port afterwards: whoever listens must still be ready to hear "in use". flag is the
// command-line flag that names the address.
func freeAddr(ctx context.Context, addr, flag string) (string, error) {
	deadline := time.Now().Add(portWait)
	for {
		l, err := net.Listen("tcp", addr)
		if err == nil {
			defer l.Close()
			return l.Addr().String(), nil
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			return "", fmt.Errorf("cannot listen on %s: %w; choose another address with %s", addr, cause(err), flag)
		}
		if time.Now().After(deadline) {
			return "", inUse(addr, flag)
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(pollStep):
		}
	}
}

func inUse(addr, flag string) error {
	return fmt.Errorf("another program listens on %s: stop it, or choose another address with %s (port 0 takes any free one)", addr, flag)
}

// loopback checks that addr is HOST:PORT with a loopback host: the engines have no passwords.
func loopback(addr, flag string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, fmt.Errorf("%s %q is not HOST:PORT, such as 127.0.0.1:0", flag, addr)
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return "", 0, fmt.Errorf("%s %q is not a loopback address; the embedded engines have no passwords and listen on 127.0.0.1 or [::1] only", flag, addr)
	}
	port, err = strconv.Atoi(text)
	if err != nil || port < 0 || port > 65535 {
		return "", 0, fmt.Errorf("%s %q: the port is a number from 0 to 65535", flag, addr)
	}
	return host, port, nil
}

// cause strips the path and operation that the message around it already names.
func cause(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}
