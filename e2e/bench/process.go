package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// startTime bounds the wait for a process to say that it is ready.
	startTime = 60 * time.Second
	// stopTime is how long a process may take to end after it was asked to.
	stopTime = 30 * time.Second
)

// process is a child of the benchmark that runs until it is stopped.
type process struct {
	name  string
	cmd   *exec.Cmd
	stdin io.Closer
	ready map[string]string // the words of its ready line, name=value
	log   string            // file with its standard error
	ended chan struct{}
}

// start runs cmd with its log in dir and waits for a line on its standard output that begins with "ready".
func start(ctx context.Context, name, dir string, cmd *exec.Cmd) (*process, error) {
	p := &process{name: name, cmd: cmd, log: filepath.Join(dir, name+".log"), ended: make(chan struct{})}
	if err := p.spawn(dir); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	return p, nil
}

func (p *process) spawn(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	log, err := os.Create(p.log)
	if err != nil {
		return err
	}
	defer log.Close()
	p.cmd.Stderr = log
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if p.stdin, err = p.cmd.StdinPipe(); err != nil { // workers end when it closes, also by our death
		return err
	}
	if err := p.cmd.Start(); err != nil {
		return err
	}
	lines := make(chan string, 1)
	go func() {
		defer close(p.ended)
		scanner := bufio.NewScanner(stdout)
		for scanner.Scan() {
			if strings.HasPrefix(scanner.Text(), "ready") {
				select {
				case lines <- scanner.Text():
				default:
				}
			}
		}
		_ = p.cmd.Wait()
	}()
	select {
	case line := <-lines:
		p.ready = map[string]string{}
		for _, word := range strings.Fields(line) {
			name, value, _ := strings.Cut(word, "=")
			p.ready[name] = value
		}
		return nil
	case <-p.ended:
		return fmt.Errorf("ended by itself: %s", tail(p.log))
	case <-time.After(startTime):
		p.stop()
		return fmt.Errorf("not ready after %s: %s", startTime, tail(p.log))
	}
}

// stop ends the process in good order, or else by force, and returns when it is gone.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	_ = p.stdin.Close()
	select {
	case <-p.ended:
	case <-time.After(stopTime):
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
}

// tail is the end of a log, on one line.
func tail(name string) string {
	content, _ := os.ReadFile(name)
	content = bytes.TrimSpace(content[max(0, len(content)-500):])
	return strings.ReplaceAll(string(content), "\n", " | ")
}

// startUp starts `polyphony up` on free ports with its data in dir. profile may be empty.
func startUp(ctx context.Context, o options, dir, profile string) (*process, error) {
	cmd := exec.Command(filepath.Join(o.bin, "polyphony"), "up", "--data", filepath.Join(dir, "data"), "--nodes", o.nodes,
		"--http", "127.0.0.1:0", "--nats", "127.0.0.1:0", "--clickhouse", "127.0.0.1:0", "--clickhouse-http", "127.0.0.1:0")
	cmd.Env = append(cmd.Environ(), "POLYPHONY_LOG_LEVEL=warn")
	if profile != "" {
		path, err := filepath.Abs(profile)
		if err != nil {
			return nil, err
		}
		cmd.Env = append(cmd.Env, "POLYPHONY_PROFILE_DIR="+path)
	}
	return start(ctx, "polyphony", dir, cmd)
}

