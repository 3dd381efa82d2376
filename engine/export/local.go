package export

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/engine/content"
	"github.com/slipway-build/slipway/engine/inroot"
)

// localDir writes the files of the image into a directory. They are first
// written aside, in a directory that only we can enter, and then moved. What
// the destination has of other names stays. Directories are opened one by one
// without following links, so that none, of the image or left by an earlier
// one, leads a write out of the destination.
//
// As with BuildKit the files belong to the user who runs the build; modes,
// times and links are the image's.
type localDir struct {
	trees
	dest string
}

// Export writes the files.
func (l *localDir) Export(ctx context.Context, a Artifact) (content.Descriptor, error) {
	if err := l.export(ctx, a); err != nil {
		return content.Descriptor{}, fmt.Errorf("write %s: %w", l.dest, err)
	}
	return a.Root, nil
}

func (l *localDir) export(ctx context.Context, a Artifact) (err error) {
	dest := filepath.Clean(l.dest)
	inside := filepath.Join(dest, "stage")
	_, err = os.Stat(dest)
	fresh := errors.Is(err, fs.ErrNotExist)
	if fresh {
		if err := os.MkdirAll(filepath.Dir(dest), 0o755); err != nil {
			return err
		}
		inside = dest
	} else if err != nil {
		return err
	}
	stage, lock, err := makeBeside(inside)
	if err != nil {
		return err
	}
	defer lock.Close()
	defer func() { err = errors.Join(err, removeAll(stage)) }()
	if err := l.fill(ctx, a, stage); err != nil {
		return err
	}
	if fresh {
		if err := os.Chmod(stage, 0o755); err != nil { //nolint:gosec // a directory for the user, as the shell's mkdir makes it
			return err
		}
		return os.Rename(stage, dest)
	}
	from, err := os.Open(stage)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.Open(dest)
	if err != nil {
		return err
	}
	defer to.Close()
	return merge(int(from.Fd()), int(to.Fd()), 0)
}

// removeAll removes the stage, also directories that can't be written to.
func removeAll(dir string) error {
	if os.Geteuid() != 0 {
		_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, _ error) error {
			if d != nil && d.IsDir() {
				_ = os.Chmod(path, 0o700) //nolint:gosec // it is about to be removed
			}
			return nil
		})
	}
	return os.RemoveAll(dir)
}

// fill writes all trees into the directory stage.
func (l *localDir) fill(ctx context.Context, a Artifact, stage string) error {
	top, err := inroot.Open(stage)
	if err != nil {
		return err
	}
	defer top.Close()
	return l.each(ctx, a, func(root *inroot.Root, dir string) error {
		base := top
		if dir != "" {
			if err := unix.Mkdirat(top.Fd(), dir, 0o755); err != nil {
				return fmt.Errorf("make directory %s: %w", dir, err)
			}
			if base, err = top.Sub(dir); err != nil {
				return err
			}
			defer base.Close()
		}
		r := &dirReceiver{trees: l.trees, base: base, dirs: []int{base.Fd()}, seen: map[inode]string{}}
		defer r.close()
		return walk(ctx, root.Fd(), "", 0, r)
	})
}

// A dirReceiver writes what it is told of into a directory.
type dirReceiver struct {
	trees
	base *inroot.Root
	dirs []int // the directories that are being filled, open
	seen map[inode]string
}

func (r *dirReceiver) close() {
	for _, fd := range r.dirs[1:] {
		_ = unix.Close(fd)
	}
}

func (r *dirReceiver) enter(e entry) error {
	to := r.dirs[len(r.dirs)-1]
	if first, ok := r.seen[e.inode()]; ok && e.linked() {
		dirfd, name, err := r.base.OpenDir(first)
		if err != nil {
			return err
		}
		defer unix.Close(dirfd)
		return exists(unix.Linkat(dirfd, name, to, e.name, 0))
	}
	if e.linked() {
		r.seen[e.inode()] = e.path
	}
	mode := e.st.Mode & unix.S_IFMT
	switch mode {
	case unix.S_IFDIR:
		return r.enterDir(to, e)
	case unix.S_IFREG:
		return r.writeFile(to, e)
	case unix.S_IFLNK:
		link, err := inroot.ReadlinkAt(e.dirfd, e.name)
		if err != nil {
			return err
		}
		if err := unix.Symlinkat(link, to, e.name); err != nil {
			return exists(err)
		}
	case unix.S_IFCHR, unix.S_IFBLK, unix.S_IFIFO:
		if err := unix.Mknodat(to, e.name, mode|0o600, int(e.st.Rdev)); err != nil {
			return exists(err)
		}
		if err := unix.Fchmodat(to, e.name, e.st.Mode&0o7777, 0); err != nil {
			return err
		}
	default:
		return nil // sockets: nobody listens
	}
	return setTime(to, e.name, r.modTime(e))
}

// exists explains the one way in which something can be in the way.
func exists(err error) error {
	if errors.Is(err, unix.EEXIST) {
		return errors.New("is in the images of several platforms, which platform-split=false does not allow")
	}
	return err
}

