//go:build linux && cgo && (amd64 || arm64)

package runc

import (
	"path"
	"slices"

	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/engine/sandbox"
)

var maskedPaths = []string{
	"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
	"/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats",
	"/proc/sched_debug", "/proc/scsi",
	"/sys/firmware", "/sys/devices/virtual/powercap",
}

var readonlyPaths = []string{
	"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger",
}

// config returns what libcontainer shall make: the PID namespace with its
// /proc, a mount namespace with the root, and what is hidden in it. All else
// the container has from the thread that starts it.
func (r *run) config() *configs.Config {
	c := &configs.Config{
		Rootfs:            r.rootfs,
		ParentDeathSignal: int(unix.SIGKILL),
		Namespaces:        configs.Namespaces{{Type: configs.NEWNS}, {Type: configs.NEWPID}},
		Mounts: []*configs.Mount{{
			Source: "proc", Destination: "/proc", Device: "proc",
			Flags: unix.MS_NOSUID | unix.MS_NOEXEC | unix.MS_NODEV,
		}},
		Cgroups: r.group.libcontainer(r.spec.ID, r.spec.Insecure),
	}
	if r.executor.cgroups.unified {
		c.Namespaces = append(c.Namespaces, configs.Namespace{Type: configs.NEWCGROUP})
		c.Mounts = append(c.Mounts, r.unifiedMount())
	}
	if r.mountsAt("/dev") {
		// libcontainer shall not put its links into what is mounted there.
		c.Mounts = append(c.Mounts, &configs.Mount{
			Source: r.rootfs + "/dev", Destination: "/dev", Device: "bind", Flags: unix.MS_BIND | unix.MS_REC,
		})
	}
	if !r.spec.Insecure {
		c.MaskPaths = maskedPaths
		c.ReadonlyPaths = readonlyPaths
	}
	return c
}

// unifiedMount is the view of cgroup v2.
func (r *run) unifiedMount() *configs.Mount {
	flags := unix.MS_NOSUID | unix.MS_NOEXEC | unix.MS_NODEV
	if !r.spec.Insecure {
		flags |= unix.MS_RDONLY
	}
	return &configs.Mount{Source: "cgroup", Destination: cgroupRoot, Device: "cgroup", Flags: flags}
}

func (r *run) mountsAt(target string) bool {
	return slices.ContainsFunc(r.spec.Mounts, func(m sandbox.Mount) bool { return path.Clean(m.Target) == target })
}
