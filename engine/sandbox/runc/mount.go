//go:build linux && cgo && (amd64 || arm64)

package runc

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/engine/inroot"
	"github.com/slipway-build/slipway/engine/sandbox"
)

// attach moves the detached mount src to dst, both open with O_PATH.
func attach(src, dst *os.File) error {
	err := unix.MoveMount(int(src.Fd()), "", int(dst.Fd()), "",
		unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	return os.NewSyscallError("move_mount", err)
}

// clone returns a detached mount of what f is, a directory or a file.
func clone(f *os.File) (*os.File, error) {
	fd, err := unix.OpenTree(int(f.Fd()), "",
		unix.AT_EMPTY_PATH|unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return nil, os.NewSyscallError("open_tree", err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// setAttr sets attributes such as unix.MOUNT_ATTR_RDONLY on a detached mount
// and the mounts below it.
func setAttr(mount *os.File, attr uint64) error {
	if attr == 0 {
		return nil
	}
	err := unix.MountSetattr(int(mount.Fd()), "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE,
		&unix.MountAttr{Attr_set: attr})
	return os.NewSyscallError("mount_setattr", err)
}

// newMount returns a detached mount of a new filesystem. Options are name and
// value in turn.
func newMount(fstype string, attr int, options ...string) (*os.File, error) {
	fd, err := unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("mount %s: fsopen: %w", fstype, err)
	}
	defer unix.Close(fd)
	for i := 0; i+1 < len(options); i += 2 {
		if options[i+1] == "" {
			err = unix.FsconfigSetFlag(fd, options[i])
		} else {
			err = unix.FsconfigSetString(fd, options[i], options[i+1])
		}
		if err != nil {
			return nil, fmt.Errorf("mount %s: option %s=%s: %w", fstype, options[i], options[i+1], err)
		}
	}
	if err := unix.FsconfigCreate(fd); err != nil {
		return nil, fmt.Errorf("mount %s: fsconfig: %w", fstype, err)
	}
	mfd, err := unix.Fsmount(fd, unix.FSMOUNT_CLOEXEC, attr)
	if err != nil {
		return nil, fmt.Errorf("mount %s: fsmount: %w", fstype, err)
	}
	return os.NewFile(uintptr(mfd), fstype), nil
}

// mountAll makes the spec's mounts, in order.
func (r *run) mountAll() error {
	for _, m := range r.spec.Mounts {
		if err := r.mount(m); err != nil {
			return fmt.Errorf("mount %s: %w", m.Target, err)
		}
	}
	return nil
}

func (r *run) mount(m sandbox.Mount) error {
	target := path.Clean(m.Target)
	if !path.IsAbs(m.Target) || target == "/" || within(target, "/proc") || within(target, "/sys") {
		return errors.New("nothing can be mounted there")
	}
	var src *os.File
	var err error
	switch {
	case m.Tree != nil && m.Dir == "" && m.Tmpfs == nil:
		src, err = r.subtree(m)
	case m.Dir != "" && m.Tree == nil && m.Tmpfs == nil:
		src, err = hostTree(m.Dir)
	case m.Tmpfs != nil && m.Tree == nil && m.Dir == "":
		return r.mountTmpfs(target, m)
	default:
		err = errors.New("it must have one of a tree, a directory and a tmpfs")
	}
	if err != nil {
		return err
	}
	defer src.Close()
	attr := uint64(0)
	if m.ReadOnly {
		attr |= unix.MOUNT_ATTR_RDONLY
	}
	if r.noDevices() {
		attr |= unix.MOUNT_ATTR_NODEV
	}
	if err := setAttr(src, attr); err != nil {
		return err
	}
	fi, err := src.Stat()
	if err != nil {
		return err
	}
	return r.attachAt(src, target, fi.IsDir())
}

// attachAt attaches src at target in the container, making a place for it.
func (r *run) attachAt(src *os.File, target string, isDir bool) error {
	dst, err := r.stubs.open(target, isDir)
	if err != nil {
		return err
	}
	defer dst.Close()
	// Links may have led to where the kernel's own filesystems go.
	name, err := inroot.ReadlinkAt(unix.AT_FDCWD, "/proc/thread-self/fd/"+strconv.Itoa(int(dst.Fd())))
	if err != nil {
		return err
	}
	inside, ok := strings.CutPrefix(name, r.rootfs)
	if !ok || inside == "" || within(inside, "/proc") || within(inside, "/sys") {
		return fmt.Errorf("nothing can be mounted there: it leads to %q", inside)
	}
	return attach(src, dst)
}

// within says whether the clean path name is dir or below it.
func within(name, dir string) bool { return name == dir || strings.HasPrefix(name, dir+"/") }

// subtree returns a detached mount of m.Path in m.Tree. The path is resolved
// inside the tree, and the result is mounted by descriptor: nobody can swap it
// for a link between the two (CVE-2024-23651).
func (r *run) subtree(m sandbox.Mount) (*os.File, error) {
	tree, err := m.Tree.Detached()
	if err != nil || path.Clean("/"+m.Path) == "/" {
		return tree, err
	}
	defer tree.Close()
	// Before Linux 6.15 only what is attached somewhere can be cloned.
	at := r.executor.instance.path("tree")
	if err := unix.MoveMount(int(tree.Fd()), "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return nil, os.NewSyscallError("move_mount", err)
	}
	defer func() { _ = unix.Unmount(at, unix.MNT_DETACH) }()
	root, err := inroot.Open(at)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := root.OpenFile(m.Path, unix.O_PATH, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return clone(f)
}

// hostTree returns a detached mount of a directory or file of the host.
func hostTree(name string) (*os.File, error) {
	f, err := os.OpenFile(name, unix.O_PATH, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return clone(f)
}

// mountTmpfs mounts a tmpfs at target. Without a mode of its own it has that of
// the directory it covers, or 1777.
func (r *run) mountTmpfs(target string, m sandbox.Mount) error {
	mode := m.Tmpfs.Mode
	if st, err := r.root.Stat(target); err == nil && mode == 0 {
		mode = st.Mode & 0o7777
	}
	if mode == 0 {
		mode = 0o1777
	}
	if mode > 0o7777 || m.Tmpfs.Size < 0 {
		return fmt.Errorf("mode %o or size %d of a tmpfs is out of range", m.Tmpfs.Mode, m.Tmpfs.Size)
	}
	attr := unix.MOUNT_ATTR_NOSUID
	if m.ReadOnly {
		attr |= unix.MOUNT_ATTR_RDONLY
	}
	if r.noDevices() {
		attr |= unix.MOUNT_ATTR_NODEV
	}
	options := []string{"source", "tmpfs", "mode", strconv.FormatUint(uint64(mode), 8)}
	if m.Tmpfs.Size > 0 {
		options = append(options, "size", strconv.FormatInt(m.Tmpfs.Size, 10))
	}
	f, err := newMount("tmpfs", attr, options...)
	if err != nil {
		return err
	}
	defer f.Close()
	return r.attachAt(f, target, true)
}
