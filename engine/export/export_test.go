package export_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/slipway-build/slipway/engine/content"
	"github.com/slipway-build/slipway/engine/export"
	"github.com/slipway-build/slipway/engine/inroot"
	"github.com/slipway-build/slipway/engine/snapshot"
	"github.com/slipway-build/slipway/engine/tree"
	"github.com/slipway-build/slipway/platforms"
)

var (
	amd64   = platforms.Platform{OS: "linux", Architecture: "amd64"}
	arm     = platforms.Platform{OS: "linux", Architecture: "arm", Variant: "v7"}
	created = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
)

// viewer shows a directory for each tree, by the ID of its only layer.
type viewer map[snapshot.ID]string

func (v viewer) View(_ context.Context, t tree.Tree) (tree.View, error) {
	root, err := inroot.Open(v[t.Layers[0].ID])
	return tree.View{Root: root}, err
}

func (v viewer) add(dir string) tree.Tree {
	id := snapshot.ID(dir)
	v[id] = dir
	return tree.Tree{Layers: []tree.Layer{{ID: id}}}
}

func openStore(t *testing.T) *content.Store {
	t.Helper()
	s, err := content.Open(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func put(t *testing.T, s *content.Store, mediaType string, b []byte) content.Descriptor {
	t.Helper()
	d := content.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
	if err := s.Add(t.Context(), d, bytes.NewReader(b)); err != nil {
		t.Fatal(err)
	}
	return d
}

func putJSON(t *testing.T, s *content.Store, mediaType string, v any) content.Descriptor {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return put(t, s, mediaType, b)
}

// layerTar is a layer with one file.
func layerTar(t *testing.T, name string) (plain, packed []byte) {
	t.Helper()
	var b, z bytes.Buffer
	tw := tar.NewWriter(&b)
	if err := errors.Join(tw.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: 2}), writeAll(tw, "hi"), tw.Close()); err != nil {
		t.Fatal(err)
	}
	zw := gzip.NewWriter(&z)
	if err := errors.Join(writeAll(zw, b.String()), zw.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), z.Bytes()
}

func writeAll(w io.Writer, s string) error {
	_, err := io.WriteString(w, s)
	return err
}

// artifact makes an image of two layers, one of which all platforms share.
func artifact(t *testing.T, ps ...platforms.Platform) export.Artifact {
	t.Helper()
	s := openStore(t)
	a := export.Artifact{Blobs: s}
	for _, p := range ps {
		config := ocispec.Image{Created: &created, Platform: p, RootFS: ocispec.RootFS{Type: "layers"}}
		m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
		for _, name := range []string{"shared", p.Architecture} {
			plain, packed := layerTar(t, name)
			m.Layers = append(m.Layers, put(t, s, ocispec.MediaTypeImageLayerGzip, packed))
			config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, digest.FromBytes(plain))
		}
		m.Config = putJSON(t, s, ocispec.MediaTypeImageConfig, config)
		img := export.Image{Platform: p, Config: m.Config, Layers: m.Layers, Manifest: putJSON(t, s, m.MediaType, m)}
		img.Manifest.Platform = &p
		a.Images = append(a.Images, img)
	}
	a.Root = a.Images[0].Manifest
	if len(ps) > 1 {
		index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
		for _, img := range a.Images {
			index.Manifests = append(index.Manifests, img.Manifest)
		}
		a.Root = putJSON(t, s, index.MediaType, index)
	}
	return a
}

func run(t *testing.T, kind string, attrs map[string]string, deps export.Deps, a export.Artifact) (content.Descriptor, error) {
	t.Helper()
	e, err := export.New(kind, attrs, deps)
	if err != nil {
		t.Fatal(err)
	}
	return e.Export(t.Context(), a)
}

// buffer is a standard output.
type buffer struct {
	bytes.Buffer
	closed bool
}

func (b *buffer) Close() error {
	b.closed = true
	return nil
}

func TestNew_Refuses(t *testing.T) {
	names := export.Deps{Names: []string{"app"}}
	tests := []struct {
		kind  string
		attrs string // key=value,…
		deps  export.Deps
		want  string
	}{
		{"zip", "", names, `there is no type "zip"; there are image, registry, oci, docker, local, tar, cacheonly`},
		{"image", "push=true", export.Deps{}, "there is no name to push to"},
		{"registry", "", export.Deps{}, "there is no name to push to"},
		{"registry", "name=App", names, "must be in lower case"},
		{"image", "push=maybe", names, "push=maybe: must be true or false"},
		{"image", "pusch=true", names, `there is no attribute "pusch"; there are attestation-inline, compression,`},
		{"image", "dest=x", names, `there is no attribute "dest"`},
		{"image", "compression=estargz", names, "compression=estargz: not supported"},
		{"image", "compression=lzma", names, "must be gzip, zstd or uncompressed"},
		{"image", "compression-level=10", names, "must be a number from 0 to 9 with compression=gzip"},
		{"image", "rewrite-timestamp=true", names, "rewrite-timestamp=true: not supported"},
		{"image", "unpack=true", names, "unpack=true: not supported"},
		{"image", "source-date-epoch=yesterday", names, "must be seconds since 1970"},
		{"image", "annotation-roof.x=1", names, `there are no annotations on "roof"`},
		{"image", "annotation=1", names, "must be such as annotation.KEY"},
		{"image", "annotation[mars/x/y/z].x=1", names, "parse platform"},
		{"image", "oci-artifact=true,oci-mediatypes=false", names, "contradicts"},
		{"oci", "", names, "needs dest=, a file"},
		{"oci", "dest=-,tar=false", names, "needs dest=, a directory"},
		{"docker", "", names, "loading into a Docker daemon is not supported"},
		{"docker", "dest=x,context=desktop", names, "context=desktop: not supported"},
		{"local", "", names, "needs dest=, a directory"},
		{"local", "dest=x,mode=delete", names, "mode=delete: not supported"},
		{"tar", "dest=", names, "dest=: must not be empty"},
		{"tar", "dest=x,annotation.a=b", names, `there is no attribute "annotation.a"`},
		{"cacheonly", "name=x", names, `there is no attribute "name"; there are none`},
	}
	for _, test := range tests {
		attrs := map[string]string{"type": test.kind}
		for _, kv := range strings.FieldsFunc(test.attrs, func(r rune) bool { return r == ',' }) {
			k, v, _ := strings.Cut(kv, "=")
			attrs[k] = v
		}
		_, err := export.New(test.kind, attrs, test.deps)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("type=%s,%s: got %v, want an error with %q", test.kind, test.attrs, err, test.want)
		}
	}
}

