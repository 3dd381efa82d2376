package registry_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/olareg/olareg"
	"github.com/olareg/olareg/config"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/slipway-build/slipway/engine/content"
	"github.com/slipway-build/slipway/engine/registry"
	"github.com/slipway-build/slipway/platforms"
)

const (
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerConfig   = "application/vnd.docker.container.image.v1+json"
	dockerLayer    = "application/vnd.docker.image.rootfs.diff.tar.gzip"
)

var amd64 = platforms.Platform{OS: "linux", Architecture: "amd64"}

// recorder notes what a server was asked.
type recorder struct {
	http.Handler

	mu       sync.Mutex
	requests []string
	headers  []http.Header
}

func (r *recorder) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	r.requests = append(r.requests, req.Method+" "+req.URL.Path)
	r.headers = append(r.headers, req.Header.Clone())
	r.mu.Unlock()
	r.Handler.ServeHTTP(w, req)
}

func (r *recorder) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := r.requests
	r.requests, r.headers = nil, nil
	return list
}

func (r *recorder) authorized() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []string
	for i, h := range r.headers {
		if h.Get("Authorization") != "" {
			list = append(list, r.requests[i]+" "+h.Get("Authorization"))
		}
	}
	return list
}

// serve starts a server on this machine and returns its host.
func serve(t *testing.T, h http.Handler) (host string, rec *recorder) {
	t.Helper()
	rec = &recorder{Handler: h}
	s := httptest.NewServer(rec)
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://"), rec
}

// newRegistry starts a real registry.
func newRegistry(t *testing.T) (host string, rec *recorder) {
	t.Helper()
	conf := config.Config{Storage: config.ConfigStorage{StoreType: config.StoreMem}}
	conf.SetDefaults()
	s := olareg.New(conf)
	t.Cleanup(func() { _ = s.Close() })
	return serve(t, s)
}

func newClient(t *testing.T, opts registry.Options) *registry.Client {
	t.Helper()
	if opts.Keychain == nil {
		opts.Keychain = keychain{}
	}
	c, err := registry.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// keychain has user and password by host, or by host and repository.
type keychain map[string]authn.AuthConfig

func (k keychain) Resolve(r authn.Resource) (authn.Authenticator, error) {
	if a, ok := k[r.String()]; ok {
		return authn.FromConfig(a), nil
	}
	if a, ok := k[r.RegistryStr()]; ok {
		return authn.FromConfig(a), nil
	}
	return authn.Anonymous, nil
}

// blobs is a place that has blobs.
type blobs map[digest.Digest][]byte

func (b blobs) Fetch(_ context.Context, desc content.Descriptor) (io.ReadCloser, error) {
	if data, ok := b[desc.Digest]; ok {
		return io.NopCloser(bytes.NewReader(data)), nil
	}
	return nil, fmt.Errorf("blob %s: %w", desc.Digest, fs.ErrNotExist)
}

func (b blobs) add(mediaType string, data []byte) content.Descriptor {
	d := digest.FromBytes(data)
	b[d] = data
	return content.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}
}

func (b blobs) addJSON(mediaType string, v any) content.Descriptor {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b.add(mediaType, data)
}

// image makes an image; its layers are what layers has, their diffIDs made up.
func (b blobs) image(p platforms.Platform, layers ...string) content.Descriptor {
	return b.typedImage(ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig, ocispec.MediaTypeImageLayerGzip, p, layers...)
}

func (b blobs) typedImage(manifestType, configType, layerType string, p platforms.Platform, layers ...string) content.Descriptor {
	img := ocispec.Image{Platform: p, RootFS: ocispec.RootFS{Type: "layers"}}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: manifestType}
	for _, l := range layers {
		m.Layers = append(m.Layers, b.add(layerType, []byte(l)))
		img.RootFS.DiffIDs = append(img.RootFS.DiffIDs, digest.FromString("unpacked "+l))
	}
	m.Config = b.addJSON(configType, img)
	d := b.addJSON(manifestType, m)
	d.Platform = &p
	return d
}

func (b blobs) index(mediaType string, manifests ...content.Descriptor) content.Descriptor {
	return b.addJSON(mediaType, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: mediaType, Manifests: manifests,
	})
}

// push pushes with a client of its own.
func push(t *testing.T, b blobs, root content.Descriptor, refs ...string) {
	t.Helper()
	if err := newClient(t, registry.Options{}).Push(t.Context(), refs, root, b, registry.PushOptions{}); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, c *registry.Client, desc content.Descriptor) string {
	t.Helper()
	r, err := c.Fetch(t.Context(), desc)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func openStore(t *testing.T) *content.Store {
	t.Helper()
	s, err := content.Open(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// count returns how many of the requests begin with prefix.
func count(requests []string, prefix string) int {
	n := 0
	for _, r := range requests {
		if strings.HasPrefix(r, prefix) {
			n++
		}
	}
	return n
}

func contains(s string, parts ...string) bool {
	return !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(s, p) })
}
