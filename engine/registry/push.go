package registry

import (
	"context"
	"errors"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/slipway-build/slipway/engine/content"
	"github.com/slipway-build/slipway/platforms"
)

type endpoint struct{}

// New returns a Client.
func New(opts Options) (*Client, error) { return &Client{opts: opts}, nil }

// Resolve finds out what ref means for the platform p.
func (c *Client) Resolve(ctx context.Context, ref string, p platforms.Platform) (Image, error) {
	return Image{}, errors.ErrUnsupported
}

// Fetch opens a blob that is in a registry, as its [content.SourceAnnotation]
// says.
func (c *Client) Fetch(ctx context.Context, desc content.Descriptor) (io.ReadCloser, error) {
	return nil, errors.ErrUnsupported
}

// PushOptions say how to push.
type PushOptions struct {
	// Layers are the layers of the image with what is known about where they
	// are: those with a [content.SourceAnnotation] in the same registry are
	// mounted, others are fetched from there if blobs does not have them.
	Layers []content.Descriptor

	// ByDigest pushes without tags; the tags of refs are ignored.
	ByDigest bool

	// Insecure allows plain http and any certificate for the hosts of refs.
	Insecure bool

	// Progress, if not nil, is told how many bytes of a blob the registry has;
	// what was there already is told at once. It is called concurrently.
	Progress func(blob content.Descriptor, done int64)
}

// Push makes root and all that it leads to available under each of refs. Blobs
// go first, then manifests, and what the refs name last.
func (c *Client) Push(ctx context.Context, refs []string, root content.Descriptor, blobs content.Fetcher, opts PushOptions) error {
	return errors.ErrUnsupported
}

// Ref is the parsed name of an image.
type Ref struct {
	Host   string        // "docker.io" for Docker Hub, "host" or "host:port" otherwise
	Repo   string        // "library/debian"
	Tag    string        // may be empty
	Digest digest.Digest // may be empty
}
