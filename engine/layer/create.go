package layer

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// create makes e, replacing what is in its place.
func (a *applier) create(e entry, r io.Reader) error {
	var err error
	switch e.Typeflag {
	case tar.TypeDir:
		return a.createDir(e)
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		return a.createFile(e, r)
	case tar.TypeLink:
		return a.createLink(e)
	case tar.TypeSymlink:
		err = a.replacing(e, func() error { return unix.Symlinkat(e.Linkname, e.dirfd, e.base) })
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		var mode uint32
		var dev uint64
		if mode, dev, err = e.device(); err != nil {
			return err
		}
		if mode&unix.S_IFMT == unix.S_IFCHR && dev == 0 {
			// What overlayfs calls a whiteout came from a layer's directory
			// into the tar as it was. It can only mean a whiteout.
			if a.form == archive {
				return errors.New("character device 0/0 is not supported")
			}
			delete(a.made, e.name)
			return a.whiteout(e.dirfd, e.name)
		}
		err = a.replacing(e, func() error { return unix.Mknodat(e.dirfd, e.base, mode|0o600, int(dev)) })
	default:
		return fmt.Errorf("type %q is not supported", e.Typeflag)
	}
	if err != nil {
		return err
	}
	return e.setAttributes()
}

// device returns the mode and number of a device node or FIFO.
func (e entry) device() (mode uint32, dev uint64, err error) {
	switch e.Typeflag {
	case tar.TypeFifo:
		return unix.S_IFIFO, 0, nil
	case tar.TypeBlock:
		mode = unix.S_IFBLK
	default:
		mode = unix.S_IFCHR
	}
	// The kernel has 12 and 20 bits for them.
	if e.Devmajor < 0 || e.Devmajor >= 1<<12 || e.Devminor < 0 || e.Devminor >= 1<<20 {
		return 0, 0, fmt.Errorf("device number %d:%d is not valid", e.Devmajor, e.Devminor)
	}
	return mode, unix.Mkdev(uint32(e.Devmajor), uint32(e.Devminor)), nil
}

// replacing calls create, which makes e. If something is in its place that is
// removed: of two entries with one name the last wins.
func (a *applier) replacing(e entry, create func() error) error {
	err := create()
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	if err := a.remove(e.dirfd, e.name); err != nil {
		return err
	}
	return create()
}

