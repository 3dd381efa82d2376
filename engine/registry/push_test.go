package registry_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/slipway-build/slipway/engine/content"
	"github.com/slipway-build/slipway/engine/registry"
)

func TestPush_UploadsOnceForSeveralTags(t *testing.T) {
	host, rec := newRegistry(t)
	b := blobs{}
	root := b.image(amd64, "one", "two", "one") // the same layer twice
	c := newClient(t, registry.Options{})
	var mu sync.Mutex
	sent := map[digest.Digest]int64{}
	err := c.Push(t.Context(), []string{host + "/app:1", host + "/app:latest", host + "/app:1"}, root, b, registry.PushOptions{
		Progress: func(d content.Descriptor, done int64) {
			mu.Lock()
			defer mu.Unlock()
			sent[d.Digest] = done
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	requests := rec.take()
	if n := count(requests, "PUT /v2/app/blobs/uploads/"); n != 3 {
		t.Errorf("%d uploads, want 3 (config and two layers):\n%s", n, strings.Join(requests, "\n"))
	}
	last := requests[len(requests)-2:]
	if diff := cmp.Diff([]string{"PUT /v2/app/manifests/1", "PUT /v2/app/manifests/latest"}, last); diff != "" {
		t.Errorf("the last requests (-want +got):\n%s", diff)
	}
	if len(sent) != 3 || sent[digest.FromString("one")] != 3 {
		t.Errorf("progress: %v", sent)
	}
	if err := c.Push(t.Context(), []string{host + "/app:again"}, root, b, registry.PushOptions{}); err != nil {
		t.Fatal(err)
	}
	if n := count(rec.take(), "POST "); n != 0 {
		t.Errorf("%d uploads of what is there", n)
	}
	for _, tag := range []string{"1", "latest", "again"} {
		if img, err := c.Resolve(t.Context(), host+"/app:"+tag, amd64); err != nil || img.Digest != root.Digest {
			t.Errorf("%s is %s, %v", tag, img.Digest, err)
		}
	}
}

func TestPush_IndexByDigest(t *testing.T) {
	host, rec := newRegistry(t)
	b := blobs{}
	amd, arm := b.image(linux("amd64"), "amd"), b.image(linux("arm64"), "arm")
	root := b.index(ocispec.MediaTypeImageIndex, amd, arm)
	c := newClient(t, registry.Options{})
	if err := c.Push(t.Context(), []string{host + "/app:ignored"}, root, b, registry.PushOptions{ByDigest: true}); err != nil {
		t.Fatal(err)
	}
	var manifests []string
	for _, r := range rec.take() {
		if name, ok := strings.CutPrefix(r, "PUT /v2/app/manifests/"); ok {
			manifests = append(manifests, name)
		}
	}
	want := []string{amd.Digest.String(), arm.Digest.String(), root.Digest.String()}
	if diff := cmp.Diff(want, manifests); diff != "" {
		t.Errorf("manifests (-want +got):\n%s", diff)
	}
	if img, err := c.Resolve(t.Context(), host+"/app@"+root.Digest.String(), linux("arm64")); err != nil || img.Manifest.Digest != arm.Digest {
		t.Errorf("got %s, %v", img.Manifest.Digest, err)
	}
}

func TestPush_MountsFromTheSameRegistry(t *testing.T) {
	host, rec := newRegistry(t)
	b := blobs{}
	push(t, b, b.image(amd64, "base layer"), host+"/base:1")
	root := b.image(amd64, "base layer", "own layer")
	delete(b, digest.FromString("base layer")) // it must not be read
	rec.take()
	layer := content.Descriptor{
		Digest: digest.FromString("base layer"), Size: 10, MediaType: ocispec.MediaTypeImageLayerGzip,
		Annotations: map[string]string{content.SourceAnnotation: host + "/base"},
	}
	c := newClient(t, registry.Options{})
	err := c.Push(t.Context(), []string{host + "/app:1"}, root, b, registry.PushOptions{Layers: []content.Descriptor{layer}})
	if err != nil {
		t.Fatal(err)
	}
	requests := rec.take()
	if n := count(requests, "PUT /v2/app/blobs/uploads/"); n != 2 {
		t.Errorf("%d uploads, want 2 (config and the own layer):\n%s", n, strings.Join(requests, "\n"))
	}
}

// Where mounting is refused, the blob goes from one repository to the other
// through us, without being kept.
func TestPush_CopiesWhatCannotBeMounted(t *testing.T) {
	from, _ := newRegistry(t)
	to, _ := newRegistry(t)
	b := blobs{}
	push(t, b, b.image(amd64, "base layer"), from+"/base:1")
	c := newClient(t, registry.Options{})
	base, err := c.Resolve(t.Context(), from+"/base:1", amd64)
	if err != nil {
		t.Fatal(err)
	}
	store, err := content.Open(t.TempDir(), c)
	if err != nil {
		t.Fatal(err)
	}
	root := b.image(amd64, "base layer", "own layer")
	for d, data := range b {
		if d != digest.FromString("base layer") {
			if err := store.Add(t.Context(), content.Descriptor{Digest: d}, bytes.NewReader(data)); err != nil {
				t.Fatal(err)
			}
		}
	}
	err = c.Push(t.Context(), []string{to + "/app:1"}, root, store, registry.PushOptions{Layers: []content.Descriptor{base.Layers[0].Blob}})
	if err != nil {
		t.Fatal(err)
	}
	img, err := c.Resolve(t.Context(), to+"/app:1", amd64)
	if err != nil {
		t.Fatal(err)
	}
	if got := read(t, c, img.Layers[0].Blob); got != "base layer" {
		t.Errorf("read %q", got)
	}
}

// failing answers in place of the registry whenever answer says so.
func failing(inner http.Handler, answer func(w http.ResponseWriter, req *http.Request) bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if !answer(w, req) {
			inner.ServeHTTP(w, req)
		}
	})
}

func TestPush_StartsAnUploadOver(t *testing.T) {
	_, rec := newRegistry(t)
	var n atomic.Int32
	host, _ := serve(t, failing(rec, func(w http.ResponseWriter, req *http.Request) bool {
		if req.Method != http.MethodPut || !strings.Contains(req.URL.Path, "/uploads/") {
			return false
		}
		switch n.Add(1) {
		case 1: // takes half of it, then hangs up
			_, _ = io.CopyN(io.Discard, req.Body, 3)
			panic(http.ErrAbortHandler)
		case 2:
			w.WriteHeader(http.StatusBadGateway)
			return true
		case 3: // the session is gone
			w.WriteHeader(http.StatusNotFound)
			return true
		}
		return false
	}))
	b := blobs{}
	root := b.image(amd64, "a layer of some bytes")
	var log []string
	var mu sync.Mutex
	c := newClient(t, registry.Options{Log: func(s string) {
		mu.Lock()
		defer mu.Unlock()
		log = append(log, s)
	}})
	if err := c.Push(t.Context(), []string{host + "/app:1"}, root, b, registry.PushOptions{}); err != nil {
		t.Fatal(err)
	}
	if all := strings.Join(log, "\n"); !contains(all, "starting over") {
		t.Errorf("log: %q", all)
	}
	img, err := c.Resolve(t.Context(), host+"/app:1", amd64)
	if err != nil {
		t.Fatal(err)
	}
	if got := read(t, c, img.Layers[0].Blob); got != "a layer of some bytes" {
		t.Errorf("read %q", got)
	}
}

func TestPush_Fails(t *testing.T) {
	tests := []struct {
		name, method, path string
		status             int
		body, want         string
	}{
		{"no credentials", "HEAD", "/blobs/", 401, "", "wants credentials for app (status 401)"},
		{"denied", "POST", "/uploads/", 403, `{"errors":[{"code":"DENIED","message":"read-only\u001b[31m token"}]}`, "DENIED: read-only [31m token"},
		{"upload refused", "PUT", "/uploads/", 413, "too\nlarge", "413 Request Entity Too Large: too large"},
		{"manifest refused", "PUT", "/manifests/", 400, `{"errors":[{"code":"MANIFEST_INVALID","message":"no"}]}`, "MANIFEST_INVALID: no"},
		{"stored as something else", "PUT", "/manifests/", 201, "", "has stored the manifest as sha256:0"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, rec := newRegistry(t)
			host, _ := serve(t, failing(rec, func(w http.ResponseWriter, req *http.Request) bool {
				if req.Method != test.method || !strings.Contains(req.URL.Path, test.path) {
					return false
				}
				w.Header().Set("Docker-Content-Digest", "sha256:0")
				w.WriteHeader(test.status)
				_, _ = io.WriteString(w, test.body)
				return true
			}))
			b := blobs{}
			err := newClient(t, registry.Options{}).Push(t.Context(), []string{host + "/app:1"}, b.image(amd64, "layer"), b, registry.PushOptions{})
			if err == nil || !contains(err.Error(), "push "+host+"/app", test.want) {
				t.Fatalf("got %v, want an error with %q", err, test.want)
			}
			auth, isAuth := errors.AsType[*registry.AuthError](err)
			if wantAuth := test.status == 401 || test.status == 403; isAuth != wantAuth || (isAuth && (auth.Host != host || auth.Status != test.status)) {
				t.Errorf("%#v as an AuthError: %v", err, auth)
			}
			if _, err := newClient(t, registry.Options{}).Resolve(t.Context(), host+"/app:1", amd64); err == nil {
				t.Error("the tag can be seen although the push failed")
			}
		})
	}
}

