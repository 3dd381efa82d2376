// Package content keeps blobs: immutable bytes named by their digest. [Store]
// is the directory that they are kept in, in the OCI image layout's form
// (blobs/sha256/<hex>), with a remote place as fallback for blobs that were
// only described so far. What enters a Store is verified at its door.
package content

import (
	"context"
	"io"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Descriptor names a blob: media type, digest, size in bytes. Descriptors of
// blobs that are still in a registry say where, see [SourceAnnotation].
type Descriptor = ocispec.Descriptor

// SourceAnnotation is the annotation under which a descriptor carries the
// repository that its blob can be fetched from or mounted from, such as
// "docker.io/library/debian". It is for this process and its records only:
// [Plain] removes it before a descriptor is written into a manifest.
const SourceAnnotation = "build.slipway.source"

// Plain returns desc as it goes into a manifest: media type, digest and size.
func Plain(desc Descriptor) Descriptor {
	return Descriptor{MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size}
}

// A Fetcher reads blobs. What it returns is not verified; a [Store] verifies
// what enters. A blob that does not exist wraps fs.ErrNotExist.
type Fetcher interface {
	Fetch(ctx context.Context, desc Descriptor) (io.ReadCloser, error)
}
