package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/engine/content"
	"github.com/slipway-build/slipway/engine/diag"
	"github.com/slipway-build/slipway/engine/dockerfile"
	"github.com/slipway-build/slipway/engine/filehash"
	"github.com/slipway-build/slipway/engine/graph"
	"github.com/slipway-build/slipway/engine/progress"
	"github.com/slipway-build/slipway/engine/record"
	"github.com/slipway-build/slipway/engine/run"
	"github.com/slipway-build/slipway/engine/solve"
	"github.com/slipway-build/slipway/engine/tree"
	"github.com/slipway-build/slipway/platforms"
)

// Build does one build. What steps finished is recorded even if it fails.
func (e *Engine) Build(ctx context.Context, req Request) (Result, error) {
	b, err := e.newBuild()
	if err != nil {
		return Result{}, err
	}
	defer b.close()
	outputs, err := b.outputs(req)
	if err != nil {
		return Result{}, err
	}
	src, err := e.loadContext(ctx, req)
	if err != nil {
		return Result{}, err
	}
	defer src.release()
	b.keeper.AddLocal(dockerfile.Context, tree.Local{Dir: src.dir, Ignored: src.ignored})
	plan, err := e.plan(ctx, req, src)
	if err != nil {
		return Result{}, err
	}
	res := Result{Warnings: plan.Warnings, Unused: plan.Unused}
	return res, b.finish(ctx, req, plan, outputs, &res)
}

func (e *Engine) plan(ctx context.Context, req Request, src buildContext) (dockerfile.Plan, error) {
	e.opts.Progress.Emit(progress.Event{Step: "plan", Name: "load build definition from " + src.name, Kind: progress.Started})
	start := time.Now()
	plan, err := dockerfile.New(ctx, dockerfile.Options{
		File: src.file, Name: src.name,
		Target: req.Target, Args: req.Args, Labels: req.Labels,
		Platforms: req.Platforms, Host: platforms.Host(),
		NoCache: req.NoCacheStages, NoCacheAll: req.NoCache,
		Ignored: src.ignored,
		Network: req.Network, Hosts: req.Hosts, ShmSize: req.ShmSize,
		Ulimits: req.Ulimits, CgroupParent: req.CgroupParent,
		Resolver: resolver{e.reg},
	})
	ev := progress.Event{Step: "plan", Name: "load build definition from " + src.name, Kind: progress.Finished, Took: time.Since(start)}
	if err != nil {
		ev.Kind, ev.Err = progress.Failed, err
	}
	e.opts.Progress.Emit(ev)
	if err != nil {
		return plan, err
	}
	return plan, checkEntitlements(plan)
}

// checkEntitlements refuses what a Dockerfile may not do unless the caller
// says so (INVARIANTS 17), before anything runs.
func checkEntitlements(plan dockerfile.Plan) error {
	for n := range graph.All(roots(plan)...) {
		op, ok := n.Op.(graph.Exec)
		if !ok {
			continue
		}
		if op.Network == graph.NetworkHost {
			return diag.At(errors.New("RUN --network=host needs the entitlement network.host, which can't be given in this version"), n.Origin)
		}
		if op.Security == graph.SecurityInsecure {
			return diag.At(errors.New("RUN --security=insecure needs the entitlement security.insecure, which can't be given in this version"), n.Origin)
		}
	}
	return nil
}

func roots(plan dockerfile.Plan) []*graph.Node {
	all := make([]*graph.Node, len(plan.Images))
	for i, img := range plan.Images {
		all[i] = img.Root
	}
	return all
}

// build is what lives as long as one build.
type build struct {
	*Engine
	keeper  *tree.Keeper
	records *record.Store
	hasher  *filehash.Hasher

	packing sync.WaitGroup // layers that are packed while others still run
	makers  sync.Map       // snapshot.ID → *graph.Node that made the layer
}

func (e *Engine) newBuild() (*build, error) {
	b := &build{Engine: e}
	var err error
	b.records, err = record.Open(record.Options{
		Dir:  e.state.path("records"),
		Kept: func(l tree.Layer) bool { return b.keeper.Kept(l) },
		Warn: func(err error) { e.opts.Progress.Emit(progress.Event{Kind: progress.Warning, Line: err.Error()}) },
	})
	if err != nil {
		return nil, err
	}
	b.keeper = tree.NewKeeper(tree.Options{
		Store: e.store, Snapshots: e.snaps, Infos: b.records,
		Progress: e.opts.Progress, Free: e.state.free,
	})
	b.hasher = filehash.New(b.keeper, filehash.Options{StatCache: e.state.path("records", "stat")})
	return b, nil
}

// close waits for what still goes on in the background.
func (b *build) close() {
	b.packing.Wait()
	if err := b.hasher.Close(); err != nil {
		b.opts.Progress.Emit(progress.Event{Kind: progress.Warning, Line: err.Error()})
	}
}