// startIngester starts the ingester binary for a NATS. It says nothing when it is ready, so it is asked.
func startIngester(ctx context.Context, o options, dir, nats string) (*process, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("sh", "-c", `echo ready; exec "$0"`, filepath.Join(o.bin, "ingester"))
	for _, entry := range cmd.Environ() {
		if !strings.HasPrefix(entry, "POLYPHONY_") { // it refuses what it does not know
			cmd.Env = append(cmd.Env, entry)
		}
	}
	cmd.Env = append(cmd.Env, "POLYPHONY_LOG_LEVEL=warn", "POLYPHONY_HTTP_ADDR="+addr, "POLYPHONY_NATS_URL=nats://"+nats,
		"POLYPHONY_NODES_DIR="+o.nodes)
	p, err := start(ctx, "ingester", dir, cmd)
	if err != nil {
		return nil, err
	}
	p.ready["http"] = addr
	for deadline := time.Now().Add(startTime); ; {
		if answer, err := http.Get("http://" + addr + "/readyz"); err == nil {
			_ = answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				return p, nil
			}
		}
		if time.Now().After(deadline) {
			p.stop()
			return nil, fmt.Errorf("starting ingester: not ready after %s: %s", startTime, tail(p.log))
		}
		select {
		case <-p.ended:
			return nil, fmt.Errorf("starting ingester: ended by itself: %s", tail(p.log))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func freeAddr() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return listener.Addr().String(), listener.Close()
}

// usage is what a process has used so far.
type usage struct {
	cpu  time.Duration // user and system
	peak int64         // resident bytes at most
}

// usage of the process itself.
func (p *process) usage() (usage, error) { return usageOf(p.cmd.Process.Pid) }

// childUsage is the sum over the process's descendants: the ClickHouse of an `up`.
func (p *process) childUsage() (usage, error) {
	pids, err := descendants(p.cmd.Process.Pid)
	var sum usage
	for _, pid := range pids {
		u, err := usageOf(pid)
		if err != nil {
			return usage{}, err
		}
		sum.cpu += u.cpu
		sum.peak += u.peak
	}
	return sum, err
}

// tick is the unit of times in /proc: USER_HZ is 100 on every Linux.
const tick = 10 * time.Millisecond

func usageOf(pid int) (usage, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return usage{}, fmt.Errorf("reading what a process uses: %w", err)
	}
	_, ticks, err := parseStat(stat)
	if err != nil {
		return usage{}, err
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return usage{}, fmt.Errorf("reading what a process uses: %w", err)
	}
	return usage{cpu: time.Duration(ticks) * tick, peak: parsePeak(status)}, nil
}

var errStat = errors.New("/proc/PID/stat is not as expected")

// parseStat gives the parent and the ticks of user and system time. The name in parentheses may contain anything.
func parseStat(stat []byte) (parent int, ticks int64, err error) {
	end := bytes.LastIndexByte(stat, ')')
	fields := strings.Fields(string(stat[end+1:]))
	if end < 0 || len(fields) < 13 {
		return 0, 0, errStat
	}
	parent, err1 := strconv.Atoi(fields[1])
	user, err2 := strconv.ParseInt(fields[11], 10, 64)
	system, err3 := strconv.ParseInt(fields[12], 10, 64)
	if err := errors.Join(err1, err2, err3); err != nil {
		return 0, 0, fmt.Errorf("%w: %w", errStat, err)
	}
	return parent, user + system, nil
}

// parsePeak gives the VmHWM of /proc/PID/status in bytes, 0 when it is missing.
func parsePeak(status []byte) int64 {
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, _ := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return kb << 10
		}
	}
	return 0
}

// descendants are the processes below pid.
func descendants(pid int) ([]int, error) {
	names, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	children := map[int][]int{}
	for _, name := range names {
		stat, err := os.ReadFile(name)
		if err != nil {
			continue // it has just ended
		}
		child, err := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		if err != nil {
			continue
		}
		if parent, _, err := parseStat(stat); err == nil {
			children[parent] = append(children[parent], child)
		}
	}
	found := children[pid]
	for i := 0; i < len(found); i++ {
		found = append(found, children[found[i]]...)
	}
	return found, nil
}

// machine is the CPU time that the whole machine has used, and that its host has taken from it.
func machine() (busy, stolen time.Duration) {
	content, _ := os.ReadFile("/proc/stat")
	line, _, _ := bytes.Cut(content, []byte("\n"))
	fields := strings.Fields(string(line))
	for i, field := range fields[min(1, len(fields)):] {
		n, _ := strconv.ParseInt(field, 10, 64)
		switch i {
		case 0, 1, 2, 5, 6: // user, nice, system, irq, softirq
			busy += time.Duration(n) * tick
		case 7:
			stolen += time.Duration(n) * tick
		}
	}
	return busy, stolen
}
