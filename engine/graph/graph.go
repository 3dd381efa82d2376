// Package graph describes a build as data: nodes, each of which says what to
// do with the trees of other nodes. A graph holds no names that could change
// their meaning, only digests, and no behaviour: package solve decides what has
// to run, package run does it.
package graph

import (
	"github.com/slipway-build/slipway/engine/diag"
)

// A Node is one step of a build: it makes exactly one filesystem. Nodes are
// made by a [Builder], which returns the same pointer for the same definition,
// so that == means "same step".
type Node struct {
	Op     Op
	Inputs []Input

	// NoCache says to run the node even if its result is recorded.
	NoCache bool

	// What follows is for people and is not part of the definition.
	Label  string // "[build 3/7] RUN go build ./..."
	Origin diag.Origin
}

// An Input is a tree that a node reads.
type Input struct {
	From *Node

	// Select, if set, says which files the node reads. The node then depends on
	// what those files contain, rather than on how From came about.
	Select *Select
}

// Select picks files of a tree: those that any of its requests names.
type Select struct{ Requests []Request }

// A Request names files of a tree in the way that one COPY source or one bind
// mount does.
type Request struct {
	// Path is absolute and clean. Symbolic links are followed in every
	// component but the last, inside the tree.
	Path string

	// Wildcard says that Path is a pattern of filepath.Match, matched against
	// each component in turn; with Parents or Exclude, "**" matches any number
	// of components. A pattern may match nothing; a literal path must exist.
	Wildcard bool

	// Follow says to follow a symbolic link that the last component of Path,
	// or a match, is.
	Follow bool

	// Contents says that of a directory what it contains is meant, as COPY does
	// it, not the directory by its name.
	Contents bool

	// Parents keeps the path of each match below Pivot: COPY --parents. A match
	// that is a directory means all that it contains.
	Parents bool

	// Pivot is the directory that paths are relative to, with Parents: Path or
	// what Path begins with, wildcards included. The last component of Pivot is
	// followed, no component after it is.
	Pivot string

	// Exclude has patterns as in .dockerignore, relative to the match (to its
	// root with Contents), of what to leave out.
	Exclude []string
}

// From returns the nodes that n reads, in the order of its inputs.
func (n *Node) From() []*Node {
	from := make([]*Node, len(n.Inputs))
	for i, in := range n.Inputs {
		from[i] = in.From
	}
	return from
}

// Builder makes nodes, each definition once. The zero Builder is ready to use.
type Builder struct {
	nodes map[string]*Node
	ids   map[*Node]string
}

// Add returns the node with n's definition: n itself, or the one that was added
// before with the same op and the same inputs. NoCache of either counts.
func (b *Builder) Add(n *Node) *Node {
	if b.nodes == nil {
		b.nodes, b.ids = make(map[string]*Node), make(map[*Node]string)
	}
	e := newEncoder("node")
	e.str(string(OpDigest(n.Op)))
	e.num(int64(len(n.Inputs)))
	for _, in := range n.Inputs {
		e.str(b.ids[in.From])
		e.bool(in.Select != nil)
		if in.Select != nil {
			e.str(string(in.Select.Digest()))
		}
	}
	id := e.sum().String()
	if old, ok := b.nodes[id]; ok {
		old.NoCache = old.NoCache || n.NoCache
		return old
	}
	b.nodes[id], b.ids[n] = n, id
	return n
}
