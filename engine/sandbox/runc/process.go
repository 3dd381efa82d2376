//go:build linux && cgo && (amd64 || arm64)

package runc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"github.com/opencontainers/runc/libcontainer"
	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/engine/sandbox"
)

// start starts the process, waits for it, and takes the container apart.
func (r *run) start(ctx context.Context) (err error) {
	limits, err := limits(r.spec.Ulimits, r.executor.caps)
	if err != nil {
		return err
	}
	shim, err := r.newStart(limits)
	if err != nil {
		return err
	}
	io, err := r.openFiles(shim)
	if err != nil {
		return err
	}
	defer io.close()
	config := r.config()
	c, err := libcontainer.Create(r.executor.instance.path("run"), r.spec.ID, config)
	if err != nil {
		return fmt.Errorf("create container: %w", err)
	}
	// libcontainer would start a thread that opens sources of mounts from within
	// the container's mount namespace. There are none to open, and the thread
	// would keep our mounts for a while after the container has ended. Only a
	// configuration that has passed as one for root may say so.
	config.RootlessEUID = true
	defer func() {
		if derr := c.Destroy(); err == nil && derr != nil {
			err = fmt.Errorf("remove container: %w", derr)
		}
	}()
	p := &libcontainer.Process{
		Init:       true,
		Args:       []string{"/proc/self/fd/" + strconv.Itoa(shimFD)},
		Env:        []string{"HOME=/"}, // else libcontainer would look for it in the image
		Stdin:      r.null,
		Stdout:     io.out.stdout,
		Stderr:     io.out.stderr,
		ExtraFiles: []*os.File{io.shim, io.reports},
	}
	oom := r.group.countOOM(r.spec.ID)
	if err := r.launch(c, p); err != nil {
		return fmt.Errorf("start container: %w", err)
	}
	io.release()
	stop := r.stopWhenDone(ctx, p)
	state, err := p.Wait()
	cancelled := stop()
	outcome := io.drain(shim)
	switch _, isExit := errors.AsType[*exec.ExitError](err); {
	case cancelled:
		return context.Cause(ctx)
	case outcome != nil:
		return outcome
	case err != nil && !isExit:
		return fmt.Errorf("wait for process: %w", err)
	default:
		return exitError(state, oom)
	}
}

// launch starts p in c. It is under guard before it does anything.
func (r *run) launch(c *libcontainer.Container, p *libcontainer.Process) error {
	if err := c.Start(p); err != nil {
		return err
	}
	pid, err := p.Pid()
	if err == nil {
		err = r.executor.guard.watch(pid)
	}
	if err == nil {
		err = c.Exec()
	}
	if err != nil {
		_ = p.Signal(unix.SIGKILL)
		_, _ = p.Wait()
	}
	return err
}

// files are those that the container's process starts with.
type files struct {
	out     *output
	shim    *os.File
	reports *os.File // to write to

	readReports *os.File
}

func (r *run) openFiles(shim *start) (*files, error) {
	program, err := shim.file()
	if err != nil {
		return nil, err
	}
	pr, pw, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, program.Close())
	}
	f := &files{shim: program, reports: pw, readReports: pr}
	if f.out, err = newOutput(r.spec.Stdout, r.spec.Stderr); err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

// release closes what only the container needs, so that the ends of pipes are
// seen.
func (f *files) release() {
	_ = f.shim.Close()
	_ = f.reports.Close()
	if f.out != nil {
		f.out.closeOurs()
	}
}

// drain waits for all that the container's processes wrote, after they ended.
func (f *files) drain(shim *start) error {
	reports, err := readReports(f.readReports)
	if err != nil {
		return fmt.Errorf("read reports of the container's start: %w", err)
	}
	return errors.Join(shim.outcome(reports), f.out.drain())
}

// close ends it all, also after release and drain.
func (f *files) close() {
	f.release()
	_ = f.readReports.Close()
	if f.out != nil {
		_ = f.out.drain()
	}
}

// exitError says how the process ended.
func exitError(state *os.ProcessState, oom oomCounter) error {
	if state.Success() {
		return nil
	}
	ws, ok := state.Sys().(syscall.WaitStatus)
	if !ok {
		return fmt.Errorf("wait for process: %v", state)
	}
	e := &sandbox.ExitError{Code: ws.ExitStatus()}
	if ws.Signaled() {
		e.Code, e.Signal = 128+int(ws.Signal()), ws.Signal().String()
	}
	e.OOMKilled = oom.killed(e.Code)
	return e
}

// stopWhenDone ends the container when ctx is cancelled. The function that it
// returns must be called when the process has ended; it says whether ctx was
// cancelled before that.
func (r *run) stopWhenDone(ctx context.Context, p *libcontainer.Process) func() bool {
	ended := make(chan struct{})
	done := make(chan bool)
	go func() {
		select {
		case <-ended:
			done <- false
			return
		case <-ctx.Done():
		}
		if pid, err := p.Pid(); err == nil && handlesTerm(pid) && p.Signal(unix.SIGTERM) == nil {
			grace := time.NewTimer(r.executor.opts.Grace)
			defer grace.Stop()
			select {
			case <-ended:
			case <-grace.C:
			}
		}
		_ = p.Signal(unix.SIGKILL) // takes all others of the PID namespace along
		<-ended
		done <- true
	}()
	return func() bool {
		close(ended)
		return <-done
	}
}

// handlesTerm says whether the process pid has a handler for SIGTERM. As
// process 1 of its namespace it does not get the signal otherwise.
func handlesTerm(pid int) bool {
	status, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return false
	}
	handled, err := statusMask(status, "SigCgt")
	return err == nil && handled&(1<<(unix.SIGTERM-1)) != 0
}
