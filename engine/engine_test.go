package engine_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/olareg/olareg"
	olaregconfig "github.com/olareg/olareg/config"
	"github.com/opencontainers/go-digest"

	"github.com/slipway-build/slipway/engine"
	"github.com/slipway-build/slipway/engine/content"
	"github.com/slipway-build/slipway/engine/diag"
	"github.com/slipway-build/slipway/engine/progress"
	"github.com/slipway-build/slipway/engine/sandbox/runc"
	"github.com/slipway-build/slipway/platforms"
)

// A builder builds contexts with one state directory, as one machine would.
type builder struct {
	t     *testing.T
	state string
	reg   string // host:port of a registry

	mu     sync.Mutex
	events []progress.Event
}

func newBuilder(t *testing.T) *builder {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("building needs root")
	}
	if _, err := os.Stat(busybox); err != nil {
		t.Skip("there is no busybox: apt-get install busybox-static")
	}
	return &builder{t: t, state: t.TempDir()}
}

const busybox = "/bin/busybox"

// base is a Dockerfile's beginning: a stage with a shell.
const base = "FROM scratch AS base\nCOPY --chmod=755 busybox /bin/sh\nCOPY --chmod=755 busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"/bin\"]\n"

// registry starts a registry.
func (b *builder) registry() string {
	b.t.Helper()
	conf := olaregconfig.Config{Storage: olaregconfig.ConfigStorage{StoreType: olaregconfig.StoreMem}}
	conf.SetDefaults()
	srv := olareg.New(conf)
	hs := httptest.NewServer(srv)
	b.t.Cleanup(func() {
		hs.Close()
		_ = srv.Close()
	})
	b.reg = strings.TrimPrefix(hs.URL, "http://")
	return b.reg
}

// contextDir makes a build context: files by name, with busybox.
func contextDir(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	bb, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range files {
		p := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(data), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "busybox"), bb, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func (b *builder) build(req engine.Request) (engine.Result, error) {
	b.t.Helper()
	x, err := runc.New(runc.Options{Root: filepath.Join(b.state, "run")})
	if err != nil {
		b.t.Fatal(err)
	}
	defer x.Close()
	b.events = nil
	e, err := engine.Open(b.t.Context(), engine.Options{Root: b.state, Executor: x, Progress: func(ev progress.Event) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.events = append(b.events, ev)
	}})
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() {
		if err := e.Close(); err != nil {
			b.t.Error(err)
		}
	}()
	return e.Build(b.t.Context(), req)
}

func (b *builder) must(req engine.Request) engine.Result {
	b.t.Helper()
	res, err := b.build(req)
	if err != nil {
		b.t.Fatalf("build: %v\n%s", err, b.output())
	}
	return res
}

