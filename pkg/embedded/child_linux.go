package embedded

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"github.com/ebitengine/purego"
)

// serveLibrary is the engine: a clickhouse-local with listeners whose last query reads standard input, so that it
// lives until its parent closes the pipe. It returns nil when that query ended in good order. Its native port is behind a
// relay that listens on addr.
func serveLibrary(path, dir, addr, behind string) error {
	clients, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	go relay(clients, behind)
	runtime.LockOSThread()
	lib, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_GLOBAL)
	if err != nil {
		return fmt.Errorf("loading %s: %w; fetch it again with `make engine`", path, err)
	}
	var (
		version     func() string
		queryCmd    func(argc int32, argv unsafe.Pointer) uintptr
		resultError func(result uintptr) string
	)
	purego.RegisterLibFunc(&version, lib, "chdb_version")
	purego.RegisterLibFunc(&queryCmd, lib, "chdb_query_cmdline")
	purego.RegisterLibFunc(&resultError, lib, "chdb_result_error")

	if err := checkVersion(dir, version()); err != nil {
		return err
	}
	args := []string{
		"clickhouse", "--config-file=" + configFile(dir),
		"--query=SYSTEM START LISTEN TCP; SYSTEM START LISTEN HTTP; SELECT count() FROM table FORMAT Null",
		"--structure=line String", "--input-format=LineAsString",
		"--log-level=warning", // the file's level does not count here
	}
	argv := make([]*byte, len(args)+1)
	for i, arg := range args {
		argv[i] = &append([]byte(arg), 0)[0]
	}
	result := queryCmd(int32(len(args)), unsafe.Pointer(&argv[0]))
	runtime.KeepAlive(argv)
	if result == 0 {
		return errors.New("the engine gave no answer")
	}
	// A failed start has a result too; its error may also stand on standard error only.
	if text := resultError(result); text != "" {
		return errors.New(text)
	}
	return nil
}

// dieWithParent makes the kernel kill the child when the thread that started it ends, even if the child is stopped.
func dieWithParent(attr *syscall.SysProcAttr) *syscall.SysProcAttr {
	attr.Pdeathsig = syscall.SIGKILL
	return attr
}

// nameProcess is what ps and top show. A failure changes nothing else.
func nameProcess(name string) { _ = os.WriteFile("/proc/self/comm", []byte(name), 0) }

const libraryPlatform = runtime.GOARCH == "amd64"
