package registry_test

import (
	"errors"
	"io/fs"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/slipway-build/slipway/engine/content"
	"github.com/slipway-build/slipway/engine/registry"
	"github.com/slipway-build/slipway/platforms"
)

func linux(arch string) platforms.Platform {
	return platforms.Platform{OS: "linux", Architecture: arch}
}

func TestResolve(t *testing.T) {
	host, _ := newRegistry(t)
	b := blobs{}
	amd := b.image(linux("amd64"), "amd")
	arm := b.image(linux("arm64"), "arm")
	docker := b.typedImage(dockerManifest, dockerConfig, dockerLayer, linux("amd64"), "one", "two")
	bare := b.image(linux("s390x"), "s390x")
	bare.Platform = nil
	attestation := b.image(platforms.Platform{OS: "unknown", Architecture: "unknown"}, "statement")
	attestation.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest"}
	inner := b.index(ocispec.MediaTypeImageIndex, arm)
	names := map[string]content.Descriptor{
		"single": amd,
		"index":  b.index(ocispec.MediaTypeImageIndex, amd, arm, attestation),
		"list":   b.index(dockerList, docker, arm),
		"nested": b.index(ocispec.MediaTypeImageIndex, amd, inner),
		"bare":   b.index(ocispec.MediaTypeImageIndex, amd, bare),
	}
	for tag, root := range names {
		push(t, b, root, host+"/lib/app:"+tag)
	}
	tests := []struct {
		ref      string
		want     string // platform
		root     string // tag
		manifest digest.Digest
	}{
		{":single", "linux/amd64", "single", amd.Digest},
		{":single", "linux/arm64", "single", amd.Digest}, // for the caller to warn of
		{":index", "linux/amd64", "index", amd.Digest},
		{":index", "linux/arm64", "index", arm.Digest},
		{":list", "linux/amd64", "list", docker.Digest},
		{":nested", "linux/arm64", "nested", arm.Digest},
		{":bare", "linux/s390x", "bare", bare.Digest},
		{"@" + names["index"].Digest.String(), "linux/arm64", "index", arm.Digest},
		{":whatever@" + names["index"].Digest.String(), "linux/arm64", "index", arm.Digest},
	}
	for _, test := range tests {
		p, err := platforms.Parse(test.want)
		if err != nil {
			t.Fatal(err)
		}
		img, err := newClient(t, registry.Options{}).Resolve(t.Context(), host+"/lib/app"+test.ref, p)
		if err != nil {
			t.Errorf("%s for %s: %v", test.ref, test.want, err)
			continue
		}
		if img.Manifest.Digest != test.manifest {
			t.Errorf("%s for %s: got manifest %s, want %s", test.ref, test.want, img.Manifest.Digest, test.manifest)
		}
		if img.Digest != names[test.root].Digest {
			t.Errorf("%s: got digest %s, want that of %s", test.ref, img.Digest, test.root)
		}
		tag, _, _ := strings.Cut(test.ref, "@")
		if want := host + "/lib/app" + tag + "@" + img.Digest.String(); img.Ref != want {
			t.Errorf("%s: Ref is %q, want %q", test.ref, img.Ref, want)
		}
		if len(img.Layers) == 0 || img.Layers[0].Blob.Annotations[content.SourceAnnotation] != host+"/lib/app" {
			t.Errorf("%s: layers are %v", test.ref, img.Layers)
		}
		if digest.FromBytes(img.RawConfig) != img.Config.Digest || img.Config.Annotations[content.SourceAnnotation] == "" {
			t.Errorf("%s: config is %v", test.ref, img.Config)
		}
	}

	img, err := newClient(t, registry.Options{}).Resolve(t.Context(), host+"/lib/app:single", linux("arm64"))
	if err != nil || platforms.Format(img.Platform) != "linux/amd64" {
		t.Errorf("the platform of an image for another one is %s (%v), want its own", platforms.Format(img.Platform), err)
	}
}

