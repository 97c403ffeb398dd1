package embedded_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/ch-go/proto"
	"golang.org/x/sys/unix"

	"polyphony/pkg/embedded"
	"polyphony/pkg/embedded/enginetest"
)

// The test program plays three more parts when it is started under these names: the parent of an engine, to be killed,
// and a `clickhouse` binary, which is the library behind the command line of the real one.
const (
	parentName = "polyphony-test-parent"
	serverName = "clickhouse"
)

func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case parentName:
		playParent(os.Args[1], os.Args[2])
	case serverName:
		playServer()
	}
	enginetest.Main(m)
}

// playParent starts an engine, says where it is, and waits to be killed.
func playParent(dir, bin string) {
	c, err := start(context.Background(), dir, bin, slog.Default())
	if err != nil {
		fmt.Println("failed", err)
		os.Exit(1)
	}
	fmt.Println("ready", c.PID(), c.HTTPAddr())
	select {}
}

// playServer is `clickhouse server`. Like the real one it does not read standard input.
func playServer() {
	if os.Args[2] == "--version" {
		version, err := os.ReadFile(filepath.Join(filepath.Dir(os.Args[0]), "version"))
		if err != nil {
			panic(err)
		}
		fmt.Printf("ClickHouse server version %s (official build).\n", version)
		os.Exit(0)
	}
	config := strings.TrimPrefix(os.Args[2], "--config-file=")
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	var never [2]int
	if err := syscall.Pipe(never[:]); err != nil { // inherited, both ends
		panic(err)
	}
	if err := unix.Dup2(never[0], 0); err != nil {
		panic(err)
	}
	err = syscall.Exec(self, []string{"polyphony-clickhouse", "library", library, "", filepath.Dir(config), "127.0.0.1:0", ""}, os.Environ())
	panic(err)
}

// library is where the engine stands in the checkout, found before any test changes directory.
var library = func() string {
	path, err := filepath.Abs("../../deploy/embedded/node_modules/@chdb/lib-linux-x64-gnu/libchdb.so")
	if err != nil {
		panic(err)
	}
	return path
}()

