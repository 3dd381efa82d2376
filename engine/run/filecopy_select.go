package run

import (
	"context"
	"errors"
	"io/fs"
	"path"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/engine/filehash"
	"github.com/slipway-build/slipway/engine/graph"
	"github.com/slipway-build/slipway/engine/inroot"
	"github.com/slipway-build/slipway/engine/solve"
	"github.com/slipway-build/slipway/engine/tree"
)

// selectInto writes the files that s selects of a local context into dst, an
// empty directory, at the paths that they have in the context, with the owner
// 0:0. Symbolic links that led to them are made too, so that a path means there
// what it means in the context; directories that are only on the way have the
// mode 0755. If the digest of what was written is not that of read, the error
// wraps solve.ErrChanged (INVARIANTS 7).
func selectInto(ctx context.Context, v tree.View, s graph.Select, read solve.Read, dst *inroot.Root) error {
	c := &copier{dst: dst, owner: &ids{}, times: make(map[string]unix.Timespec)}
	sums := &inputSums{}
	for _, r := range s.Requests {
		files, err := filehash.Resolve(ctx, v, r)
		if err != nil {
			return vanished(err, r.Path, v, read)
		}
		p := newPool(ctx, c, v, files, sums)
		sum, err := p.wait(c.selected(p, r, files))
		if err != nil {
			return vanished(err, "", v, read)
		}
		if !sums.Set(r, sum) {
			sums.differ = true
		}
	}
	if err := c.finish(); err != nil {
		return err
	}
	return sums.verify(read)
}

// selected writes what files selects where it is.
func (c *copier) selected(p *pool, r graph.Request, files *filehash.Files) error {
	for _, m := range files.Matches {
		for _, l := range m.Links {
			if err := c.symlink(l); err != nil {
				return err
			}
		}
		dir := path.Dir(m.Real)
		if m.IsDir() {
			if r.Contents || r.Parents {
				dir = m.Real // what it is like is not selected
			}
			if err := p.barrier(); err != nil {
				return err
			}
		}
		if err := c.mkdirs(dir, 0o755); err != nil {
			return err
		}
		if err := p.match(m, m.Real); err != nil {
			return err
		}
	}
	return nil
}

// symlink makes a link that led to a match.
func (c *copier) symlink(l inroot.Link) error {
	if err := c.mkdirs(path.Dir(l.Path), 0o755); err != nil {
		return err
	}
	dirfd, base, err := c.dst.OpenDir(l.Path)
	if err != nil {
		return err
	}
	defer unix.Close(dirfd)
	err = unix.Symlinkat(l.Target, dirfd, base)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return &fs.PathError{Op: "symlink", Path: l.Path, Err: err}
	}
	return nil
}
