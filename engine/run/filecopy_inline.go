package run

import (
	"errors"
	"io/fs"
	"path"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/engine/graph"
)

// inline writes a file or directory that the Dockerfile itself contains. It
// belongs to 0:0 unless the copier has an owner.
func (c *copier) inline(op graph.Copy, in graph.Inline) error {
	if in.Dir {
		return c.mkdirs(path.Join(op.Dest, in.Name), in.Mode&permBits)
	}
	if err := c.mkdirs(parentOf(op.Dest, op.DestDir), c.mode.directory()); err != nil {
		return err
	}
	to, err := c.target(op.Dest, path.Base(path.Join("/", in.Name)), false, false)
	if err != nil {
		return err
	}
	dirfd, base, err := c.dst.OpenDir(to)
	if err != nil {
		return err
	}
	dir, err := newOutDir(dirfd, ".", path.Dir(to))
	_ = unix.Close(dirfd) // it was only looked up
	if err != nil {
		return err
	}
	err = c.inlineFile(dir, base, in)
	c.touched(dir.path)
	return errors.Join(err, dir.release())
}

func (c *copier) inlineFile(dir *outDir, base string, in graph.Inline) error {
	var fd int
	err := dir.make(base, func() error {
		var err error
		fd, err = unix.Openat(dir.fd, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		return err
	})
	if err != nil {
		return err
	}
	var own ids
	if c.owner != nil {
		own = *c.owner
	}
	t := timespec(c.now)
	name := path.Join(dir.path, base)
	for _, step := range []struct {
		op string
		do func() error
	}{
		{"write", func() error { return writeAll(fd, in.Data) }},
		{"chown", func() error { return unix.Fchown(fd, own.uid, own.gid) }},
		{"chmod", func() error { return unix.Fchmod(fd, c.mode.apply(in.Mode, false)) }},
		{"set times", func() error {
			return unix.UtimesNanoAt(dir.fd, base, []unix.Timespec{t, t}, unix.AT_SYMLINK_NOFOLLOW)
		}},
	} {
		if e := step.do(); e != nil && err == nil {
			err = &fs.PathError{Op: step.op, Path: name, Err: e}
		}
	}
	if e := unix.Close(fd); e != nil && err == nil {
		err = &fs.PathError{Op: "close", Path: name, Err: e}
	}
	return err
}
