//go:build linux && cgo && (amd64 || arm64)

package runc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"
	"unicode"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/engine/diag"
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
	if err := probe(caps); err != nil {
		return nil, err
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
	return &Executor{opts: opts, caps: caps, instance: inst, cgroups: groups, guard: guard{instance: inst}}, nil
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
	case strings.Contains(strings.Join(spec.Args, "")+spec.Dir, "\x00"):
		return errors.New("run container: the command or its directory contains a zero byte")
	case !path.IsAbs(spec.Dir):
		return fmt.Errorf("run container: working directory %q is not absolute", spec.Dir)
	case len(spec.Hostname) > 64 || strings.ContainsFunc(spec.Hostname, notInName):
		return fmt.Errorf("run container: host name %q is not valid", spec.Hostname)
	case spec.Network > sandbox.NoNetwork:
		return fmt.Errorf("run container: network %d is not supported", spec.Network)
	case spec.ShmSize < 0:
		return fmt.Errorf("run container: size %d of /dev/shm is negative", spec.ShmSize)
	}
	return nil
}

// notInName says whether r has a meaning of its own in /etc/hosts.
func notInName(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) || r == '#' }

// probe finds out whether this process may do what every run does.
func probe(own capabilities) error {
	const hint = "Run as root with all capabilities, or choose another isolation level."
	if own.permitted&(1<<unix.CAP_SYS_ADMIN) == 0 {
		return diag.Hint(errors.New("run containers: this process has no CAP_SYS_ADMIN"), hint)
	}
	var err error
	onOwnThread(func() {
		if err = (&run{}).unshare(); err != nil {
			return
		}
		var f *os.File
		if f, err = newMount("tmpfs", unix.MOUNT_ATTR_NOSUID); err == nil {
			err = errors.Join(setAttr(f, unix.MOUNT_ATTR_RDONLY), f.Close())
		}
	})
	if err != nil {
		return diag.Hint(fmt.Errorf("run containers: %w", err), hint)
	}
	return nil
}

func validID(id string) bool {
	other := func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' }
	return id != "" && len(id) <= 64 && !strings.ContainsFunc(id, other)
}