// ran returns the labels of the steps that ran, without their numbers.
func (b *builder) ran() []string {
	var names []string
	for _, ev := range b.events {
		if _, name, ok := strings.Cut(ev.Name, "] "); ok && ev.Kind == progress.Finished {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (b *builder) output() string {
	var s strings.Builder
	for _, ev := range b.events {
		if ev.Kind == progress.Output || ev.Kind == progress.Warning {
			fmt.Fprintln(&s, ev.Line)
		}
	}
	return s.String()
}

// files returns the content of the image's files, by their path.
func (b *builder) files(req engine.Request) map[string]string {
	b.t.Helper()
	var buf bytes.Buffer
	req.Outputs = []engine.Output{{Type: "tar", File: nopCloser{&buf}}}
	b.must(req)
	files := map[string]string{}
	for tr := tar.NewReader(&buf); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			b.t.Fatal(err)
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			b.t.Fatal(err)
		}
		files["/"+strings.TrimSuffix(strings.TrimPrefix(h.Name, "./"), "/")] = string(data)
	}
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

func image() []engine.Output { return []engine.Output{{Type: "image"}} }

func TestBuild_EndToEnd(t *testing.T) {
	b := newBuilder(t)
	dir := contextDir(t, map[string]string{
		"Dockerfile": base + `FROM base AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/cache --mount=type=bind,source=a,target=/bound --mount=type=tmpfs,target=/scratch \
    cat a b /bound > out && echo cached >> /cache/log && wc -l < /cache/log > lines && touch /scratch/x
FROM scratch
COPY --from=build /src/out /src/lines /
`,
		"a": "one\n", "b": "two\n", "ignored": "x", ".dockerignore": "ignored\n",
	})
	req := engine.Request{Context: dir}
	files := b.files(req)
	if got := files["/out"]; got != "one\ntwo\none\n" {
		t.Errorf("/out = %q", got)
	}
	delete(files, "/")
	if len(files) != 2 {
		t.Errorf("the image has %d files: %v", len(files), files)
	}
	// A change elsewhere leaves it alone, one of a copied file does not; the
	// cache mount is still there.
	write(t, filepath.Join(dir, "ignored"), "changed")
	b.files(req)
	if ran := b.ran(); len(ran) != 0 {
		t.Errorf("ran again: %q", ran)
	}
	write(t, filepath.Join(dir, "a"), "three\n")
	if got := b.files(req)["/lines"]; strings.TrimSpace(got) != "2" {
		t.Errorf("/lines = %q, want 2", got)
	}
}

func write(t *testing.T, name, data string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
}

// A fully cached build has the same digest, and looks at no layer: it works
// even when their directories are gone, as long as the blobs are there.
func TestInvariant09_CachedRebuildHasTheSameDigest(t *testing.T) {
	b := newBuilder(t)
	dir := contextDir(t, map[string]string{"Dockerfile": base + "WORKDIR /x\nCOPY f .\nRUN date > /date\n", "f": "f"})
	req := engine.Request{Context: dir, Outputs: image()}
	first := b.must(req)
	if err := os.RemoveAll(filepath.Join(b.state, "snapshots", "layers")); err != nil {
		t.Fatal(err)
	}
	second := b.must(req)
	if first.Digest != second.Digest || first.Config != second.Config {
		t.Errorf("digest was %s, now %s", first.Digest, second.Digest)
	}
	if ran := b.ran(); len(ran) != 0 {
		t.Errorf("ran again: %q", ran)
	}
	entries, err := os.ReadDir(filepath.Join(b.state, "snapshots", "layers"))
	if err != nil || len(entries) != 0 {
		t.Errorf("layers were unpacked: %v, %v", entries, err)
	}
}

// Whatever disappears from the state directory, the next build is right.
func TestInvariant02_WhatIsLostIsMadeAgain(t *testing.T) {
	removals := map[string][]string{
		"layers":            {"snapshots/layers"},
		"blobs":             {"content/blobs"},
		"layers and blobs":  {"snapshots/layers", "content/blobs"},
		"records":           {"records"},
		"records of layers": {"records/layers"},
		"everything":        {"snapshots", "content", "records", "mounts"},
	}
	for name, paths := range removals {
		t.Run(name, func(t *testing.T) {
			b := newBuilder(t)
			dir := contextDir(t, map[string]string{"Dockerfile": base + "RUN echo one > /one\nRUN cat /one > /two\n"})
			req := engine.Request{Context: dir, Outputs: image()}
			b.must(req)
			for _, p := range paths {
				if err := os.RemoveAll(filepath.Join(b.state, p)); err != nil {
					t.Fatal(err)
				}
			}
			write(t, filepath.Join(dir, "Dockerfile"), base+"RUN echo one > /one\nRUN cat /one > /two\nRUN cat /one /two > /three\n")
			b.must(req)
			if got := b.files(engine.Request{Context: dir})["/three"]; got != "one\none\n" {
				t.Errorf("/three = %q", got)
			}
		})
	}
}

// A blob goes bad between the look-up and its use, by a later step or at the
// very end.
func TestInvariant02_DamagedBlobIsFoundLate(t *testing.T) {
	for _, damage := range []struct {
		name string
		do   func(p string) error
	}{
		{"cut short", func(p string) error { return os.Truncate(p, 30) }},
		{"other bytes", func(p string) error {
			fi, err := os.Stat(p)
			return errors.Join(err, os.WriteFile(p, bytes.Repeat([]byte("x"), int(fi.Size())), 0o600))
		}},
	} {
		for _, unpacked := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, unpacked %v", damage.name, unpacked), func(t *testing.T) {
				b := newBuilder(t)
				dockerfile := base + "RUN echo one > /one\n"
				dir := contextDir(t, map[string]string{"Dockerfile": dockerfile})
				out := filepath.Join(t.TempDir(), "image.tar")
				req := engine.Request{Context: dir, Outputs: []engine.Output{{Type: "oci", Attrs: map[string]string{"dest": out}}}}
				b.must(req)
				if !unpacked {
					if err := os.RemoveAll(filepath.Join(b.state, "snapshots", "layers")); err != nil {
						t.Fatal(err)
					}
				}
				eachBlob(t, b.state, damage.do)
				if unpacked {
					res := b.must(req) // the export reads them
					checkLayout(t, out, res.Digest.String())
					return
				}
				write(t, filepath.Join(dir, "Dockerfile"), dockerfile+"RUN cat /one > /two\n")
				if got := b.files(engine.Request{Context: dir})["/two"]; got != "one\n" {
					t.Errorf("/two = %q", got)
				}
			})
		}
	}
}

