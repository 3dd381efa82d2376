package image

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/slipway-build/slipway/engine/dockerfile"
	"github.com/slipway-build/slipway/engine/tree"
)

// patchConfig completes a planned config by what only the layers tell. The
// fields of the outermost object are sorted, as BuildKit's are.
func patchConfig(plan dockerfile.Image, layers []tree.Layer, epoch *time.Time) ([]byte, error) {
	if plan.Config.OS == "" || plan.Config.Architecture == "" {
		return nil, errNoPlatform
	}
	b, err := json.Marshal(plan.Config)
	if err != nil {
		return nil, fmt.Errorf("encode config: %w", err)
	}
	fields := map[string]json.RawMessage{}
	if err := json.Unmarshal(b, &fields); err != nil {
		return nil, err
	}
	rootfs := ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{}}
	for _, l := range layers {
		rootfs.DiffIDs = append(rootfs.DiffIDs, l.DiffID)
	}
	history := normalizeHistory(plan.Config.History, layers)
	if epoch != nil {
		clamp(history, plan.Config.History[:min(plan.BaseHistory, len(plan.Config.History))], *epoch)
	}
	created := plan.Config.Created
	if created != nil && epoch != nil && created.After(*epoch) {
		created = epoch
	}
	if created == nil {
		for _, h := range history {
			if h.Created != nil {
				created = h.Created
			}
		}
	}
	for name, value := range map[string]any{"rootfs": rootfs, "history": history, "created": created} {
		if fields[name], err = json.Marshal(value); err != nil {
			return nil, fmt.Errorf("encode %s: %w", name, err)
		}
	}
	return json.Marshal(fields)
}

// normalizeHistory returns history with exactly one entry that is not empty
// for each layer, and with a time for every entry. It does what BuildKit's
// normalizeLayersAndHistory does, also with the histories of base images that
// do not fit their layers.
func normalizeHistory(history []ocispec.History, layers []tree.Layer) []ocispec.History {
	history = slices.Clone(history)
	var n int
	for i := range history {
		switch {
		case history[i].EmptyLayer:
		case n == len(layers): // more entries than layers
			history[i].EmptyLayer = true
		default:
			n++
		}
	}
	for _, l := range layers[n:] { // fewer entries than layers
		history = append(history, ocispec.History{
			Created: created(l), CreatedBy: "layer without history", Comment: "buildkit.exporter.image.v0",
		})
	}
	next := 0
	for i := range history {
		if history[i].EmptyLayer {
			continue
		}
		if history[i].Created == nil {
			history[i].Created = created(layers[next])
		}
		next++
	}
	fillTimes(history)
	return history
}

func created(l tree.Layer) *time.Time {
	if l.Created.IsZero() {
		return nil
	}
	t := l.Created.UTC()
	return &t
}

// fillTimes gives entries without a time that of the first new layer, if they
// come before it, or else of the layer before them.
func fillTimes(history []ocispec.History) {
	var last *time.Time
	missing := false
	for _, h := range history {
		if h.Created == nil {
			missing = true
			continue
		}
		last = h.Created
		if missing {
			break
		}
	}
	missing = false
	for i := range history {
		switch {
		case history[i].Created == nil:
			missing = true
			history[i].Created = last
		case missing:
			last = history[i].Created
		}
	}
}

// clamp makes no entry later than epoch, but those which the base image has.
func clamp(history, base []ocispec.History, epoch time.Time) {
	epoch = epoch.UTC()
	ours := false
	for i := range history {
		if !ours && i < len(base) && reflect.DeepEqual(history[i], base[i]) {
			continue
		}
		ours = true
		if history[i].Created == nil || history[i].Created.After(epoch) {
			history[i].Created = &epoch
		}
	}
}
