package dockerfile

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"github.com/slipway-build/slipway/engine/diag"
)

// addTriggers puts the ONBUILD triggers of what s begins with before its own
// instructions. They may read other stages and images.
func (s *stage) addTriggers() error {
	triggers := s.config.Config.OnBuild
	s.config.Config.OnBuild = nil
	if s.base != nil {
		for _, cmd := range s.base.commands {
			if c, ok := cmd.Command.(*instructions.OnbuildCommand); ok {
				triggers = append(triggers, c.Expression)
			}
		}
	}
	if len(triggers) == 0 {
		return nil
	}
	cmds := make([]instructions.Command, len(triggers))
	for i, trigger := range triggers {
		cmd, err := s.parseTrigger(trigger)
		if err != nil {
			// The trigger's own lines mean nothing in this file.
			if le, ok := errors.AsType[*parser.LocationError](err); ok {
				err = le.Unwrap()
			}
			err = fmt.Errorf("ONBUILD trigger %q of %s: %w", trigger, s.def.BaseName, err)
			return diag.At(err, s.t.origin(s.def.Location))
		}
		cmds[i] = cmd
	}
	linked, err := s.t.link(s, cmds, true)
	if err != nil {
		return err
	}
	s.commands = slices.Concat(linked, s.commands)
	s.steps += len(linked)
	return nil
}

// parseTrigger reads a trigger as if it stood where the FROM is.
func (s *stage) parseTrigger(trigger string) (instructions.Command, error) {
	file, err := parser.Parse(strings.NewReader(trigger))
	if err != nil {
		return nil, err
	}
	if len(file.AST.Children) != 1 {
		return nil, errors.New("want a single instruction")
	}
	node := file.AST.Children[0]
	at := s.t.origin(s.def.Location)
	node.StartLine, node.EndLine = at.Line, at.Last
	return instructions.ParseCommand(node)
}