// fakeServer is a directory with a `clickhouse` binary of the given version.
func fakeServer(t *testing.T, version string) string {
	t.Helper()
	dir := t.TempDir()
	script := fmt.Sprintf("#!/bin/bash\nexec -a %q %q \"$@\"\n", filepath.Join(dir, serverName), thisProgram(t))
	if err := os.WriteFile(filepath.Join(dir, serverName), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "version"), []byte(version), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func start(ctx context.Context, dir, bin string, log *slog.Logger) (*embedded.ClickHouse, error) {
	return embedded.StartClickHouse(ctx, embedded.ClickHouseConfig{Dir: dir, Addr: "127.0.0.1:0", HTTPAddr: "127.0.0.1:0", Bin: bin, Log: log})
}

func mustStart(t *testing.T, dir, bin string) *embedded.ClickHouse {
	t.Helper()
	c, err := start(t.Context(), dir, bin, enginetest.Log(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(context.Background()) })
	return c
}

// TestKilledClients: an engine outlives clients that are killed, whose connections are reset, at any moment and on both ports.
func TestKilledClients(t *testing.T) {
	c := mustStart(t, t.TempDir(), "")
	dial := func(addr string) *net.TCPConn {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		return conn.(*net.TCPConn)
	}
	reset := func(conn *net.TCPConn) {
		conn.SetLinger(0) // what a kill does where something is unread
		conn.Close()
	}
	var number proto.ColUInt64
	column := proto.Results{{Name: "number", Data: &number}}
	for range 25 {
		reset(dial(c.Addr()))
		for _, moment := range []string{"idle", "answer", "insert"} {
			conn := dial(c.Addr())
			client, err := ch.Connect(t.Context(), conn, ch.Options{})
			if err != nil {
				t.Fatal(err)
			}
			var query ch.Query
			switch moment {
			case "answer":
				query = ch.Query{Body: "SELECT number FROM numbers(10000000)", Result: column,
					OnResult: func(context.Context, proto.Block) error { reset(conn); return nil }}
			case "insert":
				number = append(number[:0], 1, 2, 3)
				query = ch.Query{Body: "INSERT INTO FUNCTION null('number UInt64') VALUES", Input: proto.Input{{Name: "number", Data: &number}},
					OnInput: func(context.Context) error { reset(conn); return nil }}
			}
			if moment == "idle" {
				reset(conn)
			} else if err := client.Do(t.Context(), query); err == nil {
				t.Fatalf("%s: a query on a connection that was reset succeeded", moment)
			}
		}

		reset(dial(c.HTTPAddr()))
		for _, request := range []string{
			"GET /?query=SELECT+1 HTTP/1.1\r\nHost: x\r\n\r\n",
			"GET /?query=SELECT+number+FROM+numbers(10000000) HTTP/1.1\r\nHost: x\r\n\r\n",
			"POST /?query=INSERT+INTO+FUNCTION+null('a+String')+FORMAT+TSV HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nab",
		} {
			conn := dial(c.HTTPAddr())
			if _, err := io.WriteString(conn, request); err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(request, "GET") {
				if _, err := conn.Read(make([]byte, 10)); err != nil {
					t.Fatal(err)
				}
			}
			reset(conn)
		}
	}
	if got := query(t, c.HTTPAddr(), "SELECT 1"); got != "1" {
		t.Errorf("the engine answers %q", got)
	}
	select {
	case err := <-c.Done():
		t.Error(err)
	default:
	}
}

// TestKilledParent is the rule of this package: whatever ends the parent, the engine ends too, and a start in the next
// moment waits for that and finds every row.
func TestKilledParent(t *testing.T) {
	f := func(name, bin string, freeze func(engine int)) {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "a & b <c>")
			parent, engine, addr := startParent(t, dir, bin)
			query(t, addr, "CREATE DATABASE kept")
			query(t, addr, "CREATE TABLE kept.rows (n UInt64) ENGINE = MergeTree ORDER BY n")
			query(t, addr, "INSERT INTO kept.rows SELECT number FROM numbers(100000)")
			freeze(engine)
			if err := parent.Kill(); err != nil {
				t.Fatal(err)
			}
			parent.Wait()

			c := mustStart(t, dir, bin)
			if running(engine) {
				t.Errorf("the old engine, process %d, still runs beside the new one", engine)
			}
			if got := query(t, c.HTTPAddr(), "SELECT count(), sum(n) FROM kept.rows"); got != "100000\t4999950000" {
				t.Errorf("kept.rows has %q", got)
			}
		})
	}
	server := filepath.Join(fakeServer(t, "26.7.2.1"), serverName)
	signal := func(pid int) {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	f("library", "", func(int) {})
	f("library frozen", "", signal)
	f("server", server, func(int) {})
	f("server frozen", server, signal)
	f("server and watchdog frozen", server, func(engine int) {
		group, err := syscall.Getpgid(engine)
		if err != nil {
			t.Fatal(err)
		}
		signal(-group)
	})
}

// TestKilledParentAlone: the engine ends without anybody starting another, and at once, although it would wait for its
// clients for seconds if it merely saw the end of its input.
func TestKilledParentAlone(t *testing.T) {
	parent, engine, addr := startParent(t, t.TempDir(), "")
	stayConnected(t, addr)
	if err := parent.Kill(); err != nil {
		t.Fatal(err)
	}
	parent.Wait()
	for deadline := time.Now().Add(3 * time.Second); running(engine); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("process %d still runs 3 s after its parent was killed", engine)
		}
	}
}

// TestEngineOutlivesThread: the kernel's "die with your parent" looks at the thread that started the child, and Go
// ends the thread of a locked goroutine with it.
func TestEngineOutlivesThread(t *testing.T) {
	var c *embedded.ClickHouse
	var err error
	dir, log := t.TempDir(), enginetest.Log(t)
	onDyingThread(func() { c, err = start(t.Context(), dir, "", log) })
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context())
	if got := query(t, c.HTTPAddr(), "SELECT 1"); got != "1" {
		t.Errorf("SELECT 1 = %q", got)
	}
}

