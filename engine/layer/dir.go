package layer

import (
	"io/fs"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// eachName calls fn for each entry of the directory base in dirfd, in the order
// of their names, with the directory's descriptor. Links are not followed.
func eachName(dirfd int, base string, fn func(fd int, name string) error) error {
	f, err := openDir(dirfd, base)
	if err != nil {
		return err
	}
	defer f.Close()
	names, err := sortedNames(f)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := fn(int(f.Fd()), name); err != nil {
			return err
		}
	}
	return nil
}

// openDir opens the directory base in dirfd for reading.
func openDir(dirfd int, base string) (*os.File, error) {
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := retry(func() (int, error) { return unix.Openat(dirfd, base, flags, 0) })
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: base, Err: err}
	}
	return os.NewFile(uintptr(fd), base), nil
}

// sortedNames lists an open directory. The order is that of the bytes.
func sortedNames(f *os.File) ([]string, error) {
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	return names, nil
}

// openFile opens the regular file base in dirfd for reading.
func openFile(dirfd int, base string) (int, error) {
	const flags = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
	return retry(func() (int, error) { return unix.Openat(dirfd, base, flags, 0) })
}
