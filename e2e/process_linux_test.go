package e2e

import (
	"os/exec"
	"syscall"
)

// endWithTest makes the kernel end a program with the test, should that be killed or time out. The kernel goes by the
// thread that started the program; Go keeps its threads.
func endWithTest(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
