package export

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/slipway-build/slipway/engine/content"
	"github.com/slipway-build/slipway/engine/registry"
)

// maxManifest is more than any registry accepts.
const maxManifest = 8 << 20

// containerdName is the annotation under which containerd has the full name.
const containerdName = "io.containerd.image.name"

// layout makes the small files of an OCI image layout, and Docker's
// manifest.json, as containerd's archive exporter does for BuildKit.
type layout struct {
	names  []string
	docker bool
	epoch  *time.Time
}

// A blobFile is a blob of the layout.
type blobFile struct {
	desc content.Descriptor
	raw  []byte // of manifests, which were read already
}

func (b blobFile) path() string {
	return "blobs/" + b.desc.Digest.Algorithm().String() + "/" + b.desc.Digest.Encoded()
}

// check refuses what Docker can't load.
func (l layout) check(a Artifact) error {
	if l.docker && len(a.Images) != 1 {
		return fmt.Errorf("an image for %d platforms does not fit into Docker's format; use type=oci, or one platform", len(a.Images))
	}
	return nil
}

// root returns the descriptor of the artifact as it goes into index.json.
func (l layout) root(ctx context.Context, a Artifact) (content.Descriptor, error) {
	root := a.Root
	if l.docker {
		root = a.Images[0].Manifest // Docker does not look into an index of ours
	}
	created := l.epoch
	if created == nil && len(a.Images) > 0 {
		raw, err := readSmall(ctx, a.Blobs, a.Images[0].Config)
		if err != nil {
			return root, err
		}
		var config struct {
			Created *time.Time `json:"created"`
		}
		if err := json.Unmarshal(raw, &config); err != nil {
			return root, fmt.Errorf("config %s: %w", a.Images[0].Config.Digest, err)
		}
		created = config.Created
	}
	root.Annotations = maps.Clone(root.Annotations)
	delete(root.Annotations, content.SourceAnnotation)
	if created != nil {
		annotate(&root, ocispec.AnnotationCreated, created.UTC().Format(time.RFC3339))
	}
	return root, nil
}

func annotate(d *content.Descriptor, key, value string) {
	d.Annotations = maps.Clone(d.Annotations)
	if d.Annotations == nil {
		d.Annotations = map[string]string{}
	}
	d.Annotations[key] = value
}

// named returns root once for each name.
func (l layout) named(root content.Descriptor) ([]content.Descriptor, error) {
	if len(l.names) == 0 {
		return []content.Descriptor{root}, nil
	}
	var list []content.Descriptor
	for _, name := range l.names {
		r, err := registry.ParseRef(name)
		if err != nil {
			return nil, err
		}
		d := root
		annotate(&d, containerdName, name)
		annotate(&d, ocispec.AnnotationRefName, r.Tag)
		list = append(list, d)
	}
	return list, nil
}

func newIndex(manifests []content.Descriptor) ocispec.Index {
	return ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: manifests,
	}
}

// dockerManifest returns manifest.json, which docker load reads.
func (l layout) dockerManifest(img Image) ([]byte, error) {
	entry := struct {
		Config   string
		RepoTags []string
		Layers   []string
	}{Config: blobFile{desc: img.Config}.path()}
	for _, name := range l.names {
		r, err := registry.ParseRef(name)
		if err != nil {
			return nil, err
		}
		entry.RepoTags = append(entry.RepoTags, r.Familiar())
	}
	for _, layer := range img.Layers {
		entry.Layers = append(entry.Layers, blobFile{desc: layer}.path())
	}
	return json.Marshal([]any{entry})
}

// blobsOf lists what root leads to, each blob once, sorted by path.
func blobsOf(ctx context.Context, a Artifact, root content.Descriptor) ([]blobFile, error) {
	known := map[digest.Digest]content.Descriptor{}
	for _, img := range a.Images {
		for _, layer := range img.Layers {
			known[layer.Digest] = layer // says where it is
		}
	}
	found := map[digest.Digest]blobFile{}
	if err := collect(ctx, a.Blobs, root, known, found, 0); err != nil {
		return nil, err
	}
	return slices.SortedFunc(maps.Values(found), func(x, y blobFile) int {
		return strings.Compare(x.path(), y.path())
	}), nil
}

