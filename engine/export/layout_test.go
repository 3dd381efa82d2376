package export_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/slipway-build/slipway/engine/export"
)

// untar reads an archive; directories have a slash at the end.
func untar(t *testing.T, r io.Reader) (names []string, files map[string][]byte) {
	t.Helper()
	files = map[string][]byte{}
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return names, files
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Uname != "" || h.ModTime.Unix() != 0 {
			t.Errorf("%s depends on who wrote it, and when: %+v", h.Name, h)
		}
		names = append(names, h.Name)
		if files[h.Name], err = io.ReadAll(tr); err != nil {
			t.Fatal(err)
		}
	}
}

func decode[T any](t *testing.T, b []byte) (v T) {
	t.Helper()
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	return v
}

func TestOCI_Tar(t *testing.T) {
	a := artifact(t, amd64, arm)
	var out buffer
	deps := export.Deps{Names: []string{"app:1", "r.example/app:2"}, File: &out}
	desc, err := run(t, "oci", nil, deps, a)
	if err != nil {
		t.Fatal(err)
	}
	if !out.closed || desc.Digest != a.Root.Digest || desc.Annotations[ocispec.AnnotationCreated] != "2026-03-04T05:06:07Z" {
		t.Errorf("closed: %t; returned %+v", out.closed, desc)
	}
	first := out.String()
	names, files := untar(t, &out.Buffer)
	if want := []string{"blobs/", "blobs/sha256/"}; cmp.Diff(want, names[:2]) != "" {
		t.Errorf("begins with %q", names[:2])
	}
	if want := []string{"index.json", "oci-layout"}; cmp.Diff(want, names[len(names)-2:]) != "" {
		t.Errorf("ends with %q", names[len(names)-2:])
	}
	if got := string(files["oci-layout"]); got != `{"imageLayoutVersion":"1.0.0"}` {
		t.Errorf("oci-layout is %s", got)
	}
	blobs := 0
	for name, b := range files {
		if hex, ok := strings.CutPrefix(name, "blobs/sha256/"); ok && hex != "" {
			blobs++
			if digest.FromBytes(b).Encoded() != hex {
				t.Errorf("%s has other content", name)
			}
		}
	}
	if blobs != 8 { // index, 2 manifests, 2 configs, 3 layers
		t.Errorf("%d blobs, want 8", blobs)
	}
	index := decode[ocispec.Index](t, files["index.json"])
	for i, want := range []map[string]string{
		{"io.containerd.image.name": "docker.io/library/app:1", ocispec.AnnotationRefName: "1", ocispec.AnnotationCreated: "2026-03-04T05:06:07Z"},
		{"io.containerd.image.name": "r.example/app:2", ocispec.AnnotationRefName: "2", ocispec.AnnotationCreated: "2026-03-04T05:06:07Z"},
	} {
		if diff := cmp.Diff(want, index.Manifests[i].Annotations); diff != "" || index.Manifests[i].Digest != a.Root.Digest {
			t.Errorf("entry %d of index.json (-want +got):\n%s", i, diff)
		}
	}
	var again buffer
	deps.File = &again
	if _, err := run(t, "oci", nil, deps, a); err != nil || again.String() != first {
		t.Errorf("written again it is another archive (%v)", err)
	}
}

func TestDocker_Tar(t *testing.T) {
	a := artifact(t, amd64)
	var out buffer
	if _, err := run(t, "docker", map[string]string{"name": "app:1"}, export.Deps{File: &out}, a); err != nil {
		t.Fatal(err)
	}
	_, files := untar(t, &out.Buffer)
	got := decode[[]struct {
		Config           string
		RepoTags, Layers []string
	}](t, files["manifest.json"])
	if len(got) != 1 || got[0].RepoTags[0] != "app:1" || len(got[0].Layers) != 2 {
		t.Fatalf("manifest.json is %s", files["manifest.json"])
	}
	for _, name := range append(got[0].Layers, got[0].Config) {
		if len(files[name]) == 0 {
			t.Errorf("%s is not in the archive", name)
		}
	}
	_, err := run(t, "docker", nil, export.Deps{File: &out}, artifact(t, amd64, arm))
	if err == nil || !strings.Contains(err.Error(), "an image for 2 platforms does not fit into Docker's format; use type=oci") {
		t.Errorf("two platforms: %v", err)
	}
}

