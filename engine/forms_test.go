package engine_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/slipway-build/slipway/engine"
)

// A layer keeps all the forms that it was packed in: coming back to one makes
// nothing anew.
func TestInvariant10_FormsOfALayerAreKept(t *testing.T) {
	b := newBuilder(t)
	tag := b.registry() + "/app:1"
	dir := contextDir(t, map[string]string{"Dockerfile": base})
	as := func(compression string) engine.Request {
		return engine.Request{Context: dir, Tags: []string{tag}, Outputs: []engine.Output{
			{Type: "registry", Attrs: map[string]string{"compression": compression, "force-compression": "true"}},
		}}
	}
	gzip, zstd := b.must(as("gzip")), b.must(as("zstd"))
	if gzip.Digest == zstd.Digest || gzip.Config != zstd.Config {
		t.Errorf("gzip %s and zstd %s, want two manifests of one image: %s, %s", gzip.Digest, zstd.Digest, gzip.Config, zstd.Config)
	}
	before := blobs(t, b)
	// Without the layers' directories nothing can be packed from them.
	if err := os.RemoveAll(filepath.Join(b.state, "snapshots", "layers")); err != nil {
		t.Fatal(err)
	}
	for compression, want := range map[string]engine.Result{"gzip": gzip, "zstd": zstd} {
		if got := b.must(as(compression)); got.Digest != want.Digest {
			t.Errorf("%s again: digest %s, want %s", compression, got.Digest, want.Digest)
		}
		if ran := b.ran(); len(ran) != 0 {
			t.Errorf("%s again: ran %q", compression, ran)
		}
	}
	if after := blobs(t, b); !slices.Equal(before, after) {
		t.Errorf("blobs were %q, now %q", before, after)
	}
}

// blobs lists the content store.
func blobs(t *testing.T, b *builder) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(b.state, "content", "blobs", "sha256", "*"))
	if err != nil || len(names) == 0 {
		t.Fatalf("blobs: %q, %v", names, err)
	}
	return names
}
