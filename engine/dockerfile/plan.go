package dockerfile

import (
	"context"
	"maps"
	"slices"

	"golang.org/x/sync/errgroup"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/slipway-build/slipway/engine/graph"
	"github.com/slipway-build/slipway/platforms"
)

// New plans the build of a Dockerfile, as BuildKit's front end would. Images
// that the target needs are resolved side by side, for all platforms; each is
// asked for once. Errors that the Dockerfile is to blame for carry its lines,
// see package diag. The same options and the same answers of the Resolver give
// the same plan.
func New(ctx context.Context, opts Options) (Plan, error) {
	p, err := newPlanner(opts)
	if err != nil {
		return Plan{}, err
	}
	targets := make([]*target, len(p.platforms))
	for i, platform := range p.platforms {
		// Lint rules speak once, not once per platform.
		if targets[i], err = p.newTarget(platform, i == 0); err != nil {
			return Plan{}, err
		}
	}

	g, gctx := errgroup.WithContext(ctx)
	for _, t := range targets {
		g.Go(func() error { return t.resolve(gctx) })
	}
	if err := g.Wait(); err != nil {
		return Plan{}, err
	}
	if err := context.Cause(ctx); err != nil {
		return Plan{}, err
	}

	plan := Plan{Index: p.multi, Epoch: targets[0].epoch}
	declared := make(map[string]bool)
	for _, t := range targets {
		image, err := t.plan()
		if err != nil {
			return Plan{}, err
		}
		plan.Images = append(plan.Images, image)
		t.declaredArgs(declared)
	}
	if err := p.lintError(); err != nil {
		return Plan{}, err
	}
	plan.Warnings = p.warnings
	for _, name := range slices.Sorted(maps.Keys(opts.Args)) {
		if !declared[name] && !predefined(name) {
			plan.Unused = append(plan.Unused, name)
		}
	}
	return plan, nil
}

// plan plans the stages that the target reaches, each of them after those that
// it reads, and makes the image.
func (t *target) plan() (Image, error) {
	reached := reachable(t.goal)
	for _, s := range slices.Concat(t.stages[t.count:], t.stages[:t.count]) { // images first
		if !reached[s] || s.planned {
			continue
		}
		if err := t.planStage(s); err != nil {
			return Image{}, err
		}
	}
	s := t.goal
	if len(t.opts.Labels) > 0 && s.config.Config.Labels == nil {
		s.config.Config.Labels = make(map[string]string, len(t.opts.Labels))
	}
	maps.Copy(s.config.Config.Labels, t.opts.Labels)
	if !t.implicit {
		s.config.Platform = asked(t.platform, s.config.Platform)
	}
	s.config.Platform = platforms.Normalize(s.config.Platform)
	s.config.RootFS = ocispec.RootFS{Type: "layers"}
	return Image{
		Platform:    t.platform,
		Root:        s.node,
		Config:      s.config,
		BaseHistory: s.baseHistory,
		Bases:       t.bases(reached),
	}, nil
}

// asked returns the platform that an image says to be for: the one that was
// asked for, completed by what is known of the base image if that has the same
// architecture.
func asked(want, have platforms.Platform) platforms.Platform {
	same := want.OS == have.OS && want.Architecture == have.Architecture
	have.OS, have.Architecture = want.OS, want.Architecture
	if want.Variant != "" || !same {
		have.Variant = want.Variant
	}
	if want.OSVersion != "" || !same {
		have.OSVersion = want.OSVersion
	}
	if want.OSFeatures != nil {
		have.OSFeatures = slices.Clone(want.OSFeatures)
	}
	return have
}

// bases returns the images that reached stages begin with or copy from, each
// once.
func (t *target) bases(reached map[*stage]bool) []PinnedImage {
	var images []PinnedImage
	seen := make(map[string]bool)
	for _, s := range t.stages {
		if s.pinned == nil || !reached[s] {
			continue
		}
		id := s.pinned.Ref + " " + formatPlatform(s.pinned.Platform)
		if !seen[id] {
			seen[id] = true
			images = append(images, *s.pinned)
		}
	}
	return images
}

// contextNode is the build context.
func (p *planner) contextNode() *graph.Node {
	return p.graph.Add(&graph.Node{
		Op:    graph.Source{Kind: graph.Local, Name: Context},
		Label: "[internal] load build context",
	})
}

// scratchNode is the empty tree.
func (p *planner) scratchNode() *graph.Node {
	return p.graph.Add(&graph.Node{Op: graph.Source{Kind: graph.Scratch}, Label: "FROM scratch"})
}