func TestOCI_Directory(t *testing.T) {
	dest := filepath.Join(t.TempDir(), "a", "layout")
	one, two := artifact(t, amd64), artifact(t, amd64, arm)
	attrs := map[string]string{"dest": dest, "tar": "false"}
	tagged := func() map[string]digest.Digest {
		b, err := os.ReadFile(filepath.Join(dest, "index.json"))
		if err != nil {
			t.Fatal(err)
		}
		m := map[string]digest.Digest{}
		for _, d := range decode[ocispec.Index](t, b).Manifests {
			m[d.Annotations[ocispec.AnnotationRefName]] = d.Digest
		}
		return m
	}
	for _, step := range []struct {
		name string
		a    export.Artifact
		want map[string]digest.Digest
	}{
		{"app:1", one, map[string]digest.Digest{"1": one.Root.Digest}},
		{"app:2", one, map[string]digest.Digest{"1": one.Root.Digest, "2": one.Root.Digest}},
		{"app:1", two, map[string]digest.Digest{"1": two.Root.Digest, "2": one.Root.Digest}},
		{"", two, map[string]digest.Digest{"1": two.Root.Digest, "2": one.Root.Digest, "latest": two.Root.Digest}},
	} {
		attrs["name"] = step.name
		if _, err := run(t, "oci", attrs, export.Deps{}, step.a); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(step.want, tagged()); diff != "" {
			t.Errorf("after %q (-want +got):\n%s", step.name, diff)
		}
	}
	mustHold(t, dest, "blobs", "index.json", "oci-layout")

	if err := os.WriteFile(filepath.Join(dest, "index.json"), []byte("no JSON"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := run(t, "oci", attrs, export.Deps{}, one); err == nil || !strings.Contains(err.Error(), "index.json") {
		t.Errorf("over what is no layout: %v", err)
	}
}

// What others make of what we write.
func TestExport_SkopeoReadsIt(t *testing.T) {
	skopeo, err := exec.LookPath("skopeo")
	if err != nil {
		t.Skip("skopeo is not installed")
	}
	dir := t.TempDir()
	one, two := artifact(t, amd64), artifact(t, amd64, arm)
	tests := []struct {
		kind, ref string
		attrs     map[string]string
		a         export.Artifact
	}{
		{"oci", "oci-archive:" + dir + "/oci.tar:1", map[string]string{"dest": dir + "/oci.tar"}, one},
		{"oci", "oci-archive:" + dir + "/two.tar:1", map[string]string{"dest": dir + "/two.tar"}, two},
		{"oci", "oci:" + dir + "/layout:1", map[string]string{"dest": dir + "/layout", "tar": "false"}, two},
		{"docker", "docker-archive:" + dir + "/docker.tar:docker.io/library/app:1", map[string]string{"dest": dir + "/docker.tar"}, one},
	}
	for _, test := range tests {
		if _, err := run(t, test.kind, test.attrs, export.Deps{Names: []string{"app:1"}}, test.a); err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), skopeo, "--override-os=linux", "--override-arch=amd64", "inspect", test.ref).CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte(`"Architecture": "amd64"`)) {
			t.Errorf("skopeo inspect %s: %v\n%s", test.ref, err, out)
		}
		to := "dir:" + t.TempDir() // reads all the layers and checks their digests
		out, err = exec.CommandContext(t.Context(), skopeo, "--override-os=linux", "--override-arch=amd64", "--insecure-policy", "copy", test.ref, to).CombinedOutput()
		if err != nil {
			t.Errorf("skopeo copy %s: %v\n%s", test.ref, err, out)
		}
	}
}