func TestEngineEndsByItself(t *testing.T) {
	c := mustStart(t, t.TempDir(), "")
	if err := syscall.Kill(c.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := receive(t, c.Done()); err == nil || !strings.Contains(err.Error(), "the engine ended: signal: killed") {
		t.Errorf("Done() yields %v", err)
	}
	if err := receive(t, c.Done()); err != nil {
		t.Errorf("Done() yields %v the second time", err)
	}
	if err := c.Close(t.Context()); err != nil {
		t.Errorf("Close() = %v", err)
	}
}

func TestCloseIsQuick(t *testing.T) {
	f := func(name, bin string, before func(*embedded.ClickHouse)) {
		t.Run(name, func(t *testing.T) {
			c := mustStart(t, t.TempDir(), bin)
			before(c)
			began := time.Now()
			if err := c.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took > 2*time.Second {
				t.Errorf("Close took %s", took)
			}
			if running(c.PID()) {
				t.Error("the engine still runs")
			}
			if err := receive(t, c.Done()); err != nil {
				t.Errorf("Done() yields %v", err)
			}
		})
	}
	f("idle", "", func(*embedded.ClickHouse) {})
	f("frozen", "", func(c *embedded.ClickHouse) { syscall.Kill(c.PID(), syscall.SIGSTOP) })
	f("server", filepath.Join(fakeServer(t, "26.7.2.1"), serverName), func(*embedded.ClickHouse) {})
	f("with a client connected", "", func(c *embedded.ClickHouse) { stayConnected(t, c.HTTPAddr()) })
}

// TestUsersDirectory: logins that others write beside users.xml count, with their grants.
func TestUsersDirectory(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "users.d", "units.xml"), `<clickhouse><users><unit>
		<password>secret</password><networks><ip>127.0.0.1</ip></networks><profile>default</profile><quota>default</quota>
		<grants><query>GRANT SELECT ON system.one</query></grants>
	</unit></users></clickhouse>`)
	c := mustStart(t, dir, "")
	f := func(sql, want string) {
		t.Helper()
		if _, got := post(t, "unit:secret@"+c.HTTPAddr(), sql); !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", sql, got, want)
		}
	}
	f("SELECT * FROM system.one", "0\n")
	f("SELECT * FROM system.users", "ACCESS_DENIED")
}

// TestOnlyThreePorts: nothing listens that nobody asked for, but the port behind the native one, and that on loopback only.
func TestOnlyThreePorts(t *testing.T) {
	c := mustStart(t, t.TempDir(), "")
	got := listening(t, c.PID())
	if len(got) != 3 || !slices.Contains(got, c.Addr()) || !slices.Contains(got, c.HTTPAddr()) {
		t.Errorf("the engine listens on %v, want %s, %s and one more", got, c.Addr(), c.HTTPAddr())
	}
	for _, addr := range got {
		if !strings.HasPrefix(addr, "127.0.0.1:") {
			t.Errorf("the engine listens on %s", addr)
		}
	}
}

func TestPortInUse(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	// A foreign server that says yes to everything must not be taken for our engine.
	foreign := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "Ok.\n") })}
	go foreign.Serve(taken)
	t.Cleanup(func() { foreign.Close() })
	addr := taken.Addr().String()

	f := func(flag string, start func() error) {
		t.Run(flag, func(t *testing.T) {
			wantError(t, start(), "another program listens on "+addr, "choose another address with "+flag+" (port 0")
		})
	}
	f("--clickhouse", func() error {
		_, err := embedded.StartClickHouse(t.Context(), embedded.ClickHouseConfig{Dir: t.TempDir(), Addr: addr, HTTPAddr: "127.0.0.1:0", Log: enginetest.Log(t)})
		return err
	})
	f("--clickhouse-http", func() error {
		_, err := embedded.StartClickHouse(t.Context(), embedded.ClickHouseConfig{Dir: t.TempDir(), Addr: "127.0.0.1:0", HTTPAddr: addr, Log: enginetest.Log(t)})
		return err
	})
	f("--nats", func() error {
		_, err := embedded.StartNATS(embedded.NATSConfig{Dir: t.TempDir(), Addr: addr, Log: enginetest.Log(t)})
		return err
	})
}

