package dockerfile

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/slipway-build/slipway/engine/diag"
	"github.com/slipway-build/slipway/engine/graph"
	"github.com/slipway-build/slipway/platforms"
)

// defaultPath is the PATH of images that say nothing of it.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// stage is one stage, or an image that is only copied from or mounted.
type stage struct {
	t        *target
	def      instructions.Stage // BaseName is expanded
	title    string             // in the log; empty if there is only one
	image    bool               // not a stage of the file
	base     *stage             // nil: an image
	reads    []*stage           // other than base
	readBy   map[*stage]instructions.Command
	commands []command

	resolved  bool
	triggered bool
	planned   bool
	pinned    *PinnedImage // nil: scratch, or begins with a stage

	// What follows changes from one instruction to the next.
	platform    *platforms.Platform
	node        *graph.Node
	config      Config
	baseHistory int
	env         *env // ENV and ARG
	dir         string
	args        []instructions.KeyValuePairOptional // declared so far
	workdirSet  bool
	steps, step int

	// Of the instruction that is being planned.
	lint    *linter.Linter
	trigger bool
	loc     []parser.Range

	cmd, entrypoint, healthcheck usage
}

// command is an instruction with the stages that it reads: one for a COPY
// --from, one for each mount of a RUN (nil if it has no from).
type command struct {
	instructions.Command
	from    []*stage
	trigger bool // comes from an ONBUILD
}

// resolve pins the image that s begins with.
func (s *stage) resolve(ctx context.Context) error {
	s.resolved = true
	if s.def.BaseName == scratch {
		p := s.t.platform
		s.platform = &p
		s.config = emptyConfig(p)
		return nil
	}
	if s.platform == nil {
		s.platform = &s.t.platform
	}
	pinned, err := s.t.images.resolve(ctx, s.def.BaseName, *s.platform)
	if err != nil {
		err = fmt.Errorf("%s: %w", s.def.BaseName, err)
		if errors.Is(err, fs.ErrNotExist) {
			err = didYouMean(err, s.def.BaseName, s.t.stageNames())
		}
		return s.t.at(err, s.def.Location)
	}
	s.pinned = &pinned
	s.config = cloneConfig(pinned.Config)
	s.config.Created = nil
	s.baseHistory = len(s.config.History)
	return nil
}

// emptyConfig is the config of scratch.
func emptyConfig(p platforms.Platform) Config {
	var c Config
	c.Platform = p
	c.OSFeatures = slices.Clone(p.OSFeatures)
	c.RootFS.Type = "layers"
	c.Config.WorkingDir = "/"
	if p.OS != "windows" {
		c.Config.Env = []string{"PATH=" + defaultPath}
	}
	return c
}

// cloneConfig copies what instructions change.
func cloneConfig(c Config) Config {
	c.History = slices.Clone(c.History)
	c.Config.Env = slices.Clone(c.Config.Env)
	c.Config.Cmd = slices.Clone(c.Config.Cmd)
	c.Config.Entrypoint = slices.Clone(c.Config.Entrypoint)
	c.Config.OnBuild = slices.Clone(c.Config.OnBuild)
	c.Config.Shell = slices.Clone(c.Config.Shell)
	c.Config.ExposedPorts = maps.Clone(c.Config.ExposedPorts)
	c.Config.Volumes = maps.Clone(c.Config.Volumes)
	c.Config.Labels = maps.Clone(c.Config.Labels)
	if h := c.Config.Healthcheck; h != nil {
		h := *h
		h.Test = slices.Clone(h.Test)
		c.Config.Healthcheck = &h
	}
	return c
}

// planStage plans the instructions of a stage. What it begins with and reads
// was planned before, or is an error.
func (t *target) planStage(s *stage) error {
	s.planned = true
	if s.base != nil {
		s.inherit(s.base)
	} else {
		s.begin()
	}
	if s.image {
		return nil
	}
	isPath := func(kv string) bool { return kv == "PATH" || strings.HasPrefix(kv, "PATH=") }
	if !slices.ContainsFunc(s.config.Config.Env, isPath) && s.platform.OS != "windows" {
		s.config.Config.Env = append(s.config.Config.Env, "PATH="+defaultPath)
	}
	for _, kv := range s.config.Config.Env {
		k, v, _ := strings.Cut(kv, "=")
		s.env.set(k, v)
	}
	if wd := s.config.Config.WorkingDir; wd != "" {
		if err := s.chdir(wd); err != nil {
			return t.at(err, s.def.Location)
		}
	}
	for _, cmd := range s.commands {
		s.loc = cmd.Location()
		s.lint = t.linter.WithMergedConfigFromComments(cmd.Comments())
		s.trigger = cmd.trigger
		if err := s.dispatch(cmd); err != nil {
			return t.at(err, s.loc)
		}
	}
	return nil
}