func TestNew_AcceptsWhatPipelinesSay(t *testing.T) {
	for _, attrs := range []map[string]string{
		{"name": "me/app", "push-by-digest": "true", "name-canonical": "true", "push": "true"},
		{"name": "me/app,r.example/app:1", "push": "", "oci-mediatypes": "true", "compression": "zstd", "compression-level": "19", "force-compression": "true"},
		{"store": "false", "unpack": "false", "oci-artifact": "true", "annotation-index[linux/amd64].a.b/c": "d e", "source-date-epoch": "0"},
	} {
		if _, err := export.New("image", attrs, export.Deps{}); err != nil {
			t.Errorf("%v: %v", attrs, err)
		}
	}
}

func TestCompression(t *testing.T) {
	got, err := export.Compression(map[string]string{"compression": "zstd", "compression-level": "3", "force-compression": ""})
	if want := (export.Packing{Compression: "zstd", Level: 3, Force: true}); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	got, err = export.Compression(nil)
	if want := (export.Packing{Compression: "gzip", Level: -1}); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}

func TestParseFormat(t *testing.T) {
	got, err := export.ParseFormat(map[string]string{
		"annotation.a": "1", "annotation-manifest-descriptor[linux/arm/v7].b": "2", "oci-mediatypes": "false", "source-date-epoch": "100",
	})
	if err != nil {
		t.Fatal(err)
	}
	epoch := time.Unix(100, 0).UTC()
	want := export.Format{DockerTypes: true, Epoch: &epoch, Annotations: []export.Annotation{
		{On: export.OnManifestDescriptor, Platform: &arm, Key: "b", Value: "2"},
		{On: export.OnManifest, Key: "a", Value: "1"},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestNames(t *testing.T) {
	got, err := export.Names(nil, []string{"app:1", "docker.io/library/app:1", "r.example/x"})
	if diff := cmp.Diff([]string{"docker.io/library/app:1", "r.example/x:latest"}, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	got, err = export.Names(map[string]string{"name": "a, b:2"}, []string{"ignored"})
	if diff := cmp.Diff([]string{"docker.io/library/a:latest", "docker.io/library/b:2"}, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

func TestExport_Nothing(t *testing.T) {
	a := artifact(t, amd64)
	for _, kind := range []string{"cacheonly", "image"} {
		if got, err := run(t, kind, nil, export.Deps{}, a); err != nil || got.Digest != a.Root.Digest {
			t.Errorf("%s: %v, %v", kind, got, err)
		}
	}
}

// A failed write leaves neither a half nor a temporary file, and what was there
// before as it was.
func TestExport_FilesAppearWhole(t *testing.T) {
	a := artifact(t, amd64)
	missing := export.Artifact{Root: a.Root, Images: a.Images, Blobs: lacking{a.Blobs, a.Images[0].Layers[1].Digest}}
	for _, kind := range []string{"oci", "docker"} {
		dest := filepath.Join(t.TempDir(), "out.tar")
		if err := os.WriteFile(dest, []byte("before"), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := run(t, kind, map[string]string{"dest": dest}, export.Deps{}, missing)
		if err == nil || !strings.Contains(err.Error(), dest) {
			t.Errorf("%s: got %v, want an error that names the file", kind, err)
		}
		mustHold(t, filepath.Dir(dest), "out.tar")
		if b, err := os.ReadFile(dest); err != nil || string(b) != "before" {
			t.Errorf("%s: the file is %q, %v", kind, b, err)
		}
		if _, err := run(t, kind, map[string]string{"dest": dest}, export.Deps{}, a); err != nil {
			t.Fatal(err)
		}
		mustHold(t, filepath.Dir(dest), "out.tar")
	}
	if _, err := run(t, "oci", map[string]string{"dest": t.TempDir()}, export.Deps{}, a); err == nil || !strings.Contains(err.Error(), "is a directory") {
		t.Errorf("a directory as dest: %v", err)
	}
	if _, err := run(t, "oci", map[string]string{"dest": "/dev/null"}, export.Deps{}, a); err != nil {
		t.Errorf("/dev/null as dest: %v", err)
	}
	if fi, err := os.Stat("/dev/null"); err != nil || fi.Mode().IsRegular() {
		t.Errorf("/dev/null is now %v, %v", fi.Mode(), err)
	}
}

// lacking has all blobs but one, of which it has the beginning.
type lacking struct {
	content.Fetcher
	lost digest.Digest
}

func (l lacking) Fetch(ctx context.Context, d content.Descriptor) (io.ReadCloser, error) {
	if d.Digest == l.lost {
		return io.NopCloser(strings.NewReader("half")), nil
	}
	return l.Fetcher.Fetch(ctx, d)
}

func mustHold(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s has (-want +got):\n%s", dir, diff)
	}
}