func (r *dirReceiver) enterDir(to int, e entry) error {
	if err := unix.Mkdirat(to, e.name, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	fd, err := openDirAt(to, e.name)
	if err != nil {
		return err
	}
	r.dirs = append(r.dirs, fd)
	// It may be one that another platform's image has made read-only.
	return unix.Fchmod(fd, 0o700)
}

// leave sets what writing into the directory would have changed.
func (r *dirReceiver) leave(e entry) error {
	fd := r.dirs[len(r.dirs)-1]
	r.dirs = r.dirs[:len(r.dirs)-1]
	defer unix.Close(fd)
	if err := copyXattrs(fd, e); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, e.st.Mode&0o7777); err != nil {
		return err
	}
	return setTime(r.dirs[len(r.dirs)-1], e.name, r.modTime(e))
}

func (r *dirReceiver) writeFile(to int, e entry) error {
	from, err := openRegular(e)
	if err != nil {
		return err
	}
	defer from.Close()
	fd, err := unix.Openat(to, e.name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return exists(err)
	}
	f := os.NewFile(uintptr(fd), e.name)
	_, err = io.Copy(f, from)
	if err == nil {
		err = copyXattrs(fd, e)
	}
	if err == nil {
		err = unix.Fchmod(fd, e.st.Mode&0o7777)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return setTime(to, e.name, r.modTime(e))
}

// copyXattrs sets what may be set: not every file system and user can.
func copyXattrs(fd int, e entry) error {
	attrs, err := xattrs(e)
	if err != nil {
		return err
	}
	for k, v := range attrs {
		err := unix.Fsetxattr(fd, k, []byte(v), 0)
		if err != nil && !errors.Is(err, unix.ENOTSUP) && !errors.Is(err, unix.EPERM) {
			return fmt.Errorf("set attribute %s: %w", k, err)
		}
	}
	return nil
}

func setTime(dirfd int, name string, t time.Time) error {
	ts, err := unix.TimeToTimespec(t)
	if err != nil {
		return err
	}
	return unix.UtimesNanoAt(dirfd, name, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
}

func openDirAt(dirfd int, name string) (int, error) {
	return unix.Openat(dirfd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

// merge moves what the directory from has into to: directories are merged,
// everything else replaces what was there.
func merge(from, to, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("directories are nested more than %d deep", maxDepth)
	}
	names, err := readDir(from)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := mergeEntry(from, to, name, depth); err != nil {
			return fmt.Errorf("replace %s: %w", name, err)
		}
	}
	return nil
}

func mergeEntry(from, to int, name string, depth int) error {
	var have, there unix.Stat_t
	if err := unix.Fstatat(from, name, &have, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	err := unix.Fstatat(to, name, &there, unix.AT_SYMLINK_NOFOLLOW)
	isDir := have.Mode&unix.S_IFMT == unix.S_IFDIR
	wasDir := err == nil && there.Mode&unix.S_IFMT == unix.S_IFDIR
	switch {
	case errors.Is(err, unix.ENOENT):
	case err != nil:
		return err
	case isDir && wasDir:
		return mergeDir(from, to, name, have, depth)
	case wasDir:
		if err := removeAt(to, name, 0); err != nil {
			return err
		}
	case isDir: // a file or a link is in the way
		if err := unix.Unlinkat(to, name, 0); err != nil {
			return err
		}
	}
	if isDir { // moving a directory to another parent writes into it
		if err := unix.Fchmodat(from, name, 0o700, 0); err != nil {
			return err
		}
	}
	if err := unix.Renameat(from, name, to, name); err != nil {
		return err
	}
	if !isDir {
		return nil
	}
	fd, err := openDirAt(to, name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Fchmod(fd, have.Mode&0o7777)
}

func mergeDir(from, to int, name string, have unix.Stat_t, depth int) error {
	src, err := openDirAt(from, name)
	if err != nil {
		return err
	}
	defer unix.Close(src)
	dst, err := openDirAt(to, name)
	if err != nil {
		return err
	}
	defer unix.Close(dst)
	for _, fd := range []int{src, dst} {
		if err := unix.Fchmod(fd, 0o700|have.Mode&0o077); err != nil {
			return err
		}
	}
	if err := merge(src, dst, depth+1); err != nil {
		return err
	}
	if err := unix.Fchmod(dst, have.Mode&0o7777); err != nil {
		return err
	}
	return setTime(to, name, time.Unix(have.Mtim.Unix()))
}

// removeAt removes a directory and what is in it.
func removeAt(dirfd int, name string, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("directories are nested more than %d deep", maxDepth)
	}
	fd, err := openDirAt(dirfd, name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	names, err := readDir(fd)
	if err != nil {
		return err
	}
	for _, n := range names {
		err := unix.Unlinkat(fd, n, 0)
		if errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EPERM) {
			err = removeAt(fd, n, depth+1)
		}
		if err != nil {
			return err
		}
	}
	return unix.Unlinkat(dirfd, name, unix.AT_REMOVEDIR)
}
