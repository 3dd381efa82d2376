package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// untar returns the builder that only unpacks the layers of the image in an OCI
// layout with tar, one after another.
func untar(layout string) (builder, error) {
	blob := func(d ocispec.Descriptor) string {
		return filepath.Join(layout, "blobs", d.Digest.Algorithm().String(), d.Digest.Encoded())
	}
	var index ocispec.Index
	if err := readJSON(filepath.Join(layout, "index.json"), &index); err != nil {
		return builder{}, err
	}
	if len(index.Manifests) != 1 {
		return builder{}, fmt.Errorf("%s: %d images, want one", layout, len(index.Manifests))
	}
	var manifest ocispec.Manifest
	if err := readJSON(blob(index.Manifests[0]), &manifest); err != nil {
		return builder{}, err
	}
	var steps []string
	for _, l := range manifest.Layers {
		steps = append(steps, "tar -xzf "+blob(l)+" -C {root}")
	}
	return builder{
		name:     "tar",
		commands: map[outputKind]string{outputNone: strings.Join(steps, " && ")},
		note:     "unpacking only, from local files",
	}, nil
}

func readJSON(file string, v any) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}
