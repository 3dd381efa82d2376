package run

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/engine/filehash"
	"github.com/slipway-build/slipway/engine/layer"
)

// unpack extracts a match into the directory dest if it is an archive, judged
// by its content. It reports false if it isn't one.
func (c *copier) unpack(p *pool, dest string, m *filehash.Match) (bool, error) {
	is, err := p.isArchive(m)
	if !is || err != nil {
		return false, err
	}
	if err := p.barrier(); err != nil { // what was begun before comes first
		return false, err
	}
	if err := c.mkdirs(dest, 0o755); err != nil {
		return false, err
	}
	at, err := c.dst.Resolve(dest, true)
	if err != nil {
		return false, err
	}
	if p.digest != nil {
		p.digest.Begin(m)
	}
	return true, p.files.Walk(p.ctx, m, func(e *filehash.Entry) error {
		if err := c.extract(p, e, at.Path); err != nil {
			return fmt.Errorf("unpack %s: %w", e.Path(), err)
		}
		return nil
	})
}

func (p *pool) isArchive(m *filehash.Match) (bool, error) {
	f, err := p.view.Root.OpenFile(m.Real, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return false, err
	}
	defer f.Close()
	head, err := io.ReadAll(io.LimitReader(f, layer.DetectSize))
	if err != nil {
		return false, err
	}
	_, is := layer.DetectArchive(head)
	return is, nil
}

// extract extracts the file of e into dir, and digests the file on the way.
func (c *copier) extract(p *pool, e *filehash.Entry, dir string) error {
	fd, err := e.Open()
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), e.Path())
	defer f.Close()
	var opts layer.ExtractOptions
	if c.owner != nil {
		opts.UID, opts.GID = &c.owner.uid, &c.owner.gid
	}
	if p.digest == nil {
		return layer.Extract(p.ctx, f, c.dst, dir, opts)
	}
	p.sums.newest.see(e)
	pending := p.digest.Add(e)
	xattrs, err := filehash.FileXattrs(fd)
	if err != nil {
		return &fs.PathError{Op: "read extended attributes", Path: e.Path(), Err: err}
	}
	buf := filehash.NewBuffer()
	defer buf.Free()
	count := &countingReader{r: io.TeeReader(f, buf.Hash)}
	if err := layer.Extract(p.ctx, count, c.dst, dir, opts); err != nil {
		return changedWhileReading(p.ctx, e, err)
	}
	if _, err := io.CopyBuffer(io.Discard, struct{ io.Reader }{count}, buf.Bytes); err != nil { // what follows the archive
		return err
	}
	pending.Done(filehash.Content{Size: count.n, Data: buf.Sum(), Xattrs: filehash.XattrSum(xattrs)})
	return nil
}

// changedWhileReading blames an archive that can't be extracted on the change
// that it went through meanwhile, if it did. If it did not, what is missing is
// something that the archive refers to, not a file of the context.
func changedWhileReading(ctx context.Context, e *filehash.Entry, err error) error {
	switch {
	case ctx.Err() != nil:
		return err
	case e.Changed():
		return fmt.Errorf("%w: %w", &changedError{e.Path()}, err)
	case errors.Is(err, fs.ErrNotExist):
		return errors.New(err.Error())
	}
	return err
}

type countingReader struct {
	r io.Reader
	n int64
}

func (c *countingReader) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n += int64(n)
	return n, err
}
