// Package image makes images of trees: configs, manifests and the index, byte
// for byte as BuildKit's exporter writes them. It packs nothing: layers must
// have been made into blobs before.
//
// What it writes depends on its arguments only. Times are those that the layers
// carry, so that a rebuild from a cache has the same digest (INVARIANTS 9).
package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/slipway-build/slipway/engine/content"
	"github.com/slipway-build/slipway/engine/dockerfile"
	"github.com/slipway-build/slipway/engine/export"
	"github.com/slipway-build/slipway/engine/tree"
	"github.com/slipway-build/slipway/platforms"
)

// Docker's media types, for Format.DockerTypes.
const (
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerConfig   = "application/vnd.docker.container.image.v1+json"
	dockerLayer    = "application/vnd.docker.image.rootfs.diff.tar"
)

// Options say how to write an image.
type Options struct {
	// Epoch, if not nil, is SOURCE_DATE_EPOCH: no time that this build adds is
	// later than it. Format.Epoch goes before it.
	Epoch *time.Time

	// Index asks for an index even if there is only one platform.
	Index bool

	Format export.Format
}

// Assemble writes configs, manifests and, if there are several platforms, the
// index into store. trees has one tree for each image of the plan; each of its
// layers must have a DiffID and at least one blob, the first of which is used.
// Whatever the media types of a base image's layers are, those of the result
// are all OCI's, or all Docker's.
func Assemble(ctx context.Context, store *content.Store, plan dockerfile.Plan, trees []tree.Tree, opts Options) (export.Artifact, error) {
	if len(plan.Images) == 0 || len(trees) != len(plan.Images) {
		return export.Artifact{}, fmt.Errorf("assemble image: %d trees for %d images", len(trees), len(plan.Images))
	}
	if opts.Format.Epoch != nil {
		opts.Epoch = opts.Format.Epoch
	}
	if opts.Epoch != nil {
		utc := opts.Epoch.UTC()
		opts.Epoch = &utc
	}
	indexed := opts.Index || len(plan.Images) > 1
	if err := checkAnnotations(plan, opts.Format, indexed); err != nil {
		return export.Artifact{}, err
	}
	a := export.Artifact{Blobs: store}
	for i := range plan.Images {
		img, err := assembleOne(ctx, store, plan.Images[i], trees[i], opts)
		if err != nil {
			return export.Artifact{}, fmt.Errorf("assemble image for %s: %w", platforms.Format(plan.Images[i].Platform), err)
		}
		a.Images = append(a.Images, img)
	}
	if !indexed {
		a.Root = a.Images[0].Manifest
		return a, nil
	}
	index := ocispec.Index{
		Versioned:   specs.Versioned{SchemaVersion: 2},
		MediaType:   ocispec.MediaTypeImageIndex,
		Annotations: annotations(opts.Format, export.OnIndex, nil),
	}
	if opts.Format.DockerTypes {
		index.MediaType = dockerList
	}
	for _, img := range a.Images {
		index.Manifests = append(index.Manifests, img.Manifest)
	}
	var err error
	if a.Root, err = put(ctx, store, index.MediaType, index); err != nil {
		return export.Artifact{}, fmt.Errorf("assemble index: %w", err)
	}
	a.Root.Annotations = annotations(opts.Format, export.OnIndexDescriptor, nil)
	return a, nil
}

