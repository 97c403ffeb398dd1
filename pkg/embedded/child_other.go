//go:build !linux

package embedded

import (
	"errors"
	"syscall"
)

const libraryPlatform = false

func serveLibrary(path, dir, addr, behind string) error {
	return errors.New("the engine library exists for linux-x64 only")
}

// dieWithParent can do nothing here: the pipe alone ends the engine with its parent.
func dieWithParent(attr *syscall.SysProcAttr) *syscall.SysProcAttr { return attr }

func nameProcess(string) {}
