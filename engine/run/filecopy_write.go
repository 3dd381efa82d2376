package run

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/engine/filehash"
)

// maxLinkTasks bounds how many hard links wait to be made: each keeps
// directories open.
const maxLinkTasks = 128

// begin has a file written, now or later.
func (p *pool) begin(t copyTask) error {
	t.e.Hold()
	t.dir.hold()
	p.pending.Add(1)
	if t.e.Same == 0 {
		p.jobs <- t
		return nil
	}
	if t.p != nil { // the first link tells what it contains
		t.p.Done(filehash.Content{})
		t.p = nil
	}
	p.pending.Done() // it doesn't wait for a worker
	p.links = append(p.links, t)
	if len(p.links) < maxLinkTasks {
		return nil
	}
	return p.barrier()
}

// link makes t a hard link to the copy of the file that it is a link to.
func (p *pool) link(t copyTask) error {
	p.mu.Lock()
	to, ok := p.first[t.e.Same]
	p.mu.Unlock()
	if !ok {
		return p.file(t)
	}
	dirfd, base, err := p.c.dst.OpenDir(to)
	if err != nil {
		return err
	}
	defer unix.Close(dirfd)
	err = t.dir.make(t.base, func() error { return unix.Linkat(dirfd, base, t.dir.fd, t.base, 0) })
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.EMLINK) {
		return err
	}
	if err == nil {
		return nil
	}
	return p.file(t)
}

// gone forgets the copy of a file that another match replaced.
func (p *pool) gone(st *unix.Stat_t) {
	p.mu.Lock()
	defer p.mu.Unlock()
	id := inode{st.Dev, st.Ino}
	if i, ok := p.copies[id]; ok {
		delete(p.copies, id)
		delete(p.first, i)
	}
}

func (t copyTask) path() string { return path.Join(t.dir.path, t.base) }

// file writes one file that is not a directory.
func (p *pool) file(t copyTask) error {
	if t.e.Type() == unix.S_IFREG {
		return p.regular(t)
	}
	if t.e.Type() == unix.S_IFCHR && t.e.Stat.Rdev == 0 { // a whiteout where nothing is mounted over what is written
		return fmt.Errorf("copy %s: character device 0/0 is not supported: it would delete a file of the layers below", t.e.Path())
	}
	xattrs, err := t.e.Xattrs()
	if err != nil {
		return err
	}
	if t.p != nil {
		t.p.Done(filehash.Content{Xattrs: filehash.XattrSum(xattrs)})
	}
	err = t.dir.make(t.base, func() error {
		if t.e.Type() == unix.S_IFLNK {
			return unix.Symlinkat(t.e.Target, t.dir.fd, t.base)
		}
		return unix.Mknodat(t.dir.fd, t.base, t.e.Type()|0o600, int(t.e.Stat.Rdev)) //nolint:gosec // what it was
	})
	if err != nil {
		return err
	}
	return p.c.setMetaAt(t, xattrs)
}

// regular copies a regular file.
func (p *pool) regular(t copyTask) error {
	in, err := t.e.Open()
	if err != nil {
		return err
	}
	defer unix.Close(in)
	xattrs, err := filehash.FileXattrs(in)
	if err != nil {
		return &fs.PathError{Op: "read extended attributes", Path: t.e.Path(), Err: err}
	}
	var out int
	err = t.dir.make(t.base, func() error {
		var err error
		out, err = unix.Openat(t.dir.fd, t.base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		return err
	})
	if err != nil {
		return err
	}
	err = p.write(t, in, out, xattrs)
	if closeErr := unix.Close(out); err == nil && closeErr != nil {
		err = &fs.PathError{Op: "close", Path: t.path(), Err: closeErr}
	}
	return err
}

func (p *pool) write(t copyTask, in, out int, xattrs []filehash.Xattr) error {
	d := dataCopy{in: in, out: out, size: t.e.Stat.Size, sparse: t.e.Stat.Blocks*512 < t.e.Stat.Size, hashed: t.p != nil}
	content, err := d.copy()
	if err != nil {
		return fmt.Errorf("copy %s to %s: %w", t.e.Path(), t.path(), err)
	}
	if t.p != nil {
		content.Xattrs = filehash.XattrSum(xattrs)
		t.p.Done(content)
	}
	if t.e.Stat.Nlink > 1 {
		var st unix.Stat_t
		if err := unix.Fstat(out, &st); err != nil {
			return &fs.PathError{Op: "stat", Path: t.path(), Err: err}
		}
		p.mu.Lock()
		p.first[t.e.Index] = t.path()
		p.copies[inode{st.Dev, st.Ino}] = t.e.Index
		p.mu.Unlock()
	}
	if err := p.c.setMeta(out, t.path(), t.e, xattrs); err != nil {
		return err
	}
	return t.setTimes()
}

// setMeta gives an open file or directory the owner, mode and extended
// attributes of e, in this order: a change of the owner clears set-ID bits and
// capabilities.
func (c *copier) setMeta(fd int, name string, e *filehash.Entry, xattrs []filehash.Xattr) error {
	own := c.ids(e)
	if err := unix.Fchown(fd, own.uid, own.gid); err != nil {
		return &fs.PathError{Op: "chown", Path: name, Err: err}
	}
	if err := unix.Fchmod(fd, c.mode.apply(e.Stat.Mode, e.Type() == unix.S_IFDIR)); err != nil {
		return &fs.PathError{Op: "chmod", Path: name, Err: err}
	}
	return setXattrs(name, xattrs, func(attr string, value []byte) error {
		return unix.Fsetxattr(fd, attr, value, 0)
	})
}

// setMetaAt is setMeta, and times, for what can't be opened.
func (c *copier) setMetaAt(t copyTask, xattrs []filehash.Xattr) error {
	own := c.ids(t.e)
	if err := unix.Fchownat(t.dir.fd, t.base, own.uid, own.gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &fs.PathError{Op: "chown", Path: t.path(), Err: err}
	}
	if t.e.Type() != unix.S_IFLNK { // just made by us, in a directory of ours: it still is what it was
		if err := unix.Fchmodat(t.dir.fd, t.base, c.mode.apply(t.e.Stat.Mode, false), 0); err != nil {
			return &fs.PathError{Op: "chmod", Path: t.path(), Err: err}
		}
	}
	name := fmt.Sprintf("/proc/self/fd/%d/%s", t.dir.fd, t.base)
	err := setXattrs(t.path(), xattrs, func(attr string, value []byte) error {
		return unix.Lsetxattr(name, attr, value, 0)
	})
	if err != nil {
		return err
	}
	return t.setTimes()
}

func (t copyTask) setTimes() error {
	m := t.e.Stat.Mtim
	if err := unix.UtimesNanoAt(t.dir.fd, t.base, []unix.Timespec{m, m}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &fs.PathError{Op: "set times", Path: t.path(), Err: err}
	}
	return nil
}

func (c *copier) ids(e *filehash.Entry) ids {
	if c.owner != nil {
		return *c.owner
	}
	return ids{int(e.Stat.Uid), int(e.Stat.Gid)}
}

// setXattrs sets extended attributes. Those that the file system has no place
// for are left out, as BuildKit does; so are those in trusted, which an engine
// without the host's root can't set.
func setXattrs(name string, xattrs []filehash.Xattr, set func(string, []byte) error) error {
	for _, x := range xattrs {
		err := set(x.Name, []byte(x.Value))
		if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM) && strings.HasPrefix(x.Name, "trusted.") {
			continue
		}
		if err != nil {
			return &fs.PathError{Op: "set extended attribute " + x.Name, Path: name, Err: err}
		}
	}
	return nil
}
