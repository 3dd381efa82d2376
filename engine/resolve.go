package engine

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/slipway-build/slipway/engine/dockerfile"
	"github.com/slipway-build/slipway/engine/graph"
	"github.com/slipway-build/slipway/engine/registry"
	"github.com/slipway-build/slipway/platforms"
)

// resolver pins images by asking registries. Plan asks once for each name.
type resolver struct{ client *registry.Client }

// Image implements [dockerfile.Resolver].
func (r resolver) Image(ctx context.Context, ref string, p platforms.Platform) (dockerfile.PinnedImage, error) {
	img, err := r.client.Resolve(ctx, ref, p)
	if err != nil {
		return dockerfile.PinnedImage{}, err
	}
	pinned := dockerfile.PinnedImage{Ref: img.Ref, Platform: img.Platform, Manifest: img.Manifest}
	if err := json.Unmarshal(img.RawConfig, &pinned.Config); err != nil {
		return pinned, fmt.Errorf("config of image %s: %w", ref, err)
	}
	for _, l := range img.Layers {
		pinned.Layers = append(pinned.Layers, graph.ImageLayer(l))
	}
	return pinned, nil
}
