package overlay

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/slipway-build/slipway/engine/snapshot"
)

// A note is a [snapshot.Usage] in a file.
type note struct {
	Bytes  int64 `json:"bytes"`
	Inodes int64 `json:"inodes"`
}

// Stat implements [snapshot.Snapshotter]. The first call for a layer walks it.
func (s *Snapshotter) Stat(ctx context.Context, id snapshot.ID) (snapshot.Usage, error) {
	dir, err := s.layer(id)
	if err != nil {
		return snapshot.Usage{}, err
	}
	file := filepath.Join(dir, "usage")
	var n note
	if b, err := os.ReadFile(file); err == nil && json.Unmarshal(b, &n) == nil {
		return snapshot.Usage(n), nil
	}
	// The note would change the time of the last use.
	before, err := os.Lstat(dir)
	if err != nil {
		return snapshot.Usage{}, fmt.Errorf("layer %s: %w", id, err)
	}
	u, err := measure(ctx, filepath.Join(dir, "fs"))
	if err != nil {
		return u, fmt.Errorf("measure layer %s: %w", id, err)
	}
	if b, err := json.Marshal(note(u)); err == nil {
		// Without the note it is measured again, and a half-written one is no
		// JSON.
		_ = os.WriteFile(file, b, 0o600)
		_ = os.Chtimes(dir, before.ModTime(), before.ModTime())
	}
	return u, nil
}

// measure adds up what is in dir. A file with several names counts once.
func measure(ctx context.Context, dir string) (snapshot.Usage, error) {
	var u snapshot.Usage
	type inode struct{ dev, ino uint64 }
	seen := map[inode]bool{}
	err := filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		fi, err := e.Info()
		if err != nil {
			return err
		}
		st, ok := fi.Sys().(*syscall.Stat_t)
		if !ok {
			return fmt.Errorf("stat %s: no owner and inode", e.Name())
		}
		if st.Nlink > 1 && !e.IsDir() {
			if i := (inode{st.Dev, st.Ino}); seen[i] {
				return nil
			} else {
				seen[i] = true
			}
		}
		u.Inodes++
		u.Bytes += st.Blocks * 512
		return nil
	})
	return u, err
}
