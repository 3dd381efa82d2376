// Package solve turns nodes into trees while running as little as possible.
//
// A node that runs puts one layer on the tree of its first input, its base; a
// record says which layer that was, under the node's key. A key is a digest of
// what the node does and of what it reads: the identity of a tree that it reads
// whole, the content of the files that it selects of another. To solve a node
// is then to find its key, and to return the recorded layer on its base; else to
// solve its inputs, run it, and record what it made.
//
// Keys are known before anything runs as long as everything that they are made
// of is recorded: a prediction. It is only believed while what the node reads
// turns out to be what was predicted; else the key is computed again from the
// real trees (INVARIANTS 1).
package solve

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/semaphore"

	"github.com/slipway-build/slipway/engine/diag"
	"github.com/slipway-build/slipway/engine/flight"
	"github.com/slipway-build/slipway/engine/graph"
	"github.com/slipway-build/slipway/engine/progress"
	"github.com/slipway-build/slipway/engine/tree"
)

// Key identifies what a node makes, across builds and machines.
type Key = digest.Digest

// A Runner makes what nodes make. Its methods are called concurrently.
type Runner interface {
	// Prepare makes a tree ready for being read: fetched and unpacked. It is
	// called as soon as a node that reads the tree is known to run, and holds
	// no slot.
	Prepare(ctx context.Context, t tree.Tree) error

	// Run runs an Exec or a Copy and returns the layer that it made, which has
	// an ID of its own.
	Run(ctx context.Context, task Task) (tree.Layer, error)
}

// Task is one node to run.
type Task struct {
	Node *graph.Node
	Step string // the step's name in events
	In   []Read // in the order of the node's inputs
}

// A Read is one input of a node that runs. Digest is that of the selected files
// and empty for an input that is read whole. A Runner that finds other content
// than Digest says (a build context may be written to while it is built from)
// returns an error that wraps [ErrChanged].
type Read struct {
	Tree   tree.Tree
	Digest digest.Digest
}

// ErrChanged says that files changed between being hashed and being read.
var ErrChanged = errors.New("files changed during the build")

// A Hasher digests what the selected files of a tree contain.
type Hasher interface {
	Hash(ctx context.Context, t tree.Tree, s graph.Select) (digest.Digest, error)
}

// Records is the solver's memory. Its methods are called concurrently. It is
// advice (INVARIANTS 11): what can't be read is not there, and what can't be
// written is reported by the implementation and forgotten.
type Records interface {
	// Layer returns the layer recorded for k.
	Layer(ctx context.Context, k Key) (tree.Layer, Status)
	SetLayer(ctx context.Context, k Key, l tree.Layer)

	// Files returns the digest of files selected from the tree with this
	// identity, if it is recorded.
	Files(ctx context.Context, identity digest.Digest, s graph.Select) (d digest.Digest, ok bool)
	SetFiles(ctx context.Context, identity digest.Digest, s graph.Select, d digest.Digest)
}

// Status is what is recorded of a key.
type Status uint8

// A key that was never seen is Unknown. One whose layer was recorded is Kept,
// until the layer is removed: then it is Dropped, and the layer only a name.
const (
	Unknown Status = iota
	Dropped
	Kept
)

// Options are what Solve needs. Runner, Hasher and Records must be set.
type Options struct {
	Runner   Runner
	Hasher   Hasher
	Records  Records
	Jobs     int           // nodes that run at once; 0 means one per CPU
	Progress progress.Sink // may be nil

	// Done, if not nil, is called when a node has been solved by running or by
	// a record, with the layer that is its own. It must not block.
	Done func(n *graph.Node, l tree.Layer)
}