// collect reads a manifest or an index and adds it and what it leads to.
func collect(ctx context.Context, from content.Fetcher, desc content.Descriptor, known map[digest.Digest]content.Descriptor, found map[digest.Digest]blobFile, depth int) error {
	if _, ok := found[desc.Digest]; ok {
		return nil
	}
	if depth > 4 {
		return errors.New("indexes are nested too deeply")
	}
	raw, err := readSmall(ctx, from, desc)
	if err != nil {
		return err
	}
	var doc struct {
		Config    *content.Descriptor  `json:"config"`
		Layers    []content.Descriptor `json:"layers"`
		Manifests []content.Descriptor `json:"manifests"`
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		return fmt.Errorf("manifest %s: %w", desc.Digest, err)
	}
	found[desc.Digest] = blobFile{desc, raw}
	for _, m := range doc.Manifests {
		if err := collect(ctx, from, m, known, found, depth+1); err != nil {
			return err
		}
	}
	if doc.Config != nil {
		doc.Layers = append(doc.Layers, *doc.Config)
	}
	for _, d := range doc.Layers {
		if err := d.Digest.Validate(); err != nil {
			return fmt.Errorf("manifest %s: %w", desc.Digest, err)
		}
		if k, ok := known[d.Digest]; ok {
			d = k
		}
		found[d.Digest] = blobFile{desc: d}
	}
	return nil
}

func readSmall(ctx context.Context, from content.Fetcher, desc content.Descriptor) ([]byte, error) {
	if desc.Size > maxManifest {
		return nil, fmt.Errorf("blob %s has %d bytes, more than the %d allowed", desc.Digest, desc.Size, maxManifest)
	}
	var b bytes.Buffer
	if err := copyBlob(ctx, &b, from, desc); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// copyBlob writes a blob to w, and fails if it is not what desc says.
func copyBlob(ctx context.Context, w io.Writer, from content.Fetcher, desc content.Descriptor) error {
	if err := desc.Digest.Validate(); err != nil {
		return fmt.Errorf("blob %q: %w", desc.Digest, err)
	}
	r, err := from.Fetch(ctx, desc)
	if err != nil {
		return err
	}
	defer r.Close()
	d := desc.Digest.Algorithm().Digester()
	n, err := io.Copy(io.MultiWriter(w, d.Hash()), io.LimitReader(r, desc.Size+1))
	switch {
	case err != nil:
		return fmt.Errorf("copy blob %s: %w", desc.Digest, err)
	case n != desc.Size || d.Digest() != desc.Digest:
		return fmt.Errorf("copy blob %s: got %d bytes of %d, with the digest %s", desc.Digest, n, desc.Size, d.Digest())
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return nil
}

// layoutTar writes an OCI layout as a tar archive.
type layoutTar struct {
	layout
	out output
}

// Export writes the archive. Its entries are sorted and have no times.
func (l *layoutTar) Export(ctx context.Context, a Artifact) (content.Descriptor, error) {
	if err := l.check(a); err != nil {
		return content.Descriptor{}, err
	}
	root, err := l.root(ctx, a)
	if err != nil {
		return content.Descriptor{}, err
	}
	err = l.out.write(func(w io.Writer) error { return l.writeTo(ctx, w, a, root) })
	if err != nil {
		return content.Descriptor{}, fmt.Errorf("write %s: %w", l.out.name(), err)
	}
	return root, nil
}

func (o output) name() string {
	if o.file != nil || o.path == "" {
		return "the output"
	}
	return o.path
}

func (l *layoutTar) writeTo(ctx context.Context, w io.Writer, a Artifact, root content.Descriptor) error {
	blobs, err := blobsOf(ctx, a, root)
	if err != nil {
		return err
	}
	tw := tar.NewWriter(w)
	dir := func(name string) error {
		return tw.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755})
	}
	file := func(name string, size int64) error {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o444, Size: size}
		if strings.HasSuffix(name, ".json") {
			h.Mode = 0o644
		}
		return tw.WriteHeader(h)
	}
	if err := dir("blobs/"); err != nil {
		return err
	}
	algorithm := ""
	for _, b := range blobs {
		if alg := b.desc.Digest.Algorithm().String(); alg != algorithm {
			algorithm = alg
			if err := dir("blobs/" + alg + "/"); err != nil {
				return err
			}
		}
		if err := file(b.path(), b.desc.Size); err != nil {
			return err
		}
		if b.raw != nil {
			_, err = tw.Write(b.raw)
		} else {
			err = copyBlob(ctx, tw, a.Blobs, b.desc)
		}
		if err != nil {
			return err
		}
	}
	small, err := l.smallFiles(a, root)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(small)) {
		if err := file(name, int64(len(small[name]))); err != nil {
			return err
		}
		if _, err := tw.Write(small[name]); err != nil {
			return err
		}
	}
	return tw.Close()
}

// smallFiles are those beside blobs/.
func (l layout) smallFiles(a Artifact, root content.Descriptor) (map[string][]byte, error) {
	named, err := l.named(root)
	if err != nil {
		return nil, err
	}
	index, err := json.Marshal(newIndex(named))
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{
		ocispec.ImageLayoutFile: []byte(`{"imageLayoutVersion":"` + ocispec.ImageLayoutVersion + `"}`),
		ocispec.ImageIndexFile:  index,
	}
	if l.docker {
		if files["manifest.json"], err = l.dockerManifest(a.Images[0]); err != nil {
			return nil, err
		}
	}
	return files, nil
}
