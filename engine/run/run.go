// Package run runs one node of a build: it makes the layer that an Exec or a
// Copy puts on its base. What has to run, and in which order, is decided by
// package solve; where trees come from is package tree's business.
package run

import (
	"context"
	"fmt"
	"time"

	"github.com/slipway-build/slipway/engine/graph"
	"github.com/slipway-build/slipway/engine/inroot"
	"github.com/slipway-build/slipway/engine/layer"
	"github.com/slipway-build/slipway/engine/progress"
	"github.com/slipway-build/slipway/engine/sandbox"
	"github.com/slipway-build/slipway/engine/snapshot"
	"github.com/slipway-build/slipway/engine/solve"
	"github.com/slipway-build/slipway/engine/tree"
)

// Runner runs nodes. It implements [solve.Runner].
type Runner struct {
	Trees    *tree.Keeper
	Executor sandbox.Executor
	Caches   *Caches
	Progress progress.Sink    // may be nil
	Now      func() time.Time // nil is time.Now
}

var _ solve.Runner = (*Runner)(nil)

// Prepare makes a tree ready for being read.
func (r *Runner) Prepare(ctx context.Context, t tree.Tree) error {
	if t.Local != "" {
		return nil
	}
	return r.Trees.Prepare(ctx, t)
}

// Run makes the layer of one node.
func (r *Runner) Run(ctx context.Context, task solve.Task) (tree.Layer, error) {
	switch op := task.Node.Op.(type) {
	case graph.Exec:
		return r.exec(ctx, op, task)
	case graph.Copy:
		return r.copy(ctx, op, task)
	case graph.Source, graph.Stack:
	}
	return tree.Layer{}, fmt.Errorf("%T is not something to run", task.Node.Op)
}

func (r *Runner) copy(ctx context.Context, op graph.Copy, task solve.Task) (tree.Layer, error) {
	views := make([]tree.View, len(task.In))
	for i, in := range task.In {
		if i == 0 && !op.Link && op.Owner.Input == 0 && op.Owner == (graph.Owner{}) {
			continue // written to, not read
		}
		v, err := r.Trees.View(ctx, in.Tree)
		if err != nil {
			return tree.Layer{}, err
		}
		defer v.Close()
		views[i] = v
	}
	var base tree.Tree
	if !op.Link {
		base = task.In[0].Tree
	}
	return r.write(ctx, base, func(dst *inroot.Root) error {
		return copyFiles(ctx, op, dst, views, task.In, r.now)
	})
}

// write makes a layer on base of what fill writes into it.
func (r *Runner) write(ctx context.Context, base tree.Tree, fill func(dst *inroot.Root) error) (tree.Layer, error) {
	draft, err := r.Trees.Draft(ctx, base)
	if err != nil {
		return tree.Layer{}, err
	}
	defer draft.Discard() //nolint:errcheck // what is left is removed at the next start
	if err := fillDraft(draft, len(base.Layers) > 0, fill); err != nil {
		return tree.Layer{}, err
	}
	return r.commit(ctx, draft, base)
}

// fillDraft opens the draft for writing: the directory itself if there is
// nothing below, which is faster than going through the mount.
func fillDraft(draft snapshot.Draft, mounted bool, fill func(dst *inroot.Root) error) error {
	var dst *inroot.Root
	if mounted {
		f, err := draft.Mount().Detached()
		if err != nil {
			return err
		}
		dst = inroot.FromFile(f)
	} else {
		var err error
		if dst, err = inroot.Open(draft.Dir()); err != nil {
			return err
		}
	}
	defer dst.Close()
	return fill(dst)
}

// commit makes the draft a layer, without what is in it only because it was
// touched: a file that was rewritten as it was, a directory that was made again.
func (r *Runner) commit(ctx context.Context, draft snapshot.Draft, base tree.Tree) (tree.Layer, error) {
	if len(base.Layers) > 0 {
		if err := r.trim(ctx, draft, base); err != nil {
			return tree.Layer{}, err
		}
	}
	return r.Trees.Commit(ctx, draft)
}

func (r *Runner) trim(ctx context.Context, draft snapshot.Draft, base tree.Tree) error {
	upper, err := inroot.Open(draft.Dir())
	if err != nil {
		return err
	}
	defer upper.Close()
	empty, err := isEmpty(upper)
	if err != nil || empty {
		return err
	}
	lower, err := r.Trees.View(ctx, base)
	if err != nil {
		return err
	}
	defer lower.Close()
	return layer.Trim(ctx, upper, lower.Root)
}

func isEmpty(dir *inroot.Root) (bool, error) {
	f, err := dir.OpenFile(".", 0, 0)
	if err != nil {
		return false, err
	}
	defer f.Close()
	names, _ := f.Readdirnames(1) // the error is io.EOF for an empty directory
	return len(names) == 0, nil
}

func (r *Runner) now() time.Time {
	if r.Now != nil {
		return r.Now()
	}
	return time.Now()
}
