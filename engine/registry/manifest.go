package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/slipway-build/slipway/engine/content"
	"github.com/slipway-build/slipway/platforms"
)

// Limits on what is read into memory (INVARIANTS 20).
const (
	maxManifest = 4 << 20
	maxConfig   = 8 << 20
	maxLayers   = 4096
)

// Docker's media types.
const (
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerConfig   = "application/vnd.docker.container.image.v1+json"
	dockerSchema1  = "application/vnd.docker.distribution.manifest.v1+json"
	dockerSigned1  = "application/vnd.docker.distribution.manifest.v1+prettyjws"
	dockerLayer    = "application/vnd.docker.image.rootfs.diff.tar"
)

// accept is what a registry may answer with. Schema 1 is there to be told what
// it is instead of that there is nothing.
const accept = ocispec.MediaTypeImageIndex + ", " + ocispec.MediaTypeImageManifest + ", " +
	dockerList + ", " + dockerManifest + ", " + dockerSigned1 + ", " + dockerSchema1 + ", */*"

func isIndex(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageIndex || mediaType == dockerList
}

// A document is a manifest or an index.
type document struct {
	SchemaVersion int                  `json:"schemaVersion"`
	MediaType     string               `json:"mediaType"`
	Config        *content.Descriptor  `json:"config"`
	Layers        []content.Descriptor `json:"layers"`
	Manifests     []content.Descriptor `json:"manifests"`
	FSLayers      []json.RawMessage    `json:"fsLayers"` // schema 1
}

// parseDocument reads a manifest or an index. What is neither is an error, and
// so is what could be read as both. The media type that it came with is used
// if it does not say its own.
func parseDocument(b []byte, mediaType string) (document, error) {
	var d document
	if err := json.Unmarshal(b, &d); err != nil {
		return d, fmt.Errorf("%w: manifest: %w", errContent, err)
	}
	if d.SchemaVersion == 1 || d.FSLayers != nil || mediaType == dockerSchema1 || mediaType == dockerSigned1 {
		return d, errors.New("its manifest is of Docker's schema 1, which is not supported; push it again with a current tool")
	}
	if d.MediaType == "" {
		d.MediaType = mediaType
	}
	index := d.Manifests != nil || (isIndex(d.MediaType) && d.Config == nil && d.Layers == nil)
	switch {
	case index && (d.Config != nil || d.Layers != nil):
		return d, fmt.Errorf("%w: both manifest and index", errContent)
	case index && (isIndex(d.MediaType) || untyped(d.MediaType)):
		d.MediaType = indexType(d.MediaType)
		return d, nil
	case !index && d.Config != nil && (isManifest(d.MediaType) || untyped(d.MediaType)):
		if !isManifest(d.MediaType) {
			d.MediaType = ocispec.MediaTypeImageManifest
		}
		return d, nil
	case index || d.Config != nil:
		return d, fmt.Errorf("%w: a manifest is called %q", errContent, printable(d.MediaType, 100))
	}
	return d, fmt.Errorf("%w: neither manifest nor index (media type %q)", errContent, printable(d.MediaType, 100))
}

func isManifest(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageManifest || mediaType == dockerManifest
}

// untyped are types that say nothing about a manifest.
func untyped(mediaType string) bool {
	switch mediaType {
	case "", "application/json", "application/octet-stream", "text/plain", "text/plain; charset=utf-8":
		return true
	}
	return false
}

func indexType(mediaType string) string {
	if isIndex(mediaType) {
		return mediaType
	}
	return ocispec.MediaTypeImageIndex
}

// checkBlob checks a descriptor that a stranger wrote.
func checkBlob(what string, d content.Descriptor, limit int64) error {
	if err := checkDigest(d.Digest); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if d.Size <= 0 {
		return fmt.Errorf("%w: %s %s has the size %d", errContent, what, d.Digest, d.Size)
	}
	if limit > 0 && d.Size > limit {
		return fmt.Errorf("%w: %s %s has %d bytes, more than the %d allowed", errContent, what, d.Digest, d.Size, limit)
	}
	return nil
}

func checkDigest(d digest.Digest) error {
	if err := d.Validate(); err != nil {
		return fmt.Errorf("%w: digest %q: %w", errContent, printable(d.String(), 100), err)
	}
	return nil
}

// checkManifest checks that d, a manifest, is of an image that can be used.
func checkManifest(d document) error {
	switch d.Config.MediaType {
	case ocispec.MediaTypeImageConfig, dockerConfig:
	default:
		return fmt.Errorf("it is not an image but has a config of type %q", printable(d.Config.MediaType, 100))
	}
	if err := checkBlob("config", *d.Config, maxConfig); err != nil {
		return err
	}
	if len(d.Layers) > maxLayers {
		return fmt.Errorf("%w: it has %d layers, more than the %d allowed", errContent, len(d.Layers), maxLayers)
	}
	for _, l := range d.Layers {
		if err := checkBlob("layer", l, 0); err != nil {
			return err
		}
		if len(l.URLs) > 0 || strings.Contains(l.MediaType, ".foreign.") || strings.Contains(l.MediaType, ".nondistributable.") {
			return fmt.Errorf("layer %s is to be fetched from elsewhere (a foreign layer), which is not supported", l.Digest)
		}
		switch l.MediaType {
		case ocispec.MediaTypeImageLayer, ocispec.MediaTypeImageLayerGzip, ocispec.MediaTypeImageLayerZstd,
			dockerLayer, dockerLayer + ".gzip", dockerLayer + ".zstd":
		default:
			return fmt.Errorf("layer %s has the media type %q, which is not supported", l.Digest, printable(l.MediaType, 100))
		}
	}
	return nil
}

// parseConfig reads what is needed of an image's config.
func parseConfig(b []byte) (platforms.Platform, []digest.Digest, error) {
	var c struct {
		platforms.Platform
		RootFS struct {
			DiffIDs []digest.Digest `json:"diff_ids"`
		} `json:"rootfs"`
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return platforms.Platform{}, nil, fmt.Errorf("%w: config: %w", errContent, err)
	}
	for _, d := range c.RootFS.DiffIDs {
		if err := checkDigest(d); err != nil {
			return platforms.Platform{}, nil, fmt.Errorf("diff_ids: %w", err)
		}
	}
	return c.Platform, c.RootFS.DiffIDs, nil
}