func TestPush_RefusesABlobOfAnotherDigest(t *testing.T) {
	for name, data := range map[string]string{"other": "LAYER", "short": "lay", "long": "layer and more"} {
		host, rec := newRegistry(t)
		b := blobs{}
		root := b.image(amd64, "layer")
		b[digest.FromString("layer")] = []byte(data)
		err := newClient(t, registry.Options{}).Push(t.Context(), []string{host + "/app:1"}, root, b, registry.PushOptions{})
		if err == nil || !contains(err.Error(), digest.FromString("layer").String(), host+"/app") {
			t.Errorf("%s: got %v", name, err)
		}
		if n := count(rec.take(), "PUT /v2/app/manifests"); n != 0 {
			t.Errorf("%s: the manifest was pushed", name)
		}
	}
}

func TestPush_NamesThatCannotBe(t *testing.T) {
	b := blobs{}
	root := b.image(amd64, "x")
	c := newClient(t, registry.Options{})
	for _, refs := range [][]string{nil, {"App"}, {"app@" + root.Digest.String()}} {
		if err := c.Push(t.Context(), refs, root, b, registry.PushOptions{}); err == nil {
			t.Errorf("pushed to %v", refs)
		}
	}
}

// zeros is a blob that is never in memory.
type zeros struct{ left int64 }

