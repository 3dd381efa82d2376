//go:build linux && cgo && (amd64 || arm64)

package runc

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/cgroups"
	_ "github.com/opencontainers/cgroups/devices" // without it no device rules can be set
	devices "github.com/opencontainers/cgroups/devices/config"
	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/engine/diag"
)

const cgroupRoot = "/sys/fs/cgroup"

// cgroupFS is what there is of cgroups, and where in them this process is.
//
// With cgroup v1 the thread of a run joins the groups before the container is
// started, which then is born into them. It joins only what is of use: memory,
// to learn of OOM kills, and devices, without which CAP_MKNOD would open every
// disk; and of other hierarchies a parent that somebody has made. Each costs
// some tenths of a millisecond. With cgroup v2 a thread can't be moved without
// its process, and libcontainer moves the container.
type cgroupFS struct {
	instance    *instance
	unified     bool
	own         string      // unified: the group of this process
	hierarchies []hierarchy // v1

	mu     sync.Mutex
	groups map[string]*group // by their parent
}

// hierarchy is one of cgroup v1.
type hierarchy struct {
	controllers []string
	mount       string
	own         string // the directory of this process's group
}

// openCgroups looks around. It must be called where the host's mounts are seen,
// because the cgroups package keeps what it opens first.
func openCgroups(in *instance) (*cgroupFS, error) {
	c := &cgroupFS{instance: in, unified: cgroups.IsCgroup2UnifiedMode(), groups: map[string]*group{}}
	if f, err := cgroups.OpenFile(cgroupRoot, "cgroup.procs", unix.O_RDONLY); err == nil {
		_ = f.Close()
	}
	paths, err := cgroups.ParseCgroupFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	if c.unified {
		c.own = paths[""]
		return c, nil
	}
	mounts, err := cgroups.GetCgroupMounts(false)
	if err != nil {
		return nil, err
	}
	for _, m := range mounts {
		own, err := m.GetOwnCgroup(paths)
		if err != nil {
			continue
		}
		below, err := filepath.Rel(m.Root, own)
		if err != nil || !filepath.IsLocal(below) {
			continue // in a container without a cgroup namespace, this can't be seen
		}
		c.hierarchies = append(c.hierarchies, hierarchy{
			controllers: m.Subsystems, mount: m.Mountpoint, own: filepath.Join(m.Mountpoint, below),
		})
	}
	if len(c.hierarchies) == 0 { // libcontainer refuses to start anything
		return nil, diag.Hint(fmt.Errorf("no cgroups are mounted in %s", cgroupRoot),
			"Mount them there; read-only is enough.")
	}
	return c, nil
}

// A group is where the runs with the same parent go.
type group struct {
	members []member // v1
	unified string   // v2: the path below which each run gets its own
	devices bool     // what devices can be opened is limited
}

// member is a group in a hierarchy of cgroup v1.
type member struct {
	own, dir *os.File // that of this process, and that for runs
	memory   bool     // every run gets one of its own
	devices  bool
}

// group returns the group for runs with the given parent. Without a parent it is
// below this process's own group, whose limits shall hold. Where no group can be
// made, runs stay in the groups that this process is in.
func (c *cgroupFS) group(parent string) (*group, error) {
	if strings.HasSuffix(parent, ":") || parent != "" && !filepath.IsLocal(strings.TrimPrefix(parent, "/")) {
		return nil, fmt.Errorf("cgroup parent %q: only paths are supported", parent)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if g, ok := c.groups[parent]; ok {
		return g, nil
	}
	g, err := c.makeGroup(parent)
	if err != nil {
		return nil, fmt.Errorf("make cgroup: %w", err)
	}
	c.groups[parent] = g
	return g, nil
}

func (c *cgroupFS) makeGroup(parent string) (*group, error) {
	g := &group{}
	if c.unified {
		base := path.Join("/", parent)
		if parent == "" {
			base = c.own
		}
		dir := path.Join(base, c.instance.cgroup())
		ok, err := c.make(cgroupRoot + dir)
		if ok {
			g.unified, g.devices = dir, true
		}
		return g, err
	}
	for _, h := range c.hierarchies {
		m, err := c.member(h, parent)
		if err != nil {
			return nil, err
		}
		if m != nil {
			g.members = append(g.members, *m)
			g.devices = g.devices || m.devices
		}
	}
	return g, nil
}

// member makes the group in a hierarchy; none if that is of no use, or not
// allowed.
func (c *cgroupFS) member(h hierarchy, parent string) (*member, error) {
	m := &member{
		memory:  slices.Contains(h.controllers, "memory"),
		devices: slices.Contains(h.controllers, "devices"),
	}
	base := h.own
	if parent != "" {
		base = filepath.Join(h.mount, parent)
	}
	dir := base
	if m.memory || m.devices {
		dir = filepath.Join(base, c.instance.cgroup())
		if ok, err := c.make(dir); !ok {
			return nil, err
		}
	} else if _, err := os.Stat(base); parent == "" || err != nil {
		return nil, nil //nolint:nilnil,nilerr // there is nothing to join
	}
	if m.devices {
		if err := cgroups.DevicesSetV1(dir, &cgroups.Resources{Devices: deviceRules()}); err != nil {
			return nil, err
		}
	}
	var err error
	if m.own, err = os.OpenFile(h.own, unix.O_PATH|unix.O_DIRECTORY, 0); err != nil {
		return nil, err
	}
	if m.dir, err = os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY, 0); err != nil {
		return nil, err
	}
	return m, nil
}

