package dockerfile

import (
	"fmt"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"github.com/slipway-build/slipway/engine/diag"
)

// checkCycles refuses stages that read one another, reachable or not.
func (t *target) checkCycles() error {
	done, path := make(map[*stage]bool), make(map[*stage]bool)
	var visit func(s *stage) instructions.Command
	visit = func(s *stage) instructions.Command {
		if done[s] {
			return nil
		}
		done[s], path[s] = true, true
		for _, from := range s.reads {
			if path[from] {
				return s.readBy[from]
			}
			if cmd := visit(from); cmd != nil {
				return cmd
			}
		}
		delete(path, s)
		return nil
	}
	for _, s := range t.stages {
		if cmd := visit(s); cmd != nil {
			name := s.title
			if name == "" { // the only stage that is planned
				name = s.def.Name
			}
			err := t.at(fmt.Errorf("circular dependency detected on stage: %s", name), cmd.Location())
			return diag.Hint(err, "A stage can read only stages above it.")
		}
	}
	return nil
}
