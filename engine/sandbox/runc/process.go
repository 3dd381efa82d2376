//go:build linux && cgo

package runc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/engine/sandbox"
)

// start starts the process, waits for it, and takes the container apart.
func (r *run) start(ctx context.Context) (err error) {
	c, err := r.create()
	if err != nil {
		return err
	}
	defer func() {
		if derr := c.Destroy(); err == nil {
			err = derr
		}
	}()
	out, err := newOutput(r.spec.Stdout, r.spec.Stderr)
	if err != nil {
		return err
	}
	p := r.process(out)
	if err := c.Run(p); err != nil {
		return errors.Join(err, out.drain())
	}
	stop := r.stopWhenDone(ctx, p)
	state, err := p.Wait()
	cancelled := stop()
	if oerr := out.drain(); oerr != nil && !cancelled {
		return oerr
	}
	if cancelled {
		return context.Cause(ctx)
	}
	if _, isExit := errors.AsType[*exec.ExitError](err); err != nil && !isExit {
		return fmt.Errorf("wait for process: %w", err)
	}
	return exitError(state)
}

func (r *run) process(out *output) *libcontainer.Process {
	caps := defaultCaps
	return &libcontainer.Process{
		Init:             true,
		Args:             r.spec.Args,
		Env:              r.env,
		Cwd:              r.spec.Dir,
		UID:              r.user.uid,
		GID:              r.user.gid,
		AdditionalGroups: r.user.groups,
		Capabilities:     &configs.Capabilities{Bounding: caps, Effective: caps, Permitted: caps},
		Stdin:            r.null,
		Stdout:           out.stdout,
		Stderr:           out.stderr,
	}
}

// exitError says how the process ended.
func exitError(state *os.ProcessState) error {
	if state.Success() {
		return nil
	}
	ws, ok := state.Sys().(syscall.WaitStatus)
	if !ok {
		return fmt.Errorf("wait for process: %v", state)
	}
	if ws.Signaled() {
		return &sandbox.ExitError{Code: 128 + int(ws.Signal()), Signal: ws.Signal().String()}
	}
	return &sandbox.ExitError{Code: ws.ExitStatus()}
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
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		if mask, ok := strings.CutPrefix(line, "SigCgt:"); ok {
			n, err := strconv.ParseUint(strings.TrimSpace(mask), 16, 64)
			return err == nil && n&(1<<(unix.SIGTERM-1)) != 0
		}
	}
	return false
}
