package embedded

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	tcpFlag  = "--clickhouse"
	httpFlag = "--clickhouse-http"
	// readyWait bounds a start: 0.3 s with an empty directory, seconds with millions of rows, and a disk may be slow.
	readyWait = 60 * time.Second
	// closeGrace bounds an orderly end: 30 ms without clients. With a client still connected the engine would wait for
	// five seconds and then end by force; what it has acknowledged survives that, as it survives being killed.
	closeGrace = 1500 * time.Millisecond
	// portTries: a port that was free may be taken before the engine listens on it.
	portTries = 5
)

var errAddrInUse = errors.New("address in use")

// ClickHouseConfig says where the embedded ClickHouse keeps its data and listens.
type ClickHouseConfig struct {
	Dir      string       // created if need be; belongs to one engine at a time
	Addr     string       // native protocol, loopback HOST:PORT; port 0 takes any free one
	HTTPAddr string       // HTTP protocol, same host as Addr
	Bin      string       // a `clickhouse` binary; "" takes the one on PATH, else the library
	Env      []string     // of the engine, besides that of this process
	Log      *slog.Logger // waiting for an earlier run, and what the engine has to say
}

// ClickHouse is an engine in a child process.
type ClickHouse struct {
	dir, addr, httpAddr string
	log                 *slog.Logger

	group     int          // process group of the child
	pid       atomic.Int64 // of the engine itself, which may be the child's child
	pipe      *os.File     // its other end is the child's standard input; closing it ends the engine
	closePipe sync.Once
	stopping  atomic.Bool

	heard  chan struct{} // closed when all that the child wrote has been read
	exited chan struct{} // closed when the child is gone
	done   chan error    // see Done

	mu        sync.Mutex
	why       string // what the child says about its failure
	exception string // the last one that the engine wrote
}

// StartClickHouse starts an engine and returns when it answers on both ports. It waits for an earlier run's engine to
// let go of the directory, up to half a minute. Every error is one line that names the remedy.
func StartClickHouse(ctx context.Context, cfg ClickHouseConfig) (*ClickHouse, error) {
	c, err := startClickHouse(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("starting ClickHouse: %w", err)
	}
	return c, nil
}

func startClickHouse(ctx context.Context, cfg ClickHouseConfig) (*ClickHouse, error) {
	host, tcp, err := loopback(cfg.Addr, tcpFlag)
	if err != nil {
		return nil, err
	}
	httpHost, httpPort, err := loopback(cfg.HTTPAddr, httpFlag)
	if err != nil {
		return nil, err
	}
	if httpHost != host {
		return nil, fmt.Errorf("%s %s and %s %s differ in their host; the engine listens on one", tcpFlag, cfg.Addr, httpFlag, cfg.HTTPAddr)
	}
	engine, err := findEngine(cfg.Bin, cfg.Log)
	if err != nil {
		return nil, err
	}
	if cfg.Dir, err = filepath.Abs(cfg.Dir); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	lock, err := lockDir(ctx, cfg.Dir, lockWait, cfg.Log)
	if err != nil {
		return nil, err
	}
	defer lock.Close() // the child keeps its own
	for try := 1; ; try++ {
		c, err := launch(ctx, cfg, engine, host, lock)
		if errors.Is(err, errAddrInUse) && (tcp == 0 || httpPort == 0) && try < portTries {
			continue
		}
		return c, err
	}
}

// launch makes one attempt with ports that were free a moment ago.
func launch(ctx context.Context, cfg ClickHouseConfig, engine engine, host string, lock *os.File) (*ClickHouse, error) {
	addr, err := freeAddr(ctx, cfg.Addr, tcpFlag)
	if err != nil {
		return nil, err
	}
	httpAddr, err := freeAddr(ctx, cfg.HTTPAddr, httpFlag)
	if err != nil {
		return nil, err
	}
	behind := addr // where the engine itself listens: a server there, the library behind a relay
	if engine.mode == runLibrary {
		if behind, err = freeAddr(ctx, net.JoinHostPort(host, "0"), tcpFlag); err != nil {
			return nil, err
		}
	}
	token := "polyphony-" + randomHex()
	if err := writeConfig(cfg.Dir, token, host, portOf(behind), portOf(httpAddr)); err != nil {
		return nil, err
	}
	c := newClickHouse(cfg.Dir, addr, httpAddr, cfg.Log)
	if err := c.spawn(engine, behind, cfg.Env, lock); err != nil {
		return nil, err
	}
	err = noteHolder(lock, c.group)
	if err == nil {
		err = c.awaitReady(ctx, token)
	}
	if err != nil {
		c.Close(ctx)
		if errors.Is(err, errAddrInUse) {
			return nil, fmt.Errorf("%w; choose others with %s and %s (port 0 takes any free one)", err, tcpFlag, httpFlag)
		}
		return nil, err
	}
	return c, nil
}

func newClickHouse(dir, addr, httpAddr string, log *slog.Logger) *ClickHouse {
	return &ClickHouse{
		dir: dir, addr: addr, httpAddr: httpAddr, log: log,
		heard: make(chan struct{}), exited: make(chan struct{}), done: make(chan error, 1),
	}
}

