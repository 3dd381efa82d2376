//go:build linux && cgo && (amd64 || arm64)

package runc

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// nodes are the devices that every container has.
var nodes = []struct {
	name         string
	major, minor uint32
}{
	{"null", 1, 3},
	{"zero", 1, 5},
	{"full", 1, 7},
	{"random", 1, 8},
	{"urandom", 1, 9},
	{"tty", 5, 0},
}

// mountDev makes /dev: a tmpfs with the nodes, a devpts of its own and
// /dev/shm. The links in it are made by libcontainer.
func (r *run) mountDev() error {
	dev, err := newMount("tmpfs", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_STRICTATIME,
		"source", "tmpfs", "mode", "755", "size", "65536k")
	if err != nil {
		return err
	}
	defer dev.Close()
	if err := r.makeNodes(dev); err != nil {
		return err
	}
	null, err := unix.Openat(int(dev.Fd()), "null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /dev/null: %w", err)
	}
	r.null = os.NewFile(uintptr(null), "/dev/null")
	if err := r.attachAt(dev, "/dev", true); err != nil {
		return err
	}
	pts, err := newMount("devpts", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC,
		"source", "devpts", "ptmxmode", "0666", "mode", "0620", "gid", "5")
	if err != nil {
		return err
	}
	defer pts.Close()
	if err := r.attachAt(pts, "/dev/pts", true); err != nil {
		return err
	}
	shm, err := newMount("tmpfs", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC|unix.MOUNT_ATTR_NODEV,
		"source", "shm", "mode", "1777", "size", strconv.FormatInt(r.shmSize(), 10))
	if err != nil {
		return err
	}
	defer shm.Close()
	return r.attachAt(shm, "/dev/shm", true)
}

func (r *run) shmSize() int64 {
	if r.spec.ShmSize > 0 {
		return r.spec.ShmSize
	}
	return 64 << 20
}

func (r *run) makeNodes(dev *os.File) error {
	fd := int(dev.Fd())
	for _, d := range nodes {
		if err := unix.Mknodat(fd, d.name, unix.S_IFCHR|0o666, int(unix.Mkdev(d.major, d.minor))); err != nil {
			return fmt.Errorf("make /dev/%s: %w", d.name, err)
		}
	}
	for _, dir := range []string{"pts", "shm", "mqueue"} {
		if err := unix.Mkdirat(fd, dir, 0o755); err != nil {
			return fmt.Errorf("make /dev/%s: %w", dir, err)
		}
	}
	if r.spec.Insecure {
		return makeInsecureNodes(fd)
	}
	return nil
}

// insecureNodes are the further nodes that BuildKit gives a container with
// --security=insecure, besides loop devices.
var insecureNodes = []struct {
	name         string
	major, minor uint32
}{
	{"kmsg", 1, 11},
	{"cuse", 10, 203},
	{"fuse", 10, 229},
	{"kvm", 10, 232},
	{"net/tun", 10, 200},
	{"loop-control", 10, 237},
}

// spareLoops is how many loop devices there are beyond the first free one.
const spareLoops = 7

func makeInsecureNodes(fd int) error {
	if err := unix.Mkdirat(fd, "net", 0o755); err != nil {
		return fmt.Errorf("make /dev/net: %w", err)
	}
	for _, d := range insecureNodes {
		if err := unix.Mknodat(fd, d.name, unix.S_IFCHR|0o666, int(unix.Mkdev(d.major, d.minor))); err != nil {
			return fmt.Errorf("make /dev/%s: %w", d.name, err)
		}
	}
	for i := range freeLoop() + spareLoops + 1 {
		name := "loop" + strconv.Itoa(i)
		if err := unix.Mknodat(fd, name, unix.S_IFBLK|0o666, int(unix.Mkdev(7, uint32(i)))); err != nil {
			return fmt.Errorf("make /dev/%s: %w", name, err)
		}
	}
	return nil
}

// freeLoop returns the number of the first free loop device, or 0.
func freeLoop() int {
	f, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return 0
	}
	defer f.Close()
	n, err := unix.IoctlRetInt(int(f.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil || n < 0 {
		return 0
	}
	return n
}
