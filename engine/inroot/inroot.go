// Package inroot opens paths inside a directory that somebody else filled: the
// root of an image, a layer, a cache mount, a build context. However a path or
// a symbolic link in there looks, what is opened is inside: the kernel resolves
// it with openat2(2) as if the directory were the root of the file system, so
// that an absolute link or ".." leads to the directory itself at most, and
// magic links of /proc are refused. This is the one package that the others go
// through for such paths; string checks are not enough.
package inroot

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// Root is a directory to look into. Its methods may be called concurrently.
// Names are slash-separated; a leading slash makes no difference.
type Root struct {
	f *os.File
}

// Open opens the directory dir of the host.
func Open(dir string) (*Root, error) {
	f, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return &Root{f}, nil
}

// FromFile returns a Root at f, a directory that may be open with O_PATH. The
// Root owns f.
func FromFile(f *os.File) *Root { return &Root{f} }

// Close closes the directory.
func (r *Root) Close() error { return r.f.Close() }

// Fd returns the descriptor of the directory, for use with the *at calls of
// package unix. It is valid until Close.
func (r *Root) Fd() int { return int(r.f.Fd()) }

// OpenFile opens name. Symbolic links are followed inside the root, the last
// component's too unless flags have O_NOFOLLOW. O_CLOEXEC is always set.
func (r *Root) OpenFile(name string, flags int, perm fs.FileMode) (*os.File, error) {
	fd, err := r.openat2(name, flags, uint32(perm.Perm()))
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// Sub opens the directory name as a root of its own. Symbolic links are
// followed inside r.
func (r *Root) Sub(name string) (*Root, error) {
	f, err := r.OpenFile(name, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	return &Root{f}, nil
}

// Lstat describes name; a symbolic link that name itself is is not followed.
func (r *Root) Lstat(name string) (unix.Stat_t, error) { return r.stat(name, unix.O_NOFOLLOW) }

// Stat describes what name leads to, following symbolic links inside the root.
func (r *Root) Stat(name string) (unix.Stat_t, error) { return r.stat(name, 0) }

func (r *Root) stat(name string, flags int) (unix.Stat_t, error) {
	var st unix.Stat_t
	fd, err := r.openat2(name, unix.O_PATH|flags, 0)
	if err != nil {
		return st, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	defer unix.Close(fd)
	if err := unix.Fstatat(fd, "", &st, unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return st, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	return st, nil
}

// Readlink returns what the symbolic link name says.
func (r *Root) Readlink(name string) (string, error) {
	fd, err := r.openat2(name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return "", &fs.PathError{Op: "readlink", Path: name, Err: err}
	}
	defer unix.Close(fd)
	return ReadlinkAt(fd, "")
}

// ReadlinkAt returns what the symbolic link name in the directory dirfd says;
// with an empty name, what dirfd itself says, which is a link opened by O_PATH.
func ReadlinkAt(dirfd int, name string) (string, error) {
	for size := 256; ; size *= 4 {
		buf := make([]byte, size)
		n, err := unix.Readlinkat(dirfd, name, buf)
		if err != nil {
			return "", &fs.PathError{Op: "readlink", Path: name, Err: err}
		}
		if n < size {
			return string(buf[:n]), nil
		}
	}
}

// OpenDir opens the directory that contains name, following symbolic links in
// it, and returns its descriptor and the last component of name, which is
// safe to use with the *at calls of package unix if links are not followed. Of
// the root itself the name is ".". The caller closes the descriptor.
func (r *Root) OpenDir(name string) (dirfd int, base string, err error) {
	dir, base := Split(name)
	fd, err := r.openat2(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return -1, "", &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	return fd, base, nil
}

// Split cuts name into its directory and last component, both inside the root:
// "/a/../../b" is ("/", "b"). The root itself is ("/", ".").
func Split(name string) (dir, base string) {
	name = path.Clean("/" + name)
	dir, base = path.Split(name)
	if base == "" {
		base = "."
	}
	return dir, base
}

// MkdirAll makes the directory name and those that lead to it. What exists is
// left as it is; symbolic links to directories are followed inside the root.
// made is called for each directory that was made, with the descriptor of its
// parent and its name in it; it may be nil.
func (r *Root) MkdirAll(name string, perm uint32, made func(dirfd int, name string) error) error {
	name = path.Clean("/" + name)
	if fd, err := r.openat2(name, unix.O_PATH|unix.O_DIRECTORY, 0); err == nil {
		return unix.Close(fd)
	}
	prefix := ""
	for part := range strings.SplitSeq(strings.TrimPrefix(name, "/"), "/") {
		if err := r.mkdir(prefix+"/", part, perm, made); err != nil {
			return &fs.PathError{Op: "mkdir", Path: prefix + "/" + part, Err: err}
		}
		prefix += "/" + part
	}
	return nil
}

func (r *Root) mkdir(dir, base string, perm uint32, made func(dirfd int, name string) error) error {
	dirfd, err := r.openat2(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dirfd)
	err = unix.Mkdirat(dirfd, base, perm)
	if errors.Is(err, unix.EEXIST) {
		fd, err := r.openat2(dir+base, unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			return err
		}
		return unix.Close(fd)
	}
	if err != nil || made == nil {
		return err
	}
	return made(dirfd, base)
}

// ReadFile returns the content of the regular file name. It refuses files
// larger than limit bytes.
func (r *Root) ReadFile(name string, limit int64) ([]byte, error) {
	// O_NONBLOCK: a FIFO must not block, it is refused below.
	f, err := r.OpenFile(name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "read", Path: name, Err: errors.New("not a regular file")}
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("read %s: file is larger than %d bytes", name, limit)
	}
	return b, nil
}

func (r *Root) openat2(name string, flags int, perm uint32) (int, error) {
	name = strings.TrimLeft(name, "/")
	if name == "" {
		name = "."
	}
	how := unix.OpenHow{
		Flags:   uint64(flags | unix.O_CLOEXEC),
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	if flags&unix.O_CREAT != 0 {
		how.Mode = uint64(perm)
	}
	for {
		fd, err := unix.Openat2(r.Fd(), name, &how)
		// EAGAIN: a rename or mount raced with "..", so the kernel could not
		// be sure that the result is inside.
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) {
			continue
		}
		return fd, err
	}
}
