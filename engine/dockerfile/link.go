package dockerfile

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"golang.org/x/sync/errgroup"

	"github.com/slipway-build/slipway/engine/diag"
)

// link finds out what the instructions of a stage read: stages, or images that
// are not the base of any.
func (t *target) link(s *stage, cmds []instructions.Command, trigger bool) ([]command, error) {
	linked := make([]command, len(cmds))
	for i, cmd := range cmds {
		from, err := t.sources(cmd)
		if err != nil {
			return nil, t.at(err, cmd.Location())
		}
		linked[i] = command{Command: cmd, from: from, trigger: trigger}
		for _, src := range from {
			if src != nil && s.readBy[src] == nil {
				s.reads = append(s.reads, src)
				s.readBy[src] = cmd
			}
		}
	}
	return linked, nil
}

// sources returns the stages that an instruction names: that of COPY --from, and
// for each mount of a RUN its own, or nil.
func (t *target) sources(cmd instructions.Command) ([]*stage, error) {
	switch c := cmd.(type) {
	case *instructions.CopyCommand:
		if c.From == "" {
			return nil, nil
		}
		word, err := t.lex.ProcessWordWithMatches(c.From, new(env))
		if err != nil {
			return nil, err
		}
		if word.Result != c.From {
			return nil, diag.Hint(errors.New("variable expansion is not supported for --from"),
				"Define a stage with FROM, which expands global ARGs, and copy from that.")
		}
		if i, err := strconv.Atoi(c.From); err == nil {
			if i < 0 || i >= t.count {
				return nil, diag.Hint(fmt.Errorf("invalid stage index %d", i),
					"Stages are counted from 0; the last one is %d.", t.count-1)
			}
			return []*stage{t.stages[i]}, nil
		}
		return []*stage{t.source(c.From, cmd)}, nil
	case *instructions.RunCommand:
		var from []*stage
		for _, m := range instructions.GetMounts(c) {
			from = append(from, t.source(m.From, cmd))
		}
		return from, nil
	}
	return nil, nil
}

// source is what a name means: a stage, else an image; nil if it is empty. A
// name means the last stage of that name, wherever it is used.
func (t *target) source(name string, cmd instructions.Command) *stage {
	if name == "" {
		return nil
	}
	if s, ok := t.byName[strings.ToLower(name)]; ok {
		return s
	}
	s := &stage{t: t, def: instructions.Stage{BaseName: name, Location: cmd.Location()}, image: true}
	t.stages = append(t.stages, s)
	return s
}

// reachable returns what s is made of, s included.
func reachable(s *stage) map[*stage]bool {
	reached := make(map[*stage]bool)
	var visit func(*stage)
	visit = func(s *stage) {
		if s == nil || reached[s] {
			return
		}
		reached[s] = true
		visit(s.base)
		for _, from := range s.reads {
			visit(from)
		}
	}
	visit(s)
	return reached
}

// resolve pins the base images of what is reachable, side by side. ONBUILD
// triggers of a base image may reach more; so it goes on until they don't.
func (t *target) resolve(ctx context.Context) error {
	for more := true; more; {
		reached := reachable(t.goal)
		if err := t.resolveImages(ctx, reached); err != nil {
			return err
		}
		more = false
		for _, s := range t.stages[:t.count] {
			if !reached[s] || s.triggered {
				continue
			}
			s.triggered, more = true, true
			if err := s.addTriggers(); err != nil {
				return err
			}
		}
	}
	return nil
}

// resolveImages pins what was not pinned before.
func (t *target) resolveImages(ctx context.Context, reached map[*stage]bool) error {
	g, gctx := errgroup.WithContext(ctx)
	for _, s := range t.stages {
		switch name := s.def.BaseName; {
		case s.base != nil || s.resolved:
		case name != scratch && !validReference(name):
			// A stage that is not reached is not free to be wrong.
			g.Go(func() error { return t.invalidReference(s) })
		case reached[s]:
			g.Go(func() error { return s.resolve(gctx) })
		}
	}
	return g.Wait()
}

func (t *target) invalidReference(s *stage) error {
	err := didYouMean(fmt.Errorf("invalid image name %q", s.def.BaseName), s.def.BaseName, t.stageNames())
	return t.at(err, s.def.Location)
}
