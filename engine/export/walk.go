package export

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/engine/inroot"
	"github.com/slipway-build/slipway/engine/tree"
	"github.com/slipway-build/slipway/platforms"
)

// maxDepth bounds the directories that are open at once.
const maxDepth = 1000

// trees are the file systems of an artifact, as local and tar write them.
type trees struct {
	viewer tree.Viewer
	split  *bool // platform-split
	src    string
	epoch  *time.Time
}

func newTrees(attrs map[string]string, deps Deps, f Format) trees {
	t := trees{viewer: deps.Viewer, src: attrs["src"], epoch: f.Epoch}
	if _, ok := attrs["platform-split"]; ok {
		split := truth(attrs, "platform-split", true)
		t.split = &split
	}
	return t
}

// A receiver is told what a walk finds: enter for each entry, a directory
// before what is in it, and leave for each directory after that.
type receiver interface {
	enter(e entry) error
	leave(e entry) error
}

// An entry is one file of a tree.
type entry struct {
	path  string // from the top, with slashes, none in front
	dirfd int    // the directory that has it
	name  string // its name there
	st    unix.Stat_t
}

func (e entry) isDir() bool { return e.st.Mode&unix.S_IFMT == unix.S_IFDIR }

// each calls give for the tree of each platform, with the name of the
// directory that it is to be put into, which may be empty.
func (t trees) each(ctx context.Context, a Artifact, give func(root *inroot.Root, dir string) error) error {
	split := len(a.Images) > 1
	if t.split != nil {
		split = *t.split
	}
	for _, img := range a.Images {
		dir := ""
		if split {
			dir = platformDir(img.Platform)
		}
		if err := t.one(ctx, img, func(root *inroot.Root) error { return give(root, dir) }); err != nil {
			return err
		}
	}
	return nil
}

func (t trees) one(ctx context.Context, img Image, give func(root *inroot.Root) error) (err error) {
	view, err := t.viewer.View(ctx, img.Tree)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, view.Close()) }()
	if t.src == "" {
		return give(view.Root)
	}
	sub, err := view.Root.Sub(t.src)
	if err != nil {
		return fmt.Errorf("src=%s: %w", t.src, err)
	}
	defer sub.Close()
	return give(sub)
}

// platformDir is BuildKit's name for the directory of a platform: linux_arm_v7.
func platformDir(p platforms.Platform) string {
	return strings.NewReplacer("/", "_", `\`, "_", ":", "_").Replace(platforms.Format(p))
}

// modTime is the time that an entry gets.
func (t trees) modTime(e entry) time.Time {
	if t.epoch != nil {
		return *t.epoch
	}
	return time.Unix(e.st.Mtim.Unix())
}

// walk goes through what is in the directory fd, sorted by name and without
// following links.
func walk(ctx context.Context, fd int, path string, depth int, r receiver) error {
	if depth > maxDepth {
		return fmt.Errorf("%s: directories are nested more than %d deep", path, maxDepth)
	}
	names, err := readDir(fd)
	if err != nil {
		return fmt.Errorf("read directory /%s: %w", path, err)
	}
	for _, name := range names {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		e := entry{path: strings.TrimPrefix(path+"/"+name, "/"), dirfd: fd, name: name}
		if err := unix.Fstatat(fd, name, &e.st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("stat /%s: %w", e.path, err)
		}
		if err := r.enter(e); err != nil {
			return fmt.Errorf("/%s: %w", e.path, err)
		}
		if !e.isDir() {
			continue
		}
		if err := into(ctx, e, depth, r); err != nil {
			return err
		}
		if err := r.leave(e); err != nil {
			return fmt.Errorf("/%s: %w", e.path, err)
		}
	}
	return nil
}

func into(ctx context.Context, e entry, depth int, r receiver) error {
	fd, err := unix.Openat(e.dirfd, e.name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /%s: %w", e.path, err)
	}
	defer unix.Close(fd)
	return walk(ctx, fd, e.path, depth+1, r)
}

// readDir lists the directory fd, which may be open by O_PATH.
func readDir(fd int) ([]string, error) {
	dup, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(dup), ".")
	defer f.Close()
	names, err := f.Readdirnames(-1)
	slices.Sort(names)
	return names, err
}

// openRegular opens a regular file for reading.
func openRegular(e entry) (*os.File, error) {
	// O_NONBLOCK: should it have become a FIFO, it must not block.
	fd, err := unix.Openat(e.dirfd, e.name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), e.name)
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = errors.New("not a regular file any more")
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// xattrs returns the extended attributes of an entry that mean something
// elsewhere: those of users, and file capabilities.
func xattrs(e entry) (map[string]string, error) {
	if t := e.st.Mode & unix.S_IFMT; t != unix.S_IFREG && t != unix.S_IFDIR {
		return nil, nil
	}
	fd, err := unix.Openat(e.dirfd, e.name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	list, err := xattrCall(func(buf []byte) (int, error) { return unix.Flistxattr(fd, buf) })
	if err != nil {
		return nil, err
	}
	var m map[string]string
	for key := range strings.SplitSeq(strings.TrimSuffix(string(list), "\x00"), "\x00") {
		if !strings.HasPrefix(key, "user.") && key != "security.capability" {
			continue
		}
		v, err := xattrCall(func(buf []byte) (int, error) { return unix.Fgetxattr(fd, key, buf) })
		if err != nil {
			return nil, err
		}
		if m == nil {
			m = map[string]string{}
		}
		m[key] = string(v)
	}
	return m, nil
}

// xattrCall calls with a buffer that is large enough. A file system without
// extended attributes has none.
func xattrCall(call func([]byte) (int, error)) ([]byte, error) {
	for size := 1024; ; size *= 4 {
		buf := make([]byte, size)
		n, err := call(buf)
		switch {
		case errors.Is(err, unix.ERANGE) && size < 1<<20:
			continue
		case errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.ENODATA):
			return nil, nil
		case err != nil:
			return nil, err
		}
		return buf[:n], nil
	}
}

// inode identifies a file with several names.
type inode struct{ dev, ino uint64 }

func (e entry) inode() inode { return inode{e.st.Dev, e.st.Ino} }

// linked reports whether the file may have other names.
func (e entry) linked() bool { return !e.isDir() && e.st.Nlink > 1 }