func assembleOne(ctx context.Context, store *content.Store, plan dockerfile.Image, t tree.Tree, opts Options) (export.Image, error) {
	platform := platforms.Normalize(plan.Platform)
	img := export.Image{Platform: platform, Tree: t}
	for i, l := range t.Layers {
		if err := l.DiffID.Validate(); err != nil || len(l.Blobs) == 0 {
			return img, fmt.Errorf("layer %d (%s) has not been packed", i, l.ID)
		}
		blob := l.Blobs[0]
		mediaType, err := layerType(blob.MediaType, opts.Format.DockerTypes)
		if err != nil {
			return img, fmt.Errorf("layer %d: %w", i, err)
		}
		blob.MediaType = mediaType
		img.Layers = append(img.Layers, blob)
	}
	config, err := patchConfig(plan, t.Layers, opts.Epoch)
	if err != nil {
		return img, err
	}
	manifest := ocispec.Manifest{
		Versioned:   specs.Versioned{SchemaVersion: 2},
		MediaType:   ocispec.MediaTypeImageManifest,
		Annotations: annotations(opts.Format, export.OnManifest, &platform),
		Config:      ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(config), Size: int64(len(config))},
		Layers:      []ocispec.Descriptor{}, // never null: the specification wants a list
	}
	if opts.Format.DockerTypes {
		manifest.MediaType, manifest.Config.MediaType = dockerManifest, dockerConfig
	}
	for _, l := range img.Layers {
		manifest.Layers = append(manifest.Layers, content.Plain(l))
	}
	img.Config = manifest.Config
	if err := store.Add(ctx, img.Config, bytes.NewReader(config)); err != nil {
		return img, err
	}
	if img.Manifest, err = put(ctx, store, manifest.MediaType, manifest); err != nil {
		return img, err
	}
	img.Manifest.Platform = &platform
	img.Manifest.Annotations = annotations(opts.Format, export.OnManifestDescriptor, &platform)
	return img, nil
}

// put stores a manifest or an index, indented as BuildKit's.
func put(ctx context.Context, store *content.Store, mediaType string, v any) (content.Descriptor, error) {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return content.Descriptor{}, err
	}
	desc := content.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
	return desc, store.Add(ctx, desc, bytes.NewReader(b))
}

// layerType returns a layer's media type among OCI's or Docker's.
func layerType(mediaType string, docker bool) (string, error) {
	var compression string
	switch mediaType {
	case ocispec.MediaTypeImageLayer, dockerLayer:
	case ocispec.MediaTypeImageLayerGzip, dockerLayer + ".gzip":
		compression = "gzip"
	case ocispec.MediaTypeImageLayerZstd, dockerLayer + ".zstd":
		compression = "zstd"
	default:
		return "", fmt.Errorf("media type %q is not that of a layer", mediaType)
	}
	base, separator := ocispec.MediaTypeImageLayer, "+"
	if docker {
		base, separator = dockerLayer, "."
	}
	if compression == "" {
		return base, nil
	}
	return base + separator + compression, nil
}

// checkAnnotations refuses annotations that have no place to go.
func checkAnnotations(plan dockerfile.Plan, f export.Format, indexed bool) error {
	for _, a := range f.Annotations {
		onIndex := a.On == export.OnIndex || a.On == export.OnIndexDescriptor
		switch {
		case onIndex && !indexed:
			return fmt.Errorf("annotation %s: there is no index, because there is only one platform", a.Key)
		case f.DockerTypes && a.On != export.OnManifest:
			return fmt.Errorf("annotation %s: only manifests have annotations with oci-mediatypes=false", a.Key)
		case a.Platform == nil:
			continue
		}
		found := false
		for _, img := range plan.Images {
			found = found || same(img.Platform, *a.Platform)
		}
		if !found {
			return fmt.Errorf("annotation %s: the image has no platform %s", a.Key, platforms.Format(*a.Platform))
		}
	}
	return nil
}

func same(a, b platforms.Platform) bool {
	return platforms.Format(platforms.Normalize(a)) == platforms.Format(platforms.Normalize(b))
}

// annotations returns those for one place; those for one platform go before
// those for all.
func annotations(f export.Format, on string, p *platforms.Platform) map[string]string {
	var m map[string]string
	for _, specific := range []bool{false, true} {
		for _, a := range f.Annotations {
			if a.On != on || (a.Platform != nil) != specific || (specific && (p == nil || !same(*p, *a.Platform))) {
				continue
			}
			if m == nil {
				m = map[string]string{}
			}
			m[a.Key] = a.Value
		}
	}
	return m
}

// Metadata returns what --metadata-file has, with BuildKit's keys. names are
// the image's full names; there may be none.
func Metadata(a export.Artifact, names []string) map[string]any {
	m := map[string]any{
		"containerimage.digest":     a.Root.Digest.String(),
		"containerimage.descriptor": a.Root,
	}
	if len(a.Images) == 1 && a.Images[0].Manifest.Digest == a.Root.Digest {
		m["containerimage.config.digest"] = a.Images[0].Config.Digest.String()
	}
	if len(names) > 0 {
		m["image.name"] = strings.Join(names, ",")
	}
	return m
}

var errNoPlatform = errors.New("its config has no os and architecture")