func TestResolve_NotFound(t *testing.T) {
	host, _ := newRegistry(t)
	b := blobs{}
	push(t, b, b.index(ocispec.MediaTypeImageIndex, b.image(linux("amd64"), "a"), b.image(linux("arm64"), "b")), host+"/app:1")
	for ref, want := range map[string]string{
		"/app:2":    "not found",
		"/nosuch:1": "not found",
		"/app@" + digest.FromString("nothing").String(): "not found",
		"/app:1": "no image for linux/riscv64; it has linux/amd64, linux/arm64",
	} {
		_, err := newClient(t, registry.Options{}).Resolve(t.Context(), host+ref, linux("riscv64"))
		if !errors.Is(err, fs.ErrNotExist) || !contains(err.Error(), host+ref, want) {
			t.Errorf("%s: %v, want an fs.ErrNotExist with %q that names it", ref, err, want)
		}
	}
}

func TestResolve_AsksOnceForWhatTheStoreHas(t *testing.T) {
	host, rec := newRegistry(t)
	b := blobs{}
	root := b.index(ocispec.MediaTypeImageIndex, b.image(amd64, "layer"))
	push(t, b, root, host+"/app:1")
	store := openStore(t)
	first, err := newClient(t, registry.Options{Store: store}).Resolve(t.Context(), host+"/app:1", amd64)
	if err != nil {
		t.Fatal(err)
	}
	rec.take()
	second, err := newClient(t, registry.Options{Store: store}).Resolve(t.Context(), host+"/app:1", amd64)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(first, second); diff != "" {
		t.Errorf("resolved differently (-first +second):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"HEAD /v2/app/manifests/1"}, rec.take()); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
	if _, err := newClient(t, registry.Options{Store: store}).Resolve(t.Context(), first.Ref, amd64); err != nil {
		t.Fatal(err)
	}
	if got := rec.take(); len(got) > 0 {
		t.Errorf("a digest that is in the store was asked for: %v", got)
	}
}

// registryOf answers with documents by path; what is missing is a 404.
func registryOf(documents map[string]document) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		d, ok := documents[strings.TrimPrefix(req.URL.Path, "/v2/app/")]
		if !ok {
			http.NotFound(w, req)
			return
		}
		if d.mediaType != "" {
			w.Header().Set("Content-Type", d.mediaType)
		}
		if !d.noDigest {
			w.Header().Set("Docker-Content-Digest", string(digest.FromBytes(d.body)))
		}
		if req.Method == http.MethodHead && d.noHead {
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
		_, _ = w.Write(d.body)
	})
}

type document struct {
	mediaType        string
	body             []byte
	noDigest, noHead bool
}

func TestResolve_WithoutHead(t *testing.T) {
	b := blobs{}
	m := b.image(amd64, "layer")
	var config content.Descriptor
	docs := map[string]document{}
	for d, data := range b {
		docs["blobs/"+d.String()] = document{body: data}
	}
	_ = config
	for _, doc := range []document{{noHead: true}, {noDigest: true}} {
		doc.mediaType, doc.body = m.MediaType, b[m.Digest]
		docs["manifests/1"] = doc
		docs["manifests/"+m.Digest.String()] = doc
		host, _ := serve(t, registryOf(docs))
		img, err := newClient(t, registry.Options{Store: openStore(t)}).Resolve(t.Context(), host+"/app:1", amd64)
		if err != nil || img.Digest != m.Digest {
			t.Errorf("got %s, %v, want %s", img.Digest, err, m.Digest)
		}
	}
}

