package layer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/engine/inroot"
)

// Trim removes from upper, the directory of a layer in overlayfs form, what
// lower, a view of the layers below it, has already: files with the same
// attributes, time and content, directories that were copied up and then not
// changed, whiteouts of nothing. What is left shows the same on top of lower,
// but for times of directories: like BuildKit, Trim takes a directory in which
// something was made and deleted again for unchanged.
//
// It takes time in proportion to upper. Neither may be written to meanwhile.
func Trim(ctx context.Context, upper, lower *inroot.Root) error {
	t := &trimmer{ctx: ctx, keep: make(map[inode]bool)}
	if err := t.findLinks(upper.Fd(), ".", lower.Fd()); err != nil {
		return fmt.Errorf("trim layer: %w", err)
	}
	if err := t.trim(upper.Fd(), ".", lower.Fd()); err != nil {
		return fmt.Errorf("trim layer: %w", err)
	}
	return nil
}

type trimmer struct {
	ctx context.Context //nolint:containedctx // lives as long as one Trim

	// keep has the files with several names of which one at least differs.
	// They stay under all their names, or they would be different files.
	keep map[inode]bool

	buf1, buf2 []byte
}

// none is the descriptor of a directory that does not exist.
const none = -1

// findLinks fills keep from the directory base of upperfd and those in it.
// lowerfd is what upperfd's directory is on top of.
func (t *trimmer) findLinks(upperfd int, base string, lowerfd int) error {
	return t.each(upperfd, base, lowerfd, func(fd int, name string, lower int) error {
		var st unix.Stat_t
		if err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return &fs.PathError{Op: "stat", Path: name, Err: err}
		}
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			if opaque, err := opaqueAt(fd, name); err != nil {
				return err
			} else if opaque {
				lower = none
			}
			return t.findLinks(fd, name, lower)
		}
		if st.Nlink < 2 || isWhiteout(&st) || t.keep[inode{st.Dev, st.Ino}] {
			return nil
		}
		same, err := t.same(fd, name, &st, lower)
		if err != nil {
			return err
		}
		t.keep[inode{st.Dev, st.Ino}] = !same
		return nil
	})
}

// each calls fn for each entry of the directory base of upperfd, with the
// directory's descriptor and that of the directory which it is on top of, the
// one of the same name in lowerfd, or none. With base "." those are upperfd
// and lowerfd.
func (t *trimmer) each(upperfd int, base string, lowerfd int, fn func(fd int, name string, lower int) error) error {
	if t.ctx.Err() != nil {
		return context.Cause(t.ctx)
	}
	lower := none
	if lowerfd != none {
		const flags = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
		fd, err := unix.Openat(lowerfd, base, flags, 0)
		switch {
		case err == nil:
			defer unix.Close(fd)
			lower = fd
		case !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.ELOOP):
			return &fs.PathError{Op: "open", Path: base, Err: err}
		}
	}
	return eachName(upperfd, base, func(fd int, name string) error { return fn(fd, name, lower) })
}

// trim trims the directory base of upperfd, whose time it restores.
func (t *trimmer) trim(upperfd int, base string, lowerfd int) error {
	var st unix.Stat_t
	if err := unix.Fstatat(upperfd, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &fs.PathError{Op: "stat", Path: base, Err: err}
	}
	removed := false
	err := t.each(upperfd, base, lowerfd, func(fd int, name string, lower int) error {
		gone, err := t.trimEntry(fd, name, lower)
		removed = removed || gone
		return err
	})
	if err != nil {
		return err
	}
	if !removed {
		return nil
	}
	return setTime(upperfd, base, st.Mtim)
}

// trimEntry trims one entry of the directory fd and says whether it is gone.
func (t *trimmer) trimEntry(fd int, name string, lower int) (gone bool, err error) {
	var st unix.Stat_t
	if err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return false, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	flags := 0
	switch {
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		flags = unix.AT_REMOVEDIR
		gone, err = t.trimDir(fd, name, &st, lower)
	case isWhiteout(&st):
		_, err = statAt(lower, name)
		if gone = errors.Is(err, fs.ErrNotExist); gone {
			err = nil
		}
	case st.Nlink > 1:
		keep, known := t.keep[inode{st.Dev, st.Ino}]
		gone = known && !keep
	default:
		gone, err = t.same(fd, name, &st, lower)
	}
	if err != nil || !gone {
		return false, err
	}
	if err := unix.Unlinkat(fd, name, flags); err != nil {
		return false, &fs.PathError{Op: "remove", Path: name, Err: err}
	}
	return true, nil
}

