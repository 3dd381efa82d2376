package layer

import (
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// paxXattr begins the names of the PAX records that hold xattrs.
const paxXattr = "SCHILY.xattr."

// keepsXattr says whether a layer carries the xattr. What is left out belongs
// to the machine (labels, signatures of the kernel) or to overlayfs.
func keepsXattr(name string) bool {
	switch {
	case strings.HasPrefix(name, "trusted.overlay."), strings.HasPrefix(name, "user.overlay."):
		return false
	case strings.HasPrefix(name, "user."), strings.HasPrefix(name, "trusted."):
		return true
	}
	switch name {
	case "security.capability", "system.posix_acl_access", "system.posix_acl_default":
		return true
	}
	return false
}

// at names an entry of an open directory for calls that have no form with a
// descriptor.
func at(dirfd int, name string) string {
	return "/proc/self/fd/" + strconv.Itoa(dirfd) + "/" + name
}

// xattrsAt returns the xattrs that a layer carries of an entry of a directory;
// a symbolic link is not followed.
func xattrsAt(dirfd int, name string) (map[string]string, error) {
	list, err := growing(func(buf []byte) (int, error) { return unix.Llistxattr(at(dirfd, name), buf) })
	if errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list xattrs: %w", err)
	}
	var attrs map[string]string
	for attr := range strings.SplitSeq(string(list), "\x00") {
		if !keepsXattr(attr) {
			continue
		}
		value, err := growing(func(buf []byte) (int, error) { return unix.Lgetxattr(at(dirfd, name), attr, buf) })
		if err != nil {
			return nil, fmt.Errorf("read xattr %s: %w", attr, err)
		}
		if attrs == nil {
			attrs = make(map[string]string)
		}
		attrs[attr] = string(value)
	}
	return attrs, nil
}

// growing calls get with a buffer that is large enough for what it returns.
func growing(get func([]byte) (int, error)) ([]byte, error) {
	for size := 256; ; size *= 16 {
		buf := make([]byte, size)
		n, err := get(buf)
		if errors.Is(err, unix.ERANGE) && size < 1<<20 {
			continue
		}
		if err != nil {
			return nil, err
		}
		return buf[:n], nil
	}
}

func sameXattrs(dirfd1, dirfd2 int, name string) (bool, error) {
	x1, err := xattrsAt(dirfd1, name)
	if err != nil {
		return false, err
	}
	x2, err := xattrsAt(dirfd2, name)
	if err != nil {
		return false, err
	}
	return maps.Equal(x1, x2), nil
}

// opaqueAt says whether a directory hides what is below it.
func opaqueAt(dirfd int, base string) (bool, error) {
	var b [1]byte
	n, err := unix.Lgetxattr(at(dirfd, base), opaqueXattr, b[:])
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.ERANGE) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read xattr %s: %w", opaqueXattr, err)
	}
	return n == 1 && b[0] == 'y', nil
}

// isWhiteout says whether overlayfs takes a file for a deleted one.
func isWhiteout(st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}
