//go:build linux && cgo && (amd64 || arm64)

package runc

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// An instance is the directory of one Executor, below Options.Root. As long as
// its process lives it holds a lock on the file "lock" in it; one whose lock is
// free is removed, with the cgroups that its file "cgroups" names.
//
//	NAME/lock
//	NAME/cgroups       the cgroups that the instance made, a path a line
//	NAME/mnt           where each run mounts its root, in its own mount namespace
//	NAME/tree          where each run mounts trees, for a moment
//	NAME/files/DIGEST  files to be mounted into containers, read-only
//	NAME/run/ID        libcontainer's state of a run
type instance struct {
	name string
	dir  string
	lock *os.File

	mu    sync.Mutex
	files map[string]bool // those that are in files
}

// openInstance makes a new instance in root, and removes dead ones.
func openInstance(root string) (*instance, error) {
	if err := os.MkdirAll(root, 0o711); err != nil {
		return nil, err
	}
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	if root, err = filepath.EvalSymlinks(root); err != nil { // as libcontainer wants it
		return nil, err
	}
	// New ones are made, and dead ones removed, by one process at a time: else
	// a directory could be taken for dead before its lock is held.
	door, err := lock(filepath.Join(root, "lock"), unix.LOCK_EX)
	if err != nil {
		return nil, err
	}
	defer door.Close()
	sweep(root)
	return makeInstance(root)
}

func makeInstance(root string) (*instance, error) {
	in := &instance{name: rand.Text()[:16], files: map[string]bool{}}
	in.dir = filepath.Join(root, in.name)
	for _, dir := range []string{"", "mnt", "tree", "files", "run"} {
		if err := os.Mkdir(filepath.Join(in.dir, dir), 0o711); err != nil {
			return nil, err
		}
	}
	var err error
	in.lock, err = lock(in.path("lock"), unix.LOCK_EX|unix.LOCK_NB)
	return in, err
}

// sweep removes the instances in root whose lock is free. What it can't remove
// is left to the next one.
func sweep(root string) {
	entries, err := os.ReadDir(root)
	if err != nil {
		return
	}
	for _, entry := range entries {
		if !entry.IsDir() {
			continue
		}
		dead := &instance{name: entry.Name(), dir: filepath.Join(root, entry.Name())}
		dead.lock, err = lock(dead.path("lock"), unix.LOCK_EX|unix.LOCK_NB)
		if err != nil {
			continue
		}
		_ = dead.close()
	}
}

// lock opens the file name and locks it.
func lock(name string, how int) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	return f, nil
}

func (in *instance) path(name string) string { return filepath.Join(in.dir, name) }

// close removes the instance. The lock goes last: until then it is in use. If a
// cgroup can't be removed yet, the directory stays to tell the next one of it.
func (in *instance) close() error {
	err := in.removeCgroups()
	if err == nil {
		err = os.RemoveAll(in.dir)
	}
	return errors.Join(err, in.lock.Close())
}

// file returns the name of a file with the given content, to be mounted into
// containers and never changed. Each content is written once.
func (in *instance) file(content []byte) (string, error) {
	sum := sha256.Sum256(content)
	name := in.path("files/" + hex.EncodeToString(sum[:]))
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.files[name] {
		return name, nil
	}
	if err := writeNew(name, content); err != nil {
		return "", err
	}
	in.files[name] = true
	return name, nil
}

func writeNew(name string, content []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Chmod(0o644) // whatever the umask
	}
	return errors.Join(err, f.Close())
}

// cgroup is the name of the instance's cgroups.
func (in *instance) cgroup() string { return "slipway-" + in.name }

// noteCgroup remembers a cgroup that is about to be made, so that it is removed
// with the instance.
func (in *instance) noteCgroup(dir string) error {
	f, err := os.OpenFile(in.path("cgroups"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(dir + "\n")
	return errors.Join(err, f.Close())
}

// removeCgroups removes the cgroups of an instance, with those of its runs.
// Groups that still have processes can't be removed.
func (in *instance) removeCgroups() error {
	b, err := os.ReadFile(in.path("cgroups"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var errs []error
	for dir := range strings.Lines(string(b)) {
		dir = strings.TrimSuffix(dir, "\n")
		// Whatever the file says, no other groups are touched.
		if filepath.Base(dir) != in.cgroup() || !strings.HasPrefix(filepath.Clean(dir), cgroupRoot+"/") {
			continue
		}
		runs, _ := os.ReadDir(dir)
		for _, run := range runs {
			if run.IsDir() {
				errs = append(errs, removeCgroup(filepath.Join(dir, run.Name())))
			}
		}
		errs = append(errs, removeCgroup(dir))
	}
	return errors.Join(err, errors.Join(errs...))
}

func removeCgroup(dir string) error {
	err := unix.Rmdir(dir)
	if _, serr := os.Lstat(dir); err == nil || errors.Is(serr, fs.ErrNotExist) {
		return nil
	}
	return fmt.Errorf("remove cgroup %s: %w", dir, err)
}
