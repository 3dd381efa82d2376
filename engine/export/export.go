// Package export delivers finished images: to a registry, to files in OCI or
// Docker layout, to a plain directory or tar.
package export

import (
	"context"

	"github.com/slipway-build/slipway/engine/content"
	"github.com/slipway-build/slipway/engine/tree"
	"github.com/slipway-build/slipway/platforms"
)

// An Exporter delivers artifacts to one kind of place.
type Exporter interface {
	// Export delivers a and returns the descriptor of what can be found there
	// now. It has no effect that a reader could see unless it succeeds.
	Export(ctx context.Context, a Artifact) (content.Descriptor, error)
}

// Artifact is what a build made.
type Artifact struct {
	// Root describes the index if there are several images, else the manifest.
	Root content.Descriptor

	// Images has one entry for each platform, in the order asked for.
	Images []Image

	// Blobs has everything that Root leads to. Layers of base images may still
	// be in their registry: they are fetched when they are read.
	Blobs content.Fetcher
}

// Image is the image for one platform.
type Image struct {
	Platform platforms.Platform
	Manifest content.Descriptor
	Config   content.Descriptor
	Layers   []content.Descriptor // with content.SourceAnnotation where they have one

	// Tree is the image's filesystem, for exporters that write files.
	Tree tree.Tree
}