func TestResolve_RefusesWhatIsNotAnImage(t *testing.T) {
	good := blobs{}
	m := good.image(amd64, "layer")
	manifest := func(change func(*ocispec.Manifest)) func(blobs) content.Descriptor {
		return func(b blobs) content.Descriptor {
			config := b.addJSON(ocispec.MediaTypeImageConfig, ocispec.Image{
				Platform: amd64, RootFS: ocispec.RootFS{DiffIDs: []digest.Digest{digest.FromString("x")}},
			})
			m := ocispec.Manifest{
				Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: config,
				Layers: []content.Descriptor{{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.FromString("l"), Size: 1}},
			}
			change(&m)
			return b.addJSON(m.MediaType, m)
		}
	}
	tests := []struct {
		name, want string
		make       func(blobs) content.Descriptor
	}{
		{"schema 1", "schema 1, which is not supported", func(b blobs) content.Descriptor {
			return b.add("application/vnd.docker.distribution.manifest.v1+prettyjws", []byte(`{"schemaVersion":1,"name":"app","fsLayers":[]}`))
		}},
		{"no JSON", "manifest: invalid character", func(b blobs) content.Descriptor { return b.add(m.MediaType, []byte("<html>")) }},
		{"something else", "neither manifest nor index", func(b blobs) content.Descriptor { return b.add("application/json", []byte(`{"schemaVersion":2}`)) }},
		{"ambiguous", "both manifest and index", func(b blobs) content.Descriptor {
			return b.add(m.MediaType, []byte(`{"schemaVersion":2,"config":{},"layers":[],"manifests":[]}`))
		}},
		{"index called manifest", "is called", func(b blobs) content.Descriptor {
			return b.add(m.MediaType, []byte(`{"schemaVersion":2,"manifests":[]}`))
		}},
		{"empty index", "its index is empty", func(b blobs) content.Descriptor { return b.index(ocispec.MediaTypeImageIndex) }},
		{"chart", `config of type "application/vnd.cncf.helm.config.v1+json"`, manifest(func(m *ocispec.Manifest) {
			m.Config.MediaType = "application/vnd.cncf.helm.config.v1+json"
		})},
		{"more layers than diffIDs", "the config names 1 layers, the manifest 2", manifest(func(m *ocispec.Manifest) {
			m.Layers = append(m.Layers, m.Layers[0])
		})},
		{"foreign layer", "foreign layer", manifest(func(m *ocispec.Manifest) { m.Layers[0].URLs = []string{"https://elsewhere.example/l"} })},
		{"Windows' layer", "foreign layer", manifest(func(m *ocispec.Manifest) {
			m.Layers[0].MediaType = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
		})},
		{"unknown layer", `media type "application/encrypted"`, manifest(func(m *ocispec.Manifest) { m.Layers[0].MediaType = "application/encrypted" })},
		{"layer without a size", "has the size 0", manifest(func(m *ocispec.Manifest) { m.Layers[0].Size = 0 })},
		{"bad digest", `digest "../../etc"`, manifest(func(m *ocispec.Manifest) { m.Layers[0].Digest = "../../etc" })},
		{"huge config", "more than the 8388608 allowed", manifest(func(m *ocispec.Manifest) { m.Config.Size = 9 << 20 })},
		{"huge manifest", "larger than 4194304 bytes", func(b blobs) content.Descriptor {
			return b.add(m.MediaType, append([]byte(`{"a":"`+strings.Repeat("x", 5<<20)), '"', '}'))
		}},
		{"nested for ever", "nested too deeply", func(b blobs) content.Descriptor {
			d := b.image(amd64, "x")
			for range 9 {
				d = b.index(ocispec.MediaTypeImageIndex, d)
			}
			return d
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			b := blobs{}
			root := test.make(b)
			docs := map[string]document{"manifests/1": {mediaType: root.MediaType, body: b[root.Digest], noDigest: len(b[root.Digest]) > 4<<20}}
			for d, data := range b {
				docs["manifests/"+d.String()] = document{body: data, mediaType: root.MediaType}
				docs["blobs/"+d.String()] = document{body: data}
			}
			host, _ := serve(t, registryOf(docs))
			_, err := newClient(t, registry.Options{}).Resolve(t.Context(), host+"/app:1", amd64)
			if err == nil || !contains(err.Error(), test.want, host+"/app:1") {
				t.Errorf("got %v, want an error with %q", err, test.want)
			}
		})
	}
}