// trimDir trims the directory name of fd and says whether nothing is left of it
// that differs from the one below.
func (t *trimmer) trimDir(fd int, name string, st *unix.Stat_t, lower int) (gone bool, err error) {
	opaque, err := opaqueAt(fd, name)
	if err != nil {
		return false, err
	}
	if opaque {
		// The kernel marks each directory that it makes. Where there is nothing
		// to hide it makes no difference, but the tar would name it.
		hides, err := hasEntries(lower, name)
		if err != nil {
			return false, err
		}
		if hides {
			return false, t.trim(fd, name, none)
		}
		if err := unix.Lremovexattr(at(fd, name), opaqueXattr); err != nil {
			return false, fmt.Errorf("remove xattr %s of %s: %w", opaqueXattr, name, err)
		}
	}
	if err := t.trim(fd, name, lower); err != nil {
		return false, err
	}
	if has, err := hasEntries(fd, name); has || err != nil {
		return false, err
	}
	return sameAttributes(fd, name, st, lower)
}

// statAt describes name in dirfd, which may be none.
func statAt(dirfd int, name string) (unix.Stat_t, error) {
	var st unix.Stat_t
	err := error(unix.ENOENT)
	if dirfd != none {
		err = unix.Fstatat(dirfd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	}
	if err != nil {
		return st, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	return st, nil
}

// hasEntries says whether name in dirfd, which may be none, is a directory that
// is not empty.
func hasEntries(dirfd int, name string) (bool, error) {
	st, err := statAt(dirfd, name)
	if errors.Is(err, fs.ErrNotExist) || err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	f, err := openDir(dirfd, name)
	if err != nil {
		return false, err
	}
	defer f.Close()
	names, _ := f.Readdirnames(1) // the error is io.EOF, or that of a closed file
	return len(names) > 0, nil
}

// sameAttributes says whether name is in lower too, with the same type, mode,
// owner, device number and xattrs.
func sameAttributes(fd int, name string, st *unix.Stat_t, lower int) (bool, error) {
	low, err := statAt(lower, name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if st.Mode != low.Mode || st.Uid != low.Uid || st.Gid != low.Gid || st.Rdev != low.Rdev {
		return false, nil
	}
	return sameXattrs(fd, lower, name)
}

// same says whether a file that is no directory is the same in lower. A file
// that was only touched is not.
func (t *trimmer) same(fd int, name string, st *unix.Stat_t, lower int) (bool, error) {
	low, err := statAt(lower, name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if st.Mtim != low.Mtim || st.Size != low.Size {
		return false, nil
	}
	same, err := sameAttributes(fd, name, st, lower)
	if !same || err != nil {
		return false, err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return t.sameContent(fd, lower, name, st.Size)
	case unix.S_IFLNK:
		return sameTarget(fd, lower, name)
	}
	return true, nil
}

func sameTarget(dirfd1, dirfd2 int, name string) (bool, error) {
	t1, err := inroot.ReadlinkAt(dirfd1, name)
	if err != nil {
		return false, err
	}
	t2, err := inroot.ReadlinkAt(dirfd2, name)
	return t1 == t2, err
}

// sameContent compares the size bytes of two files.
func (t *trimmer) sameContent(dirfd1, dirfd2 int, name string, size int64) (bool, error) {
	if size == 0 {
		return true, nil
	}
	f1, err := openAt(dirfd1, name)
	if err != nil {
		return false, err
	}
	defer f1.Close()
	f2, err := openAt(dirfd2, name)
	if err != nil {
		return false, err
	}
	defer f2.Close()
	if t.buf1 == nil {
		t.buf1, t.buf2 = make([]byte, 128<<10), make([]byte, 128<<10)
	}
	for off := int64(0); off < size; {
		if t.ctx.Err() != nil {
			return false, context.Cause(t.ctx)
		}
		n := min(size-off, int64(len(t.buf1)))
		if _, err := f1.ReadAt(t.buf1[:n], off); err != nil {
			return false, err
		}
		if _, err := f2.ReadAt(t.buf2[:n], off); err != nil {
			return false, err
		}
		if !bytes.Equal(t.buf1[:n], t.buf2[:n]) {
			return false, nil
		}
		off += n
	}
	return true, nil
}

func openAt(dirfd int, name string) (*os.File, error) {
	fd, err := openFile(dirfd, name)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}
