//go:build linux && cgo && (amd64 || arm64)

package runc

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/engine/sandbox"
)

// onOwnThread runs fn on a thread that ends with it, so that fn may change what
// belongs to a thread, and returns when fn has.
func onOwnThread(fn func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and not unlocked: the thread ends with the goroutine
		if unix.Gettid() == unix.Getpid() {
			// The main thread can't end. While it is held here, another is taken.
			onOwnThread(fn)
			runtime.UnlockOSThread()
			return
		}
		fn()
	}()
	<-done
}

// unshare gives the calling thread the namespaces that the container is to have,
// which it inherits: all but the PID namespace, in which only children are. So
// their filesystems can be mounted from here, cheaply. The mount namespace is
// only the one that the container's own is made from.
func (r *run) unshare() error {
	flags := unix.CLONE_FS | unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS
	if r.spec.Network == sandbox.NoNetwork {
		flags |= unix.CLONE_NEWNET
	}
	if err := unix.Unshare(flags); err != nil {
		return fmt.Errorf("make namespaces: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Sethostname([]byte(hostname(r.spec))); err != nil {
		return fmt.Errorf("set host name %q: %w", hostname(r.spec), err)
	}
	unix.Umask(0) // of this thread: CLONE_FS
	if r.spec.Network == sandbox.NoNetwork {
		return startLoopback()
	}
	return nil
}

// startLoopback brings up the loopback interface of the thread's network.
func startLoopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("start loopback: %w", err)
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("start loopback: %w", err)
	}
	lo.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo); err != nil {
		return fmt.Errorf("start loopback: %w", err)
	}
	return nil
}