// free returns how many bytes one layer may take: what the disk has left, less
// 1 GiB for everybody else (INVARIANTS 20).
func (s *state) free() (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(s.root, &st); err != nil {
		return 0, fmt.Errorf("free space of %s: %w", s.root, err)
	}
	const reserve = 1 << 30
	free := int64(st.Bavail)*st.Bsize - reserve
	if free <= 0 {
		return 0, fmt.Errorf("less than 1 GiB is free in %s: %w", s.root, unix.ENOSPC)
	}
	return free, nil
}

// finish makes the plan's trees and delivers them. What turns out lost or
// damaged on the way, also at the very end, is made again: each thing can be
// lost once, so this ends (INVARIANTS 2).
func (b *build) finish(ctx context.Context, req Request, plan dockerfile.Plan, outputs []output, res *Result) error {
	seen := make(map[string]bool)
	for {
		trees, err := b.solve(ctx, plan, outputs)
		if err == nil {
			err = b.deliver(ctx, req, plan, trees, outputs, res)
		}
		name := ""
		if l, ok := errors.AsType[*tree.Lost](err); ok {
			name = string(l.Layer)
			b.keeper.Lose(l.Layer)
		} else if d, ok := errors.AsType[*content.Damaged](err); ok {
			name = d.Digest.String()
		}
		if name == "" || seen[name] {
			return err
		}
		seen[name] = true
	}
}

func (b *build) solve(ctx context.Context, plan dockerfile.Plan, outputs []output) ([]tree.Tree, error) {
	roots, packings := roots(plan), packings(outputs)
	inImage := onImagePath(roots)
	ahead, stop := context.WithCancel(ctx)
	trees, err := solve.Solve(ctx, solve.Options{
		Runner: &run.Runner{
			Trees: b.keeper, Executor: b.opts.Executor,
			Caches:   &run.Caches{Dir: b.state.path("mounts")},
			Progress: b.opts.Progress,
		},
		Hasher: b.hasher, Records: b.records,
		Jobs: b.opts.Jobs, Progress: b.opts.Progress,
		// A layer of the image becomes a blob while later steps still run.
		Done: func(n *graph.Node, l tree.Layer) {
			b.makers.Store(l.ID, n)
			if !inImage[n] {
				return
			}
			for _, p := range packings {
				b.packing.Go(func() { _, _ = b.keeper.Pack(ahead, l, p) }) // errors are met again
			}
		},
	}, roots...)
	if err != nil {
		stop() // nobody waits for the blobs of a build that failed
		return nil, err
	}
	defer stop()
	for _, p := range packings {
		if _, err := b.pack(ctx, trees, p); err != nil {
			return nil, err
		}
	}
	return trees, nil
}

// onImagePath returns the nodes whose layers are layers of an image: those that
// are reached by going from each root to what it builds on.
func onImagePath(roots []*graph.Node) map[*graph.Node]bool {
	path := make(map[*graph.Node]bool)
	var visit func(n *graph.Node)
	visit = func(n *graph.Node) {
		if path[n] {
			return
		}
		path[n] = true
		for i, in := range n.Inputs {
			switch op := n.Op.(type) {
			case graph.Stack:
				visit(in.From)
			case graph.Copy:
				if i == 0 && !op.Link {
					visit(in.From)
				}
			case graph.Exec:
				if i == 0 {
					visit(in.From)
				}
			case graph.Source:
			}
		}
	}
	for _, n := range roots {
		visit(n)
	}
	return path
}

// pack returns trees whose layers all have a blob in the wanted form.
func (b *build) pack(ctx context.Context, trees []tree.Tree, p tree.Packing) ([]tree.Tree, error) {
	packed := make([]tree.Tree, len(trees))
	g, gctx := errgroup.WithContext(ctx)
	for i, t := range trees {
		packed[i].Layers = slices.Clone(t.Layers)
		for j, l := range t.Layers {
			g.Go(func() (err error) {
				packed[i].Layers[j], err = b.keeper.Pack(gctx, l, p)
				return b.blame(err, l)
			})
		}
	}
	return packed, g.Wait()
}

// blame says which step made the layer that something is wrong with.
func (b *build) blame(err error, l tree.Layer) error {
	v, _ := b.makers.Load(l.ID)
	n, ok := v.(*graph.Node)
	if err == nil || !ok {
		return err
	}
	return diag.At(fmt.Errorf("%s: %w", n.Label, err), n.Origin)
}

// shortDigest is how people know a blob: the first twelve digits.
func shortDigest(d content.Descriptor) string {
	_, hex, _ := strings.Cut(d.Digest.String(), ":")
	return hex[:min(12, len(hex))]
}
