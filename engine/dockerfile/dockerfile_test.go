package dockerfile_test

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/slipway-build/slipway/engine/content"
	"github.com/slipway-build/slipway/engine/diag"
	"github.com/slipway-build/slipway/engine/dockerfile"
	"github.com/slipway-build/slipway/engine/graph"
	"github.com/slipway-build/slipway/platforms"
)

var update = flag.Bool("update", false, "rewrite golden files")

// registry is a Resolver that has every image but those called missing. What
// is special about an image is in its name.
type registry struct{}

func (registry) Image(_ context.Context, ref string, p platforms.Platform) (dockerfile.PinnedImage, error) {
	if strings.Contains(ref, "missing") {
		return dockerfile.PinnedImage{}, fmt.Errorf("no such image: %w", fs.ErrNotExist)
	}
	if strings.Contains(ref, "only-arm64") {
		p = platforms.Platform{OS: "linux", Architecture: "arm64"}
	}
	id := digest.FromString(ref + platforms.Format(p))
	img := dockerfile.PinnedImage{
		Ref:      ref,
		Platform: p,
		Manifest: content.Descriptor{Digest: id},
		Layers:   []graph.ImageLayer{{DiffID: digest.FromString(string(id))}},
	}
	if !strings.Contains(ref, "@") {
		img.Ref += "@" + string(id)
	}
	img.Config.Platform = p
	img.Config.RootFS.Type = "layers"
	img.Config.RootFS.DiffIDs = []digest.Digest{img.Layers[0].DiffID}
	c := &img.Config.Config
	c.Env = []string{"PATH=/usr/local/bin:/usr/bin:/bin"}
	switch name, _, _ := strings.Cut(ref, ":"); name {
	case "bare":
		c.Env, c.WorkingDir = nil, ""
		img.Layers, img.Config.RootFS.DiffIDs = nil, nil
	case "onbuild":
		c.OnBuild = []string{"ARG WHO=world", "COPY --from=tools /bin/x /bin/x", "RUN echo hello $WHO", "ENV DONE=1"}
	case "badtrigger":
		c.OnBuild = []string{"RUNN x"}
	case "full":
		c.Env = append(c.Env, "LANG=C")
		c.WorkingDir, c.User = "/srv", "app:staff"
		c.Cmd, c.Entrypoint = []string{"serve"}, []string{"/entry"}
		c.Labels = map[string]string{"base": "yes"}
		c.Volumes = map[string]struct{}{"/data": {}}
		c.ExposedPorts = map[string]struct{}{"80/tcp": {}}
		c.Shell, c.StopSignal = []string{"/bin/bash", "-c"}, "SIGQUIT"
		img.Config.Author = "someone"
	}
	if img.Layers != nil {
		img.Config.History = []ocispec.History{{CreatedBy: "ADD rootfs.tar /"}, {CreatedBy: `CMD ["sh"]`, EmptyLayer: true}}
	}
	return img, nil
}

// plan plans file with flags in the manner of a command line.
func plan(t testing.TB, file string, args ...string) (dockerfile.Plan, error) {
	t.Helper()
	opts := dockerfile.Options{
		File:     []byte(file),
		Host:     platforms.Platform{OS: "linux", Architecture: "amd64"},
		Args:     map[string]string{},
		Labels:   map[string]string{},
		Resolver: registry{},
	}
	for _, arg := range args {
		name, value, _ := strings.Cut(arg, "=")
		key, keyValue, _ := strings.Cut(value, "=")
		switch name {
		case "--build-arg":
			opts.Args[key] = keyValue
		case "--label":
			opts.Labels[key] = keyValue
		case "--target":
			opts.Target = value
		case "--ignore":
			opts.Ignored = append(opts.Ignored, value)
		case "--no-cache":
			opts.NoCacheAll = true
		case "--no-cache-filter":
			opts.NoCache = strings.Split(value, ",")
		case "--network":
			opts.Network = graph.NetworkMode(value)
		case "--add-host":
			opts.Hosts = append(opts.Hosts, graph.Host{Name: key, IP: keyValue})
		case "--platform":
			for s := range strings.SplitSeq(value, ",") {
				p, err := platforms.Parse(s)
				if err != nil {
					t.Fatal(err)
				}
				opts.Platforms = append(opts.Platforms, p)
			}
		default:
			t.Fatalf("unknown flag %q", arg)
		}
	}
	return dockerfile.New(t.Context(), opts)
}

// The files of testdata/dockerfile are a Dockerfile, the flags that it is built
// with, and the plan that it comes to. Most are named after the item of the
// checklist that they are an example of.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("../../testdata/dockerfile/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) { golden(t, name) })
	}
}

func golden(t *testing.T, name string) {
	archive, err := txtar.ParseFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var file string
	var args []string
	var want string
	inputs := archive.Files[:0:0]
	for _, f := range archive.Files {
		switch f.Name {
		case "Dockerfile":
			file = string(f.Data)
			inputs = append(inputs, f)
		case "args":
			args = strings.Split(strings.TrimSpace(string(f.Data)), "\n")
			inputs = append(inputs, f)
		case "want":
			want = string(f.Data)
		default:
			t.Fatalf("unknown file %s", f.Name)
		}
	}
	got := show(t, file, args...)
	if got == want {
		return
	}
	if !*update {
		t.Errorf("plan of %s (-want +got):\n%s", name, cmp.Diff(want, got))
		return
	}
	archive.Files = append(inputs, txtar.File{Name: "want", Data: []byte(got)})
	if err := os.WriteFile(name, txtar.Format(archive), 0o644); err != nil {
		t.Fatal(err)
	}
}

// show plans file and describes the result.
func show(t testing.TB, file string, args ...string) string {
	p, err := plan(t, file, args...)
	if err != nil {
		at, hint := diag.Explain(err)
		return fmt.Sprintf("error %s-%d: %v\nhint: %s\n", at, at.Last, err, hint)
	}
	return text(t, p)
}

func text(t testing.TB, p dockerfile.Plan) string {
	t.Helper()
	var b bytes.Buffer
	var roots []*graph.Node
	for _, img := range p.Images {
		roots = append(roots, img.Root)
	}
	if err := graph.Print(&b, roots...); err != nil {
		t.Fatal(err)
	}
	for _, img := range p.Images {
		fmt.Fprintf(&b, "\nimage %s, %d of base\n", platforms.Format(img.Platform), img.BaseHistory)
		for _, base := range img.Bases {
			fmt.Fprintf(&b, "base %s\n", base.Ref)
		}
		for _, h := range img.Config.History[img.BaseHistory:] {
			layer := "layer"
			if h.EmptyLayer {
				layer = "empty"
			}
			if h.Comment != "buildkit.dockerfile.v0" || h.Created != nil {
				t.Errorf("unexpected history %+v", h)
			}
			fmt.Fprintf(&b, "%s: %q\n", layer, h.CreatedBy)
		}
		config := img.Config
		config.History = nil
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "\t")
		if err := enc.Encode(config); err != nil {
			t.Fatal(err)
		}
	}
	for _, w := range p.Warnings {
		fmt.Fprintf(&b, "warning %s: %s (line %d) %s\n", w.Rule, w.Message, w.Line, w.URL)
	}
	for _, name := range p.Unused {
		fmt.Fprintf(&b, "unused %s\n", name)
	}
	if p.Epoch != nil {
		fmt.Fprintf(&b, "epoch %d\n", p.Epoch.Unix())
	}
	if p.Index {
		fmt.Fprintln(&b, "index")
	}
	return b.String()
}
