package run

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/engine/filehash"
)

// outDir is a directory of dst that is being written to. When the last one has
// let go of it its time is set, which every file made in it would change.
type outDir struct {
	fd   int
	path string // in dst
	rel  string // as that of entries; "." is the directory that a match is copied into
	refs atomic.Int32
	time *unix.Timespec // nil: leave it

	// gone, if not nil, is told what make removed.
	gone func(st *unix.Stat_t)
}

func newOutDir(dirfd int, base, name string) (*outDir, error) {
	fd, err := unix.Openat(dirfd, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	d := &outDir{fd: fd, path: name}
	d.refs.Store(1)
	return d, nil
}

func (d *outDir) hold() { d.refs.Add(1) }

func (d *outDir) release() error {
	if d.refs.Add(-1) > 0 {
		return nil
	}
	defer unix.Close(d.fd)
	if d.time == nil {
		return nil
	}
	if err := unix.UtimesNanoAt(d.fd, ".", []unix.Timespec{*d.time, *d.time}, 0); err != nil {
		return &fs.PathError{Op: "set times", Path: d.path, Err: err}
	}
	return nil
}

// make makes something called base in d by calling mk. What is in the way is
// removed, unless it is a directory.
func (d *outDir) make(base string, mk func() error) error {
	err := mk()
	if errors.Is(err, unix.EEXIST) {
		var st unix.Stat_t
		if err := unix.Fstatat(d.fd, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return &fs.PathError{Op: "stat", Path: path.Join(d.path, base), Err: err}
		}
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			return fmt.Errorf("cannot replace to directory %s with file", path.Join(d.path, base))
		}
		if err := unix.Unlinkat(d.fd, base, 0); err != nil {
			return &fs.PathError{Op: "replace", Path: path.Join(d.path, base), Err: err}
		}
		if d.gone != nil {
			d.gone(&st)
		}
		err = mk()
	}
	if err != nil {
		return &fs.PathError{Op: "create", Path: path.Join(d.path, base), Err: err}
	}
	return nil
}

// outTree is one match being copied.
type outTree struct {
	p    *pool
	to   string    // path in dst
	dirs []*outDir // open, each in the one before it
}

// match copies one match to the path to. The directory that to is in exists.
func (p *pool) match(m *filehash.Match, to string) error {
	if p.digest != nil {
		p.digest.Begin(m)
	}
	t := outTree{p: p, to: to}
	dirfd, _, err := p.c.dst.OpenDir(to)
	if err != nil {
		return err
	}
	parent, err := newOutDir(dirfd, ".", path.Dir(to))
	_ = unix.Close(dirfd) // it was only looked up
	if err != nil {
		return err
	}
	parent.rel, parent.gone = ".", p.gone
	t.dirs = append(t.dirs, parent)
	err = p.files.Walk(p.ctx, m, t.entry)
	for len(t.dirs) > 0 {
		err = errors.Join(err, t.pop())
	}
	return err
}

func (t *outTree) pop() error {
	d := t.dirs[len(t.dirs)-1]
	t.dirs = t.dirs[:len(t.dirs)-1]
	return d.release()
}

// entry begins to copy e.
func (t *outTree) entry(e *filehash.Entry) error {
	var pending *filehash.Pending
	if t.p.digest != nil {
		t.p.sums.newest.see(e)
		pending = t.p.digest.Add(e)
	}
	in, base := path.Dir(e.Rel), path.Base(e.Rel)
	if e.Rel == "" {
		in, base = ".", path.Base(t.to)
		if base == "/" {
			base = "."
		}
	} else if in == "." {
		in = ""
	}
	for t.dirs[len(t.dirs)-1].rel != in {
		if err := t.pop(); err != nil {
			return err
		}
	}
	parent := t.dirs[len(t.dirs)-1]
	if e.Type() == unix.S_IFDIR {
		return t.dir(e, pending, parent, base)
	}
	return t.p.begin(copyTask{e, pending, parent, base})
}

// dir makes the directory e, or merges into the one that is there.
func (t *outTree) dir(e *filehash.Entry, pending *filehash.Pending, parent *outDir, base string) error {
	name := path.Join(parent.path, base)
	xattrs, err := e.Xattrs()
	if err != nil {
		return err
	}
	if pending != nil {
		pending.Done(filehash.Content{Xattrs: filehash.XattrSum(xattrs)})
	}
	err = unix.Mkdirat(parent.fd, base, 0o700)
	exists := errors.Is(err, unix.EEXIST)
	if err != nil && !exists {
		return &fs.PathError{Op: "mkdir", Path: name, Err: err}
	}
	d, err := newOutDir(parent.fd, base, name)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return fmt.Errorf("cannot copy to non-directory: %s", name)
	}
	if err != nil {
		return err
	}
	d.rel, d.gone = e.Rel, t.p.gone
	t.dirs = append(t.dirs, d)
	switch {
	case e.Rel == "": // set last: other sources may go there too
		t.p.c.times[name] = e.Stat.Mtim
		if exists {
			return nil // it stays what it is
		}
	case exists && e.Implied:
		return chmodImplied(d, e)
	default:
		d.time = &e.Stat.Mtim
	}
	return t.p.c.setMeta(d.fd, name, e, xattrs)
}

// chmodImplied gives a directory that is only on the way to something that is
// copied the mode of the one that it stands for, and nothing else, as BuildKit
// does.
func chmodImplied(d *outDir, e *filehash.Entry) error {
	if err := unix.Fchmod(d.fd, e.Stat.Mode&modeBits); err != nil {
		return &fs.PathError{Op: "chmod", Path: d.path, Err: err}
	}
	return nil
}
