// Package image makes images of trees: configs, manifests and the index, byte
// for byte as BuildKit's exporter writes them. It packs nothing: layers must
// have been made into blobs before.
package image

import (
	"context"
	"errors"
	"time"

	"github.com/slipway-build/slipway/engine/content"
	"github.com/slipway-build/slipway/engine/dockerfile"
	"github.com/slipway-build/slipway/engine/export"
	"github.com/slipway-build/slipway/engine/tree"
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
func Assemble(ctx context.Context, store *content.Store, plan dockerfile.Plan, trees []tree.Tree, opts Options) (export.Artifact, error) {
	return export.Artifact{}, errors.ErrUnsupported
}

// Metadata returns what --metadata-file has, with BuildKit's keys.
func Metadata(a export.Artifact, names []string) map[string]any { return nil }
