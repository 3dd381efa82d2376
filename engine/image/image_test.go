package image_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/slipway-build/slipway/engine/content"
	"github.com/slipway-build/slipway/engine/dockerfile"
	"github.com/slipway-build/slipway/engine/export"
	"github.com/slipway-build/slipway/engine/image"
	"github.com/slipway-build/slipway/engine/tree"
	"github.com/slipway-build/slipway/platforms"
)

var (
	baseTime = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	firstRun = time.Date(2026, 11, 23, 7, 36, 47, 883802626, time.UTC)
	lastRun  = firstRun.Add(time.Second)
	amd64    = platforms.Platform{OS: "linux", Architecture: "amd64"}
	arm      = platforms.Platform{OS: "linux", Architecture: "arm", Variant: "v7"}
)

func store(t *testing.T) *content.Store {
	t.Helper()
	s, err := content.Open(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// layer makes a layer that was packed; a zero time is that of a base image.
func layer(name, mediaType string, created time.Time) tree.Layer {
	return tree.Layer{
		ID: "x", DiffID: digest.FromString("tar " + name), Created: created,
		Blobs: []content.Descriptor{{
			MediaType: mediaType, Digest: digest.FromString(name), Size: int64(len(name)),
			Annotations: map[string]string{content.SourceAnnotation: "r.example/base"},
		}},
	}
}

// planned is FROM a base of one layer, RUN, ENV, RUN, CMD.
func planned(p platforms.Platform) (dockerfile.Image, tree.Tree) {
	img := dockerfile.Image{Platform: p, BaseHistory: 1}
	img.Config = dockerfile.Config{
		Image: ocispec.Image{
			Author: "me", Platform: p, RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{"sha256:stale"}},
			History: []ocispec.History{
				{Created: &baseTime, CreatedBy: "mmdebstrap"},
				{CreatedBy: "RUN /bin/sh -c a && b # buildkit", Comment: "buildkit.dockerfile.v0"},
				{CreatedBy: "ENV A=1", Comment: "buildkit.dockerfile.v0", EmptyLayer: true},
				{CreatedBy: "RUN /bin/sh -c c # buildkit", Comment: "buildkit.dockerfile.v0"},
				{CreatedBy: `CMD ["x"]`, Comment: "buildkit.dockerfile.v0", EmptyLayer: true},
			},
		},
		Config: dockerspec.DockerOCIImageConfig{
			ImageConfig:             ocispec.ImageConfig{Env: []string{"PATH=/bin", "A=1"}, Cmd: []string{"x"}},
			DockerOCIImageConfigExt: dockerspec.DockerOCIImageConfigExt{Shell: []string{"/bin/sh", "-c"}},
		},
	}
	return img, tree.Tree{Layers: []tree.Layer{
		layer("base", "application/vnd.docker.image.rootfs.diff.tar.gzip", time.Time{}),
		layer("first", ocispec.MediaTypeImageLayerGzip, firstRun),
		layer("last", ocispec.MediaTypeImageLayerZstd, lastRun.In(time.FixedZone("", 7200))),
	}}
}

func assemble(t *testing.T, s *content.Store, opts image.Options, ps ...platforms.Platform) export.Artifact {
	t.Helper()
	var plan dockerfile.Plan
	var trees []tree.Tree
	for _, p := range ps {
		img, tr := planned(p)
		plan.Images, trees = append(plan.Images, img), append(trees, tr)
	}
	a, err := image.Assemble(t.Context(), s, plan, trees, opts)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func get(t *testing.T, s *content.Store, d content.Descriptor) string {
	t.Helper()
	b, err := s.Get(t.Context(), d, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Written out by hand from BuildKit's own output for such a Dockerfile.
func TestAssemble_ConfigIsBuildKits(t *testing.T) {
	s := store(t)
	a := assemble(t, s, image.Options{}, amd64)
	want := `{"architecture":"amd64","author":"me",` +
		`"config":{"Env":["PATH=/bin","A=1"],"Cmd":["x"],"Shell":["/bin/sh","-c"]},` +
		`"created":"2026-11-23T07:36:48.883802626Z",` +
		`"history":[{"created":"2026-01-01T00:00:00Z","created_by":"mmdebstrap"},` +
		`{"created":"2026-11-23T07:36:47.883802626Z","created_by":"RUN /bin/sh -c a \u0026\u0026 b # buildkit","comment":"buildkit.dockerfile.v0"},` +
		`{"created":"2026-11-23T07:36:48.883802626Z","created_by":"ENV A=1","comment":"buildkit.dockerfile.v0","empty_layer":true},` +
		`{"created":"2026-11-23T07:36:48.883802626Z","created_by":"RUN /bin/sh -c c # buildkit","comment":"buildkit.dockerfile.v0"},` +
		`{"created":"2026-11-23T07:36:48.883802626Z","created_by":"CMD [\"x\"]","comment":"buildkit.dockerfile.v0","empty_layer":true}],` +
		`"os":"linux",` +
		`"rootfs":{"type":"layers","diff_ids":["` + digest.FromString("tar base").String() + `","` + digest.FromString("tar first").String() + `","` + digest.FromString("tar last").String() + `"]}}`
	if diff := cmp.Diff(want, get(t, s, a.Images[0].Config)); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
}

func TestAssemble_ManifestIsBuildKits(t *testing.T) {
	s := store(t)
	a := assemble(t, s, image.Options{}, amd64)
	var m ocispec.Manifest
	raw := get(t, s, a.Root)
	if err := json.Unmarshal([]byte(raw), &m); err != nil {
		t.Fatal(err)
	}
	want := `{
  "schemaVersion": 2,
  "mediaType": "application/vnd.oci.image.manifest.v1+json",
  "config": {
    "mediaType": "application/vnd.oci.image.config.v1+json",
    "digest": "` + a.Images[0].Config.Digest.String() + `",
    "size": ` + size(a.Images[0].Config) + `
  },
  "layers": [
    {
      "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
      "digest": "` + digest.FromString("base").String() + `",
      "size": 4
    },
    {
      "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
      "digest": "` + digest.FromString("first").String() + `",
      "size": 5
    },
    {
      "mediaType": "application/vnd.oci.image.layer.v1.tar+zstd",
      "digest": "` + digest.FromString("last").String() + `",
      "size": 4
    }
  ]
}`
	if diff := cmp.Diff(want, raw); diff != "" {
		t.Errorf("manifest (-want +got):\n%s", diff)
	}
	if a.Root.Digest != a.Images[0].Manifest.Digest || a.Root.Platform == nil || a.Root.Platform.Architecture != "amd64" {
		t.Errorf("root is %+v", a.Root)
	}
	if src := a.Images[0].Layers[0].Annotations[content.SourceAnnotation]; src != "r.example/base" {
		t.Errorf("the layer's source is %q", src)
	}
}

func size(d content.Descriptor) string {
	b, _ := json.Marshal(d.Size)
	return string(b)
}

func TestAssemble_Index(t *testing.T) {
	s := store(t)
	a := assemble(t, s, image.Options{}, amd64, arm)
	var index ocispec.Index
	if err := json.Unmarshal([]byte(get(t, s, a.Root)), &index); err != nil {
		t.Fatal(err)
	}
	if a.Root.MediaType != ocispec.MediaTypeImageIndex || index.MediaType != ocispec.MediaTypeImageIndex || index.SchemaVersion != 2 {
		t.Errorf("index is %+v of %s", index, a.Root.MediaType)
	}
	for i, want := range []string{"linux/amd64", "linux/arm/v7"} {
		m := index.Manifests[i]
		if m.Platform == nil || platforms.Format(*m.Platform) != want || m.Digest != a.Images[i].Manifest.Digest || len(m.Annotations) != 0 {
			t.Errorf("manifest %d is %+v, want one for %s", i, m, want)
		}
	}
	one := assemble(t, s, image.Options{Index: true}, amd64)
	if one.Root.MediaType != ocispec.MediaTypeImageIndex {
		t.Errorf("asked for an index of one: %s", one.Root.MediaType)
	}
}

func TestAssemble_MediaTypesAreNeverMixed(t *testing.T) {
	s := store(t)
	for _, docker := range []bool{false, true} {
		a := assemble(t, s, image.Options{Format: export.Format{DockerTypes: docker}}, amd64, arm)
		all := get(t, s, a.Root)
		for _, img := range a.Images {
			all += get(t, s, img.Manifest)
			for _, l := range img.Layers {
				all += l.MediaType
			}
		}
		other := map[bool]string{true: "vnd.oci", false: "vnd.docker"}[docker]
		if strings.Contains(all, other) {
			t.Errorf("docker=%t: has a media type with %s:\n%s", docker, other, all)
		}
	}
}

// What is built again, with layers from records, has the same digest; the time
// of the rebuild is nowhere.
func TestInvariant09_RebuildHasTheSameDigest(t *testing.T) {
	first := assemble(t, store(t), image.Options{}, amd64, arm)
	second := assemble(t, store(t), image.Options{}, amd64, arm)
	if first.Root.Digest != second.Root.Digest {
		t.Errorf("%s, then %s", first.Root.Digest, second.Root.Digest)
	}
}

func TestInvariant09_SourceDateEpoch(t *testing.T) {
	s := store(t)
	epoch := time.Date(2026, 5, 5, 0, 0, 0, 0, time.FixedZone("", -3600))
	a := assemble(t, s, image.Options{Epoch: &epoch}, amd64)
	var config ocispec.Image
	raw := get(t, s, a.Images[0].Config)
	if err := json.Unmarshal([]byte(raw), &config); err != nil {
		t.Fatal(err)
	}
	if !config.Created.Equal(epoch) || strings.Contains(raw, "-01:00") {
		t.Errorf("created is %v, want %v in UTC", config.Created, epoch)
	}
	for i, h := range config.History {
		want := epoch
		if i == 0 {
			want = baseTime // it was so before us
		}
		if !h.Created.Equal(want) {
			t.Errorf("history %d is of %v, want %v", i, h.Created, want)
		}
	}
	late := lastRun.Add(time.Hour)
	if got, want := assemble(t, s, image.Options{Epoch: &late}, amd64).Root.Digest, assemble(t, s, image.Options{}, amd64).Root.Digest; got != want {
		t.Errorf("an epoch later than everything changed the image")
	}
	early := time.Unix(0, 0)
	attr := assemble(t, s, image.Options{Epoch: &early, Format: export.Format{Epoch: &epoch}}, amd64)
	if attr.Root.Digest != a.Root.Digest {
		t.Errorf("the output's epoch does not go before the build's")
	}
}

func history(entries ...string) []ocispec.History {
	var list []ocispec.History
	for _, e := range entries {
		h := ocispec.History{CreatedBy: e, EmptyLayer: strings.HasPrefix(e, "-")}
		if strings.HasSuffix(e, "@base") {
			h.Created = &baseTime
		}
		list = append(list, h)
	}
	return list
}

func TestAssemble_HistoriesThatDoNotFit(t *testing.T) {
	none := time.Time{}
	tests := []struct {
		name    string
		history []ocispec.History
		layers  []time.Time
		want    []string // created_by, empty?, hour:minute
	}{
		{"fits", history("a@base", "b"), []time.Time{none, firstRun}, []string{"a@base false 00:00:00", "b false 07:36:47"}},
		{"base without history", history("b"), []time.Time{none, firstRun}, []string{"b false 07:36:47", "layer without history false 07:36:47"}},
		{"more entries than layers", history("a@base", "b@base", "c"), []time.Time{none}, []string{"a@base false 00:00:00", "b@base true 00:00:00", "c true 00:00:00"}},
		{"metadata only", history("a@base", "-env", "-cmd"), []time.Time{none}, []string{"a@base false 00:00:00", "-env true 00:00:00", "-cmd true 00:00:00"}},
		{"metadata first", history("-env", "run"), []time.Time{firstRun}, []string{"-env true 07:36:47", "run false 07:36:47"}},
		{"between", history("run", "-env", "run", "-cmd"), []time.Time{firstRun, lastRun}, []string{"run false 07:36:47", "-env true 07:36:48", "run false 07:36:48", "-cmd true 07:36:48"}},
		{"no times at all", history("-env"), nil, []string{"-env true "}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			img, _ := planned(amd64)
			img.Config.History = test.history
			var tr tree.Tree
			for i, c := range test.layers {
				tr.Layers = append(tr.Layers, layer(string(rune('a'+i)), ocispec.MediaTypeImageLayerGzip, c))
			}
			s := store(t)
			a, err := image.Assemble(t.Context(), s, dockerfile.Plan{Images: []dockerfile.Image{img}}, []tree.Tree{tr}, image.Options{})
			if err != nil {
				t.Fatal(err)
			}
			var config ocispec.Image
			if err := json.Unmarshal([]byte(get(t, s, a.Images[0].Config)), &config); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, h := range config.History {
				at := ""
				if h.Created != nil {
					at = h.Created.Format(time.TimeOnly)
				}
				got = append(got, h.CreatedBy+" "+map[bool]string{true: "true", false: "false"}[h.EmptyLayer]+" "+at)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("history (-want +got):\n%s", diff)
			}
			if len(config.RootFS.DiffIDs) != len(test.layers) {
				t.Errorf("%d diffIDs, want %d", len(config.RootFS.DiffIDs), len(test.layers))
			}
		})
	}
}

func TestAssemble_Annotations(t *testing.T) {
	s := store(t)
	f := export.Format{Annotations: []export.Annotation{
		{On: export.OnManifest, Key: "all", Value: "1"},
		{On: export.OnManifest, Platform: &arm, Key: "all", Value: "2"},
		{On: export.OnIndex, Key: "index", Value: "3"},
		{On: export.OnManifestDescriptor, Platform: &amd64, Key: "descriptor", Value: "4"},
	}}
	a := assemble(t, s, image.Options{Format: f}, amd64, arm)
	for i, want := range []string{"1", "2"} {
		var m ocispec.Manifest
		if err := json.Unmarshal([]byte(get(t, s, a.Images[i].Manifest)), &m); err != nil {
			t.Fatal(err)
		}
		if m.Annotations["all"] != want {
			t.Errorf("manifest %d has %v, want %s", i, m.Annotations, want)
		}
	}
	var index ocispec.Index
	if err := json.Unmarshal([]byte(get(t, s, a.Root)), &index); err != nil {
		t.Fatal(err)
	}
	if index.Annotations["index"] != "3" || index.Manifests[0].Annotations["descriptor"] != "4" || index.Manifests[1].Annotations != nil {
		t.Errorf("index is %+v", index)
	}
}

func TestAssemble_Refuses(t *testing.T) {
	one := func(change func(*dockerfile.Image, *tree.Tree)) (dockerfile.Plan, []tree.Tree) {
		img, tr := planned(amd64)
		change(&img, &tr)
		return dockerfile.Plan{Images: []dockerfile.Image{img}}, []tree.Tree{tr}
	}
	none := func(*dockerfile.Image, *tree.Tree) {}
	tests := []struct {
		name, want string
		change     func(*dockerfile.Image, *tree.Tree)
		format     export.Format
	}{
		{"layer without blob", "layer 1 (x) has not been packed", func(_ *dockerfile.Image, tr *tree.Tree) { tr.Layers[1].Blobs = nil }, export.Format{}},
		{"layer without diffID", "layer 2 (x) has not been packed", func(_ *dockerfile.Image, tr *tree.Tree) { tr.Layers[2].DiffID = "" }, export.Format{}},
		{"unknown layer", `media type "application/json"`, func(_ *dockerfile.Image, tr *tree.Tree) { tr.Layers[0].Blobs[0].MediaType = "application/json" }, export.Format{}},
		{"no platform", "no os and architecture", func(img *dockerfile.Image, _ *tree.Tree) { img.Config.OS = "" }, export.Format{}},
		{"index annotation", "there is no index", none, export.Format{Annotations: []export.Annotation{{On: export.OnIndex, Key: "k"}}}},
		{"other platform", "no platform linux/arm/v7", none, export.Format{Annotations: []export.Annotation{{On: export.OnManifest, Platform: &arm, Key: "k"}}}},
		{"descriptor of Docker's", "oci-mediatypes=false", none, export.Format{DockerTypes: true, Annotations: []export.Annotation{{On: export.OnManifestDescriptor, Key: "k"}}}},
	}
	for _, test := range tests {
		plan, trees := one(test.change)
		_, err := image.Assemble(t.Context(), store(t), plan, trees, image.Options{Format: test.format})
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want an error with %q", test.name, err, test.want)
		}
	}
	plan, trees := one(none)
	if _, err := image.Assemble(t.Context(), store(t), plan, append(trees, trees...), image.Options{}); err == nil {
		t.Error("accepted more trees than images")
	}
}

func TestMetadata(t *testing.T) {
	a := assemble(t, store(t), image.Options{}, amd64)
	b, err := json.Marshal(image.Metadata(a, []string{"docker.io/library/app:1", "r.example/app:2"}))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"containerimage.config.digest":"` + a.Images[0].Config.Digest.String() + `",` +
		`"containerimage.descriptor":{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"` + a.Root.Digest.String() + `","size":` + size(a.Root) +
		`,"platform":{"architecture":"amd64","os":"linux"}},` +
		`"containerimage.digest":"` + a.Root.Digest.String() + `","image.name":"docker.io/library/app:1,r.example/app:2"}`
	if diff := cmp.Diff(want, string(b)); diff != "" {
		t.Errorf("metadata (-want +got):\n%s", diff)
	}
	two := image.Metadata(assemble(t, store(t), image.Options{}, amd64, arm), nil)
	if _, ok := two["containerimage.config.digest"]; ok || two["image.name"] != nil {
		t.Errorf("metadata of an index: %v", two)
	}
}