func eachBlob(t *testing.T, state string, do func(p string) error) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(state, "content", "blobs"), func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			err = do(p)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// checkLayout checks every blob of an OCI layout in a tar against its name.
func checkLayout(t *testing.T, name, want string) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	store, err := content.Open(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var index struct {
		Manifests []content.Descriptor `json:"manifests"`
	}
	for tr := tar.NewReader(f); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Name == "index.json" {
			if err := json.NewDecoder(tr).Decode(&index); err != nil {
				t.Fatal(err)
			}
		}
		if hex, ok := strings.CutPrefix(h.Name, "blobs/sha256/"); ok && hex != "" {
			if err := store.Add(t.Context(), content.Descriptor{Digest: digest.NewDigestFromEncoded(digest.SHA256, hex)}, tr); err != nil {
				t.Error(err)
			}
		}
	}
	if len(index.Manifests) != 1 || index.Manifests[0].Digest.String() != want {
		t.Errorf("the layout's index is %+v, want one of %s", index.Manifests, want)
	}
}

// A stage that never gives the same twice changes the image when it is asked
// to run again, and only then.
func TestInvariant01_NoCacheFilterChangesTheImage(t *testing.T) {
	b := newBuilder(t)
	dir := contextDir(t, map[string]string{
		"Dockerfile": base + "FROM base AS gen\nRUN cat /proc/sys/kernel/random/uuid > /id\nFROM scratch\nCOPY --from=gen /id /\n",
	})
	first := b.files(engine.Request{Context: dir})["/id"]
	if again := b.files(engine.Request{Context: dir})["/id"]; again != first || first == "" {
		t.Errorf("cached: %q, then %q", first, again)
	}
	other := b.files(engine.Request{Context: dir, NoCacheStages: []string{"gen"}})["/id"]
	if other == first {
		t.Error("--no-cache-filter did not change the image")
	}
	if last := b.files(engine.Request{Context: dir})["/id"]; last != other {
		t.Error("the record was not replaced")
	}
}

