package run

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/engine/diag"
	"github.com/slipway-build/slipway/engine/graph"
	"github.com/slipway-build/slipway/engine/inroot"
	"github.com/slipway-build/slipway/engine/progress"
	"github.com/slipway-build/slipway/engine/sandbox"
	"github.com/slipway-build/slipway/engine/snapshot"
	"github.com/slipway-build/slipway/engine/solve"
	"github.com/slipway-build/slipway/engine/tree"
)

// exec runs a command on top of the task's first input.
func (r *Runner) exec(ctx context.Context, op graph.Exec, task solve.Task) (tree.Layer, error) {
	if err := checkRunnable(op.Platform, "/proc/sys/fs/binfmt_misc"); err != nil {
		return tree.Layer{}, err
	}
	draft, err := r.Trees.Draft(ctx, task.In[0].Tree)
	if err != nil {
		return tree.Layer{}, err
	}
	defer draft.Discard() //nolint:errcheck // what is left is removed at the next start

	m := &mounter{runner: r, task: task}
	defer m.release()
	mounts, err := m.mounts(ctx, op.Mounts)
	if err != nil {
		return tree.Layer{}, err
	}
	out := &output{sink: r.Progress, step: task.Step, name: task.Node.Label}
	stdout, stderr := out.stream(), out.stream()
	err = r.Executor.Run(ctx, sandbox.Spec{
		ID:           runID(),
		Args:         op.Args,
		Env:          slices.Concat(op.Env, op.Proxy),
		Dir:          op.Dir,
		User:         op.User,
		Root:         draft.Mount(),
		Mounts:       mounts,
		Network:      network(op.Network),
		Insecure:     op.Security == graph.SecurityInsecure,
		Hostname:     op.Hostname,
		Hosts:        hosts(op.Hosts),
		ShmSize:      op.ShmSize,
		Ulimits:      ulimits(op.Ulimits),
		CgroupParent: op.CgroupParent,
		Stdout:       stdout,
		Stderr:       stderr,
	})
	stdout.flush()
	stderr.flush()
	if err != nil {
		return tree.Layer{}, explain(err, op, draft.Dir())
	}
	return r.commit(ctx, draft, task.In[0].Tree)
}

// explain says which command it was, as BuildKit does. It wrote to dir.
func explain(err error, op graph.Exec, dir string) error {
	exit, ok := errors.AsType[*sandbox.ExitError](err)
	if !ok {
		return err
	}
	err = fmt.Errorf("process %q did not complete successfully: %w", strings.Join(op.Args, " "), err)
	switch {
	case full(dir):
		return diag.Hint(err, "The disk of %s is full. Make room, for example with slipway prune, or name another directory with --root.", dir)
	case exit.OOMKilled:
		return diag.Hint(err, "Give the build more memory, or run fewer steps at once: --max-parallelism 1.")
	case exit.Code == 127:
		return diag.Hint(err, "A command was not found. Is it installed in an earlier step, and is its directory in PATH?")
	case exit.Code == 126:
		return diag.Hint(err, "A command could not be executed. Is the file executable, and made for this platform?")
	}
	return err
}

// full reports whether the disk of dir has next to nothing left.
func full(dir string) bool {
	const little = 256 << 10
	var st unix.Statfs_t
	err := unix.Statfs(dir, &st)
	return err == nil && (int64(st.Bavail)*st.Bsize < little || st.Files > 0 && st.Ffree == 0)
}

func network(m graph.NetworkMode) sandbox.Network {
	if m == graph.NetworkNone {
		return sandbox.NoNetwork
	}
	return sandbox.HostNetwork
}

func hosts(in []graph.Host) []sandbox.Host {
	out := make([]sandbox.Host, len(in))
	for i, h := range in {
		out[i] = sandbox.Host(h)
	}
	return out
}

func ulimits(in []graph.Ulimit) []sandbox.Ulimit {
	out := make([]sandbox.Ulimit, len(in))
	for i, u := range in {
		out[i] = sandbox.Ulimit(u)
	}
	return out
}

// A mounter makes what a RUN mounts, and takes it away again.
type mounter struct {
	runner   *Runner
	task     solve.Task
	releases []func()
}

// release undoes what mounts did, last first.
func (m *mounter) release() {
	for _, undo := range slices.Backward(m.releases) {
		undo()
	}
}

func (m *mounter) mounts(ctx context.Context, in []graph.Mount) ([]sandbox.Mount, error) {
	var out []sandbox.Mount
	for _, g := range in {
		s, skip, err := m.mount(ctx, g)
		if err != nil {
			return nil, fmt.Errorf("mount %s at %s: %w", g.Type, g.Target, err)
		}
		if !skip {
			out = append(out, s)
		}
	}
	return out, nil
}

