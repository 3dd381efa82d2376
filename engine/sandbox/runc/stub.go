//go:build linux && cgo && (amd64 || arm64)

package runc

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/engine/inroot"
)

// stubs are files and directories that were made as places to mount something.
// After the run they are removed, as BuildKit does with those of its mounts and
// their parents, so that no layer has them. They are recognised by their inode
// and removed through the descriptor of the directory that they were made in:
// the process may have moved things around and put links in their place.
type stubs struct {
	root *inroot.Root
	made []stub
}

type stub struct {
	dir      *os.File // that it was made in
	name     string
	dev, ino uint64
	isDir    bool
}

// The kernel follows 40 links in a path.
const maxLinks = 40

// open opens target with O_PATH, and makes it and what leads to it if it does
// not exist, also where links lead to what does not exist: many images have an
// /etc/resolv.conf like that.
func (s *stubs) open(target string, isDir bool) (*os.File, error) {
	name := path.Clean("/" + target)
	for links := 0; links <= maxLinks; {
		f, err := s.root.OpenFile(name, unix.O_PATH, 0)
		if err == nil {
			return f, checkKind(f, target, isDir)
		}
		if !errors.Is(err, unix.ENOENT) {
			return nil, err
		}
		parent, base, rest, err := s.firstMissing(name)
		if err != nil {
			return nil, err
		}
		link, err := s.root.Readlink(parent + "/" + base)
		if err == nil {
			if !strings.HasPrefix(link, "/") {
				link = parent + "/" + link
			}
			name = link
			if rest != "" {
				name += "/" + rest
			}
			links++
			continue
		}
		if err := s.make(parent, base, isDir || rest != ""); err != nil {
			return nil, fmt.Errorf("make mount point %s: %w", target, err)
		}
	}
	return nil, fmt.Errorf("make mount point %s: %w", target, unix.ELOOP)
}

func checkKind(f *os.File, target string, isDir bool) error {
	fi, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	if fi.IsDir() == isDir {
		return nil
	}
	err = fmt.Errorf("mount at %s: %w", target, unix.ENOTDIR)
	if fi.IsDir() {
		err = fmt.Errorf("mount a file at %s: %w", target, unix.EISDIR)
	}
	return errors.Join(err, f.Close())
}

// firstMissing splits name at the first component that leads nowhere. Names are
// not cleaned: what ".." means depends on the links before it.
func (s *stubs) firstMissing(name string) (parent, base, rest string, err error) {
	parts := strings.FieldsFunc(name, func(r rune) bool { return r == '/' })
	for i, part := range parts {
		_, err := s.root.Stat(parent + "/" + part)
		if errors.Is(err, unix.ENOENT) {
			return parent, part, strings.Join(parts[i+1:], "/"), nil
		}
		if err != nil {
			return "", "", "", err
		}
		parent += "/" + part
	}
	return "", "", "", fmt.Errorf("open %s: it changes under us", name)
}

// make makes base in the directory parent. The directory's times stay as they
// were, so that the process sees them, and changes them or not.
func (s *stubs) make(parent, base string, isDir bool) error {
	dir, err := s.root.OpenFile(parent+"/", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	times, err := timesOf(dir)
	if err == nil {
		err = makeAt(dir, base, isDir)
	}
	if err != nil {
		return errors.Join(err, dir.Close())
	}
	var st unix.Stat_t
	if err := unix.Fstatat(int(dir.Fd()), base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return errors.Join(err, dir.Close())
	}
	s.made = append(s.made, stub{dir: dir, name: base, dev: st.Dev, ino: st.Ino, isDir: isDir})
	return setTimes(dir, times)
}

func makeAt(dir *os.File, base string, isDir bool) error {
	if isDir {
		return unix.Mkdirat(int(dir.Fd()), base, 0o755)
	}
	return unix.Mknodat(int(dir.Fd()), base, unix.S_IFREG|0o644, 0)
}

// remove removes what was made and is still as it was: directories that are
// empty, and files without content.
func (s *stubs) remove() error {
	var errs []error
	for _, st := range slices.Backward(s.made) {
		if err := st.remove(); err != nil {
			errs = append(errs, fmt.Errorf("remove mount point %s: %w", st.name, err))
		}
		_ = st.dir.Close()
	}
	s.made = nil
	return errors.Join(errs...)
}

func (s stub) remove() error {
	fd := int(s.dir.Fd())
	var st unix.Stat_t
	err := unix.Fstatat(fd, s.name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	if st.Dev != s.dev || st.Ino != s.ino || !s.isDir && st.Size > 0 {
		return nil // it is the process's own now
	}
	times, err := timesOf(s.dir)
	if err != nil {
		return err
	}
	flags := 0
	if s.isDir {
		flags = unix.AT_REMOVEDIR
	}
	err = unix.Unlinkat(fd, s.name, flags)
	if errors.Is(err, unix.ENOTEMPTY) {
		return nil
	}
	if err != nil {
		return err
	}
	return setTimes(s.dir, times)
}

func timesOf(dir *os.File) ([]unix.Timespec, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return nil, err
	}
	return []unix.Timespec{st.Atim, st.Mtim}, nil
}

func setTimes(dir *os.File, times []unix.Timespec) error {
	return unix.UtimesNanoAt(int(dir.Fd()), "", times, unix.AT_EMPTY_PATH)
}