func TestResolve_RefusesContentOfAnotherDigest(t *testing.T) {
	b := blobs{}
	m := b.image(amd64, "layer")
	store := openStore(t)
	for _, which := range []string{"manifests/", "blobs/"} {
		docs := map[string]document{"manifests/1": {mediaType: m.MediaType, body: b[m.Digest]}}
		for d, data := range b {
			for _, kind := range []string{"manifests/", "blobs/"} {
				body := data
				if kind == which {
					body = append([]byte(" "), data...)
				}
				docs[kind+d.String()] = document{body: body, mediaType: m.MediaType}
			}
		}
		host, _ := serve(t, registryOf(docs))
		_, err := newClient(t, registry.Options{Store: store}).Resolve(t.Context(), host+"/app:1", amd64)
		if err == nil || !contains(err.Error(), "has the digest") {
			t.Errorf("%s of another digest: got %v", which, err)
		}
		if which == "manifests/" {
			if _, err := store.Stat(m.Digest); err == nil {
				t.Error("the store has what did not match")
			}
		}
	}
}

func TestResolve_Mirrors(t *testing.T) {
	b := blobs{}
	m := b.image(amd64, "layer")
	mirror, rec := newRegistry(t)
	push(t, b, m, mirror+"/hub/library/debian:12")
	rec.take()
	empty, emptyRec := newRegistry(t)
	broken, brokenRec := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }))
	var log []string
	c := newClient(t, registry.Options{
		Mirrors: map[string][]string{"index.docker.io": {"http://" + empty, broken, "http://" + mirror + "/v2/hub"}},
		Log:     func(s string) { log = append(log, s) },
	})
	img, err := c.Resolve(t.Context(), "debian:12", amd64)
	if err != nil {
		t.Fatal(err)
	}
	if img.Ref != "docker.io/library/debian:12@"+m.Digest.String() {
		t.Errorf("Ref is %q, want the name of the registry, not of its mirror", img.Ref)
	}
	if got := read(t, c, img.Layers[0].Blob); got != "layer" {
		t.Errorf("read %q", got)
	}
	if len(emptyRec.take()) == 0 || len(brokenRec.take()) == 0 || !contains(strings.Join(log, "\n"), empty, broken) {
		t.Errorf("mirrors were not asked in order; log: %q", log)
	}
	if _, err := registry.New(registry.Options{Mirrors: map[string][]string{"docker.io": {"ftp://x"}}}); err == nil {
		t.Error("a mirror with the scheme ftp was accepted")
	}
	if _, err := registry.New(registry.Options{Mirrors: map[string][]string{"docker.io": {"https://me:geheim@x.example"}}}); err == nil || strings.Contains(err.Error(), "geheim") {
		t.Errorf("a mirror with a password: %v", err)
	}
}

// A manifest that is accepted has nothing that later code could trip over.
func FuzzResolve(f *testing.F) {
	b := blobs{}
	for _, d := range []content.Descriptor{
		b.image(amd64, "a", "b"), b.index(ocispec.MediaTypeImageIndex, b.image(amd64, "c")), b.typedImage(dockerManifest, dockerConfig, dockerLayer, amd64, "d"),
	} {
		f.Add(b[d.Digest], []byte(`{"os":"linux","architecture":"amd64","rootfs":{"diff_ids":["`+digest.FromString("x").String()+`"]}}`))
	}
	f.Fuzz(func(t *testing.T, manifest, config []byte) {
		rt := roundTripper(func(req *http.Request) *http.Response {
			w := newResponse()
			body := manifest
			if strings.Contains(req.URL.Path, "/blobs/") {
				body = config
			}
			w.Header().Set("Docker-Content-Digest", digest.FromBytes(manifest).String())
			_, _ = w.Write(body)
			return w.Result()
		})
		img, err := newClient(t, registry.Options{Transport: rt}).Resolve(t.Context(), "127.0.0.1:1/app:1", amd64)
		if err != nil {
			return
		}
		for _, l := range img.Layers {
			if l.DiffID.Validate() != nil || l.Blob.Digest.Validate() != nil || l.Blob.Size <= 0 || len(l.Blob.URLs) > 0 {
				t.Fatalf("accepted the layer %v", l)
			}
		}
		if digest.FromBytes(img.RawConfig) != img.Config.Digest {
			t.Fatal("accepted a config of another digest")
		}
	})
}
