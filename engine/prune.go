package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/engine/record"
	"github.com/slipway-build/slipway/engine/snapshot/overlay"
)

// Usage is an entry of what a state directory holds.
type Usage struct {
	Kind     string // layer, blob, cache mount, record
	Name     string
	Bytes    int64
	LastUsed time.Time

	remove func() error
}

// PruneOptions say what to remove. The zero value removes everything.
type PruneOptions struct {
	Keep      int64         // bytes that may stay, the most recently used first
	OlderThan time.Duration // only what was not used for so long
	Wait      bool          // wait for builds that hold the directory
	Notice    func(string)  // told if waiting takes a while; may be nil
}

// DiskUsage lists what the state directory root holds, largest first. Records
// are one entry.
func DiskUsage(ctx context.Context, root string) ([]Usage, error) {
	s, err := openState(ctx, root, nil)
	if err != nil {
		return nil, err
	}
	defer s.close() //nolint:errcheck // nothing was written
	return s.usage(ctx)
}

// Prune removes what was not used for longest and returns what it removed. It
// needs the directory for itself: while somebody builds it waits, or says who.
func Prune(ctx context.Context, root string, opts PruneOptions) (removed []Usage, err error) {
	s, err := openStateAs(ctx, root, unix.LOCK_EX, opts.Wait, opts.Notice)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	all, err := s.usage(ctx)
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(all, func(a, b Usage) int { return b.LastUsed.Compare(a.LastUsed) })
	var kept int64
	for _, u := range all {
		if ctx.Err() != nil {
			return removed, context.Cause(ctx)
		}
		young := opts.OlderThan > 0 && time.Since(u.LastUsed) < opts.OlderThan
		if young || kept+u.Bytes <= opts.Keep {
			kept += u.Bytes
			continue
		}
		if err := u.remove(); err != nil {
			return removed, fmt.Errorf("remove %s %s: %w", u.Kind, u.Name, err)
		}
		removed = append(removed, u)
	}
	return removed, nil
}

func (s *state) usage(ctx context.Context) ([]Usage, error) {
	var all []Usage
	for _, list := range []func(context.Context) ([]Usage, error){s.layers, s.blobs, s.mounts, s.records} {
		part, err := list(ctx)
		if err != nil {
			return nil, err
		}
		all = append(all, part...)
	}
	slices.SortStableFunc(all, func(a, b Usage) int { return cmp.Compare(b.Bytes, a.Bytes) })
	return all, nil
}

func (s *state) layers(ctx context.Context) ([]Usage, error) {
	snaps, err := overlay.Open(s.path("snapshots"))
	if err != nil {
		return nil, err
	}
	infos, err := snaps.List(ctx)
	if err != nil {
		return nil, err
	}
	var all []Usage
	for _, l := range infos {
		all = append(all, Usage{
			Kind: "layer", Name: string(l.ID), Bytes: l.Usage.Bytes, LastUsed: l.LastUsed,
			remove: func() error { return snaps.Remove(context.WithoutCancel(ctx), l.ID) },
		})
	}
	return all, nil
}

func (s *state) blobs(context.Context) ([]Usage, error) {
	dir := s.path("content", "blobs")
	var all []Usage
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || d.IsDir() {
			return err
		}
		fi, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed by a build
		}
		if err != nil {
			return err
		}
		all = append(all, Usage{
			Kind: "blob", Name: filepath.Base(filepath.Dir(p)) + ":" + d.Name(), Bytes: fi.Size(), LastUsed: fi.ModTime(),
			remove: func() error { return os.Remove(p) },
		})
		return nil
	})
	return all, err
}

func (s *state) mounts(context.Context) ([]Usage, error) {
	entries, err := os.ReadDir(s.path("mounts"))
	if err != nil {
		return nil, err
	}
	var all []Usage
	for _, e := range entries {
		dir := s.path("mounts", e.Name())
		fi, err := e.Info()
		if err != nil {
			return nil, err
		}
		name, err := os.ReadFile(filepath.Join(dir, "name"))
		if err != nil {
			name = []byte(e.Name())
		}
		bytes, err := treeSize(dir)
		if err != nil {
			return nil, err
		}
		all = append(all, Usage{
			Kind: "cache mount", Name: strings.TrimSpace(string(name)), Bytes: bytes, LastUsed: fi.ModTime(),
			remove: func() error { return os.RemoveAll(dir) },
		})
	}
	return all, nil
}

// records count as one: they are small, and advice.
func (s *state) records(context.Context) ([]Usage, error) {
	store, err := record.Open(record.Options{Dir: s.path("records")})
	if err != nil {
		return nil, err
	}
	u := Usage{Kind: "record", Name: "records", remove: func() error { return os.RemoveAll(s.path("records")) }}
	err = store.Walk(func(_ string, size int64, used time.Time) error {
		u.Bytes += size
		if used.After(u.LastUsed) {
			u.LastUsed = used
		}
		return nil
	})
	if err != nil || u.Bytes == 0 {
		return nil, err
	}
	return []Usage{u}, nil
}

// treeSize adds up the files in dir, which may come and go meanwhile.
func treeSize(dir string) (int64, error) {
	var n int64
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || d.IsDir() {
			return err
		}
		fi, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil {
			n += fi.Size()
		}
		return err
	})
	return n, err
}
