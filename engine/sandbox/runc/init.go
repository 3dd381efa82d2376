//go:build linux && cgo && (amd64 || arm64)

package runc

import (
	"os"
	"os/signal"

	"github.com/opencontainers/runc/libcontainer"
	_ "github.com/opencontainers/runc/libcontainer/nsenter" // joins and makes namespaces before Go starts
	"golang.org/x/sys/unix"
)

// Init must be called by an init function of package main, and of every test
// package that runs containers. This binary is started again, with the argument
// "init", by libcontainer to set up a container from the inside, and as the
// guard of containers; then Init does that and does not return. Otherwise it
// does nothing.
//
// The container's first process asks for SIGKILL when its parent goes, which
// libcontainer does only for the process that it starts first, not for the one
// that this becomes.
func Init() {
	if len(os.Args) < 2 || os.Args[1] != "init" {
		return
	}
	if len(os.Args) == 4 && os.Args[2] == "guard" {
		keepGuard(os.Args[3])
		os.Exit(0) //nolint:forbidigo // as libcontainer.Init does
	}
	// It can't fail; and if the parent is gone already, its pipes are closed.
	_ = unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0)
	// What nohup ignores Go leaves ignored, and so would the container. A signal
	// that is caught is the default again after exec.
	signal.Notify(make(chan os.Signal, 1), unix.SIGHUP, unix.SIGINT)
	libcontainer.Init()
}
