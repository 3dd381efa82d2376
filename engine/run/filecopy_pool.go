package run

import (
	"context"
	"runtime"
	"sync"

	"github.com/slipway-build/slipway/engine/filehash"
	"github.com/slipway-build/slipway/engine/tree"
)

// A pool copies what one request selects. One goroutine walks and makes
// directories, others write files.
type pool struct {
	c      *copier
	ctx    context.Context //nolint:containedctx // lives as long as one call of source
	cancel context.CancelCauseFunc
	view   tree.View
	files  *filehash.Files
	sums   *inputSums // nil: nothing is digested
	digest *filehash.Digester

	jobs    chan copyTask
	workers sync.WaitGroup
	pending sync.WaitGroup // tasks

	// first has the paths of the copies of files that have more links, by index
	// of the entry, and copies the other way round; links are those links, to be
	// made when the copies are.
	mu     sync.Mutex
	first  map[int]string
	copies map[inode]int
	links  []copyTask
}

type inode struct{ dev, ino uint64 }

// A copyTask is one file to write.
type copyTask struct {
	e    *filehash.Entry
	p    *filehash.Pending
	dir  *outDir
	base string
}

func newPool(ctx context.Context, c *copier, v tree.View, files *filehash.Files, sums *inputSums) *pool {
	ctx, cancel := context.WithCancelCause(ctx)
	p := &pool{c: c, ctx: ctx, cancel: cancel, view: v, files: files, sums: sums, first: make(map[int]string), copies: make(map[inode]int), jobs: make(chan copyTask, 64)}
	if sums != nil {
		p.digest = filehash.NewDigester(files)
	}
	for range max(2, runtime.GOMAXPROCS(0)) {
		p.workers.Go(p.work)
	}
	return p
}

func (p *pool) work() {
	for t := range p.jobs {
		if p.ctx.Err() == nil {
			if err := p.file(t); err != nil {
				p.cancel(err)
			}
		}
		p.drop(t)
	}
}

// drop ends what begin began.
func (p *pool) drop(t copyTask) {
	t.e.Release()
	if err := t.dir.release(); err != nil {
		p.cancel(err)
	}
	p.pending.Done()
}

// wait ends the pool. err is that of giving it work. The sum is that of the
// request if files are digested.
func (p *pool) wait(err error) (filehash.Sum, error) {
	if err != nil {
		p.cancel(err)
	}
	err = p.barrier()
	close(p.jobs)
	p.workers.Wait()
	p.cancel(nil)
	if err != nil || p.digest == nil {
		return filehash.Sum{}, err
	}
	return p.digest.Sum(), nil
}

// barrier waits until everything that was begun is written.
func (p *pool) barrier() error {
	p.pending.Wait()
	for _, t := range p.links {
		if p.ctx.Err() == nil {
			if err := p.link(t); err != nil {
				p.cancel(err)
			}
		}
		p.pending.Add(1)
		p.drop(t)
	}
	p.links = nil
	return context.Cause(p.ctx)
}
