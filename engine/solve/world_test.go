package solve_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/slipway-build/slipway/engine/graph"
	"github.com/slipway-build/slipway/engine/snapshot"
	"github.com/slipway-build/slipway/engine/solve"
	"github.com/slipway-build/slipway/engine/tree"
)

// The solver is tested without containers or files: a layer's name says what
// is in it. world is a Runner, a Hasher and Records, all in memory.
type world struct {
	output  map[string]string // overrides what a node outputs
	fail    map[string]error
	sleep   map[string]time.Duration
	every   time.Duration // that a run takes
	changes int           // how often the context changes while it is read

	mu       sync.Mutex
	ran      []string
	prepared []string
	hashed   int
	runs     int
	layers   map[solve.Key]tree.Layer
	files    map[string]digest.Digest
	dropped  map[snapshot.ID]bool
}

func newWorld() *world {
	return &world{
		output:  map[string]string{},
		fail:    map[string]error{},
		sleep:   map[string]time.Duration{},
		layers:  map[solve.Key]tree.Layer{},
		files:   map[string]digest.Digest{},
		dropped: map[snapshot.ID]bool{},
	}
}

func (w *world) options() solve.Options {
	return solve.Options{Runner: w, Hasher: w, Records: w, Jobs: 4}
}

func (w *world) solve(t *testing.T, roots ...*graph.Node) string {
	t.Helper()
	w.prepared = nil
	trees, err := solve.Solve(t.Context(), w.options(), roots...)
	if err != nil {
		t.Fatal(err)
	}
	return text(trees[0])
}

// wantRan checks which nodes ran since it was last called.
func (w *world) wantRan(t *testing.T, want ...string) {
	t.Helper()
	slices.Sort(w.ran)
	if diff := cmp.Diff(want, w.ran); diff != "" {
		t.Errorf("nodes that ran (-want +got):\n%s", diff)
	}
	w.ran = nil
}

func (w *world) wantPrepared(t *testing.T, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, w.prepared); diff != "" {
		t.Errorf("trees that were prepared (-want +got):\n%s", diff)
	}
}

// drop forgets the layers that nodes with these labels made, but not that they
// were recorded.
func (w *world) drop(labels ...string) {
	for _, l := range w.layers {
		name, _, _ := strings.Cut(string(l.ID), "#")
		made, _, _ := strings.Cut(name, "[")
		for _, label := range labels {
			if made == label || made == w.output[label] {
				w.dropped[l.ID] = true
			}
		}
	}
}

func (w *world) Prepare(ctx context.Context, t tree.Tree) error {
	w.mu.Lock()
	took := w.sleep["prepare "+text(t)]
	if slices.Contains(w.prepared, text(t)) {
		took = 0 // it is ready
	}
	w.prepared = append(w.prepared, text(t))
	w.mu.Unlock()
	return w.wait(ctx, took)
}

func (w *world) Run(ctx context.Context, task solve.Task) (tree.Layer, error) {
	label := task.Node.Label
	w.mu.Lock()
	w.ran = append(w.ran, label)
	w.runs++
	run := w.runs
	changed := w.changes > 0
	w.changes--
	w.mu.Unlock()
	if changed {
		return tree.Layer{}, fmt.Errorf("read src: %w", solve.ErrChanged)
	}
	if err := w.fail[label]; err != nil {
		return tree.Layer{}, err
	}
	if err := w.wait(ctx, w.sleep[label]+w.every); err != nil {
		return tree.Layer{}, err
	}
	out := label
	for i, r := range task.In {
		if task.Node.Inputs[i].Select != nil {
			out += "[" + top(r.Tree) + "]"
		}
	}
	if o, ok := w.output[out]; ok {
		out = o
	}
	// Each run gives a layer with a name of its own, whatever is in it.
	return tree.Layer{ID: snapshot.ID(fmt.Sprintf("%s#%d", out, run))}, nil
}

func (w *world) wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Hash digests what is on top of a tree: its name without the number of the
// run. (A layer that selects is what it was made of, after the overrides.)
func (w *world) Hash(_ context.Context, t tree.Tree, _ graph.Select) (digest.Digest, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hashed++
	return digest.FromString(w.alias(top(t))), nil
}

func (w *world) alias(s string) string {
	for from, to := range w.output {
		name, arg, ok := strings.Cut(from, " ")
		if ok && s == name+"["+arg+"]" {
			name, arg, _ = strings.Cut(to, " ")
			return name + "[" + arg + "]"
		}
	}
	return s
}

func (w *world) Layer(_ context.Context, k solve.Key) (tree.Layer, solve.Status) {
	w.mu.Lock()
	defer w.mu.Unlock()
	l, ok := w.layers[k]
	switch {
	case !ok:
		return l, solve.Unknown
	case w.dropped[l.ID]:
		return l, solve.Dropped
	}
	return l, solve.Kept
}

func (w *world) SetLayer(_ context.Context, k solve.Key, l tree.Layer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.layers[k] = l
}

func (w *world) Files(_ context.Context, id digest.Digest, s graph.Select) (digest.Digest, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	d, ok := w.files[string(id+s.Digest())]
	return d, ok
}

func (w *world) SetFiles(_ context.Context, id digest.Digest, s graph.Select, d digest.Digest) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.files[string(id+s.Digest())] = d
}

// text is what a tree contains, bottom first, without the numbers of runs.
func text(t tree.Tree) string {
	if t.Local != "" {
		return t.Local
	}
	names := make([]string, len(t.Layers))
	for i, l := range t.Layers {
		names[i], _, _ = strings.Cut(string(l.ID), "#")
		if l.DiffID != "" {
			names[i] = l.Blobs[0].MediaType
		}
	}
	return strings.Join(names, " ")
}

func top(t tree.Tree) string {
	if t.Local != "" {
		return t.Local
	}
	return text(tree.Tree{Layers: t.Layers[len(t.Layers)-1:]})
}

func image(name string) *graph.Node {
	l := graph.ImageLayer{DiffID: digest.FromString(name)}
	l.Blob.MediaType = name // which is a place to keep it
	return &graph.Node{Op: graph.Source{Kind: graph.Image, Name: name, Layers: []graph.ImageLayer{l}}, Label: name}
}

func context1(content string) *graph.Node {
	return &graph.Node{Op: graph.Source{Kind: graph.Local, Name: content}, Label: content}
}

func files(from *graph.Node) graph.Input {
	return graph.Input{From: from, Select: &graph.Select{Requests: []graph.Request{{Path: "/f"}}}}
}

func exec(name string, base *graph.Node, more ...graph.Input) *graph.Node {
	return &graph.Node{
		Op:     graph.Exec{Args: []string{name}},
		Label:  name,
		Inputs: append([]graph.Input{{From: base}}, more...),
	}
}

func copyFrom(name string, base, from *graph.Node) *graph.Node {
	return &graph.Node{Op: graph.Copy{Dest: name}, Label: name, Inputs: []graph.Input{{From: base}, files(from)}}
}
