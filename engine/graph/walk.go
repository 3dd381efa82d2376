package graph

import "iter"

// All yields every node that roots reach, each once, after what it reads.
func All(roots ...*Node) iter.Seq[*Node] {
	return func(yield func(*Node) bool) {
		seen := make(map[*Node]bool)
		var visit func(n *Node) bool
		visit = func(n *Node) bool {
			if seen[n] {
				return true
			}
			seen[n] = true
			for _, in := range n.Inputs {
				if !visit(in.From) {
					return false
				}
			}
			return yield(n)
		}
		for _, n := range roots {
			if !visit(n) {
				return
			}
		}
	}
}
