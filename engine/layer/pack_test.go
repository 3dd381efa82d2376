package layer_test

import (
	"archive/tar"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/slipway-build/slipway/engine/content"
	"github.com/slipway-build/slipway/engine/layer"
)

func openStore(tb testing.TB) *content.Store {
	tb.Helper()
	s, err := content.Open(tb.TempDir(), nil)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// someText is n bytes that compress about as well as programs do.
func someText(n int) string {
	rng := rand.New(rand.NewPCG(1, 2))
	var b strings.Builder
	for b.Len() < n {
		word := rng.IntN(3000)
		for range 3 + word%7 {
			b.WriteByte(byte('a' + word%26))
			word = word*31 + 7
		}
		b.WriteByte(' ')
	}
	return b.String()[:n]
}

func TestPack_RoundTripInEveryForm(t *testing.T) {
	needRoot(t)
	dir := unpack(t, tarOf(t, append(everything(), file("text", someText(1<<20)))...))
	plain := writeTar(t, dir, layer.WriteOptions{})
	store := openStore(t)
	forms := []layer.PackOptions{
		{},
		{Compression: layer.Gzip, Level: 1},
		{Compression: layer.Gzip, Level: layer.NoCompression},
		{Compression: layer.Gzip, Level: 9},
		{Compression: layer.Zstd},
		{Compression: layer.Zstd, Level: 1},
		{Compression: layer.Uncompressed},
	}
	var first content.Descriptor
	for _, opts := range forms {
		desc, diffID, err := layer.Pack(t.Context(), store, dir, opts)
		if err != nil {
			t.Fatal(err)
		}
		if diffID != digest.FromBytes(plain) {
			t.Errorf("%v: diff ID %s is not the tar's", opts, diffID)
		}
		if !opts.Matches(desc.MediaType) || (layer.PackOptions{Compression: "lzma"}).Matches(desc.MediaType) {
			t.Errorf("%v: media type %s does not match", opts, desc.MediaType)
		}
		if first.Digest == "" {
			first = desc
		}
		r, err := store.Fetch(t.Context(), desc)
		if err != nil {
			t.Fatal(err)
		}
		got, err := layer.Unpack(t.Context(), r, openRoot(t, t.TempDir()), layer.UnpackOptions{})
		r.Close()
		if err != nil || got.DiffID != diffID {
			t.Errorf("%v: Unpack = %v, %v", opts, got, err)
		}
		again, err := layer.Recompress(t.Context(), store, first, opts)
		if err != nil || again.Digest != desc.Digest || again.Size != desc.Size {
			t.Errorf("%v: recompressed is %v, %v; want %v", opts, again, err, desc)
		}
	}
}

func TestPack_BytesDoNotDependOnCPUs(t *testing.T) {
	dir := unpack(t, tarOf(t, file("text", someText(9<<20)), file("small", "x")))
	for _, c := range []layer.Compression{layer.Gzip, layer.Zstd} {
		seen := map[digest.Digest]bool{}
		for _, procs := range []int{1, 3, 16} {
			before := runtime.GOMAXPROCS(procs)
			desc, _, err := layer.Pack(t.Context(), openStore(t), dir, layer.PackOptions{Compression: c})
			runtime.GOMAXPROCS(before)
			if err != nil {
				t.Fatal(err)
			}
			seen[desc.Digest] = true
		}
		if len(seen) != 1 {
			t.Errorf("%s: %d different blobs", c, len(seen))
		}
	}
}

// The bytes are what caches and registries know layers by.
func TestPack_Golden(t *testing.T) {
	dir := unpack(t, tarOf(t, ent{tar.Header{Name: "text", Mode: 0o644, ModTime: time.Unix(1, 5)}, someText(5 << 20)}))
	for _, tt := range []struct {
		opts layer.PackOptions
		want digest.Digest
	}{
		{layer.PackOptions{}, "sha256:72d032041e30b15eb8c67210b118018658a9a39d3d7ac1293963449f610b4ae5"},
		{layer.PackOptions{Compression: layer.Zstd}, "sha256:f36b9e389328b57556154cdab424b098a9e343c8456265ca27ec1ce0313b0f30"},
		{layer.PackOptions{Compression: layer.Uncompressed}, "sha256:14a1300c4f7ca2852e1e0ccc948a493cc4aad5ac1667e4e7a75027df86a2041a"},
	} {
		desc, _, err := layer.Pack(t.Context(), openStore(t), dir, tt.opts)
		if err != nil || desc.Digest != tt.want {
			t.Errorf("%v: blob is %s, %v; want %s: existing caches will not match", tt.opts, desc.Digest, err, tt.want)
		}
	}
}

func TestPack_RefusesWhatItDoesNotKnow(t *testing.T) {
	for _, opts := range []layer.PackOptions{
		{Compression: "lz4"}, {Compression: layer.Bzip2}, {Level: 10}, {Level: -2}, {Compression: layer.Zstd, Level: 23},
	} {
		if _, _, err := layer.Pack(t.Context(), openStore(t), t.TempDir(), opts); err == nil {
			t.Errorf("%v was accepted", opts)
		}
	}
	epoch := time.Unix(0, 0)
	if _, err := layer.Recompress(t.Context(), openStore(t), content.Descriptor{}, layer.PackOptions{Epoch: &epoch}); err == nil {
		t.Error("Recompress accepted an epoch")
	}
}

func TestMatches(t *testing.T) {
	for _, tt := range []struct {
		c    layer.Compression
		mt   string
		want bool
	}{
		{"", "application/vnd.docker.image.rootfs.diff.tar.gzip", true},
		{"", "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", true},
		{layer.Zstd, "application/vnd.oci.image.layer.v1.tar+gzip", false},
		{layer.Zstd, "application/vnd.docker.image.rootfs.diff.tar.zstd", true},
		{layer.Uncompressed, "application/vnd.docker.image.rootfs.diff.tar", true},
		{layer.Gzip, "application/vnd.oci.image.layer.v1.tar", false},
	} {
		if got := (layer.PackOptions{Compression: tt.c}).Matches(tt.mt); got != tt.want {
			t.Errorf("%q matches %s: %v, want %v", tt.c, tt.mt, got, tt.want)
		}
	}
}

func BenchmarkPack(b *testing.B) {
	dir, size := debian(b)
	for _, opts := range []layer.PackOptions{{Level: 1}, {Level: 3}, {Level: 4}, {Level: 5}, {Level: 6}, {Compression: layer.Zstd}, {Compression: layer.Uncompressed}} {
		b.Run(string(opts.Compression)+"-"+string(rune('0'+opts.Level)), func(b *testing.B) {
			b.SetBytes(size)
			b.ReportAllocs()
			var desc content.Descriptor
			for b.Loop() {
				var err error
				if desc, _, err = layer.Pack(b.Context(), openStore(b), dir, opts); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(desc.Size)/float64(size), "ratio")
		})
	}
}

func BenchmarkWrite(b *testing.B) {
	dir, size := debian(b)
	b.SetBytes(size)
	b.ReportAllocs()
	for b.Loop() {
		if err := layer.Write(b.Context(), io.Discard, dir, layer.WriteOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}
