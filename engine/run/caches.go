package run

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/engine/graph"
	"github.com/slipway-build/slipway/engine/inroot"
)

// Caches keeps the directories of RUN --mount=type=cache, below Dir: for each
// mount one, or several where private mounts were used at once.
//
//	<hash of the mount's name>.<instance>/
//	    lock     held while a step uses it: shared, or exclusively if locked or private
//	    name     the mount's id, for people
//	    fs/      what the step sees; there once it was filled
//
// Several processes may share it.
type Caches struct{ Dir string }

// CacheMount asks for a cache mount.
type CacheMount struct {
	ID       string
	From     string // names what a new one is filled from; empty is nothing
	Sharing  graph.Sharing
	Mode     uint32 // of a new one's root, with UID and GID; with From, 0 leaves them to Fill
	UID, GID uint32

	// Fill fills a new one.
	Fill func(dst *inroot.Root) error

	// Waiting is told if another step holds the mount for a while, once.
	Waiting func(line string)
}

// name is the mount's identity. Owner and mode are part of it, as in BuildKit:
// a step that asks for a directory of its own user does not get one of root's.
func (m CacheMount) name() string {
	return digest.FromString(fmt.Sprintf("%d %s%d %d %o %s", len(m.ID), m.ID, m.UID, m.GID, m.Mode, m.From)).Encoded()
}

// Cache is a cache mount in use. Release ends that.
type Cache struct {
	Dir  string
	lock *os.File
}

// Release lets others have the mount.
func (c *Cache) Release() { _ = c.lock.Close() } // closing unlocks

// Get returns the mount, made first if it does not exist. It waits while
// another step, of whatever process, has it locked.
func (s *Caches) Get(ctx context.Context, m CacheMount) (*Cache, error) {
	name := m.name()
	for i := 0; ; i++ {
		dir := filepath.Join(s.Dir, name+"."+strconv.Itoa(i))
		c, err := use(ctx, dir, m)
		if m.Sharing == graph.SharingPrivate && errors.Is(err, unix.EWOULDBLOCK) {
			continue // somebody has this one: the next
		}
		return c, err
	}
}

// use locks the mount in dir, and fills it if it is new.
func use(ctx context.Context, dir string, m CacheMount) (*Cache, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	c := &Cache{Dir: filepath.Join(dir, "fs"), lock: lock}
	if err := openMount(ctx, c, dir, m); err != nil {
		c.Release()
		return nil, err
	}
	now := time.Now()
	_ = os.Chtimes(dir, now, now) // last use, for pruning
	return c, nil
}

func openMount(ctx context.Context, c *Cache, dir string, m CacheMount) error {
	how := unix.LOCK_SH
	if m.Sharing != graph.SharingShared {
		how = unix.LOCK_EX
	}
	if err := lockFile(ctx, c.lock, how, m); err != nil {
		return err
	}
	if _, err := os.Stat(c.Dir); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// It is new: whoever gets the exclusive lock first fills it.
	if err := lockFile(ctx, c.lock, unix.LOCK_EX, CacheMount{}); err != nil {
		return err
	}
	if _, err := os.Stat(c.Dir); errors.Is(err, fs.ErrNotExist) {
		if err := fillMount(dir, c.Dir, m); err != nil {
			return fmt.Errorf("fill cache mount %q: %w", m.ID, err)
		}
	}
	return lockFile(ctx, c.lock, how, m)
}

// fillMount makes the mount's content aside and renames it when it is complete.
func fillMount(dir, target string, m CacheMount) error {
	aside := filepath.Join(dir, "new")
	if err := os.RemoveAll(aside); err != nil {
		return err
	}
	if err := os.Mkdir(aside, 0o700); err != nil {
		return err
	}
	root, err := inroot.Open(aside)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := m.Fill(root); err != nil {
		return err
	}
	if m.Mode != 0 || m.From == "" {
		if err := os.Lchown(aside, int(m.UID), int(m.GID)); err != nil {
			return err
		}
		if err := unix.Chmod(aside, m.Mode); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "name"), []byte(m.ID), 0o600); err != nil {
		return err
	}
	return os.Rename(aside, target)
}

// lockFile takes the lock, polling so that waiting ends with ctx. A private
// mount does not wait.
func lockFile(ctx context.Context, f *os.File, how int, m CacheMount) error {
	const (
		poll = 20 * time.Millisecond
		long = 50 // polls after which it is worth a line in the log
	)
	for try := 0; ; try++ {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		if err == nil || !errors.Is(err, unix.EWOULDBLOCK) || m.Sharing == graph.SharingPrivate {
			return err
		}
		if m.Waiting != nil && try == long {
			m.Waiting(fmt.Sprintf("waiting for cache mount %q, which another step uses", m.ID))
		}
		select {
		case <-time.After(poll):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// runID returns a name for a container.
func runID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails, says its documentation
	return hex.EncodeToString(b[:])
}
