package solve

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"

	"github.com/opencontainers/go-digest"

	"github.com/slipway-build/slipway/engine/diag"
	"github.com/slipway-build/slipway/engine/graph"
	"github.com/slipway-build/slipway/engine/tree"
)

// A prediction is what can be said of a node without running it. The zero
// prediction says that it must run: something that it reads whole must run, or
// was never recorded, so that its own key can't be known yet.
type prediction struct {
	key    Key
	status Status
	layer  tree.Layer
	tree   tree.Tree // if status is not Unknown; of Dropped, a list of names
}

// predict looks n up under the key that the records give for it. It waits for
// no other node if a tree that n reads whole has to be made anyway: then there
// is nothing to find, and n's inputs can start at once (INVARIANTS 8). The
// only nodes that it solves are those that n selects files of.
func (b *build) predict(ctx context.Context, n *graph.Node) (prediction, error) {
	return b.predictions.Do(ctx, n, func() (prediction, error) {
		switch op := n.Op.(type) {
		case graph.Source:
			return prediction{status: Kept, tree: sourceTree(op)}, nil
		case graph.Stack:
			return b.predictStack(ctx, n)
		case graph.Exec, graph.Copy:
		}
		return b.predictRun(ctx, n)
	})
}

// predictStack needs no record: a stack is as good as its inputs.
func (b *build) predictStack(ctx context.Context, n *graph.Node) (prediction, error) {
	p := prediction{status: Kept}
	trees := make([]tree.Tree, len(n.Inputs))
	for i, in := range n.Inputs {
		q, err := b.predict(ctx, in.From)
		if err != nil || q.status == Unknown {
			return prediction{}, err
		}
		trees[i], p.status = q.tree, min(p.status, q.status)
	}
	p.tree = stack(trees)
	return p, nil
}

// A part is what one input gives to a key, and what is known of a tree that is
// read whole.
type part struct {
	text string
	prediction
	err error
}

func (b *build) predictRun(ctx context.Context, n *graph.Node) (prediction, error) {
	if n.NoCache {
		b.startSelected(ctx, n)
		return prediction{}, nil
	}
	type indexed struct {
		i int
		part
	}
	results := make(chan indexed, len(n.Inputs))
	for i, in := range n.Inputs {
		b.running.Go(func() { results <- indexed{i, b.predictInput(ctx, n, in)} })
	}
	parts, trees := make([]string, len(n.Inputs)), make([]tree.Tree, len(n.Inputs))
	base := Kept
	for range n.Inputs {
		select {
		case r := <-results:
			if r.err != nil {
				return prediction{}, diag.At(r.err, n.Origin)
			}
			if r.text == "" {
				return prediction{}, nil // the others go on, they will be needed
			}
			parts[r.i], trees[r.i] = r.text, r.tree
			if r.i == 0 {
				base = r.status
			}
		case <-ctx.Done():
			return prediction{}, context.Cause(ctx)
		}
	}
	p := prediction{key: join(n.Op, parts)}
	p.layer, p.status = b.Records.Layer(ctx, p.key)
	if p.status == Unknown {
		return p, nil
	}
	p.tree = withLayer(n, trees, p.layer)
	if hasBase(n) {
		p.status = min(p.status, base) // a layer is of no use without those below it
	}
	return p, nil
}

// startSelected starts what n selects files of. A node that is not looked up
// would otherwise start it no sooner than its base.
func (b *build) startSelected(ctx context.Context, n *graph.Node) {
	for _, in := range n.Inputs {
		b.running.Go(func() { _, _ = b.tree(ctx, in.From) }) // errors are the build's
	}
}

func (b *build) predictInput(ctx context.Context, n *graph.Node, in graph.Input) part {
	p, err := b.predict(ctx, in.From)
	if err != nil {
		return part{err: err}
	}
	if in.Select == nil {
		if p.status == Unknown {
			return part{}
		}
		return part{text: whole(p.tree), prediction: p}
	}
	if p.status != Unknown && p.tree.Local == "" {
		if d, ok := b.Records.Files(ctx, p.tree.Identity(), *in.Select); ok {
			return part{text: selected(d)}
		}
	}
	t, err := b.tree(ctx, in.From)
	if err != nil {
		return part{err: err}
	}
	d, err := b.hash(ctx, t, *in.Select)
	if err != nil {
		return part{err: missing(fmt.Errorf("%s: %w", n.Label, err), t)}
	}
	return part{text: selected(d)}
}

// key returns the key that the real inputs of n give.
func (b *build) key(ctx context.Context, n *graph.Node, in []tree.Tree) (Key, []Read, error) {
	parts, reads := make([]string, len(in)), make([]Read, len(in))
	for i, t := range in {
		reads[i].Tree = t
		if n.Inputs[i].Select == nil {
			parts[i] = whole(t)
			continue
		}
		d, err := b.hash(ctx, t, *n.Inputs[i].Select)
		if err != nil {
			return "", nil, diag.At(missing(fmt.Errorf("%s: %w", n.Label, err), t), n.Origin)
		}
		parts[i], reads[i].Digest = selected(d), d
	}
	return join(n.Op, parts), reads, nil
}

// A selection names files of a tree. A local tree has no identity: it stands
// for itself, within this build.
type selection struct {
	tree  string
	files digest.Digest
}

func selectionOf(t tree.Tree, s graph.Select) selection {
	if t.Local != "" {
		return selection{"local:" + t.Local, s.Digest()}
	}
	return selection{t.Identity().String(), s.Digest()}
}

// hash returns the digest of files of a tree, from the records if they have it.
func (b *build) hash(ctx context.Context, t tree.Tree, s graph.Select) (digest.Digest, error) {
	return b.files.Do(ctx, selectionOf(t, s), func() (digest.Digest, error) {
		if t.Local == "" {
			if d, ok := b.Records.Files(ctx, t.Identity(), s); ok {
				return d, nil
			}
		}
		d, err := b.Hasher.Hash(ctx, t, s)
		if err == nil && t.Local == "" {
			b.Records.SetFiles(ctx, t.Identity(), s, d)
		}
		return d, err
	})
}

// missing says where a file that does not exist was looked for.
func missing(err error, t tree.Tree) error {
	switch {
	case !errors.Is(err, fs.ErrNotExist):
		return err
	case t.Local != "":
		return diag.Hint(err, "Sources are relative to the root of the build context, whatever directory the Dockerfile is in; .dockerignore may leave some out.")
	}
	return diag.Hint(err, "Sources of --from and from= are looked up from the root of that stage or image.")
}

// forget makes the next call of hash read n's local inputs again.
func (b *build) forget(n *graph.Node, in []tree.Tree) {
	for i, t := range in {
		if t.Local != "" && n.Inputs[i].Select != nil {
			b.files.Forget(selectionOf(t, *n.Inputs[i].Select))
		}
	}
}

func whole(t tree.Tree) string        { return "tree " + t.Identity().String() }
func selected(d digest.Digest) string { return "files " + d.String() }

// join makes a key. Parts are framed by their length, so that no two lists of
// them look alike.
func join(op graph.Op, parts []string) Key {
	h := sha256.New()
	add := func(s string) {
		_ = binary.Write(h, binary.LittleEndian, int64(len(s))) // hashes don't fail
		h.Write([]byte(s))
	}
	add(graph.OpDigest(op).String())
	for _, p := range parts {
		add(p)
	}
	return digest.NewDigest(digest.SHA256, h)
}
