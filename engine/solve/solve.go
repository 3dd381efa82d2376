// Package solve turns a node into a tree while running as little as possible.
package solve

import (
	"context"
	"errors"

	"github.com/opencontainers/go-digest"

	"github.com/slipway-build/slipway/engine/graph"
	"github.com/slipway-build/slipway/engine/tree"
)

// A Runner makes the tree of one node from what it reads, in the order of the
// node's inputs.
type Runner interface {
	Run(ctx context.Context, n *graph.Node, in []Read) (tree.Tree, error)
}

// A Read is one input of a node that runs. Digest is that of the selected files
// and empty for an input that is read whole. A Runner that finds other content
// than Digest says (a build context may be written to while it is built from)
// returns an error that wraps [ErrChanged].
type Read struct {
	Tree   tree.Tree
	Digest digest.Digest
}

// ErrChanged says that files changed between being hashed and being read.
var ErrChanged = errors.New("files changed during the build")

// A Hasher digests what the selected files of a tree contain.
type Hasher interface {
	Hash(ctx context.Context, t tree.Tree, s graph.Select) (digest.Digest, error)
}