func (z *zeros) Read(p []byte) (int, error) {
	if z.left == 0 {
		return 0, io.EOF
	}
	n := min(int64(len(p)), z.left)
	clear(p[:n])
	z.left -= n
	return int(n), nil
}

type zeroBlobs struct {
	blobs
	zero content.Descriptor
}

func (z zeroBlobs) Fetch(ctx context.Context, d content.Descriptor) (io.ReadCloser, error) {
	if d.Digest == z.zero.Digest {
		return io.NopCloser(&zeros{z.zero.Size}), nil
	}
	return z.blobs.Fetch(ctx, d)
}

// sink is a registry that keeps manifests only.
func sink() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		switch req.Method {
		case http.MethodHead:
			w.WriteHeader(http.StatusNotFound)
		case http.MethodPost:
			w.Header().Set("Location", "/v2/app/blobs/uploads/1")
			w.WriteHeader(http.StatusAccepted)
		default:
			_, _ = io.Copy(io.Discard, req.Body)
			w.WriteHeader(http.StatusCreated)
		}
	})
}

// A GiB goes through a few hundred KiB.
func TestPush_MemoryStaysFlat(t *testing.T) {
	if testing.Short() {
		t.Skip("sends a GiB")
	}
	const size = 1 << 30
	d := digest.SHA256.Digester()
	if _, err := io.Copy(d.Hash(), &zeros{size}); err != nil {
		t.Fatal(err)
	}
	b := zeroBlobs{blobs{}, content.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: d.Digest(), Size: size}}
	config := b.addJSON(ocispec.MediaTypeImageConfig, ocispec.Image{Platform: amd64})
	root := b.addJSON(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: []content.Descriptor{b.zero},
	})
	host, _ := serve(t, sink())
	var peak atomic.Uint64
	var last atomic.Int64
	var before runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	start := time.Now()
	err := newClient(t, registry.Options{}).Push(t.Context(), []string{host + "/app:1"}, root, b, registry.PushOptions{
		Progress: func(_ content.Descriptor, done int64) {
			if done-last.Load() >= 64<<20 {
				last.Store(done)
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				peak.Store(max(peak.Load(), m.HeapInuse))
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if last.Load() < size-64<<20 {
		t.Fatalf("progress ended at %d", last.Load())
	}
	t.Logf("1 GiB in %s, heap %d KiB before, %d KiB at most", time.Since(start).Round(time.Millisecond), before.HeapInuse>>10, peak.Load()>>10)
	if grown := int64(peak.Load()) - int64(before.HeapInuse); grown > 32<<20 {
		t.Errorf("the heap grew by %d MiB", grown>>20)
	}
}
