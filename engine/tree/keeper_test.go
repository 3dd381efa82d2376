package tree_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/slipway-build/slipway/engine/content"
	"github.com/slipway-build/slipway/engine/layer"
	"github.com/slipway-build/slipway/engine/progress"
	"github.com/slipway-build/slipway/engine/snapshot"
	"github.com/slipway-build/slipway/engine/snapshot/overlay"
	"github.com/slipway-build/slipway/engine/tree"
)

// A remote is a registry: blobs by digest, and what was asked of it.
type remote struct {
	mu    sync.Mutex
	blobs map[digest.Digest][]byte
	asked []digest.Digest
}

func (r *remote) Fetch(_ context.Context, d content.Descriptor) (io.ReadCloser, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = append(r.asked, d.Digest)
	b, ok := r.blobs[d.Digest]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

// infos is tree.Infos in memory.
type infos struct {
	mu sync.Mutex
	m  map[snapshot.ID]tree.Layer
}

func (i *infos) Info(l tree.Layer) tree.Layer {
	i.mu.Lock()
	defer i.mu.Unlock()
	if known, ok := i.m[l.ID]; ok {
		l.DiffID, l.Blobs = known.DiffID, known.Blobs
	}
	return l
}

func (i *infos) SetInfo(l tree.Layer) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.m[l.ID] = l
}

type lab struct {
	*tree.Keeper
	t      *testing.T
	dir    string
	store  *content.Store
	remote *remote
	events []progress.Event
}

func newLab(t *testing.T) *lab {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting overlays needs root")
	}
	l := &lab{t: t, dir: t.TempDir(), remote: &remote{blobs: map[digest.Digest][]byte{}}}
	snaps, err := overlay.Open(filepath.Join(l.dir, "snapshots"))
	if err != nil {
		t.Fatal(err)
	}
	if l.store, err = content.Open(filepath.Join(l.dir, "content"), l.remote); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	l.Keeper = tree.NewKeeper(tree.Options{
		Store: l.store, Snapshots: snaps, Infos: &infos{m: map[snapshot.ID]tree.Layer{}},
		Now: func() time.Time { return time.Unix(1700000000, 0) },
		Progress: func(ev progress.Event) {
			mu.Lock()
			defer mu.Unlock()
			l.events = append(l.events, ev)
		},
	})
	return l
}

// layer puts a layer of files into the registry. Names that end in / are
// directories.
func (l *lab) layer(files ...string) tree.Layer {
	l.t.Helper()
	var plain, zipped bytes.Buffer
	tw := tar.NewWriter(&plain)
	for _, name := range files {
		h := &tar.Header{Name: name, Mode: 0o644, Size: int64(len(name)), Typeflag: tar.TypeReg}
		if name[len(name)-1] == '/' {
			h.Typeflag, h.Mode, h.Size = tar.TypeDir, 0o755, 0
		}
		if err := tw.WriteHeader(h); err != nil {
			l.t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := io.WriteString(tw, name); err != nil {
				l.t.Fatal(err)
			}
		}
	}
	zw := gzip.NewWriter(&zipped)
	if err := errors.Join(tw.Close(), func() error { _, err := zw.Write(plain.Bytes()); return err }(), zw.Close()); err != nil {
		l.t.Fatal(err)
	}
	desc := content.Descriptor{
		MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.FromBytes(zipped.Bytes()), Size: int64(zipped.Len()),
		Annotations: map[string]string{content.SourceAnnotation: "docker.io/library/test"},
	}
	l.remote.blobs[desc.Digest] = zipped.Bytes()
	return tree.FromBlob(digest.FromBytes(plain.Bytes()), desc)
}

func (l *lab) read(t tree.Tree, name string) (string, error) {
	l.t.Helper()
	v, err := l.View(l.t.Context(), t)
	if err != nil {
		return "", err
	}
	defer v.Close()
	b, err := v.Root.ReadFile(name, 1<<20)
	return string(b), err
}

