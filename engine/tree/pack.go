package tree

import (
	"context"
	"fmt"
	"slices"

	"github.com/slipway-build/slipway/engine/content"
	"github.com/slipway-build/slipway/engine/layer"
)

// Packing says in which form layers are wanted as blobs.
type Packing struct {
	layer.PackOptions

	// Force also converts layers that have a blob in another form, such as
	// those of base images. Else only layers that have none are packed.
	Force bool
}

// Pack makes sure that l has a blob and a DiffID, and returns it with the
// wanted form first among its blobs. A layer that is still in a registry stays
// there. The error is a [*Lost] if the layer is not to be had.
func (k *Keeper) Pack(ctx context.Context, l Layer, p Packing) (Layer, error) {
	key := fmt.Sprint(l.ID, p)
	return k.packing.Do(ctx, key, func() (Layer, error) {
		defer k.packing.Forget(key)
		l = k.opts.Infos.Info(l)
		if packed, ok := k.packed(l, p); ok {
			return packed, nil
		}
		if err := k.packers.Acquire(ctx, 1); err != nil {
			return Layer{}, context.Cause(ctx)
		}
		defer k.packers.Release(1)
		desc, err := k.pack(ctx, &l, p)
		if err != nil {
			return Layer{}, fmt.Errorf("pack layer %s: %w", shortName(l), err)
		}
		l.Blobs = slices.Insert(slices.DeleteFunc(slices.Clone(l.Blobs), func(b content.Descriptor) bool {
			return b.Digest == desc.Digest
		}), 0, desc)
		k.opts.Infos.SetInfo(l)
		return l, nil
	})
}

// packed returns l if it has a blob that serves: of a layer that came from a
// blob any that is to be had, else one in the wanted form.
func (k *Keeper) packed(l Layer, p Packing) (Layer, bool) {
	if l.DiffID == "" {
		return l, false
	}
	for i, b := range l.Blobs {
		if (p.Force || !l.fromBlob()) && !p.Matches(b.MediaType) {
			continue
		}
		_, err := k.opts.Store.Stat(b.Digest)
		if err != nil && b.Annotations[content.SourceAnnotation] == "" {
			continue
		}
		l.Blobs = slices.Insert(slices.Delete(slices.Clone(l.Blobs), i, i+1), 0, b)
		return l, true
	}
	return l, false
}

// fromBlob reports whether the layer's first form was a blob.
func (l Layer) fromBlob() bool { return l.DiffID != "" && l.ID == LayerID(l.DiffID) }

// pack makes the blob from the layer's directory, or from another blob of it,
// so that a layer that was never unpacked need not be.
func (k *Keeper) pack(ctx context.Context, l *Layer, p Packing) (content.Descriptor, error) {
	dir, err := k.opts.Snapshots.Dir(l.ID)
	if err != nil || l.fromBlob() {
		src, ok := k.source(*l)
		if !ok {
			return content.Descriptor{}, &Lost{Layer: l.ID, Err: err}
		}
		desc, err := layer.Recompress(ctx, k.opts.Store, src, p.PackOptions)
		return desc, lostUnless(err, *l)
	}
	desc, diffID, err := layer.Pack(ctx, k.opts.Store, dir, p.PackOptions)
	if err != nil {
		return desc, err
	}
	if l.DiffID != "" && l.DiffID != diffID {
		return desc, fmt.Errorf("layer %s packed as %s before and as %s now: its directory has changed", l.ID, l.DiffID, diffID)
	}
	l.DiffID = diffID
	return desc, nil
}
