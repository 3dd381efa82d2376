//go:build linux && cgo && (amd64 || arm64)

package runc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/slipway-build/slipway/engine/sandbox"
)

const defaultGrace = 10 * time.Second

// Executor runs processes in containers. Its methods may be called concurrently.
type Executor struct {
	opts     Options
	caps     capabilities
	instance *instance
	cgroups  *cgroupFS
	guard    guard
}

var _ sandbox.Executor = (*Executor)(nil)

// New returns an Executor that keeps its state in opts.Root, after removing
// what killed processes left there.
func New(opts Options) (*Executor, error) {
	if opts.Root == "" {
		return nil, errors.New("run containers: no state directory is set")
	}
	if opts.Grace == 0 {
		opts.Grace = defaultGrace
	}
	caps, err := ownCapabilities()
	if err != nil {
		return nil, fmt.Errorf("get capabilities: %w", err)
	}
	// libcontainer passes it on to what it starts, where one is enough for the
	// few milliseconds until the process takes its place. The process itself
	// does not get it.
	if err := os.Setenv("GOMAXPROCS", "1"); err != nil {
		return nil, err
	}
	logrus.SetOutput(io.Discard) // libcontainer's warnings; what matters are its errors
	inst, err := openInstance(opts.Root)
	if err != nil {
		return nil, fmt.Errorf("open sandbox state %s: %w", opts.Root, err)
	}
	groups, err := openCgroups(inst)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("look for cgroups: %w", err), inst.close())
	}
	return &Executor{opts: opts, caps: caps, instance: inst, cgroups: groups}, nil
}

// Close ends the executor, and removes what it keeps on disk. No run may be in
// progress.
func (e *Executor) Close() error { return errors.Join(e.guard.close(), e.instance.close()) }

// Run runs spec's process and waits for it.
//
// A process that does not handle SIGTERM would not notice it, because it is
// process 1 of its container: if ctx is cancelled it is killed at once.
func (e *Executor) Run(ctx context.Context, spec sandbox.Spec) error {
	if err := check(spec); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	parent := spec.CgroupParent
	if parent == "" {
		parent = e.opts.CgroupParent
	}
	group, err := e.cgroups.group(parent)
	if err != nil {
		return err
	}
	r := &run{executor: e, spec: spec, group: group}
	onOwnThread(func() { err = r.run(ctx) })
	return err
}

// check refuses specs that make no sense.
func check(spec sandbox.Spec) error {
	switch {
	case !validID(spec.ID):
		return fmt.Errorf("run container: ID %q is not valid", spec.ID)
	case len(spec.Args) == 0 || spec.Args[0] == "":
		return errors.New("run container: no command is given")
	case spec.Network > sandbox.NoNetwork:
		return fmt.Errorf("run container: network %d is not supported", spec.Network)
	case spec.ShmSize < 0:
		return fmt.Errorf("run container: size %d of /dev/shm is negative", spec.ShmSize)
	}
	return nil
}

func validID(id string) bool {
	other := func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' }
	return id != "" && len(id) <= 64 && !strings.ContainsFunc(id, other)
}