func TestBuild_PushAndBuildOnIt(t *testing.T) {
	b := newBuilder(t)
	reg := b.registry()
	dir := contextDir(t, map[string]string{"Dockerfile": base + "ENV GREETING=hello\nONBUILD RUN echo $GREETING > /greeting\n"})
	tag := reg + "/base:1"
	res := b.must(engine.Request{Context: dir, Tags: []string{tag}, Outputs: []engine.Output{{Type: "registry"}}})
	if len(res.Names) != 1 || res.Names[0] != tag {
		t.Errorf("names = %q, want %q", res.Names, tag)
	}

	// Another machine pulls it, by tag and by digest.
	for _, ref := range []string{tag, reg + "/base@" + res.Digest.String()} {
		other := newBuilder(t)
		dir := contextDir(t, map[string]string{"Dockerfile": "FROM " + ref + "\nRUN cp /greeting /copy\n"})
		if got := other.files(engine.Request{Context: dir})["/copy"]; got != "hello\n" {
			t.Errorf("%s: /copy = %q", ref, got)
		}
	}
}

// Nothing of the base is pulled if nothing has to run on it.
func TestBuild_BaseIsNotPulledUnlessItIsRead(t *testing.T) {
	b := newBuilder(t)
	reg := b.registry()
	dir := contextDir(t, map[string]string{"Dockerfile": base})
	b.must(engine.Request{Context: dir, Tags: []string{reg + "/base:1"}, Outputs: []engine.Output{{Type: "registry"}}})

	other := newBuilder(t)
	dir = contextDir(t, map[string]string{"Dockerfile": "FROM " + reg + "/base:1\nCOPY --link f /f\nENV A=b\n", "f": "f"})
	other.must(engine.Request{Context: dir, Tags: []string{reg + "/linked:1"}, Outputs: []engine.Output{{Type: "registry"}}})
	for _, ev := range other.events {
		if strings.HasPrefix(ev.Name, "fetch ") {
			t.Errorf("pulled: %s", ev.Name)
		}
	}
	third := newBuilder(t)
	dir = contextDir(t, map[string]string{"Dockerfile": "FROM " + reg + "/linked:1\nRUN cat /f > /g\n"})
	if got := third.files(engine.Request{Context: dir})["/g"]; got != "f" {
		t.Errorf("/g = %q", got)
	}
}

func TestBuild_Errors(t *testing.T) {
	tests := []struct {
		name, dockerfile string
		req              func(*engine.Request)
		want             string
		line             int
		hint             bool
	}{
		{name: "failing RUN", dockerfile: base + "RUN exit 3\n", want: "exit code: 3", line: 5},
		{name: "command not found", dockerfile: base + "RUN nosuchthing\n", want: "exit code: 127", line: 5, hint: true},
		{name: "missing source", dockerfile: "FROM scratch\nCOPY nothing /\n", want: `"/nothing": not found`, line: 2},
		{name: "missing base", dockerfile: "FROM 127.0.0.1:1/no:1\n", want: "127.0.0.1:1", line: 1},
		{name: "secret", dockerfile: base + "RUN --mount=type=secret,id=x,required true\n", want: `secret "x" is required`, line: 5},
		{name: "host network", dockerfile: base + "RUN --network=host true\n", want: "network.host", line: 5},
		{
			name: "foreign platform", dockerfile: "FROM scratch\nCOPY f /bin/sh\nRUN true\n", want: "s390x", line: 3, hint: true,
			req: func(r *engine.Request) { r.Platforms = []platforms.Platform{{OS: "linux", Architecture: "s390x"}} },
		},
		{name: "no Dockerfile", req: func(r *engine.Request) { r.File = filepath.Join(r.Context, "nope") }, dockerfile: "FROM scratch\n", want: "nope", hint: true},
		{name: "no context", req: func(r *engine.Request) { r.Context += "/nope" }, dockerfile: "FROM scratch\n", want: "nope", hint: true},
		{name: "empty Dockerfile", dockerfile: "\n", want: "empty", line: 1},
		{name: "unknown output", req: func(r *engine.Request) { r.Outputs = []engine.Output{{Type: "floppy"}} }, dockerfile: "FROM scratch\n", want: "floppy"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBuilder(t)
			req := engine.Request{Context: contextDir(t, map[string]string{"Dockerfile": tt.dockerfile, "f": "f"})}
			if tt.req != nil {
				tt.req(&req)
			}
			_, err := b.build(req)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("err = %v, want one with %q", err, tt.want)
			}
			at, hint := diag.Explain(err)
			if at.Line != tt.line {
				t.Errorf("line = %d, want %d, of %v", at.Line, tt.line, err)
			}
			if tt.hint && hint == "" {
				t.Errorf("no hint for %v", err)
			}
			if left, _ := os.ReadDir(filepath.Join(b.state, "snapshots", "drafts")); len(left) > 0 {
				t.Errorf("drafts are left: %v", left)
			}
		})
	}
}

