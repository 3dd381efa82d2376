package solve

import (
	"strconv"

	"github.com/slipway-build/slipway/engine/graph"
	"github.com/slipway-build/slipway/engine/progress"
)

// number gives each node that roots reach a step name: its place in an order in
// which every node comes after what it reads.
func number(roots []*graph.Node) map[*graph.Node]string {
	steps := make(map[*graph.Node]string)
	for n := range graph.All(roots...) {
		steps[n] = strconv.Itoa(len(steps) + 1)
	}
	return steps
}

// show emits the first event of a node.
func (b *build) show(n *graph.Node, kind progress.Kind) {
	if n.Label == "" {
		return
	}
	b.mu.Lock()
	if b.shown == nil {
		b.shown = make(map[*graph.Node]bool)
	}
	seen := b.shown[n]
	b.shown[n] = true
	b.mu.Unlock()
	if !seen || kind != progress.Cached {
		b.Progress.Emit(progress.Event{Step: b.steps[n], Name: n.Label, Kind: kind})
	}
}

// showCached says that n was found, and with it everything that it was made of
// and that therefore nobody asks for. A reader of the log expects to see it.
func (b *build) showCached(n *graph.Node) {
	b.mu.Lock()
	seen := b.shown[n]
	b.mu.Unlock()
	if seen {
		return
	}
	for _, in := range n.Inputs {
		b.showCached(in.From)
	}
	b.show(n, progress.Cached)
}