func randomHex() string {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

func portOf(addr string) int {
	_, port, _ := net.SplitHostPort(addr) // comes from a listener
	n, _ := strconv.Atoi(port)
	return n
}

// spawn starts the child. One thread is set aside for as long as the child lives, because the kernel ends a child with
// the thread that started it, not with the process.
func (c *ClickHouse) spawn(engine engine, behind string, env []string, lock *os.File) error {
	cmd, err := childCommand(engine, c.dir, c.addr, behind)
	if err != nil {
		return err
	}
	cmd.Env = append(cmd.Environ(), env...)
	stdin, pipe, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("making a pipe: %w", err)
	}
	defer stdin.Close()
	out, w, err := os.Pipe()
	if err != nil {
		pipe.Close()
		return fmt.Errorf("making a pipe: %w", err)
	}
	defer w.Close()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, w, w
	cmd.ExtraFiles = []*os.File{lock}
	c.pipe = pipe

	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		if started <- err; err == nil {
			c.ended(cmd.Wait(), out)
		}
	}()
	if err := <-started; err != nil {
		pipe.Close()
		out.Close()
		return fmt.Errorf("starting the engine's process: %w", err)
	}
	c.group = cmd.Process.Pid
	c.pid.Store(int64(cmd.Process.Pid))
	go c.listen(out)
	return nil
}

// listen reads what the child writes until nobody can write any more.
func (c *ClickHouse) listen(out *os.File) {
	defer close(c.heard)
	defer out.Close()
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20) // an exception with a long query in it
	for lines.Scan() {
		c.hear(lines.Text())
	}
	io.Copy(io.Discard, out) // a longer line must not block the child
}

func (c *ClickHouse) hear(line string) {
	if pid, ok := strings.CutPrefix(line, sayPID); ok {
		n, _ := strconv.ParseInt(pid, 10, 64) // written by watchServer
		c.pid.Store(n)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if why, ok := strings.CutPrefix(line, sayFailed); ok {
		c.why = why
		return
	}
	c.log.Debug("clickhouse: " + line)
	if strings.Contains(line, "Exception") {
		c.exception = line
	}
}

// ended runs when the child is gone, whatever ended it.
func (c *ClickHouse) ended(state error, out *os.File) {
	out.SetReadDeadline(time.Now().Add(time.Second)) // a stray grandchild may hold the other end
	<-c.heard
	if !c.stopping.Load() {
		c.done <- c.verdict(state)
	}
	close(c.done)
	close(c.exited)
}

// verdict says in one line why the child ended: its own word, else the engine's last exception, else how it exited.
func (c *ClickHouse) verdict(state error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case strings.Contains(c.exception, "Address already in use"):
		return fmt.Errorf("%w: %s", errAddrInUse, c.exception)
	case strings.Contains(c.why, syscall.EADDRINUSE.Error()): // of the relay
		return fmt.Errorf("%w: %s", errAddrInUse, c.why)
	case c.exception != "":
		return fmt.Errorf("the engine ended: %s", c.exception)
	case c.why != "":
		return errors.New(c.why)
	case state != nil:
		return fmt.Errorf("the engine ended: %w; %s may say why", state, c.logFile())
	}
	return errors.New("the engine ended as if its input had been closed")
}

// awaitReady returns when the engine that answers over HTTP is our child. A port that merely answers may belong to
// somebody else, or to an earlier run's engine.
func (c *ClickHouse) awaitReady(ctx context.Context, token string) error {
	ctx, cancel := context.WithTimeout(ctx, readyWait)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for {
		if c.answers(ctx, client, token) {
			return nil
		}
		select {
		case err := <-c.done:
			return err
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return ctx.Err()
			}
			return fmt.Errorf("no answer within %s; %s may say why", readyWait, c.logFile())
		case <-time.After(pollStep):
		}
	}
}

// answers asks for the name that only our child has, and whether the native port is open too.
func (c *ClickHouse) answers(ctx context.Context, client *http.Client, token string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.httpAddr+"/?query=SELECT+displayName()", nil)
	if err != nil {
		return false
	}
	resp, err := client.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	name, err := io.ReadAll(io.LimitReader(resp.Body, 1024))
	if err != nil || strings.TrimSpace(string(name)) != token {
		return false
	}
	conn, err := net.DialTimeout("tcp", c.addr, time.Second)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

func (c *ClickHouse) logFile() string { return filepath.Join(c.dir, "engine.log") }

// Addr is the HOST:PORT of the native protocol.
func (c *ClickHouse) Addr() string { return c.addr }

// HTTPAddr is the HOST:PORT of the HTTP protocol.
func (c *ClickHouse) HTTPAddr() string { return c.httpAddr }

// PID is the process that is ClickHouse.
func (c *ClickHouse) PID() int { return int(c.pid.Load()) }

// Done yields one error when the engine ended without having been closed; after that, and after Close, it is closed.
func (c *ClickHouse) Done() <-chan error { return c.done }

// Close ends the engine and returns when its process is gone, within two seconds: in good order, else by killing it,
// which loses nothing that it had acknowledged. Close connection pools first: the engine waits for its clients. Close
// may be called more than once.
func (c *ClickHouse) Close(ctx context.Context) error {
	c.stopping.Store(true)
	c.closePipe.Do(func() { c.pipe.Close() })
	select {
	case <-c.exited:
		return nil // its number may belong to others by now
	default:
	}
	syscall.Kill(-c.group, syscall.SIGCONT) // a frozen engine cannot see the end of its input
	grace := time.NewTimer(closeGrace)
	defer grace.Stop()
	select {
	case <-c.exited:
		return nil
	case <-grace.C:
	case <-ctx.Done():
	}
	syscall.Kill(-c.group, syscall.SIGKILL)
	<-c.exited
	return nil
}