// begin starts a stage from an image.
func (s *stage) begin() {
	s.env, s.dir = new(env), "/"
	if s.pinned == nil || len(s.pinned.Layers) == 0 {
		s.node = s.t.scratchNode()
	} else {
		s.node = s.t.graph.Add(&graph.Node{
			Op:     graph.Source{Kind: graph.Image, Name: s.pinned.Ref, Layers: s.pinned.Layers},
			Label:  s.label("FROM "+s.pinned.Ref, new(env)),
			Origin: s.t.origin(s.def.Location),
		})
	}
	if s.pinned != nil {
		s.t.checkBasePlatform(s)
	}
}

// inherit starts a stage from another: from its tree, its config and its args,
// but not from its triggers, which were run or never will be.
func (s *stage) inherit(base *stage) {
	s.node, s.platform, s.dir = base.node, base.platform, base.dir
	s.config = cloneConfig(base.config)
	s.config.Config.OnBuild = nil
	s.baseHistory = base.baseHistory
	s.env = base.env.clone()
	s.args = slices.Clone(base.args)
	s.workdirSet = base.workdirSet
}

// dispatch plans one instruction.
func (s *stage) dispatch(cmd command) error {
	if err := s.expand(cmd); err != nil {
		return err
	}
	switch c := cmd.Command.(type) {
	case *instructions.RunCommand:
		return s.run(c, cmd.from)
	case *instructions.CopyCommand:
		return s.copyFiles(c, cmd.from)
	case *instructions.AddCommand:
		return s.addFiles(c)
	case *instructions.WorkdirCommand:
		return s.workdir(c)
	case *instructions.ArgCommand:
		return s.arg(c)
	case *instructions.EnvCommand:
		return s.setEnv(c)
	case *instructions.ExposeCommand:
		return s.expose(c)
	case *instructions.VolumeCommand:
		return s.volume(c)
	case *instructions.StopSignalCommand:
		return s.stopSignal(c)
	}
	return s.metadata(cmd.Command)
}

// expand expands the variables of an instruction in place.
func (s *stage) expand(cmd command) error {
	_, isArg := cmd.Command.(*instructions.ArgCommand) // may not need its default
	if c, ok := cmd.Command.(instructions.SupportsSingleWordExpansion); ok && !isArg {
		err := c.Expand(func(word string) (string, error) {
			expanded, unmatched, err := expandWord(s.t.lex, word, s.env)
			s.checkUnmatched(cmd.Location(), unmatched)
			return expanded, err
		})
		if err != nil {
			return err
		}
	}
	if c, ok := cmd.Command.(instructions.SupportsSingleWordExpansionRaw); ok {
		return c.ExpandRaw(func(word string) (string, error) {
			expanded, unmatched, err := expandWord(s.t.heredocLex, word, s.env)
			s.checkUnmatched(cmd.Location(), unmatched)
			return expanded, err
		})
	}
	return nil
}

// commit adds a line to the image's history.
func (s *stage) commit(createdBy string, layer bool) {
	s.config.History = append(s.config.History, ocispec.History{
		CreatedBy:  createdBy,
		Comment:    "buildkit.dockerfile.v0", // tools know BuildKit's images by it
		EmptyLayer: !layer,
	})
}

// add makes a node of the instruction that is being planned the top of s.
func (s *stage) add(op graph.Op, inputs []graph.Input, label string, noCache bool) {
	s.node = s.t.graph.Add(&graph.Node{
		Op:      op,
		Inputs:  inputs,
		NoCache: noCache && s.noCache(),
		Label:   label,
		Origin:  s.t.origin(s.loc),
	})
}

// noCache reports whether the stage is to be built without looking at records.
func (s *stage) noCache() bool {
	return s.t.opts.NoCacheAll || slices.ContainsFunc(s.t.opts.NoCache, func(name string) bool {
		return strings.EqualFold(name, s.def.Name)
	})
}

var errNotYet = errors.New("it needs to be defined before")

// tree returns the node of a stage that s reads.
func (s *stage) tree(from *stage, name string) (*graph.Node, error) {
	if !from.planned {
		err := fmt.Errorf("stage %q is not built before stage %q: %w", name, s.title, errNotYet)
		return nil, diag.Hint(err, "Move the stage %q up, above the one that reads it.", name)
	}
	return from.node, nil
}