func TestAddressRefused(t *testing.T) {
	f := func(addr, want string) {
		_, err := embedded.StartNATS(embedded.NATSConfig{Dir: t.TempDir(), Addr: addr, Log: enginetest.Log(t)})
		wantError(t, err, "--nats", want)
		_, err = embedded.StartClickHouse(t.Context(), embedded.ClickHouseConfig{Dir: t.TempDir(), Addr: addr, HTTPAddr: "127.0.0.1:0", Log: enginetest.Log(t)})
		wantError(t, err, "--clickhouse", want)
	}
	f("0.0.0.0:0", "not a loopback address")
	f("192.0.2.1:9000", "not a loopback address")
	f("engine.example:9000", "not a loopback address")
	f("9000", "not HOST:PORT")
	f("127.0.0.1:port", "a number from 0 to 65535")
	f("127.0.0.1:65536", "a number from 0 to 65535")
}

func TestVersionOfDirectory(t *testing.T) {
	f := func(last, want string) {
		t.Run(last, func(t *testing.T) {
			dir := t.TempDir()
			marker := filepath.Join(dir, "engine-version")
			if err := os.WriteFile(marker, []byte(last+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			c, err := start(t.Context(), dir, "", enginetest.Log(t))
			if want != "" {
				wantError(t, err, want)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close(t.Context())
			if now, err := os.ReadFile(marker); err != nil || strings.TrimSpace(string(now)) == last {
				t.Errorf("the marker still says %q, %v", now, err)
			}
		})
	}
	f("25.8.1.1", "")
	f("99.1.2.3", "was written by ClickHouse 99.1.2.3, and this engine is 26.7.3, which is older: use the newer engine again, or choose another directory with --data")
	f("26.12", "was written by ClickHouse 26.12")
}

// TestDirectoryInUse: a second start waits, says for whom, and gives up when it is told to.
func TestDirectoryInUse(t *testing.T) {
	dir := t.TempDir()
	c := mustStart(t, dir, "")
	ctx, cancel := context.WithCancel(t.Context())
	said := &firstLine{then: cancel}
	_, err := start(ctx, dir, "", slog.New(slog.NewTextHandler(said, nil)))
	wantError(t, err, "context canceled")
	if want := fmt.Sprintf("dir=%s pid=%d\n", dir, c.PID()); !strings.HasSuffix(said.text, want) {
		t.Errorf("log says %q, want %q at its end", said.text, want)
	}
}

func TestDirectoryUnwritable(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(file, "data")
	_, err := start(t.Context(), dir, "", enginetest.Log(t))
	wantError(t, err, "cannot create the data directory "+dir+": not a directory; choose another with --data")
	_, err = embedded.StartNATS(embedded.NATSConfig{Dir: dir, Addr: "127.0.0.1:0", Log: enginetest.Log(t)})
	wantError(t, err, "cannot create the data directory "+dir+": not a directory; choose another with --data")
}

func TestEngineMissing(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Fatal(err)
	}
	checkout := t.TempDir()
	t.Chdir(checkout)
	t.Setenv("PATH", t.TempDir())
	f := func(bin string, want ...string) {
		t.Helper()
		_, err := start(t.Context(), t.TempDir(), bin, enginetest.Log(t))
		wantError(t, err, want...)
	}
	f("", "library is missing: run `make engine`", "POLYPHONY_CLICKHOUSE_BIN")
	f("/nowhere/clickhouse", "cannot run /nowhere/clickhouse: no such file", "POLYPHONY_CLICKHOUSE_BIN", "make engine")
	f(bash, "does not tell its version")
	f(filepath.Join(fakeServer(t, "18.16.1"), serverName), "is ClickHouse 18.16.1, and Polyphony needs 26.7 or later")

	writeFile(t, filepath.Join(checkout, "go.mod"), "module polyphony\n")
	writeFile(t, filepath.Join(checkout, "deploy/embedded/node_modules/@chdb/lib-linux-x64-gnu/libchdb.so"), "cut off")
	f("", "loading", "file too short", "fetch it again with `make engine`")
}

// TestEngineBesideProgram: programs in bin/ find the library from any working directory, whether it stands beside them
// or in the checkout that bin/ is part of.
func TestEngineBesideProgram(t *testing.T) {
	f := func(name, place string) {
		t.Run(name, func(t *testing.T) {
			checkout := t.TempDir()
			there := filepath.Join(checkout, place)
			if err := os.MkdirAll(filepath.Dir(there), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(library, there); err != nil {
				t.Fatal(err)
			}
			self, err := os.ReadFile(thisProgram(t))
			if err != nil {
				t.Fatal(err)
			}
			program := filepath.Join(checkout, "bin", "program")
			writeFile(t, program, string(self))
			if err := os.Chmod(program, 0o755); err != nil {
				t.Fatal(err)
			}
			t.Chdir("/")
			_, engine, _ := startProgram(t, program, t.TempDir(), "")
			if !running(engine) {
				t.Error("the engine does not run")
			}
		})
	}
	f("beside it", "bin/libchdb.so")
	f("in the checkout", "deploy/embedded/node_modules/@chdb/lib-linux-x64-gnu/libchdb.so")
}

// TestServerOnPath: a `clickhouse` on PATH is used when it is new enough, and does not stand in the way when it is not.
func TestServerOnPath(t *testing.T) {
	f := func(version string, want bool) {
		t.Run(version, func(t *testing.T) {
			t.Setenv("PATH", fakeServer(t, version)+string(os.PathListSeparator)+os.Getenv("PATH"))
			c := mustStart(t, t.TempDir(), "")
			// The library is our child; a server has its watchdog between.
			if got := stat(c.PID())[1] != strconv.Itoa(os.Getpid()); got != want {
				t.Errorf("the server was used: %t, want %t", got, want)
			}
		})
	}
	f("26.7.2.1", true)
	f("18.16.1", false)
}

// TestNATSKeepsStreams speaks the protocol by hand: only pkg/bus knows the client.
func TestNATSKeepsStreams(t *testing.T) {
	dir := t.TempDir()
	for round := range 2 {
		before := len(listening(t, os.Getpid()))
		n, err := embedded.StartNATS(embedded.NATSConfig{Dir: dir, Addr: "127.0.0.1:0", Log: enginetest.Log(t)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(n.Close)
		if got := len(listening(t, os.Getpid())); got != before+1 {
			t.Errorf("%d more ports are open, want 1", got-before)
		}
		if n.URL() != "nats://"+n.Addr() {
			t.Errorf("URL() = %s, Addr() = %s", n.URL(), n.Addr())
		}
		conn, err := net.Dial("tcp", n.Addr())
		if err != nil {
			t.Fatal(err)
		}
		in := bufio.NewReader(conn)
		info, err := in.ReadString('\n')
		if err != nil || !strings.Contains(info, `"max_payload":8388608`) || !strings.Contains(info, `"jetstream":true`) {
			t.Errorf("the server says %q, %v", info, err)
		}
		fmt.Fprintf(conn, "CONNECT {\"verbose\":false}\r\nSUB answer 1\r\n")
		ask := func(subject, body string) string {
			fmt.Fprintf(conn, "PUB %s answer %d\r\n%s\r\n", subject, len(body), body)
			for {
				line, err := in.ReadString('\n')
				if err != nil {
					t.Fatal(err)
				}
				if strings.HasPrefix(line, "MSG ") {
					answer, _ := in.ReadString('\n')
					return answer
				}
			}
		}
		if round == 0 {
			// As large as a stream gets: a small disk must not stop it from being made.
			if got := ask("$JS.API.STREAM.CREATE.KEPT", `{"name":"KEPT","subjects":["kept"],"storage":"file","retention":"limits","max_bytes":274877906944}`); strings.Contains(got, "error") {
				t.Fatal(got)
			}
			if got := ask("kept", "one"); !strings.Contains(got, `"seq":1`) {
				t.Fatal(got)
			}
		} else if got := ask("$JS.API.STREAM.INFO.KEPT", ""); !strings.Contains(got, `"messages":1`) {
			t.Errorf("after a restart the stream is %s", got)
		}
		conn.Close()
		n.Close()
		n.Close()
	}
}

// startParent starts this program as the parent of an engine.
func startParent(t *testing.T, dir, bin string) (parent *os.Process, engine int, httpAddr string) {
	t.Helper()
	return startProgram(t, thisProgram(t), dir, bin)
}

func thisProgram(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return self
}

// startProgram starts a copy of this program as the parent of an engine.
func startProgram(t *testing.T, program, dir, bin string) (parent *os.Process, engine int, httpAddr string) {
	t.Helper()
	cmd := &exec.Cmd{Path: program, Args: []string{parentName, dir, bin}, Stderr: t.Output()}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscanf(line, "ready %d %s", &engine, &httpAddr); err != nil {
		t.Fatalf("the parent says %q", line)
	}
	return cmd.Process, engine, httpAddr
}

// running reports whether a process exists and is more than a zombie that nobody has waited for.
func running(pid int) bool {
	state := stat(pid)[0]
	return state != "" && state != "Z" && state != "X"
}

// stat gives the state of a process and its parent, empty if there is no such process.
func stat(pid int) [2]string {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return [2]string{}
	}
	_, rest, _ := strings.Cut(string(text), ") ") // the name may hold anything else
	return [2]string(strings.Fields(rest)[:2])
}

// listening gives the TCP addresses that a process listens on.
func listening(t *testing.T, pid int) []string {
	t.Helper()
	owned := map[string]bool{}
	fds := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(fds)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		link, _ := os.Readlink(filepath.Join(fds, entry.Name()))
		if inode, ok := strings.CutPrefix(link, "socket:["); ok {
			owned[strings.TrimSuffix(inode, "]")] = true
		}
	}
	var addrs []string
	for _, table := range []string{"tcp", "tcp6"} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, table))
		if err != nil {
			continue // no IPv6 here
		}
		for line := range strings.Lines(string(text)) {
			const listen = "0A"
			field := strings.Fields(line)
			if len(field) < 10 || field[3] != listen || !owned[field[9]] {
				continue
			}
			var ip, port uint32
			if _, err := fmt.Sscanf(field[1], "%x:%x", &ip, &port); err != nil {
				t.Fatalf("%s: %q", table, line)
			}
			addrs = append(addrs, fmt.Sprintf("%s:%d", net.IPv4(byte(ip), byte(ip>>8), byte(ip>>16), byte(ip>>24)), port))
		}
	}
	return addrs
}

