package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"

	"polyphony/pkg/embedded"
)

// workerArg makes this program a worker: work that is measured apart has a process of its own.
const workerArg = "worker"

// work runs a worker and gives its exit code. Workers end when their standard input closes.
func work(ctx context.Context, name string, args []string) int {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	workers := map[string]func(context.Context, []string) error{
		"client": clientWorker, "pace": paceWorker, "nats": natsWorker, "messages": messagesWorker, "rows": rowsWorker}
	run, ok := workers[name]
	if !ok {
		fmt.Fprintf(os.Stderr, "bench: no worker %q\n", name)
		return 2
	}
	if err := run(ctx, args); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		return 1
	}
	return 0
}

// workerCommand is this program again.
func workerCommand(name string, args ...string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return exec.Command(self, append([]string{workerArg, name}, args...)...), nil
}

// runWorker runs a worker to its end, decodes the JSON that it writes into result, and says what it used.
func runWorker(ctx context.Context, result any, name string, args ...string) (usage, error) {
	cmd, err := workerCommand(name, args...)
	if err != nil {
		return usage{}, err
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return usage{}, err
	}
	defer context.AfterFunc(ctx, func() { _ = stdin.Close() })()
	defer stdin.Close()
	out, err := cmd.Output()
	if err != nil {
		var failed *exec.ExitError
		if errors.As(err, &failed) {
			err = fmt.Errorf("%w: %s", err, failed.Stderr)
		}
		return usage{}, fmt.Errorf("running worker %s: %w", name, err)
	}
	peak := struct{ Peak int64 }{}
	if err := errors.Join(json.Unmarshal(out, result), json.Unmarshal(out, &peak)); err != nil {
		return usage{}, fmt.Errorf("reading what worker %s says: %w", name, err)
	}
	return usage{cpu: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), peak: peak.Peak}, nil
}

// ownPeak is this process's VmHWM.
func ownPeak() int64 {
	u, _ := usageOf(os.Getpid())
	return u.peak
}

// natsWorker runs an embedded NATS in the directory of its argument.
func natsWorker(ctx context.Context, args []string) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	server, err := embedded.StartNATS(embedded.NATSConfig{Dir: args[0], Addr: "127.0.0.1:0", Log: log})
	if err != nil {
		return err
	}
	defer server.Close()
	fmt.Println("ready nats=" + server.Addr())
	<-ctx.Done()
	return nil
}
