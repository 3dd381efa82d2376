//go:build linux && cgo && (amd64 || arm64)

package runc

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// A guard is a process that kills containers when this process is gone. The
// kernel does that by itself, as their first process asks for it, but forgets it
// when that process becomes another user: RUN su, RUN gosu, RUN sudo. The guard
// holds a descriptor of every first process, and learns of our end by the end
// of a connection. Then it also removes what is left of the instance. It is this
// binary again, started once, when it is needed.
type guard struct {
	instance *instance

	mu   sync.Mutex
	conn *os.File // nil: not started
	cmd  *exec.Cmd
}

// guardFD is where the guard has its end of the connection.
const guardFD = 3

// watch puts the process pid, which must not have been waited for, under guard.
// When it returns, it is, even if this process ends right now.
func (g *guard) watch(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("guard container: pidfd_open: %w", err)
	}
	defer unix.Close(fd)
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.send(fd); err == nil {
		return nil
	}
	// There is none yet, or somebody killed it. It must not be born into the
	// namespaces and cgroups of the calling thread.
	started := make(chan error)
	go func() { started <- g.start() }()
	if err := <-started; err != nil {
		return fmt.Errorf("guard container: %w", err)
	}
	if err := g.send(fd); err != nil {
		return fmt.Errorf("guard container: %w", err)
	}
	return nil
}

func (g *guard) send(fd int) error {
	if g.conn == nil {
		return errors.New("not started")
	}
	return unix.Sendmsg(int(g.conn.Fd()), []byte{0}, unix.UnixRights(fd), nil, unix.MSG_NOSIGNAL)
}

// start starts the process, in a session of its own: what ends us by our
// terminal or process group must not end it.
func (g *guard) start() error {
	_ = g.stop()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socketpair", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "guard"), os.NewFile(uintptr(fds[1]), "guard")
	defer theirs.Close()
	cmd := exec.Command("/proc/self/exe", "init", "guard", g.instance.dir) //nolint:noctx // it outlives every context
	cmd.Args[0] = os.Args[0]
	cmd.Dir = "/"
	cmd.Env = []string{"GOMAXPROCS=1"}
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return errors.Join(err, ours.Close())
	}
	g.conn, g.cmd = ours, cmd
	return nil
}

// stop ends the process. No container may be running.
func (g *guard) stop() error {
	if g.conn == nil {
		return nil
	}
	// A message without a descriptor says that all is in order.
	_ = unix.Sendmsg(int(g.conn.Fd()), []byte{0}, nil, nil, unix.MSG_NOSIGNAL)
	err := g.conn.Close()
	_ = g.cmd.Wait() // however it ended
	g.conn, g.cmd = nil, nil
	return err
}

// close is stop for those who do not hold the lock.
func (g *guard) close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.stop()
}

// errEnd is the end that was announced.
var errEnd = errors.New("nothing more to guard")

// keepGuard is the guard's process: it takes descriptors of processes, until
// they end or the connection does. Then it kills those that are left, and
// removes the instance in dir.
func keepGuard(dir string) {
	watched := []unix.PollFd{{Fd: guardFD, Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(watched, -1)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		watched = running(watched)
		if err == nil && watched[0].Revents == 0 {
			continue
		}
		fd, err := receive()
		if errors.Is(err, errEnd) {
			return
		}
		if err != nil {
			break
		}
		watched = append(watched, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	}
	for _, p := range watched[1:] {
		_ = unix.PidfdSendSignal(int(p.Fd), unix.SIGKILL, nil, 0)
	}
	removeDead(dir, watched)
}

// running returns watched without the processes that have ended.
func running(watched []unix.PollFd) []unix.PollFd {
	left := watched[:1]
	for _, p := range watched[1:] {
		if p.Revents != 0 {
			_ = unix.Close(int(p.Fd))
			continue
		}
		left = append(left, p)
	}
	return left
}

// removeDead removes the instance in dir once its process and its containers are
// gone. What it can't remove within a few seconds is left to the next one.
func removeDead(dir string, watched []unix.PollFd) {
	for range 500 {
		_, _ = unix.Poll(watched[1:], 10) // milliseconds
		if watched = running(watched); len(watched) > 1 {
			continue
		}
		dead := &instance{name: filepath.Base(dir), dir: dir}
		var err error
		if dead.lock, err = lock(dead.path("lock"), unix.LOCK_EX|unix.LOCK_NB); err == nil {
			err = dead.close()
		}
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return
		}
	}
}

// receive takes a descriptor from the connection.
func receive() (int, error) {
	buf, oob := make([]byte, 1), make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := unix.Recvmsg(guardFD, buf, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return -1, err
	}
	if n == 0 {
		return -1, errors.New("the connection has ended")
	}
	if oobn == 0 {
		return -1, errEnd
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(messages) != 1 {
		return -1, fmt.Errorf("receive descriptor: %d messages, %w", len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return -1, fmt.Errorf("receive descriptor: %d of them, %w", len(fds), err)
	}
	return fds[0], nil
}
