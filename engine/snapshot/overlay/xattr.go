package overlay

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"
)

// xattrs returns the extended attributes of a file or directory.
func xattrs(name string) (map[string][]byte, error) {
	list := make([]byte, 64<<10) // the kernel's limit
	n, err := unix.Llistxattr(name, list)
	if errors.Is(err, unix.ENOTSUP) || n == 0 && err == nil {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	attrs := map[string][]byte{}
	for attr := range strings.SplitSeq(strings.TrimSuffix(string(list[:n]), "\x00"), "\x00") {
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(name, attr, value)
		if err != nil {
			return nil, err
		}
		attrs[attr] = value[:n]
	}
	return attrs, nil
}
