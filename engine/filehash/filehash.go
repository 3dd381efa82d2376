// Package filehash finds the files that a request names in a tree, and digests
// them. COPY, ADD and bind mounts depend on what the files that they select
// contain, and on nothing else of the tree; the digest made here stands for
// that in keys.
//
// [Resolve] and [Files.Walk] are the only way in which files are listed, for
// hashing here and for copying in package run. A [Digester] makes the digest
// from a walk, whoever read the files: a copy can so be checked against the
// digest that it was made for without reading anything twice.
package filehash

import (
	"context"
	"runtime"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/engine/graph"
	"github.com/slipway-build/slipway/engine/tree"
)

// Options say how to hash. The zero Options are good.
type Options struct {
	// StatCache is the path of a file to remember the digests of local files
	// in, by what stat(2) says of them; empty remembers them in memory only.
	StatCache string

	Jobs int              // files read at once; 0 is GOMAXPROCS
	Now  func() time.Time // nil is time.Now
}

// A Hasher digests selections of trees. It is safe for concurrent use.
type Hasher struct {
	trees tree.Viewer
	slots chan struct{}
	stats *statCache
}

// New returns a Hasher of trees that are made readable by trees. Close it to
// have it write the stat cache.
func New(trees tree.Viewer, opts Options) *Hasher {
	if opts.Jobs <= 0 {
		opts.Jobs = runtime.GOMAXPROCS(0)
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	return &Hasher{trees, make(chan struct{}, opts.Jobs), newStatCache(opts.StatCache, opts.Now)}
}

// Close writes the stat cache. The error is one of writing it: what was hashed
// is right anyway.
func (h *Hasher) Close() error { return h.stats.save() }

// Hash returns the digest of what s selects of t. The error wraps
// fs.ErrNotExist if a path of s that is not a pattern is not there.
func (h *Hasher) Hash(ctx context.Context, t tree.Tree, s graph.Select) (digest.Digest, error) {
	v, err := h.trees.View(ctx, t)
	if err != nil {
		return "", err
	}
	defer v.Close()
	var sums Sums
	for _, r := range s.Requests {
		sum, err := h.request(ctx, v, r)
		if err != nil {
			return "", err
		}
		sums.Set(r, sum)
	}
	return sums.Digest(), nil
}

// request digests what r selects: one goroutine walks, others read.
func (h *Hasher) request(ctx context.Context, v tree.View, r graph.Request) (Sum, error) {
	files, err := Resolve(ctx, v, r)
	if err != nil {
		return Sum{}, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	type job struct {
		e *Entry
		p *Pending
	}
	jobs := make(chan job, 64) // each keeps a directory open
	var wg sync.WaitGroup
	for range cap(h.slots) {
		wg.Go(func() {
			for j := range jobs {
				if err := h.content(ctx, v, j.e, j.p); err != nil {
					cancel(err)
				}
				j.e.Release()
			}
		})
	}
	d := NewDigester(files)
	for _, m := range files.Matches {
		d.Begin(m)
		err = files.Walk(ctx, m, func(e *Entry) error {
			p := d.Add(e)
			if c, ok := h.known(v, e); ok {
				p.Done(c)
				return nil
			}
			e.Hold()
			jobs <- job{e, p}
			return nil
		})
		if err != nil {
			cancel(err)
			break
		}
	}
	close(jobs)
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return Sum{}, err
	}
	return d.Sum(), nil
}

// known returns the content of e if it needs no reading.
func (h *Hasher) known(v tree.View, e *Entry) (Content, bool) {
	if e.Top || e.Same != 0 { // the first of its links was read
		return Content{}, true
	}
	if !v.Local {
		return Content{}, false
	}
	return h.stats.find(&e.Stat)
}

// content reads e for p. It holds a slot, which all requests share.
func (h *Hasher) content(ctx context.Context, v tree.View, e *Entry, p *Pending) error {
	select {
	case h.slots <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-h.slots }()
	since := h.stats.now()
	c, err := readContent(e)
	if err != nil {
		return err
	}
	if v.Local && e.Type() == unix.S_IFREG {
		h.stats.set(e, c, since)
	}
	p.Done(c)
	return nil
}
