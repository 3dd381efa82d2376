package export

import (
	"context"

	"github.com/slipway-build/slipway/engine/content"
	"github.com/slipway-build/slipway/engine/registry"
)

// Export does nothing.
func (nothing) Export(_ context.Context, a Artifact) (content.Descriptor, error) { return a.Root, nil }

// pusher pushes to registries.
type pusher struct {
	client             *registry.Client
	names              []string
	byDigest, insecure bool
	progress           func(content.Descriptor, int64)
}

// Export pushes the artifact under all names.
func (p *pusher) Export(ctx context.Context, a Artifact) (content.Descriptor, error) {
	opts := registry.PushOptions{ByDigest: p.byDigest, Insecure: p.insecure, Progress: p.progress}
	for _, img := range a.Images {
		opts.Layers = append(opts.Layers, img.Layers...)
	}
	return a.Root, p.client.Push(ctx, p.names, a.Root, a.Blobs, opts)
}