func TestKeeper_FetchesWhenItIsRead(t *testing.T) {
	l := newLab(t)
	img := tree.Tree{Layers: []tree.Layer{l.layer("etc/", "etc/a"), l.layer("etc/", "etc/b")}}
	for _, x := range img.Layers {
		if !l.Kept(x) {
			t.Error("a layer in a registry does not count as kept")
		}
	}
	if len(l.remote.asked) > 0 {
		t.Error("fetched before anything was read")
	}
	for _, name := range []string{"etc/a", "etc/b"} {
		if got, err := l.read(img, name); got != name || err != nil {
			t.Errorf("%s = %q, %v", name, got, err)
		}
	}
	if len(l.remote.asked) != 2 {
		t.Errorf("fetched %d times, want 2", len(l.remote.asked))
	}
	if _, err := l.store.Stat(img.Layers[0].Blobs[0].Digest); err != nil {
		t.Errorf("the blob was not kept: %v", err)
	}
}

func TestInvariant03_DiffIDIsProved(t *testing.T) {
	l := newLab(t)
	bad := l.layer("a")
	bad = tree.FromBlob(digest.FromString("what the config claims"), bad.Blobs[0])
	if err := l.Prepare(t.Context(), tree.Tree{Layers: []tree.Layer{bad}}); err == nil {
		t.Error("a layer was committed under a diff ID that is not its own")
	}
	other := l.layer("b")
	l.remote.blobs[other.Blobs[0].Digest] = []byte("something else")
	if err := l.Prepare(t.Context(), tree.Tree{Layers: []tree.Layer{other}}); err == nil {
		t.Error("a blob with another digest was unpacked")
	}
	for _, x := range []tree.Layer{bad, other} {
		if _, err := os.Stat(filepath.Join(l.dir, "snapshots", "layers", string(x.ID))); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a layer is there: %v", err)
		}
	}
	if entries, err := os.ReadDir(filepath.Join(l.dir, "content", "ingest")); err != nil || len(entries) > 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

// A layer with lib/x but not lib/, on a base where lib is a link to usr/lib.
func TestInvariant04_LayerWithoutParentsIsAppliedOntoItsBase(t *testing.T) {
	l := newLab(t)
	base := l.layer("usr/", "usr/lib/", "usr/lib/old")
	linked := tree.Tree{Layers: []tree.Layer{base, l.symlink("lib", "usr/lib"), l.layer("lib/new")}}
	if got, err := l.read(linked, "usr/lib/new"); got != "lib/new" || err != nil {
		t.Errorf("usr/lib/new = %q, %v", got, err)
	}
	if got, err := l.read(linked, "lib/old"); got != "usr/lib/old" || err != nil {
		t.Errorf("lib/old = %q, %v", got, err)
	}
	// The same layer on another base is another directory.
	plain := tree.Tree{Layers: []tree.Layer{base, linked.Layers[2]}}
	if got, err := l.read(plain, "lib/new"); got != "lib/new" || err != nil {
		t.Errorf("lib/new = %q, %v", got, err)
	}
	if _, err := l.read(plain, "usr/lib/new"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("usr/lib/new: %v", err)
	}
}

func (l *lab) symlink(name, target string) tree.Layer {
	l.t.Helper()
	var plain bytes.Buffer
	tw := tar.NewWriter(&plain)
	if err := errors.Join(tw.WriteHeader(&tar.Header{Name: name, Linkname: target, Typeflag: tar.TypeSymlink, Mode: 0o777}), tw.Close()); err != nil {
		l.t.Fatal(err)
	}
	d := digest.FromBytes(plain.Bytes())
	l.remote.blobs[d] = plain.Bytes()
	return tree.FromBlob(d, content.Descriptor{
		MediaType: ocispec.MediaTypeImageLayer, Digest: d, Size: int64(plain.Len()),
		Annotations: map[string]string{content.SourceAnnotation: "docker.io/library/test"},
	})
}