// remove deletes name and what is in it. dirfd is the directory that has it.
func (a *applier) remove(dirfd int, name string) error {
	a.parent.stale = true // it may be a link that directories were reached by
	err := unix.Unlinkat(dirfd, path.Base(name), 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	a.forget(name)
	return removeAll(dirfd, path.Base(name))
}

func (a *applier) createDir(e entry) error {
	err := unix.Mkdirat(e.dirfd, e.base, 0o700)
	if errors.Is(err, unix.EEXIST) {
		err = a.overExisting(e)
	}
	if err != nil {
		return err
	}
	a.noteDir(e)
	return e.setAttributes()
}

// overExisting makes the directory e where something is: a directory stays.
func (a *applier) overExisting(e entry) error {
	var st unix.Stat_t
	if err := unix.Fstatat(e.dirfd, e.base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return nil
	}
	if err := a.remove(e.dirfd, e.name); err != nil {
		return err
	}
	if err := unix.Mkdirat(e.dirfd, e.base, 0o700); err != nil {
		return err
	}
	// A whiteout or file hides what the layers below have under its name, and
	// that must not come back.
	if a.form == overlayForm {
		return setOpaque(e.dirfd, e.base)
	}
	return nil
}

func (a *applier) createLink(e entry) error {
	target, err := cleanName(e.Linkname)
	if err != nil {
		return fmt.Errorf("hard link: %w", err)
	}
	dir := path.Dir(target)
	if _, known := a.dirs[dir]; a.form == overlayForm && !known && dir != "." {
		return fmt.Errorf("hard link to %s, which is not in the tar before it: %w", target, ErrNeedsParents)
	}
	fd, err := a.parent.open(dir)
	if err != nil {
		return fmt.Errorf("hard link to %s: %w", target, err)
	}
	var st, own unix.Stat_t
	err = unix.Fstatat(fd, path.Base(target), &st, unix.AT_SYMLINK_NOFOLLOW)
	if a.form == overlayForm && (errors.Is(err, unix.ENOENT) || err == nil && isWhiteout(&st)) {
		return fmt.Errorf("hard link to %s, which is not in the tar before it: %w", target, ErrNeedsParents)
	}
	if err != nil {
		return fmt.Errorf("hard link to %s: %w", target, err)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return fmt.Errorf("hard link to %s, which is a directory", target)
	}
	if unix.Fstatat(e.dirfd, e.base, &own, unix.AT_SYMLINK_NOFOLLOW) == nil && own.Dev == st.Dev && own.Ino == st.Ino {
		return nil // removing it first could remove the only name
	}
	err = a.replacing(e, func() error { return unix.Linkat(fd, path.Base(target), e.dirfd, e.base, 0) })
	if err != nil {
		return fmt.Errorf("hard link to %s: %w", target, err)
	}
	return nil // the attributes are those of the file
}

func (a *applier) createFile(e entry, r io.Reader) (err error) {
	if e.Size > a.limit-a.size {
		return tooLarge(a.limit)
	}
	a.size += e.Size
	fd := -1
	err = a.replacing(e, func() (err error) {
		const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
		fd, err = retry(func() (int, error) { return unix.Openat(e.dirfd, e.base, flags, 0o600) })
		return err
	})
	if err != nil {
		return err
	}
	err = a.copyContent(fd, r, e.Size)
	if err == nil {
		err = e.setFileAttributes(fd)
	}
	if cerr := unix.Close(fd); err == nil && cerr != nil {
		err = fmt.Errorf("close: %w", cerr)
	}
	if err != nil {
		return err
	}
	return setTime(e.dirfd, e.base, e.mtime)
}

// zeros is as long as an applier's buffer, and is compared to it.
var zeros [128 << 10]byte

// copyContent writes size bytes of r to a new file. Long runs of zeros become
// holes, so that a sparse file is sparse again.
func (a *applier) copyContent(fd int, r io.Reader, size int64) error {
	var off int64
	hole := false
	for off < size {
		buf := a.buf[:min(size-off, int64(len(a.buf)))]
		if _, err := io.ReadFull(r, buf); err != nil {
			return fmt.Errorf("read content: %w", err)
		}
		hole = len(buf) == len(a.buf) && bytes.Equal(buf, zeros[:])
		if !hole {
			if err := pwrite(fd, buf, off); err != nil {
				return fmt.Errorf("write: %w", err)
			}
		}
		off += int64(len(buf))
	}
	if !hole {
		return nil
	}
	if err := unix.Ftruncate(fd, size); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

func pwrite(fd int, p []byte, off int64) error {
	for len(p) > 0 {
		n, err := retry(func() (int, error) { return unix.Pwrite(fd, p, off) })
		if err != nil {
			return err
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// retry repeats a system call that a signal interrupted.
func retry[T any](call func() (T, error)) (T, error) {
	for {
		v, err := call()
		if !errors.Is(err, unix.EINTR) {
			return v, err
		}
	}
}

// setFileAttributes is setAttributes for an open file, but for the time. The
// owner comes first because setting it drops setuid bits and capabilities.
func (e entry) setFileAttributes(fd int) error {
	if err := unix.Fchown(fd, e.uid, e.gid); err != nil {
		return fmt.Errorf("set owner: %w", err)
	}
	if err := unix.Fchmod(fd, uint32(e.Mode&0o7777)); err != nil {
		return fmt.Errorf("set mode: %w", err)
	}
	for attr, value := range e.xattrs() {
		if err := unix.Fsetxattr(fd, attr, []byte(value), 0); err != nil {
			return fmt.Errorf("set xattr %s: %w", attr, err)
		}
	}
	return nil
}

// setAttributes sets owner, mode, xattrs and time of what create made.
func (e entry) setAttributes() error {
	if err := unix.Fchownat(e.dirfd, e.base, e.uid, e.gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("set owner: %w", err)
	}
	if e.Typeflag != tar.TypeSymlink { // which have no mode
		if err := unix.Fchmodat(e.dirfd, e.base, uint32(e.Mode&0o7777), 0); err != nil {
			return fmt.Errorf("set mode: %w", err)
		}
	}
	for attr, value := range e.xattrs() {
		if err := unix.Lsetxattr(at(e.dirfd, e.base), attr, []byte(value), 0); err != nil {
			return fmt.Errorf("set xattr %s: %w", attr, err)
		}
	}
	return setTime(e.dirfd, e.base, e.mtime)
}

// xattrs yields the entry's xattrs.
func (e entry) xattrs() func(yield func(attr, value string) bool) {
	return func(yield func(attr, value string) bool) {
		for key, value := range e.PAXRecords {
			attr, ok := strings.CutPrefix(key, paxXattr)
			if ok && keepsXattr(attr) && !yield(attr, value) {
				return
			}
		}
	}
}

func timespec(t time.Time) unix.Timespec {
	return unix.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
}

func setTime(dirfd int, base string, t unix.Timespec) error {
	if err := unix.UtimesNanoAt(dirfd, base, []unix.Timespec{t, t}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("set time: %w", err)
	}
	return nil
}

// removeAll deletes an entry of a directory and what is in it, without
// following a link. What does not exist is fine.
func removeAll(dirfd int, base string) error {
	err := unix.Unlinkat(dirfd, base, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM) {
		return &fs.PathError{Op: "remove", Path: base, Err: err}
	}
	err = eachName(dirfd, base, func(fd int, name string) error { return removeAll(fd, name) })
	if err != nil {
		return err
	}
	if err := unix.Unlinkat(dirfd, base, unix.AT_REMOVEDIR); err != nil && !errors.Is(err, unix.ENOENT) {
		return &fs.PathError{Op: "remove", Path: base, Err: err}
	}
	return nil
}
