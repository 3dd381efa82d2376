//go:build linux && cgo && (amd64 || arm64)

package runc

import (
	"errors"
	"fmt"

	"github.com/opencontainers/cgroups"
	_ "github.com/opencontainers/cgroups/devices" // without it no device rules can be set
	"golang.org/x/sys/unix"
)

const cgroupRoot = "/sys/fs/cgroup"

// primeCgroups lets the cgroups package open what it keeps open while the
// caller still sees the host's mounts, not those of one run.
func primeCgroups() {
	f, err := cgroups.OpenFile(cgroupRoot, "cgroup.procs", unix.O_RDONLY)
	if err == nil {
		_ = f.Close()
	}
}

// hideCgroups makes the calling thread's view of the cgroups read-only.
func hideCgroups() error {
	err := unix.MountSetattr(unix.AT_FDCWD, cgroupRoot, unix.AT_RECURSIVE,
		&unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
	if err == nil || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) {
		return nil
	}
	return fmt.Errorf("make %s read-only: %w", cgroupRoot, err)
}

// noCgroups tells libcontainer to leave the container in the cgroups that it
// has; that is what it does when it is allowed to fail and can't write.
func noCgroups() *cgroups.Cgroup {
	return &cgroups.Cgroup{Parent: "/slipway-none", Rootless: true, Resources: &cgroups.Resources{}}
}

func removeCgroups(*instance) error { return nil }
