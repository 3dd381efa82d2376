// Package tree defines the value that flows through a build, an immutable
// filesystem, and makes it real. A [Tree] is a list of layers, each of which
// may exist as a directory, as a compressed blob, as both, or as a blob that is
// still in a registry. A [Keeper] turns one form into another when asked.
package tree

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/slipway-build/slipway/engine/content"
	"github.com/slipway-build/slipway/engine/inroot"
	"github.com/slipway-build/slipway/engine/snapshot"
)

// Tree is an immutable filesystem: layers stacked bottom first. The zero Tree
// is empty ("FROM scratch").
type Tree struct {
	Layers []Layer `json:"layers,omitempty"`

	// Local, if set, names a directory of the host that the tree shows, as it
	// was registered for this build (a build context). Such a tree has no
	// layers, is only read by path, and is never recorded.
	Local string `json:"local,omitempty"`
}

// Layer is one layer of a tree.
type Layer struct {
	// ID names the layer's directory. Of a layer that comes from a blob it is
	// LayerID(DiffID), whether it was unpacked yet or not.
	ID snapshot.ID `json:"id"`

	// DiffID is the digest of the uncompressed tar; empty until there was one.
	DiffID digest.Digest `json:"diffID,omitempty"`

	// Blobs are all known compressed forms; the image's own form first.
	Blobs []content.Descriptor `json:"blobs,omitempty"`

	// Created is when the node that made the layer ran. It is recorded and
	// restored, so that a cached rebuild has the same digest.
	Created time.Time `json:"created,omitzero"`
}

// LayerID is the ID of the layer that is unpacked from a blob with this DiffID.
func LayerID(d digest.Digest) snapshot.ID { return snapshot.ID("diff-" + d.Encoded()) }

// FromBlob returns the layer that a blob holds.
func FromBlob(diffID digest.Digest, blob content.Descriptor) Layer {
	return Layer{ID: LayerID(diffID), DiffID: diffID, Blobs: []content.Descriptor{blob}}
}

// On returns t stacked on top of base. It is how COPY --link is free.
func (t Tree) On(base Tree) Tree {
	return Tree{Layers: slices.Concat(base.Layers, t.Layers)}
}

// Identity names what the tree contains: the digest of its layers' names, which
// are those of their content or unique. Two trees with the same identity are
// the same; the identity outlives the tree. It is empty for a local tree,
// whose content is not fixed.
func (t Tree) Identity() digest.Digest {
	if t.Local != "" {
		return ""
	}
	var b strings.Builder
	for _, l := range t.Layers {
		b.WriteString(string(l.ID))
		b.WriteByte('\n') // IDs have no newline
	}
	return digest.FromString(b.String())
}

// A View is a tree that can be read. Close it when done.
type View struct {
	// Root shows the tree's files; it is owned by the view.
	Root *inroot.Root

	// Local says that the tree is a directory of the host: owners count as 0:0
	// and Ignored, patterns as in .dockerignore, hides what they match.
	Local   bool
	Ignored []string
}

// Close releases what the view holds.
func (v View) Close() error { return v.Root.Close() }

// A Viewer makes trees readable. [Keeper] is one.
type Viewer interface {
	View(ctx context.Context, t Tree) (View, error)
}
