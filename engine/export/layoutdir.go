package export

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/slipway-build/slipway/engine/content"
)

// layoutDir writes an OCI layout as a directory. What is there stays; an image
// of the same name is replaced in index.json, the last file to be written.
type layoutDir struct {
	layout
	dir string
}

// Export writes the blobs that are missing, then the index.
func (l *layoutDir) Export(ctx context.Context, a Artifact) (content.Descriptor, error) {
	root, err := l.export(ctx, a)
	if err != nil {
		return content.Descriptor{}, fmt.Errorf("write %s: %w", l.dir, err)
	}
	return root, nil
}

func (l *layoutDir) export(ctx context.Context, a Artifact) (content.Descriptor, error) {
	if err := l.check(a); err != nil {
		return content.Descriptor{}, err
	}
	old, err := l.oldIndex() // before anything is written: it may be no layout
	if err != nil {
		return content.Descriptor{}, err
	}
	root, err := l.root(ctx, a)
	if err != nil {
		return content.Descriptor{}, err
	}
	blobs, err := blobsOf(ctx, a, root)
	if err != nil {
		return content.Descriptor{}, err
	}
	for _, b := range blobs {
		if err := l.writeBlob(ctx, a.Blobs, b); err != nil {
			return content.Descriptor{}, err
		}
	}
	small, err := l.smallFiles(a, root)
	if err != nil {
		return content.Descriptor{}, err
	}
	named, err := l.named(root)
	if err != nil {
		return content.Descriptor{}, err
	}
	if len(l.names) == 0 {
		annotate(&named[0], ocispec.AnnotationRefName, "latest") // as buildx does
	}
	index := newIndex(append(slices.DeleteFunc(old, func(d content.Descriptor) bool { return replaces(named, d) }), named...))
	if small[ocispec.ImageIndexFile], err = json.Marshal(index); err != nil {
		return content.Descriptor{}, err
	}
	for _, name := range []string{ocispec.ImageLayoutFile, "manifest.json", ocispec.ImageIndexFile} {
		if b, ok := small[name]; ok {
			if err := replaceFile(filepath.Join(l.dir, name), b); err != nil {
				return content.Descriptor{}, err
			}
		}
	}
	return root, nil
}

// replaces reports whether one of the new entries has old's name, or is old.
func replaces(entries []content.Descriptor, old content.Descriptor) bool {
	return slices.ContainsFunc(entries, func(d content.Descriptor) bool {
		name := indexName(d)
		return name == indexName(old) && (name != "" || d.Digest == old.Digest)
	})
}

// indexName is what an entry of an index is known by.
func indexName(d content.Descriptor) string {
	if name := d.Annotations[containerdName]; name != "" {
		return name
	}
	return d.Annotations[ocispec.AnnotationRefName]
}

// oldIndex returns the entries of the index that is there.
func (l *layoutDir) oldIndex() ([]content.Descriptor, error) {
	f, err := os.Open(filepath.Join(l.dir, ocispec.ImageIndexFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var index ocispec.Index
	if err := json.NewDecoder(io.LimitReader(f, maxManifest)).Decode(&index); err != nil {
		return nil, fmt.Errorf("read index.json: %w", err)
	}
	return index.Manifests, nil
}

func (l *layoutDir) writeBlob(ctx context.Context, from content.Fetcher, b blobFile) error {
	path := filepath.Join(l.dir, filepath.FromSlash(b.path()))
	if fi, err := os.Stat(path); err == nil && fi.Size() == b.desc.Size {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return output{path: path}.write(func(w io.Writer) error {
		if b.raw != nil {
			_, err := w.Write(b.raw)
			return err
		}
		return copyBlob(ctx, w, from, b.desc)
	})
}

func replaceFile(path string, b []byte) error {
	return output{path: path}.write(func(w io.Writer) error {
		_, err := w.Write(b)
		return err
	})
}
