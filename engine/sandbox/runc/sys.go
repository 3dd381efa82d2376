//go:build linux && cgo && (amd64 || arm64)

package runc

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const pseudoAttr = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC

// mountSys mounts /sys, and in it the cgroups, and /dev/mqueue. They show what
// namespaces the thread has, and are read-only as in BuildKit.
func (r *run) mountSys() error {
	ro := uint64(unix.MOUNT_ATTR_RDONLY)
	if r.spec.Insecure {
		ro = 0
	}
	sys, err := newMount("sysfs", pseudoAttr|int(ro), "source", "sysfs")
	if err != nil {
		return err
	}
	defer sys.Close()
	if err := r.attachPseudo(sys, "/sys"); err != nil {
		return err
	}
	if err := r.mountCgroups(ro); err != nil {
		return fmt.Errorf("show cgroups: %w", err)
	}
	if r.mountsAt("/dev") {
		return nil
	}
	mqueue, err := newMount("mqueue", pseudoAttr, "source", "mqueue")
	if err != nil {
		return err
	}
	defer mqueue.Close()
	return r.attachPseudo(mqueue, "/dev/mqueue")
}

// attachPseudo attaches a filesystem of the kernel at dir, which must be what it
// seems to be: nothing may lead elsewhere (as in runc, for /proc and /sys).
func (r *run) attachPseudo(src *os.File, dir string) error {
	dst, err := r.root.OpenFile(dir, unix.O_PATH|unix.O_NOFOLLOW|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer dst.Close()
	return attach(src, dst)
}

// mountCgroups shows the cgroups of v1 that the thread, and so the container, is
// in. With v2 the container has a cgroup namespace, and libcontainer mounts it.
func (r *run) mountCgroups(ro uint64) error {
	hierarchies := r.executor.cgroups.hierarchies
	if len(hierarchies) == 0 {
		return nil
	}
	dir, err := newMount("tmpfs", pseudoAttr, "source", "tmpfs", "mode", "755")
	if err != nil {
		return err
	}
	defer dir.Close()
	for _, h := range hierarchies {
		if err := makeHierarchy(dir, h); err != nil {
			return err
		}
	}
	if err := setAttr(dir, ro); err != nil {
		return err
	}
	if err := r.attachPseudo(dir, cgroupRoot); err != nil {
		return err
	}
	for _, h := range hierarchies {
		if err := r.mountHierarchy(h, ro); err != nil {
			return fmt.Errorf("%s: %w", h.mount, err)
		}
	}
	return nil
}

// makeHierarchy makes a place for h in dir, with the names that its controllers
// have if there are several.
func makeHierarchy(dir *os.File, h hierarchy) error {
	name := filepath.Base(h.mount)
	if err := unix.Mkdirat(int(dir.Fd()), name, 0o755); err != nil {
		return err
	}
	if !strings.Contains(name, ",") {
		return nil
	}
	for part := range strings.SplitSeq(name, ",") {
		if err := unix.Symlinkat(name, int(dir.Fd()), part); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
	}
	return nil
}

func (r *run) mountHierarchy(h hierarchy, ro uint64) error {
	src, err := hostTree(r.cgroupDir(h))
	if err != nil {
		return err
	}
	defer src.Close()
	if err := setAttr(src, pseudoAttr|ro); err != nil {
		return err
	}
	return r.attachPseudo(src, filepath.Join(cgroupRoot, filepath.Base(h.mount)))
}

// cgroupDir returns the group in h that the run is in.
func (r *run) cgroupDir(h hierarchy) string {
	for _, m := range r.group.members {
		switch {
		case m.own.Name() != h.own:
		case m.memory:
			return filepath.Join(m.dir.Name(), r.spec.ID)
		case m.devices && r.spec.Insecure:
		default:
			return m.dir.Name()
		}
	}
	return h.own
}
