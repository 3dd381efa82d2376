package filehash

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// An Xattr is an extended attribute that is part of what a file is.
type Xattr struct{ Name, Value string }

// keeps says whether an extended attribute is hashed and copied: all but those
// that belong to the machine rather than to the file (labels of security
// modules, ACLs that repeat the mode) and those in which overlayfs keeps house.
func keeps(name string) bool {
	switch {
	case name == "security.capability":
		return true
	case strings.HasPrefix(name, "security."),
		strings.HasPrefix(name, "system."),
		strings.HasPrefix(name, "trusted.overlay."),
		strings.HasPrefix(name, "user.overlay."):
		return false
	}
	return true
}

// Xattrs returns the extended attributes of the entry, sorted. For a regular
// file that is open FileXattrs is faster.
func (e *Entry) Xattrs() ([]Xattr, error) {
	// There is no listxattrat before Linux 6.13. The way through /proc ends in
	// the directory that is open, and the last component isn't followed.
	name := fmt.Sprintf("/proc/self/fd/%d/%s", e.dir.fd, e.base)
	x, err := xattrs(
		func(b []byte) (int, error) { return unix.Llistxattr(name, b) },
		func(attr string, b []byte) (int, error) { return unix.Lgetxattr(name, attr, b) },
	)
	if err != nil {
		return nil, &fs.PathError{Op: "read extended attributes", Path: e.Path(), Err: err}
	}
	return x, nil
}

// FileXattrs returns the extended attributes of an open file, sorted.
func FileXattrs(fd int) ([]Xattr, error) {
	return xattrs(
		func(b []byte) (int, error) { return unix.Flistxattr(fd, b) },
		func(attr string, b []byte) (int, error) { return unix.Fgetxattr(fd, attr, b) },
	)
}

func xattrs(list func([]byte) (int, error), get func(string, []byte) (int, error)) ([]Xattr, error) {
	var small [256]byte
	names, err := grow(small[:], list)
	if errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil || len(names) == 0 {
		return nil, err
	}
	var found []Xattr
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names), "\x00"), "\x00") {
		if !keeps(name) {
			continue
		}
		value, err := grow(small[:], func(b []byte) (int, error) { return get(name, b) })
		if errors.Is(err, unix.ENODATA) {
			continue // not for us to see, or removed meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		found = append(found, Xattr{name, string(value)})
	}
	slices.SortFunc(found, func(a, b Xattr) int { return strings.Compare(a.Name, b.Name) })
	return found, nil
}

// grow calls read with ever larger buffers, up to the largest that the kernel
// has a use for.
func grow(buf []byte, read func([]byte) (int, error)) ([]byte, error) {
	for {
		n, err := read(buf)
		if errors.Is(err, unix.ERANGE) && len(buf) < 1<<17 {
			buf = make([]byte, len(buf)*8)
			continue
		}
		if err != nil {
			return nil, err
		}
		return buf[:n], nil
	}
}

// XattrSum digests extended attributes; it is zero if there are none.
func XattrSum(x []Xattr) Sum {
	if len(x) == 0 {
		return Sum{}
	}
	e := encoder{'x'}
	e.num(uint64(len(x)))
	for _, x := range x {
		e.str(x.Name)
		e.str(x.Value)
	}
	return sha256.Sum256(e)
}

// A Buffer is what reading and digesting a file takes.
type Buffer struct {
	Hash  hash.Hash
	Bytes []byte
}

var buffers = sync.Pool{New: func() any {
	return &Buffer{Hash: sha256.New(), Bytes: make([]byte, 256<<10)}
}}

// NewBuffer returns a Buffer to use for a while; Free gives it back.
func NewBuffer() *Buffer {
	b := buffers.Get().(*Buffer)
	b.Hash.Reset()
	return b
}

// Free gives b back.
func (b *Buffer) Free() { buffers.Put(b) }

// Sum returns the digest of what was written to b.Hash.
func (b *Buffer) Sum() (sum Sum) {
	b.Hash.Sum(sum[:0])
	return sum
}

// readContent reads the file of e.
func readContent(e *Entry) (c Content, err error) {
	if e.Type() != unix.S_IFREG {
		x, err := e.Xattrs()
		return Content{Xattrs: XattrSum(x)}, err
	}
	fd, err := e.Open()
	if err != nil {
		return c, err
	}
	defer unix.Close(fd)
	x, err := FileXattrs(fd)
	if err != nil {
		return c, &fs.PathError{Op: "read extended attributes", Path: e.Path(), Err: err}
	}
	c.Xattrs = XattrSum(x)
	b := NewBuffer()
	defer b.Free()
	for {
		n, err := unix.Read(fd, b.Bytes)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return c, &fs.PathError{Op: "read", Path: e.Path(), Err: err}
		}
		b.Hash.Write(b.Bytes[:n])
		c.Size += int64(n)
		if n == 0 || n < len(b.Bytes) && c.Size == e.Stat.Size { // that it ends needs no asking
			c.Data = b.Sum()
			return c, nil
		}
	}
}