func (m *mounter) mount(ctx context.Context, g graph.Mount) (s sandbox.Mount, skip bool, err error) {
	s = sandbox.Mount{Target: g.Target, ReadOnly: g.ReadOnly}
	switch g.Type {
	case graph.MountBind:
		s.Tree, s.Path, err = m.bind(ctx, g)
	case graph.MountCache:
		s.Dir, err = m.cache(ctx, g)
	case graph.MountTmpfs:
		s.Tmpfs = &sandbox.Tmpfs{Size: g.Size} // with the mode of what it covers, or 1777
	case graph.MountSecret, graph.MountSSH:
		// No build of this version is given any: one that is required is missing.
		if g.Required {
			return s, false, fmt.Errorf("%s %q is required: giving a build secrets or SSH agents is not in this version", g.Type, g.ID)
		}
		return s, true, nil
	}
	return s, false, err
}

// bind shows files of a tree. What a RUN writes into it, if it may, is lost.
func (m *mounter) bind(ctx context.Context, g graph.Mount) (*snapshot.Mount, string, error) {
	read := m.task.In[g.Input]
	if read.Tree.Local != "" {
		return m.bindLocal(ctx, g, read)
	}
	if g.ReadOnly {
		mount, err := m.runner.Trees.Mount(ctx, read.Tree)
		return &mount, g.Source, err
	}
	draft, err := m.runner.Trees.Draft(ctx, read.Tree)
	if err != nil {
		return nil, "", err
	}
	m.discard(draft)
	mount := draft.Mount()
	return &mount, g.Source, nil
}

// bindLocal shows files of a build context: copies of those that are selected,
// with the owner 0:0, never the directory of the host itself (INVARIANTS 7).
func (m *mounter) bindLocal(ctx context.Context, g graph.Mount, read solve.Read) (*snapshot.Mount, string, error) {
	draft, err := m.runner.Trees.Draft(ctx, tree.Tree{})
	if err != nil {
		return nil, "", err
	}
	m.discard(draft)
	view, err := m.runner.Trees.View(ctx, read.Tree)
	if err != nil {
		return nil, "", err
	}
	defer view.Close()
	dst, err := inroot.Open(draft.Dir())
	if err != nil {
		return nil, "", err
	}
	defer dst.Close()
	if err := selectInto(ctx, view, *m.task.Node.Inputs[g.Input].Select, read, dst); err != nil {
		return nil, "", err
	}
	mount := snapshot.Mount{Type: "bind", Source: draft.Dir()}
	return &mount, g.Source, nil
}

func (m *mounter) discard(d snapshot.Draft) {
	m.releases = append(m.releases, func() { _ = d.Discard() })
}

// cache shows a cache mount's directory, filled from the mount's input if it
// is new and has one.
func (m *mounter) cache(ctx context.Context, g graph.Mount) (string, error) {
	c, err := m.runner.Caches.Get(ctx, CacheMount{
		ID: g.ID, Sharing: g.Sharing, Mode: g.Mode, UID: g.UID, GID: g.GID,
		From: m.from(g),
		Waiting: func(line string) {
			m.runner.Progress.Emit(progress.Event{Step: m.task.Step, Name: m.task.Node.Label, Kind: progress.Output, Line: line})
		},
		Fill: func(dst *inroot.Root) error { return m.fillCache(ctx, g, dst) },
	})
	if err != nil {
		return "", err
	}
	m.releases = append(m.releases, c.Release)
	return c.Dir, nil
}

// from names what a cache mount starts from, which is part of its name.
func (m *mounter) from(g graph.Mount) string {
	if g.Input == 0 {
		return ""
	}
	return path.Join(m.task.In[g.Input].Tree.Identity().Encoded(), g.Source)
}

func (m *mounter) fillCache(ctx context.Context, g graph.Mount, dst *inroot.Root) error {
	if g.Input == 0 {
		return nil
	}
	read := m.task.In[g.Input]
	view, err := m.runner.Trees.View(ctx, read.Tree)
	if err != nil {
		return err
	}
	defer view.Close()
	op := graph.Copy{
		Link: true, Dest: "/", DestDir: true,
		Sources: []graph.CopySource{{Input: 0, Request: graph.Request{Path: g.Source, Follow: true, Contents: true}}},
	}
	if err := copyFiles(ctx, op, dst, []tree.View{view}, []solve.Read{{Tree: read.Tree}}, m.runner.now); err != nil {
		return err
	}
	if g.Mode != 0 {
		return nil
	}
	st, err := view.Root.Stat(g.Source)
	if err != nil {
		return err
	}
	mode := uint32(0o755) // of a directory that holds a single file
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		mode = st.Mode & 0o7777
	}
	if err := unix.Fchownat(dst.Fd(), ".", int(st.Uid), int(st.Gid), 0); err != nil {
		return err
	}
	return unix.Fchmodat(dst.Fd(), ".", mode, 0)
}
