package filehash

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/engine/inroot"
)

// dir is an open directory that is closed when nobody holds it any more.
type dir struct {
	fd   int
	path string // in the tree
	refs atomic.Int32
}

// openDir opens the directory name, which is not a link.
func openDir(root *inroot.Root, name string) (*dir, error) {
	f, err := root.OpenFile(name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return newDir(fd, name), nil
}

func newDir(fd int, name string) *dir {
	d := &dir{fd: fd, path: name}
	d.refs.Store(1)
	return d
}

// sub opens a directory in d.
func (d *dir) sub(name string) (*dir, error) {
	fd, err := openat(d.fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path.Join(d.path, name), Err: err}
	}
	return newDir(fd, path.Join(d.path, name)), nil
}

func (d *dir) hold() { d.refs.Add(1) }

// release ends one hold on the directory.
func (d *dir) release() {
	if d.refs.Add(-1) == 0 {
		_ = unix.Close(d.fd) // it was only read
	}
}

func openat(dirfd int, name string, flags int) (int, error) {
	for {
		fd, err := unix.Openat(dirfd, name, flags|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// A name is an entry of a directory. kind is a DT_ constant, which may be
// DT_UNKNOWN.
type name struct {
	name string
	kind byte
}

var listBuffers = sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}

// list returns what is in d, sorted.
func (d *dir) list() ([]name, error) {
	bp := listBuffers.Get().(*[]byte)
	defer listBuffers.Put(bp)
	var names []name
	for {
		n, err := unix.Getdents(d.fd, *bp)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, &fs.PathError{Op: "list", Path: d.path, Err: err}
		}
		if n <= 0 {
			break
		}
		names = parseDirents(names, (*bp)[:n])
	}
	slices.SortFunc(names, func(a, b name) int { return strings.Compare(a.name, b.name) })
	return names, nil
}

// parseDirents adds the entries of struct linux_dirent64 in b to names.
func parseDirents(names []name, b []byte) []name {
	const header = 19 // ino, off, reclen, type
	for len(b) > header {
		size := int(binary.NativeEndian.Uint16(b[16:]))
		if size <= header || size > len(b) {
			return names
		}
		s := b[header:size]
		if i := bytes.IndexByte(s, 0); i >= 0 {
			s = s[:i]
		}
		if len(s) > 0 && string(s) != "." && string(s) != ".." {
			names = append(names, name{string(s), b[18]})
		}
		b = b[size:]
	}
	return names
}
