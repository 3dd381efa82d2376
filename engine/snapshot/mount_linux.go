package snapshot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// overlayOptions are given with every overlay mount, so that neither the
// kernel's configuration nor a module parameter decides them. Without redirects
// and metadata-only copies an upper directory is complete in itself, which is
// what lets it be a layer on top of anything; the index would tie it to what
// was below it.
var overlayOptions = []string{"redirect_dir=off", "metacopy=off", "index=off"}

// Detached mounts m without attaching it anywhere and returns its root, open
// with O_PATH: it can be walked with openat2(2) or attached with move_mount(2).
// The mount lives as long as the file, or what it was attached to; nothing is
// left of it when the process is killed.
func (m Mount) Detached() (*os.File, error) {
	var fd int
	var err error
	switch m.Type {
	case "bind":
		fd, err = detachedBind(m)
	case "overlay":
		fd, err = detachedOverlay(m)
	default:
		err = errors.New("type is not supported")
	}
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", m, err)
	}
	return os.NewFile(uintptr(fd), m.String()), nil
}

// Attach mounts m at target, in the mount namespace of the calling thread.
func (m Mount) Attach(target string) error {
	f, err := m.Detached()
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.MoveMount(int(f.Fd()), "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount %s at %s: %w", m, target, err)
	}
	return nil
}

// readOnly says whether m was asked to be, or can only be, read-only.
func (m Mount) readOnly() bool {
	return slices.Contains(m.Options, "ro") || m.Type == "overlay" && m.Upper == ""
}

func detachedBind(m Mount) (int, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, m.Source, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("open_tree: %w", err)
	}
	for _, o := range m.Options {
		if o != "ro" && o != "rw" {
			_ = unix.Close(fd)
			return -1, fmt.Errorf("option %q is not supported", o)
		}
	}
	if !m.readOnly() {
		return fd, nil
	}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("mount_setattr: %w", err)
	}
	return fd, nil
}

func detachedOverlay(m Mount) (int, error) {
	if m.Upper != "" {
		// A volatile mount leaves this behind so that there is no second one,
		// because after a crash of the machine the content may be incomplete.
		// A draft that saw such a crash is thrown away anyway.
		if err := os.RemoveAll(filepath.Join(m.Work, "work", "incompat")); err != nil {
			return -1, err
		}
	}
	if lowerByOne() {
		return overlayByConfig(m)
	}
	return overlayByString(m)
}

// lowerByOne says whether overlay takes its lower directories one by one, as
// it does since Linux 6.5.
var lowerByOne = sync.OnceValue(func() bool {
	fd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return unix.FsconfigSetString(fd, "lowerdir+", "/") == nil
})

// overlayByConfig mounts with fsopen(2), fsconfig(2) and fsmount(2).
func overlayByConfig(m Mount) (int, error) {
	fd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("fsopen: %w", err)
	}
	defer unix.Close(fd)
	if err := configure(fd, m); err != nil {
		return -1, withLog(fd, err)
	}
	attr := 0
	if m.readOnly() {
		attr = unix.MOUNT_ATTR_RDONLY
	}
	mfd, err := unix.Fsmount(fd, unix.FSMOUNT_CLOEXEC, attr)
	if err != nil {
		return -1, withLog(fd, fmt.Errorf("fsmount: %w", err))
	}
	return mfd, nil
}

func configure(fd int, m Mount) error {
	if err := unix.FsconfigSetString(fd, "source", "overlay"); err != nil {
		return err
	}
	for _, dir := range m.Lower {
		if err := setDir(fd, "lowerdir+", dir); err != nil {
			return err
		}
	}
	if m.Upper != "" {
		if err := setDir(fd, "upperdir", m.Upper); err != nil {
			return err
		}
		if err := setDir(fd, "workdir", m.Work); err != nil {
			return err
		}
	}
	for _, o := range m.superOptions() {
		key, value, hasValue := strings.Cut(o, "=")
		var err error
		if hasValue {
			err = unix.FsconfigSetString(fd, key, value)
		} else {
			err = unix.FsconfigSetFlag(fd, key)
		}
		if err != nil {
			return fmt.Errorf("option %q: %w", o, err)
		}
	}
	if err := unix.FsconfigCreate(fd); err != nil {
		return fmt.Errorf("fsconfig: %w", err)
	}
	return nil
}

