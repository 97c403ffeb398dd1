package embedded

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// childName is the name under which this program starts itself again; nothing else begins with it, so neither a
	// flag nor the environment is needed to tell parent and child apart.
	childName = "polyphony-clickhouse"
	// Lines that the child writes on standard error for its parent begin with these; the rest is the engine's own.
	sayFailed = "polyphony-failed "
	sayPID    = "polyphony-pid "

	runLibrary = "library" // load libchdb.so and be the engine
	runServer  = "server"  // start `clickhouse server` and watch over it

	// serverGrace is how long a `clickhouse server` may take to end in good order.
	serverGrace = 5 * time.Second
)

// RunChildIfAsked must be the first thing in main and TestMain. In the ordinary process it does nothing. In the child
// that StartClickHouse starts it runs the engine and never returns.
//
// The child's standard input is a pipe from its parent: when that closes, by intention or because the parent is gone,
// the engine ends. File 3 is the lock on the data directory; it stays open for as long as the engine lives.
func RunChildIfAsked() {
	if os.Args[0] != childName {
		return
	}
	mode, path, version, dir := os.Args[1], os.Args[2], os.Args[3], os.Args[4]
	addr, behind := os.Args[5], os.Args[6]
	nameProcess(childName)
	var err error
	if mode == runLibrary {
		err = serveLibrary(path, dir, addr, behind)
	} else {
		err = watchServer(path, version, dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, sayFailed+strings.ReplaceAll(err.Error(), "\n", " "))
		os.Exit(1)
	}
	os.Exit(0)
}

// childCommand is this program again, as an engine child. It has a process group of its own: Ctrl-C in a terminal
// reaches the engine only through its parent.
func childCommand(engine engine, dir, addr, behind string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding this program: %w", err)
	}
	return &exec.Cmd{
		Path:        self,
		Args:        []string{childName, engine.mode, engine.path, engine.version, dir, addr, behind},
		SysProcAttr: dieWithParent(&syscall.SysProcAttr{Setpgid: true}),
	}, nil
}

// watchServer runs `clickhouse server` until standard input closes or the server ends. It stands between the two
// because the server does not read a pipe, and because the kernel forgets "die with your parent" for a program with
// file capabilities, as packaged servers have.
func watchServer(bin, version, dir string) error {
	if err := checkVersion(dir, version); err != nil {
		return err
	}
	runtime.LockOSThread() // the server dies with the thread that started it
	cmd := exec.Command(bin, "server", "--config-file="+configFile(dir))
	cmd.Env = append(cmd.Environ(), "CLICKHOUSE_WATCHDOG_ENABLE=0") // one watchdog is enough, and PID means the server
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	cmd.ExtraFiles = []*os.File{os.NewFile(3, "lock")}
	cmd.SysProcAttr = dieWithParent(&syscall.SysProcAttr{})
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting %s: %w", bin, cause(err))
	}
	fmt.Fprintln(os.Stderr, sayPID+strconv.Itoa(cmd.Process.Pid))

	go func() {
		io.Copy(io.Discard, os.Stdin)
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Process.Signal(syscall.SIGCONT)
		time.AfterFunc(serverGrace, func() { cmd.Process.Kill() })
	}()
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%s server: %w; see %s", bin, err, filepath.Join(dir, "engine.log"))
	}
	return nil
}

// checkVersion refuses a directory that a newer engine has written, and notes which engine writes it now. An older
// directory is fine: ClickHouse reads what its predecessors wrote.
func checkVersion(dir, engine string) error {
	marker := filepath.Join(dir, "engine-version")
	have, err := os.ReadFile(marker)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("reading %s: %w", marker, cause(err))
	}
	last := strings.TrimSpace(string(have))
	if last != "" && newer(last, engine) {
		return fmt.Errorf("the data directory %s was written by ClickHouse %s, and this engine is %s, which is older: use the newer engine again, or choose another directory with --data", dir, last, engine)
	}
	if last == engine {
		return nil
	}
	if err := os.WriteFile(marker, []byte(engine+"\n"), 0o644); err != nil {
		return fmt.Errorf("writing %s: %w", marker, cause(err))
	}
	return nil
}