// Solve returns the trees of roots, in order. Nodes that the roots share are
// solved once. The first failure cancels everything else and is the error.
func Solve(ctx context.Context, opts Options, roots ...*graph.Node) ([]tree.Tree, error) {
	if opts.Jobs <= 0 {
		opts.Jobs = runtime.GOMAXPROCS(0)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	b := &build{
		Options: opts,
		cancel:  cancel,
		slots:   semaphore.NewWeighted(int64(opts.Jobs)),
		steps:   number(roots),
	}
	trees := make([]tree.Tree, len(roots))
	for i, n := range roots {
		b.running.Go(func() { trees[i], _ = b.tree(ctx, n) }) // the error is ctx's cause
	}
	b.running.Wait()
	if cause := context.Cause(ctx); cause != nil {
		return nil, cause
	}
	return trees, nil
}

// build is the state of one call of Solve.
type build struct {
	Options
	cancel  context.CancelCauseFunc
	slots   *semaphore.Weighted
	steps   map[*graph.Node]string
	running sync.WaitGroup // everything that Solve started

	predictions flight.Group[*graph.Node, prediction]
	trees       flight.Group[*graph.Node, tree.Tree]
	files       flight.Group[selection, digest.Digest]

	mu    sync.Mutex
	shown map[*graph.Node]bool // nodes that had an event
}

// fail makes err the build's error, unless there is one already.
func (b *build) fail(err error) error {
	b.cancel(err)
	return err
}

// tree solves n, once.
func (b *build) tree(ctx context.Context, n *graph.Node) (tree.Tree, error) {
	return b.trees.Do(ctx, n, func() (tree.Tree, error) {
		t, err := b.solve(ctx, n)
		if err != nil {
			return tree.Tree{}, b.fail(err)
		}
		return t, nil
	})
}

func (b *build) solve(ctx context.Context, n *graph.Node) (tree.Tree, error) {
	switch op := n.Op.(type) {
	case graph.Source:
		b.show(n, progress.Cached)
		return sourceTree(op), nil
	case graph.Stack:
		in, err := b.inputs(ctx, n, false)
		if err != nil {
			return tree.Tree{}, err
		}
		return stack(in), nil
	case graph.Exec, graph.Copy:
	}
	p, err := b.predict(ctx, n)
	if err != nil {
		return tree.Tree{}, err
	}
	if p.status == Kept {
		b.showCached(n)
		b.done(n, p.layer)
		return p.tree, nil
	}
	// It will have to run, as far as is known: what it reads whole is made
	// ready while the rest is still being solved.
	in, err := b.inputs(ctx, n, true)
	if err != nil {
		return tree.Tree{}, err
	}
	return b.make(ctx, n, p.key, in)
}

// make looks n up under the key that its real inputs give, unless that is
// the predicted one, and runs it if that finds nothing.
func (b *build) make(ctx context.Context, n *graph.Node, predicted Key, in []tree.Tree) (tree.Tree, error) {
	const tries = 2 // files that change once may be an editor; twice is a loop
	for try := 1; ; try++ {
		key, reads, err := b.key(ctx, n, in)
		if err != nil {
			return tree.Tree{}, err
		}
		if key != predicted && !n.NoCache {
			if l, status := b.Records.Layer(ctx, key); status == Kept {
				b.showCached(n)
				b.done(n, l)
				return withLayer(n, in, l), nil
			}
		}
		l, err := b.run(ctx, n, reads)
		if errors.Is(err, ErrChanged) && try < tries {
			b.forget(n, in)
			continue
		}
		if err != nil {
			return tree.Tree{}, diag.At(fmt.Errorf("%s: %w", n.Label, err), n.Origin)
		}
		b.Records.SetLayer(ctx, key, l)
		b.done(n, l)
		return withLayer(n, in, l), nil
	}
}

// inputs solves what n reads, side by side. With prepare, trees that are read
// whole are made ready as soon as they are known.
func (b *build) inputs(ctx context.Context, n *graph.Node, prepare bool) ([]tree.Tree, error) {
	trees := make([]tree.Tree, len(n.Inputs))
	errs := make([]error, len(n.Inputs))
	var wg sync.WaitGroup
	for i, in := range n.Inputs {
		wg.Go(func() {
			trees[i], errs[i] = b.tree(ctx, in.From)
			if errs[i] == nil && prepare && in.Select == nil {
				errs[i] = diag.At(b.Runner.Prepare(ctx, trees[i]), in.From.Origin)
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, diag.At(err, n.Origin)
		}
	}
	return trees, nil
}

// run runs n once a slot is free. It is the only place that holds a slot, and
// it waits for no other node while it does.
func (b *build) run(ctx context.Context, n *graph.Node, reads []Read) (tree.Layer, error) {
	for i, r := range reads {
		if err := b.Runner.Prepare(ctx, r.Tree); err != nil {
			return tree.Layer{}, diag.At(err, n.Inputs[i].From.Origin)
		}
	}
	if err := b.slots.Acquire(ctx, 1); err != nil {
		return tree.Layer{}, context.Cause(ctx)
	}
	defer b.slots.Release(1)
	b.show(n, progress.Started)
	start := time.Now()
	l, err := b.Runner.Run(ctx, Task{Node: n, Step: b.steps[n], In: reads})
	ev := progress.Event{Step: b.steps[n], Name: n.Label, Kind: progress.Finished, Took: time.Since(start)}
	if err != nil {
		ev.Kind, ev.Err = progress.Failed, err
	}
	b.Progress.Emit(ev)
	return l, err
}

func (b *build) done(n *graph.Node, l tree.Layer) {
	if b.Done != nil {
		b.Done(n, l)
	}
}

// withLayer returns the tree of a node that made l: l on the node's base.
func withLayer(n *graph.Node, in []tree.Tree, l tree.Layer) tree.Tree {
	t := tree.Tree{Layers: []tree.Layer{l}}
	if !hasBase(n) {
		return t
	}
	return t.On(in[0])
}

// hasBase reports whether the node's first input is what it builds on.
func hasBase(n *graph.Node) bool {
	c, ok := n.Op.(graph.Copy)
	return !ok || !c.Link
}

func sourceTree(op graph.Source) tree.Tree {
	if op.Kind == graph.Local {
		return tree.Tree{Local: op.Name}
	}
	var t tree.Tree
	for _, l := range op.Layers {
		t.Layers = append(t.Layers, tree.FromBlob(l.DiffID, l.Blob))
	}
	return t
}

func stack(trees []tree.Tree) tree.Tree {
	var all tree.Tree
	for _, t := range trees {
		all = t.On(all)
	}
	return all
}