// What steps finished before a failure is kept.
func TestBuild_FailureKeepsWhatIsDone(t *testing.T) {
	b := newBuilder(t)
	dir := contextDir(t, map[string]string{"Dockerfile": base + "RUN echo done > /done\nRUN exit 1\n"})
	if _, err := b.build(engine.Request{Context: dir}); err == nil {
		t.Fatal("the build succeeded")
	}
	write(t, filepath.Join(dir, "Dockerfile"), base+"RUN echo done > /done\nRUN echo more\n")
	b.must(engine.Request{Context: dir})
	if ran := b.ran(); len(ran) != 1 || ran[0] != "RUN echo more" {
		t.Errorf("ran %q, want the last step only", ran)
	}
}

func TestBuild_CancelledRunEnds(t *testing.T) {
	b := newBuilder(t)
	dir := contextDir(t, map[string]string{"Dockerfile": base + "RUN echo started && sleep 1000\n"})
	x, err := runc.New(runc.Options{Root: filepath.Join(b.state, "run"), Grace: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	stop := errors.New("stopped")
	ctx, cancel := context.WithCancelCause(t.Context())
	e, err := engine.Open(ctx, engine.Options{Root: b.state, Executor: x, Progress: func(ev progress.Event) {
		if ev.Line == "started" {
			cancel(stop)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Build(ctx, engine.Request{Context: dir}); !errors.Is(err, stop) {
		t.Errorf("err = %v, want %v", err, stop)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil || strings.Contains(string(mounts), b.state) {
		t.Errorf("mounts are left: %v", err)
	}
}

func TestPrune(t *testing.T) {
	b := newBuilder(t)
	dir := contextDir(t, map[string]string{"Dockerfile": base + "RUN --mount=type=cache,target=/c echo x > /c/x\n"})
	req := engine.Request{Context: dir, Outputs: image()}
	b.must(req)
	kinds := map[string]bool{}
	usage, err := engine.DiskUsage(t.Context(), b.state)
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range usage {
		kinds[u.Kind] = true
	}
	for _, k := range []string{"layer", "blob", "cache mount", "record"} {
		if !kinds[k] {
			t.Errorf("no %s in %v", k, usage)
		}
	}

	// While somebody has it open it can't be pruned, and says who.
	x, err := runc.New(runc.Options{Root: filepath.Join(b.state, "run")})
	if err != nil {
		t.Fatal(err)
	}
	e, err := engine.Open(t.Context(), engine.Options{Root: b.state, Executor: x})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := engine.Prune(t.Context(), b.state, engine.PruneOptions{}); err == nil || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) {
		t.Errorf("err = %v, want one that names process %d", err, os.Getpid())
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}

	if removed, err := engine.Prune(t.Context(), b.state, engine.PruneOptions{OlderThan: time.Hour}); err != nil || len(removed) > 0 {
		t.Errorf("removed what is young: %v, %v", removed, err)
	}
	removed, err := engine.Prune(t.Context(), b.state, engine.PruneOptions{})
	if err != nil || len(removed) != len(usage) {
		t.Errorf("removed %d of %d: %v", len(removed), len(usage), err)
	}
	b.must(req)
}
