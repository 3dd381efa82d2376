package export_test

import (
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/olareg/olareg"
	"github.com/olareg/olareg/config"

	"github.com/slipway-build/slipway/engine/content"
	"github.com/slipway-build/slipway/engine/export"
	"github.com/slipway-build/slipway/engine/registry"
)

type noCredentials struct{}

func (noCredentials) Resolve(authn.Resource) (authn.Authenticator, error) {
	return authn.Anonymous, nil
}

func TestRegistry(t *testing.T) {
	conf := config.Config{Storage: config.ConfigStorage{StoreType: config.StoreMem}}
	conf.SetDefaults()
	handler := olareg.New(conf)
	t.Cleanup(func() { _ = handler.Close() })
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	host := strings.TrimPrefix(server.URL, "http://")
	client, err := registry.New(registry.Options{Keychain: noCredentials{}})
	if err != nil {
		t.Fatal(err)
	}
	a := artifact(t, amd64, arm)
	var told atomic.Int64
	deps := export.Deps{Registry: client, Names: []string{host + "/app:1", host + "/app:2"}, Progress: func(d content.Descriptor, done int64) {
		if done == d.Size {
			told.Add(1)
		}
	}}
	desc, err := run(t, "registry", nil, deps, a)
	if err != nil || desc.Digest != a.Root.Digest {
		t.Fatalf("%v, %v", desc, err)
	}
	if told.Load() != 5 { // 2 configs, 3 layers
		t.Errorf("progress ended %d times, want 5", told.Load())
	}
	for _, ref := range []string{":1", ":2", "@" + a.Root.Digest.String()} {
		if img, err := client.Resolve(t.Context(), host+"/app"+ref, arm); err != nil || img.Manifest.Digest != a.Images[1].Manifest.Digest {
			t.Errorf("%s is %s, %v", ref, img.Manifest.Digest, err)
		}
	}
	attrs := map[string]string{"name": host + "/other", "push": "true", "push-by-digest": "true", "name-canonical": "true"}
	if _, err := run(t, "image", attrs, deps, a); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Resolve(t.Context(), host+"/other:latest", arm); err == nil {
		t.Error("push-by-digest pushed a tag")
	}
	if _, err := client.Resolve(t.Context(), host+"/other@"+a.Root.Digest.String(), arm); err != nil {
		t.Error(err)
	}
}
