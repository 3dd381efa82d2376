package dockerfile_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/engine/graph"
)

// wellFormed checks what the other packages rely on.
func wellFormed(t testing.TB, roots ...*graph.Node) {
	t.Helper()
	for n := range graph.All(roots...) {
		bad := func(format string, args ...any) { t.Errorf("%s: %s", n.Label, fmt.Sprintf(format, args...)) }
		for i, in := range n.Inputs {
			if src, ok := in.From.Op.(graph.Source); ok && src.Kind == graph.Local && in.Select == nil {
				bad("input %d reads a context whole", i)
			}
			if in.Select != nil && len(in.Select.Requests) == 0 {
				bad("input %d selects nothing", i)
			}
		}
		switch op := n.Op.(type) {
		case graph.Copy:
			checkCopy(n, op, bad)
		case graph.Exec:
			checkExec(n, op, bad)
		case graph.Source:
			if len(n.Inputs) != 0 {
				bad("a source has inputs")
			}
		case graph.Stack:
			if len(n.Inputs) != 2 {
				bad("a stack has %d inputs", len(n.Inputs))
			}
		}
	}
}

func absolute(p string) bool { return strings.HasPrefix(p, "/") && !strings.Contains(p+"/", "/../") }

func checkCopy(n *graph.Node, op graph.Copy, bad func(string, ...any)) {
	if !op.Link && (len(n.Inputs) == 0 || n.Inputs[0].Select != nil) {
		bad("no base")
	}
	if !absolute(op.Dest) || len(op.Sources) == 0 {
		bad("copy of %d sources to %q", len(op.Sources), op.Dest)
	}
	if op.Owner.Named() && (op.Owner.Input >= len(n.Inputs) || op.Link && op.Owner.Input == 0) {
		bad("names come from input %d", op.Owner.Input)
	}
	for _, s := range op.Sources {
		if s.Inline != nil {
			if strings.Contains(s.Inline.Name, "/") || s.Inline.Name == ".." || s.Inline.Name == "." || s.Inline.Dir != (s.Inline.Name == "") {
				bad("inline %q", s.Inline.Name)
			}
			continue
		}
		if !absolute(s.Request.Path) || s.Input >= len(n.Inputs) || n.Inputs[s.Input].Select == nil {
			bad("source %s of input %d", s.Request, s.Input)
			continue
		}
		if s.Request.Parents && !strings.HasPrefix(s.Request.Path+"/", strings.TrimSuffix(s.Request.Pivot, "/")+"/") {
			bad("%s", s.Request)
		}
	}
}

func checkExec(n *graph.Node, op graph.Exec, bad func(string, ...any)) {
	if len(op.Args) == 0 || !absolute(op.Dir) || op.Network == "" || op.Security == "" {
		bad("args %q, dir %q, network %q, security %q", op.Args, op.Dir, op.Network, op.Security)
	}
	for _, m := range op.Mounts {
		if m.Input >= len(n.Inputs) || m.Target == "/" || !absolute(m.Target) && (m.Target != "" || m.Env == "") {
			bad("mount %s", m)
		}
		if m.Input > 0 && !absolute(m.Source) || m.Type == graph.MountBind && m.Input == 0 {
			bad("mount %s", m)
		}
	}
}