// make makes a cgroup, and sees to it that it will be removed. It says false if
// that is not allowed here.
func (c *cgroupFS) make(dir string) (bool, error) {
	if err := c.instance.noteCgroup(dir); err != nil {
		return false, err
	}
	err := os.MkdirAll(dir, 0o755)
	for _, known := range []error{unix.EROFS, fs.ErrPermission, fs.ErrNotExist, unix.ENOTSUP} {
		if errors.Is(err, known) {
			return false, nil
		}
	}
	return err == nil, err
}

// deviceRules returns the devices that runc lets every container use. Nodes of
// any device can be made, but not opened.
func deviceRules() []*devices.Rule {
	return []*devices.Rule{
		rule('c', devices.Wildcard, devices.Wildcard, "m"),
		rule('b', devices.Wildcard, devices.Wildcard, "m"),
		rule('c', 1, 3, "rwm"),                  // null
		rule('c', 1, 5, "rwm"),                  // zero
		rule('c', 1, 7, "rwm"),                  // full
		rule('c', 1, 8, "rwm"),                  // random
		rule('c', 1, 9, "rwm"),                  // urandom
		rule('c', 5, 0, "rwm"),                  // tty
		rule('c', 5, 1, "rwm"),                  // console
		rule('c', 5, 2, "rwm"),                  // ptmx
		rule('c', 136, devices.Wildcard, "rwm"), // pts
		rule('c', 10, 200, "rwm"),               // net/tun
	}
}

func rule(kind devices.Type, major, minor int64, access devices.Permissions) *devices.Rule {
	return &devices.Rule{Type: kind, Major: major, Minor: minor, Permissions: access, Allow: true}
}

// join puts the calling thread into g, in a group of its own for the run id.
// It returns how to undo that, also after an error.
func (g *group) join(id string, insecure bool) (leave func() error, err error) {
	var joined []member
	leave = func() error { return leaveAll(joined, id) }
	for _, m := range g.members {
		if m.devices && insecure {
			continue
		}
		joined = append(joined, m)
		if err := m.join(id); err != nil {
			return leave, fmt.Errorf("join cgroup %s: %w", m.dir.Name(), err)
		}
	}
	return leave, nil
}

func (m member) join(id string) error {
	if !m.memory {
		return writeSelf(m.dir, "tasks")
	}
	if err := unix.Mkdirat(int(m.dir.Fd()), id, 0o755); err != nil {
		return err
	}
	return writeSelf(m.dir, id+"/tasks")
}

// leaveAll moves the thread back.
func leaveAll(joined []member, id string) error {
	var errs []error
	for _, m := range joined {
		errs = append(errs, writeSelf(m.own, "tasks"))
		if m.memory {
			err := unix.Unlinkat(int(m.dir.Fd()), id, unix.AT_REMOVEDIR)
			if err != nil && !errors.Is(err, unix.ENOENT) {
				errs = append(errs, fmt.Errorf("remove cgroup %s: %w", id, err))
			}
		}
	}
	return errors.Join(errs...)
}

// writeSelf moves the calling thread into the group whose file name is. "0"
// stands for the thread itself.
func writeSelf(dir *os.File, name string) error {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	_, err = unix.Write(fd, []byte("0"))
	return errors.Join(err, unix.Close(fd))
}

// libcontainer returns what libcontainer shall do about cgroups for the run id.
// With v1 it is to leave the container where it is; that is what it does when
// it may fail and can't write, which hideCgroups takes care of.
func (g *group) libcontainer(id string, insecure bool) *cgroups.Cgroup {
	if g.unified == "" {
		return &cgroups.Cgroup{Parent: "/slipway-none", Rootless: true, Resources: &cgroups.Resources{}}
	}
	rules := deviceRules()
	if insecure {
		rules = []*devices.Rule{
			rule('c', devices.Wildcard, devices.Wildcard, "rwm"),
			rule('b', devices.Wildcard, devices.Wildcard, "rwm"),
		}
	}
	return &cgroups.Cgroup{Path: path.Join(g.unified, id), Resources: &cgroups.Resources{Devices: rules}}
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
