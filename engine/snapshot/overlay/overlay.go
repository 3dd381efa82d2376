// Package overlay stores layers as upper directories of overlayfs and stacks
// them by mounting.
//
// On disk there are
//
//	layers/ID/fs     a committed layer; the mtime of layers/ID is its last use
//	layers/ID/usage  its disk use, once somebody asked
//	drafts/RANDOM/   a layer being written (fs, work), or one being deleted
//	empty/           the directory below a stack that would be too short
//
// What is committed or deleted is renamed, so a layer is there or it is not.
// The directory of a draft is locked as long as its owner lives.
package overlay

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/engine/snapshot"
)

// Snapshotter is a directory of layers. It implements [snapshot.Snapshotter].
type Snapshotter struct {
	dir string // absolute
}

// Open opens the layers in dir, which is made if it does not exist. Several
// processes may have it open.
func Open(dir string) (*Snapshotter, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open layers: %w", err)
	}
	// Layers have setuid programs and readable secrets in them, so nobody else
	// may look into these directories.
	for _, d := range []string{"layers", "drafts", "empty"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return nil, fmt.Errorf("open layers: %w", err)
		}
	}
	spread(filepath.Join(dir, "drafts"))
	// But this one is shown as a root.
	if err := os.Chmod(filepath.Join(dir, "empty"), 0o755); err != nil {
		return nil, fmt.Errorf("open layers: %w", err)
	}
	return &Snapshotter{dir}, nil
}

// Info describes a committed layer.
type Info struct {
	ID       snapshot.ID
	LastUsed time.Time
	Usage    snapshot.Usage
}

// List describes all committed layers, also the merged ones that the
// snapshotter made for itself, in no particular order.
func (s *Snapshotter) List(ctx context.Context) ([]Info, error) {
	entries, err := os.ReadDir(filepath.Join(s.dir, "layers"))
	if err != nil {
		return nil, fmt.Errorf("list layers: %w", err)
	}
	var infos []Info
	for _, e := range entries {
		fi, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed by somebody else
		}
		if err != nil {
			return nil, fmt.Errorf("list layers: %w", err)
		}
		id := snapshot.ID(e.Name())
		used, err := s.Stat(ctx, id)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		infos = append(infos, Info{id, fi.ModTime(), used})
	}
	return infos, nil
}

// Dir implements [snapshot.Snapshotter].
func (s *Snapshotter) Dir(id snapshot.ID) (string, error) {
	dir, err := s.layer(id)
	if err != nil {
		return "", err
	}
	if err := use(dir); err != nil {
		return "", fmt.Errorf("layer %s: %w", id, err)
	}
	return filepath.Join(dir, "fs"), nil
}

// layer returns the directory of layer id, which may not exist.
func (s *Snapshotter) layer(id snapshot.ID) (string, error) {
	if !id.Valid() {
		return "", fmt.Errorf("layer name %q is not valid", string(id))
	}
	return filepath.Join(s.dir, "layers", string(id)), nil
}

// use notes that the layer in dir was used.
func use(dir string) error {
	fi, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	// Pruning thinks in hours; a write for each layer of each stack is too much.
	if time.Since(fi.ModTime()) > time.Minute {
		_ = os.Chtimes(dir, time.Time{}, time.Now()) // a read-only store is fine
	}
	return nil
}

// View implements [snapshot.Snapshotter].
func (s *Snapshotter) View(ctx context.Context, layers ...snapshot.ID) (snapshot.Mount, error) {
	lower, err := s.stack(ctx, layers)
	if err != nil {
		return snapshot.Mount{}, fmt.Errorf("view layers: %w", err)
	}
	if len(lower) == 0 {
		return snapshot.Mount{Type: "bind", Source: s.empty(), Options: []string{"ro"}}, nil
	}
	// Also a single layer is shown by overlayfs, which hides its whiteouts, and
	// which takes no less than two directories.
	if len(lower) == 1 {
		lower = append(lower, s.empty())
	}
	return snapshot.Mount{Type: "overlay", Lower: lower, Options: []string{"ro"}}, nil
}

func (s *Snapshotter) empty() string { return filepath.Join(s.dir, "empty") }

// stack returns the directories that show layers, given bottom first, topmost
// first. Empty layers are left out, and too many are merged.
func (s *Snapshotter) stack(ctx context.Context, layers []snapshot.ID) ([]string, error) {
	var ids []snapshot.ID
	var dirs []string
	for _, id := range layers {
		dir, err := s.Dir(id)
		if err != nil {
			return nil, err
		}
		none, err := isEmpty(dir)
		if err != nil {
			return nil, fmt.Errorf("layer %s: %w", id, err)
		}
		if !none {
			ids, dirs = append(ids, id), append(dirs, dir)
		}
	}
	dirs, err := s.limit(ctx, ids, dirs)
	if err != nil {
		return nil, err
	}
	slices.Reverse(dirs)
	return dirs, nil
}

func isEmpty(dir string) (bool, error) {
	f, err := os.Open(dir)
	if err != nil {
		return false, err
	}
	defer f.Close()
	names, err := f.Readdirnames(1)
	if len(names) > 0 {
		return false, nil
	}
	return true, ignoreEOF(err)
}

// Remove implements [snapshot.Snapshotter]. If something still shows the layer
// it loses its files.
func (s *Snapshotter) Remove(_ context.Context, id snapshot.ID) error {
	dir, err := s.layer(id)
	if err != nil {
		return err
	}
	trash, err := s.scratch()
	if err != nil {
		return fmt.Errorf("remove layer %s: %w", id, err)
	}
	err = os.Rename(dir, trash.Dir())
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err := errors.Join(err, trash.Discard()); err != nil {
		return fmt.Errorf("remove layer %s: %w", id, err)
	}
	return nil
}

// Clean deletes the drafts whose owners are gone. It may be called at any time.
func (s *Snapshotter) Clean(ctx context.Context) error {
	drafts, err := os.Open(filepath.Join(s.dir, "drafts"))
	if err != nil {
		return fmt.Errorf("clean drafts: %w", err)
	}
	defer drafts.Close()
	// While this lock is held nobody is between making a draft and locking it.
	if err := flock(drafts, unix.LOCK_EX); err != nil {
		return fmt.Errorf("clean drafts: %w", err)
	}
	names, err := drafts.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("clean drafts: %w", err)
	}
	var orphans []*os.File
	for _, name := range names {
		f, err := os.Open(filepath.Join(drafts.Name(), name))
		if err != nil {
			continue // committed or removed by now
		}
		defer f.Close()
		if flock(f, unix.LOCK_EX|unix.LOCK_NB) == nil {
			orphans = append(orphans, f)
		}
	}
	if err := flock(drafts, unix.LOCK_UN); err != nil {
		return fmt.Errorf("clean drafts: %w", err)
	}
	for _, f := range orphans {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := os.RemoveAll(f.Name()); err != nil {
			return fmt.Errorf("clean drafts: %w", err)
		}
	}
	return nil
}

// flock locks an open file or directory. The lock ends with the descriptor, and
// so with the process.
func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
