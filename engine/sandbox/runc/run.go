//go:build linux && cgo && (amd64 || arm64)

package runc

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/engine/inroot"
	"github.com/slipway-build/slipway/engine/sandbox"
)

// A run is one container, from start to end.
type run struct {
	executor *Executor
	spec     sandbox.Spec
	group    *group

	rootfs string       // where the root is mounted, in the thread's namespace
	root   *inroot.Root // the same, open
	stubs  stubs
	null   *os.File // the container's /dev/null
	user   identity
	env    []string
}

// run does it all, on a thread of its own.
func (r *run) run(ctx context.Context) (err error) {
	if err := r.unshare(); err != nil {
		return err
	}
	leave, err := r.group.join(r.spec.ID, r.spec.Insecure)
	defer func() { err = errors.Join(err, leave()) }()
	if err != nil {
		return err
	}
	if err := r.mountRoot(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.unmountRoot()) }()
	if err := r.prepare(); err != nil {
		return err
	}
	if r.group.unified == "" {
		if err := hideCgroups(); err != nil {
			return err
		}
	}
	return r.start(ctx)
}

// mountRoot mounts the spec's root.
func (r *run) mountRoot() error {
	r.rootfs = r.executor.instance.path("mnt")
	if err := r.spec.Root.Attach(r.rootfs); err != nil {
		return fmt.Errorf("mount root: %w", err)
	}
	root, err := inroot.Open(r.rootfs)
	if err == nil && r.noDevices() {
		err = unix.MountSetattr(root.Fd(), "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NODEV})
	}
	if err != nil {
		_ = unix.Unmount(r.rootfs, unix.MNT_DETACH)
		return fmt.Errorf("open root: %w", err)
	}
	r.root = root
	r.stubs.root = root
	return nil
}

// noDevices says whether nodes of devices must not work: where no cgroup limits
// what can be opened, and CAP_MKNOD would open everything.
func (r *run) noDevices() bool { return !r.group.devices && !r.spec.Insecure }

// unmountRoot removes all that is mounted, and the places made for it, which it
// can only once nothing is mounted there. The namespace would end with the
// thread, but that is later than the caller wants to know.
func (r *run) unmountRoot() error {
	if err := unix.Unmount(r.rootfs, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount root: %w", err)
	}
	_ = r.null.Close()
	return errors.Join(r.stubs.remove(), r.root.Close())
}

// prepare makes all that the process will see, but for what shows its own
// namespaces.
func (r *run) prepare() error {
	var err error
	if r.user, err = lookUp(r.root, r.spec.User); err != nil {
		return err
	}
	if r.env, err = environ(r.spec.Env, r.user.home); err != nil {
		return err
	}
	for _, dir := range []string{"/proc", "/sys"} {
		f, err := r.stubs.open(dir, true)
		if err != nil {
			return err
		}
		_ = f.Close()
	}
	if err := r.mountDev(); err != nil {
		return fmt.Errorf("make /dev: %w", err)
	}
	if err := r.mountSys(); err != nil {
		return fmt.Errorf("make /sys: %w", err)
	}
	if err := r.mountEtc(); err != nil {
		return err
	}
	return r.mountAll()
}
