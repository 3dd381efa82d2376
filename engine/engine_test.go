package engine_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/slipway-build/slipway/engine"
	"github.com/slipway-build/slipway/engine/diag"
	"github.com/slipway-build/slipway/engine/progress"
	"github.com/slipway-build/slipway/engine/sandbox/runc"
	"github.com/slipway-build/slipway/platforms"
)

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
		{
			name: "whiteout by name", dockerfile: base + "RUN touch /.wh.file\n", want: ".wh.file", line: 5,
			req: func(r *engine.Request) { r.Outputs = image() },
		},
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

func TestF06_TmpfsHasTheModeOfWhatItCovers(t *testing.T) {
	b := newBuilder(t)
	dir := contextDir(t, map[string]string{"Dockerfile": base + `RUN mkdir -m 700 /covered
RUN --mount=type=tmpfs,target=/covered --mount=type=tmpfs,target=/new stat -c %a /covered /new > /modes
`})
	if got := b.files(engine.Request{Context: dir})["/modes"]; got != "700\n1777\n" {
		t.Errorf("modes = %q", got)
	}
}
