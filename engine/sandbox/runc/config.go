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

const pseudoFlags = unix.MS_NOSUID | unix.MS_NOEXEC | unix.MS_NODEV

// config returns what libcontainer shall make: namespaces, the filesystems
// that belong to them, and what is hidden of those.
func (r *run) config() *configs.Config {
	c := &configs.Config{
		Rootfs:            r.rootfs,
		Hostname:          hostname(r.spec),
		ParentDeathSignal: int(unix.SIGKILL),
		Namespaces: configs.Namespaces{
			{Type: configs.NEWNS},
			{Type: configs.NEWPID},
			{Type: configs.NEWIPC},
			{Type: configs.NEWUTS},
		},
		Mounts:  r.pseudoMounts(),
		Cgroups: noCgroups(),
	}
	if r.spec.Network == sandbox.NoNetwork {
		c.Namespaces = append(c.Namespaces, configs.Namespace{Type: configs.NEWNET})
		c.Networks = []*configs.Network{{Type: "loopback"}}
	}
	if !r.spec.Insecure {
		c.MaskPaths = maskedPaths
		c.ReadonlyPaths = readonlyPaths
	}
	return c
}

// pseudoMounts are the filesystems that show the container's own namespaces,
// and therefore can only be mounted in it.
func (r *run) pseudoMounts() []*configs.Mount {
	ro := unix.MS_RDONLY
	if r.spec.Insecure {
		ro = 0
	}
	mounts := []*configs.Mount{
		{Source: "proc", Destination: "/proc", Device: "proc", Flags: pseudoFlags},
		{Source: "sysfs", Destination: "/sys", Device: "sysfs", Flags: pseudoFlags | ro},
		{Source: "cgroup", Destination: "/sys/fs/cgroup", Device: "cgroup", Flags: pseudoFlags | ro},
	}
	if r.mountsAt("/dev") {
		// libcontainer shall not put its links into what is mounted there.
		return append(mounts, &configs.Mount{
			Source: r.rootfs + "/dev", Destination: "/dev", Device: "bind", Flags: unix.MS_BIND | unix.MS_REC,
		})
	}
	if !r.mountsAt("/dev/mqueue") {
		mounts = append(mounts, &configs.Mount{
			Source: "mqueue", Destination: "/dev/mqueue", Device: "mqueue", Flags: pseudoFlags,
		})
	}
	return mounts
}

func (r *run) mountsAt(target string) bool {
	return slices.ContainsFunc(r.spec.Mounts, func(m sandbox.Mount) bool { return path.Clean(m.Target) == target })
}