// setDir sets a parameter to a directory. The kernel takes 255 bytes at most,
// and takes a backslash for an escape, so other paths are named by descriptor.
func setDir(fd int, key, dir string) error {
	name := dir
	if len(dir) > 255 || strings.Contains(dir, `\`) {
		d, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open %s: %w", dir, err)
		}
		defer unix.Close(d)
		name = "/proc/self/fd/" + strconv.Itoa(d)
	}
	if err := unix.FsconfigSetString(fd, key, name); err != nil {
		return fmt.Errorf("%s %s: %w", key, dir, err)
	}
	return nil
}

// superOptions are the options of the file system itself.
func (m Mount) superOptions() []string {
	opts := slices.Clone(overlayOptions)
	for _, o := range m.Options {
		if o != "ro" && o != "rw" {
			opts = append(opts, o)
		}
	}
	return opts
}

// withLog adds to err what the kernel has to say about the mount.
func withLog(fd int, err error) error {
	buf := make([]byte, 1024)
	for {
		n, rerr := unix.Read(fd, buf)
		if rerr != nil || n == 0 {
			return err
		}
		// "e overlay: message", where the letter is the severity
		if msg := strings.TrimSpace(string(buf[:n])); strings.HasPrefix(msg, "e ") {
			err = fmt.Errorf("%w (%s)", err, msg[2:])
		}
	}
}

// overlayByString mounts with mount(2), whose options must fit into a page.
// There the lower directories are named by their descriptors relative to
// /proc/self/fd, so that some hundred fit. It takes a thread with a working
// directory and a mount namespace of its own, which ends with the call.
func overlayByString(m Mount) (fd int, err error) {
	onPassingThread(func() { fd, err = mountAndClone(m) })
	return fd, err
}

// onPassingThread runs fn on a thread that ends with it.
func onPassingThread(fn func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and not unlocked: the thread ends with the goroutine
		if unix.Gettid() == unix.Getpid() {
			// The main thread can't end. While it is held here, another is taken.
			onPassingThread(fn)
			runtime.UnlockOSThread()
			return
		}
		fn()
	}()
	<-done
}

func mountAndClone(m Mount) (int, error) {
	if len(m.Lower) == 0 {
		return -1, errors.New("no lower directory")
	}
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return -1, fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return -1, fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Chdir("/proc/self/fd"); err != nil {
		return -1, fmt.Errorf("chdir: %w", err)
	}
	// Only now: overlay wants directories of the namespace that it is mounted in.
	var dirs openDirs
	defer dirs.close()
	data, err := dirs.overlayData(m)
	if err != nil {
		return -1, err
	}
	var flags uintptr
	if m.readOnly() {
		flags = unix.MS_RDONLY
	}
	target := m.Lower[0] // any directory serves in this namespace
	if err := unix.Mount("overlay", target, "overlay", flags, data); err != nil {
		return -1, fmt.Errorf("mount: %w", err)
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, target, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("open_tree: %w", err)
	}
	_ = unix.Unmount(target, unix.MNT_DETACH) // else it would last until the thread is gone
	return fd, nil
}

// openDirs are descriptors of directories.
type openDirs []int

func (o *openDirs) close() {
	for _, fd := range *o {
		_ = unix.Close(fd)
	}
}

// open opens dir and returns its name relative to /proc/self/fd.
func (o *openDirs) open(dir string) (string, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("open %s: %w", dir, err)
	}
	*o = append(*o, fd)
	return strconv.Itoa(fd), nil
}

// overlayData returns m's options as one string.
func (o *openDirs) overlayData(m Mount) (string, error) {
	var lower []string
	for _, dir := range m.Lower {
		name, err := o.open(dir)
		if err != nil {
			return "", err
		}
		lower = append(lower, name)
	}
	opts := append(m.superOptions(), "lowerdir="+strings.Join(lower, ":"))
	if m.Upper != "" {
		upper, err := o.open(m.Upper)
		if err != nil {
			return "", err
		}
		work, err := o.open(m.Work)
		if err != nil {
			return "", err
		}
		opts = append(opts, "upperdir="+upper, "workdir="+work)
	}
	data := strings.Join(opts, ",")
	if len(data) >= os.Getpagesize() {
		return "", fmt.Errorf("%d lower directories: %w", len(m.Lower), unix.E2BIG)
	}
	return data, nil
}