func query(t *testing.T, addr, sql string) string {
	t.Helper()
	status, answer := post(t, addr, sql)
	if status != http.StatusOK {
		t.Fatalf("%s: %d %s", sql, status, answer)
	}
	return strings.TrimSpace(answer)
}

func post(t *testing.T, addr, sql string) (status int, answer string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Post("http://"+addr+"/", "text/plain", strings.NewReader(sql))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// stayConnected asks once and keeps the connection open until the test ends.
func stayConnected(t *testing.T, httpAddr string) {
	t.Helper()
	conn, err := net.Dial("tcp", httpAddr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	io.WriteString(conn, "GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
	if answer, err := bufio.NewReader(conn).ReadString('\n'); err != nil || !strings.Contains(answer, "200") {
		t.Fatalf("the engine says %q, %v", answer, err)
	}
}

// wantError checks for an error of one line that holds all of want.
func wantError(t *testing.T, err error, want ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", want)
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("more than one line: %q", err)
	}
	for _, part := range want {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not hold %q", err, part)
		}
	}
}

func receive(t *testing.T, from <-chan error) error {
	t.Helper()
	select {
	case err := <-from:
		return err
	case <-time.After(10 * time.Second):
		t.Fatal("nothing within 10 s")
		return nil
	}
}

func onDyingThread(do func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		do()
	}()
	<-done
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// firstLine keeps the first thing that is written to it, and then does something.
type firstLine struct {
	once sync.Once
	text string
	then func()
}

func (l *firstLine) Write(p []byte) (int, error) {
	l.once.Do(func() {
		l.text = string(p)
		l.then()
	})
	return len(p), nil
}