func TestInvariant02_LostLayerSaysWhich(t *testing.T) {
	l := newLab(t)
	gone := l.layer("a")
	delete(l.remote.blobs, gone.Blobs[0].Digest)
	err := l.Prepare(t.Context(), tree.Tree{Layers: []tree.Layer{gone}})
	if lost, ok := errors.AsType[*tree.Lost](err); !ok || lost.Layer != gone.ID {
		t.Errorf("err = %v, want a Lost of %s", err, gone.ID)
	}
	l.Lose(gone.ID)
	if l.Kept(gone) {
		t.Error("a lost layer counts as kept")
	}
}

func TestKeeper_DraftCommitPack(t *testing.T) {
	l := newLab(t)
	base := tree.Tree{Layers: []tree.Layer{l.layer("etc/", "etc/a")}}
	d, err := l.Draft(t.Context(), base)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Discard() //nolint:errcheck // nothing is left to be done about it
	if err := os.WriteFile(filepath.Join(d.Dir(), "new"), []byte("new"), 0o644); err != nil {
		t.Fatal(err)
	}
	made, err := l.Commit(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	gz, err := l.Pack(t.Context(), made, tree.Packing{})
	if err != nil {
		t.Fatal(err)
	}
	zst, err := l.Pack(t.Context(), made, tree.Packing{PackOptions: layer.PackOptions{Compression: layer.Zstd}})
	if err != nil {
		t.Fatal(err)
	}
	if gz.DiffID != zst.DiffID || gz.DiffID == "" {
		t.Errorf("diff IDs %q and %q", gz.DiffID, zst.DiffID)
	}
	if zst.Blobs[0].MediaType != ocispec.MediaTypeImageLayerZstd || len(zst.Blobs) != 2 {
		t.Errorf("blobs = %+v, want zstd first and gzip kept (INVARIANTS 10)", zst.Blobs)
	}
	// Base layers stay where they are, unless it is forced.
	n := len(l.remote.asked)
	kept, err := l.Pack(t.Context(), base.Layers[0], tree.Packing{PackOptions: layer.PackOptions{Compression: layer.Zstd}})
	if err != nil || kept.Blobs[0].Digest != base.Layers[0].Blobs[0].Digest || len(l.remote.asked) != n {
		t.Errorf("base layer packed as %+v, %v", kept.Blobs, err)
	}
	forced, err := l.Pack(t.Context(), base.Layers[0], tree.Packing{PackOptions: layer.PackOptions{Compression: layer.Zstd}, Force: true})
	if err != nil || forced.Blobs[0].MediaType != ocispec.MediaTypeImageLayerZstd || forced.DiffID != base.Layers[0].DiffID {
		t.Errorf("forced: %+v, %v", forced, err)
	}

	// Without its directory the layer comes back from its blob.
	if err := os.RemoveAll(filepath.Join(l.dir, "snapshots", "layers", string(made.ID))); err != nil {
		t.Fatal(err)
	}
	if got, err := l.read(tree.Tree{Layers: []tree.Layer{gz}}.On(base), "new"); got != "new" || err != nil {
		t.Errorf("new = %q, %v", got, err)
	}
}

func TestTree_Identity(t *testing.T) {
	a, b := tree.Layer{ID: "run-a"}, tree.Layer{ID: "run-b"}
	ab, ba := tree.Tree{Layers: []tree.Layer{a, b}}, tree.Tree{Layers: []tree.Layer{b, a}}
	if ab.Identity() == ba.Identity() {
		t.Error("the order of layers makes no difference")
	}
	if (tree.Tree{}).Identity() == ab.Identity() {
		t.Error("the empty tree is like another")
	}
	if (tree.Tree{Local: "context"}).Identity() != "" {
		t.Error("a local tree has an identity")
	}
	known := tree.Layer{ID: "run-a", DiffID: digest.FromString("x"), Created: time.Now()}
	if (tree.Tree{Layers: []tree.Layer{known, b}}).Identity() != ab.Identity() {
		t.Error("what is learnt of a layer changes the identity")
	}
}
