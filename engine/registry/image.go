package registry

import (
	"github.com/opencontainers/go-digest"

	"github.com/slipway-build/slipway/engine/content"
	"github.com/slipway-build/slipway/platforms"
)

// Image is an image that a name was resolved to. Its descriptors carry
// [content.SourceAnnotation].
type Image struct {
	// Ref is the full name with the digest that it was pinned to:
	// "docker.io/library/debian:12@sha256:…".
	Ref string

	// Digest is what the name points to: an index, or the manifest.
	Digest digest.Digest

	Platform platforms.Platform // the image's own, as its config says

	Manifest  content.Descriptor
	Config    content.Descriptor
	RawConfig []byte  // the config blob
	Layers    []Layer // bottom first
}

// Layer is one layer of an image.
type Layer struct {
	DiffID digest.Digest
	Blob   content.Descriptor
}
