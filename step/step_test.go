package step_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-build/slipway/ci"
	"github.com/slipway-build/slipway/ci/github"
	"github.com/slipway-build/slipway/ci/plain"
	"github.com/slipway-build/slipway/engine"
	"github.com/slipway-build/slipway/engine/diag"
	"github.com/slipway-build/slipway/engine/dockerfile"
	"github.com/slipway-build/slipway/engine/progress"
	"github.com/slipway-build/slipway/engine/sandbox"
	"github.com/slipway-build/slipway/step"
)

// fake is an engine that was told what comes out.
type fake struct {
	events []progress.Event
	result engine.Result
	err    error
	build  func(ctx context.Context, req engine.Request) error

	opts   engine.Options
	req    engine.Request
	closed bool
}

func (f *fake) open(_ context.Context, opts engine.Options) (step.Builder, error) {
	f.opts = opts
	return f, nil
}

func (f *fake) Build(ctx context.Context, req engine.Request) (engine.Result, error) {
	f.req = req
	for _, ev := range f.events {
		f.opts.Progress(ev)
	}
	if f.build != nil {
		if err := f.build(ctx, req); err != nil {
			return engine.Result{}, err
		}
	}
	return f.result, f.err
}

func (f *fake) Close() error { f.closed = true; return nil }

// run runs a step whose flags or inputs are given, and returns its log and
// standard output. took stands for times in the log.
func run(t *testing.T, f *fake, d ci.Dialect, stdin io.Reader, flags map[string][]string) (logged, stdout string, err error) {
	t.Helper()
	var logs, out bytes.Buffer
	err = step.Run(t.Context(), step.FromFlags(flags), step.Env{
		Lookup: environment("HOME=" + t.TempDir()), Stdin: stdin, Stdout: &out, Piped: true, Log: &logs,
		Dialect: d, Open: f.open, Root: true,
	})
	return logs.String(), out.String(), err
}

var zero = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

const (
	imageDigest  = "sha256:1111111111111111111111111111111111111111111111111111111111111111"
	configDigest = "sha256:2222222222222222222222222222222222222222222222222222222222222222"
)

func builtImage() engine.Result {
	return engine.Result{
		Digest: imageDigest, Config: configDigest, Names: []string{"r.example/a:1", "r.example/a:2"},
		Metadata: map[string]any{"containerimage.digest": imageDigest, "image.name": "a<b>"},
	}
}

// contextDir makes a context with a Dockerfile.
func contextDir(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestRun_ShowsABuild(t *testing.T) {
	res := builtImage()
	res.Warnings = []dockerfile.Warning{{Rule: "StageNameCasing", Message: "Stage name 'A' should be lowercase", Line: 1}, {Rule: "Other", Message: "m"}}
	res.Unused = []string{"SOURCE_DATE_EPOCH", "X", "Y"}
	f := &fake{result: res, events: []progress.Event{
		{Time: zero, Step: "1", Name: "[1/2] FROM scratch", Kind: progress.Cached},
		{Time: zero, Step: "2", Name: "[2/2] RUN x", Kind: progress.Started},
		{Time: zero.Add(time.Second), Step: "2", Name: "[2/2] RUN x", Kind: progress.Output, Line: "hello"},
		{Time: zero.Add(time.Second), Step: "2", Name: "[2/2] RUN x", Kind: progress.Finished, Took: time.Second},
	}}
	logged, stdout, err := run(t, f, plain.Dialect{}, nil, map[string][]string{
		"": {contextDir(t, "FROM scratch")}, "push": {"true"}, "tag": {"r.example/a:1"}, "output": {"type=oci,dest=x.tar"}, "builder": {"b"},
	})
	if err != nil {
		t.Fatal(err)
	}
	const want = `NOTE: --builder has no effect: there are no builder instances: the build runs in this process
#1 CACHED [1/2] FROM scratch

#2 [2/2] RUN x
#2 1.000 hello
#2 DONE 1.0s
WARN: StageNameCasing: Stage name 'A' should be lowercase (line 1)
WARN: Other: m
[Warning] One or more build-args [X Y] were not consumed

Built in 0.0s: 2 steps, 1 cached
  digest    ` + imageDigest + `
  image ID  ` + configDigest + `
  written   x.tar (oci)
  pushed    r.example/a:1
  pushed    r.example/a:2
`
	if diff := cmp.Diff(want, logged); diff != "" || stdout != "" {
		t.Errorf("stdout %q, log (-want +got):\n%s", stdout, diff)
	}
	if !f.closed {
		t.Error("the engine is still open")
	}
}

func TestRun_ShowsAFailure(t *testing.T) {
	dir := contextDir(t, "FROM scratch\nRUN false\n")
	cause := diag.At(errors.New("[2/2] RUN false: exit code: 1"), diag.Origin{File: "Dockerfile", Line: 2, Last: 2})
	events := []progress.Event{
		{Time: zero, Step: "2", Name: "[2/2] RUN false", Kind: progress.Started},
		{Time: zero, Step: "2", Name: "[2/2] RUN false", Kind: progress.Output, Line: "last words"},
		{Time: zero, Step: "2", Name: "[2/2] RUN false", Kind: progress.Failed, Err: &sandbox.ExitError{Code: 1}},
	}
	const excerpt = `Dockerfile:2
--------------------
   1 |     FROM scratch
   2 | >>> RUN false
--------------------
ERROR: [2/2] RUN false: exit code: 1
`
	const output = `
------
 > [2/2] RUN false:
0.000 last words
------
`
	tests := []struct{ progress, want string }{
		{"plain", "#1 [2/2] RUN false\n#1 0.000 last words\n#1 ERROR: exit code: 1\n" + output + excerpt},
		{"quiet", output + excerpt},
		{"tty", "#1 [2/2] RUN false\n#1 0.000 last words\n#1 ERROR: exit code: 1\n" + output + excerpt}, // no terminal here
	}
	for _, tt := range tests {
		t.Run(tt.progress, func(t *testing.T) {
			f := &fake{err: cause, events: events}
			logged, _, err := run(t, f, plain.Dialect{}, nil, map[string][]string{"": {dir}, "progress": {tt.progress}})
			if !errors.Is(err, step.ErrShown) || !errors.Is(err, cause) {
				t.Errorf("err = %v", err)
			}
			if diff := cmp.Diff(tt.want, logged); diff != "" {
				t.Errorf("log (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRun_AnnotatesOnGitHub(t *testing.T) {
	dir := contextDir(t, "FROM scratch\nRUN false\n")
	output := filepath.Join(t.TempDir(), "output")
	if err := os.WriteFile(output, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	d := github.Dialect{Lookup: environment("GITHUB_OUTPUT="+output, "GITHUB_WORKSPACE="+dir)}
	f := &fake{
		err:    diag.At(errors.New("exit code: 1\nmore"), diag.Origin{File: "Dockerfile", Line: 2, Last: 2}),
		result: engine.Result{Warnings: []dockerfile.Warning{{Rule: "Rule", Message: "100%", Line: 1}}},
	}
	logged, _, err := run(t, f, d, nil, map[string][]string{"": {dir}})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"::error file=Dockerfile,line=2::exit code: 1%0Amore\n", "::warning file=Dockerfile,line=1,title=Rule::100%25\n"} {
		if !strings.Contains(logged, want) {
			t.Errorf("log has no %q:\n%s", want, logged)
		}
	}

	f = &fake{result: builtImage()}
	if _, _, err := run(t, f, d, nil, map[string][]string{"": {dir}}); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(output)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"digest<<end-", "\n" + imageDigest + "\n", "imageid<<end-", "\n" + configDigest + "\n", "metadata<<end-", `"image.name": "a<b>"`} {
		if !strings.Contains(string(got), want) {
			t.Errorf("outputs have no %q:\n%s", want, got)
		}
	}
}

// A pipeline that could not receive results learns so before the build.
func TestRun_ChecksOutputsFirst(t *testing.T) {
	f := &fake{build: func(context.Context, engine.Request) error { t.Error("the build ran"); return nil }}
	logged, _, err := run(t, f, github.Dialect{Lookup: environment()}, nil, map[string][]string{"": {"."}})
	if err == nil || !strings.Contains(logged, "GITHUB_OUTPUT is not set") {
		t.Errorf("err = %v, log:\n%s", err, logged)
	}
}

func TestRun_WritesResults(t *testing.T) {
	dir := contextDir(t, "FROM scratch")
	meta, iid := filepath.Join(dir, "meta.json"), filepath.Join(dir, "iid")
	flags := map[string][]string{"": {dir}, "metadata-file": {meta}, "iidfile": {iid}, "quiet": {"true"}}
	for _, name := range []string{meta, iid} {
		if err := os.WriteFile(name, []byte("stale"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// While it is built, nobody can take an old result for the new one.
	f := &fake{result: builtImage(), build: func(context.Context, engine.Request) error {
		for _, name := range []string{meta, iid} {
			if _, err := os.Stat(name); err == nil {
				t.Errorf("%s is stale", name)
			}
		}
		return nil
	}}
	logged, stdout, err := run(t, f, plain.Dialect{}, nil, flags)
	if err != nil || logged != "" || stdout != configDigest+"\n" {
		t.Errorf("err = %v, stdout %q, log:\n%s", err, stdout, logged)
	}
	if got, err := os.ReadFile(iid); err != nil || string(got) != configDigest {
		t.Errorf("iidfile has %q, %v", got, err)
	}
	const want = `{
  "containerimage.digest": "` + imageDigest + `",
  "image.name": "a<b>"
}`
	if got, err := os.ReadFile(meta); err != nil || string(got) != want {
		t.Errorf("metadata file has %s, %v", got, err)
	}
	if names, _ := filepath.Glob(filepath.Join(dir, ".slipway-*")); len(names) > 0 {
		t.Errorf("left over: %v", names)
	}

	// With several platforms the index is the image.
	flags["platform"] = []string{"linux/amd64,linux/arm64"}
	if _, stdout, err := run(t, f, plain.Dialect{}, nil, flags); err != nil || stdout != imageDigest+"\n" {
		t.Errorf("err = %v, stdout %q", err, stdout)
	}
	// Without an image there is no ID.
	f = &fake{}
	if logged, _, err := run(t, f, plain.Dialect{}, nil, flags); err == nil || !strings.Contains(logged, "no output makes an image") {
		t.Errorf("err = %v, log:\n%s", err, logged)
	}
}

func TestRun_WritesToADevice(t *testing.T) {
	f := &fake{result: builtImage()}
	if logged, _, err := run(t, f, plain.Dialect{}, nil, map[string][]string{"": {t.TempDir()}, "iidfile": {os.DevNull}}); err != nil {
		t.Fatal(err, logged)
	}
	if fi, err := os.Stat(os.DevNull); err != nil || fi.Mode().IsRegular() {
		t.Fatalf("%s was replaced: %v, %v", os.DevNull, fi, err)
	}
}

func archive(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: "Dockerfile", Mode: 0o644}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestRun_Context(t *testing.T) {
	var zipped bytes.Buffer
	zw := gzip.NewWriter(&zipped)
	if _, err := zw.Write(archive(t)); err != nil {
		t.Fatal(err)
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	const text = "FROM scratch\n# " // a Dockerfile longer than a tar header
	long := text + strings.Repeat("x", 5000) + "\n"
	dir := contextDir(t, text)
	tests := []struct {
		name    string
		flags   map[string][]string
		stdin   string
		want    engine.Request // Context, File, Dockerfile
		wantTar string
		wantErr string
	}{
		{name: "directory", flags: map[string][]string{"": {dir}}, want: engine.Request{Context: dir}},
		{name: "directory and file", flags: map[string][]string{"": {dir}, "file": {dir + "/Dockerfile"}}, want: engine.Request{Context: dir, File: dir + "/Dockerfile"}},
		{name: "Dockerfile on stdin", flags: map[string][]string{"": {dir}, "file": {"-"}}, stdin: text, want: engine.Request{Context: dir, Dockerfile: []byte(text)}},
		{name: "nothing but a Dockerfile", flags: map[string][]string{"": {"-"}}, stdin: text, want: engine.Request{Dockerfile: []byte(text)}},
		{name: "nothing but a long Dockerfile", flags: map[string][]string{"": {"-"}}, stdin: long, want: engine.Request{Dockerfile: []byte(long)}},
		{name: "tar", flags: map[string][]string{"": {"-"}, "file": {"sub/Dockerfile"}}, stdin: string(archive(t)), want: engine.Request{File: "sub/Dockerfile"}, wantTar: string(archive(t))},
		{name: "compressed tar", flags: map[string][]string{"": {"-"}}, stdin: zipped.String(), wantTar: zipped.String()},
		{name: "empty tar", flags: map[string][]string{"": {"-"}}, stdin: strings.Repeat("\x00", 1024), wantTar: strings.Repeat("\x00", 1024)},
		{name: "empty stdin", flags: map[string][]string{"": {"-"}}, wantErr: "it is empty"},
		{name: "Dockerfile twice", flags: map[string][]string{"": {"-"}, "file": {"x"}}, stdin: text, wantErr: "do not name x as well"},
		{name: "git", flags: map[string][]string{"": {"https://github.com/a/b.git#main"}}, wantErr: "not supported in this version"},
		{name: "no such file", flags: map[string][]string{"": {dir}, "file": {"nothing"}}, wantErr: "open Dockerfile: stat nothing: no such file"},
		{name: "a file that is in the context", flags: map[string][]string{"": {dir}, "file": {"Dockerfile"}}, wantErr: "did you mean " + dir + "/Dockerfile"},
		{name: "a directory as Dockerfile", flags: map[string][]string{"": {dir}, "file": {dir}}, wantErr: "is a directory"},
		{name: "too much", flags: map[string][]string{"": {"-"}}, stdin: strings.Repeat("RUN x\n", 2<<20), wantErr: "more than 8388608 bytes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var gotTar []byte
			f := &fake{build: func(_ context.Context, req engine.Request) (err error) {
				if req.ContextTar != nil {
					gotTar, err = io.ReadAll(req.ContextTar)
				}
				return err
			}}
			logged, _, err := run(t, f, plain.Dialect{}, strings.NewReader(tt.stdin), tt.flags)
			if tt.wantErr != "" {
				if err == nil || !strings.Contains(err.Error()+logged, tt.wantErr) {
					t.Errorf("err = %v, log:\n%s\nwant %s", err, logged, tt.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err, logged)
			}
			got := engine.Request{Context: f.req.Context, File: f.req.File, Dockerfile: f.req.Dockerfile}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("request (-want +got):\n%s", diff)
			}
			if string(gotTar) != tt.wantTar {
				t.Errorf("the engine read %d bytes of tar, want %d", len(gotTar), len(tt.wantTar))
			}
		})
	}
}

func TestRun_StreamsAnOutput(t *testing.T) {
	f := &fake{result: builtImage(), build: func(_ context.Context, req engine.Request) error {
		_, err := io.WriteString(req.Outputs[0].File, "tar")
		return errors.Join(err, req.Outputs[0].File.Close())
	}}
	_, stdout, err := run(t, f, plain.Dialect{}, nil, map[string][]string{"": {t.TempDir()}, "output": {"-"}, "quiet": {"true"}})
	if err != nil || stdout != "tar" {
		t.Errorf("stdout %q, err = %v", stdout, err)
	}
	err = step.Run(t.Context(), step.FromFlags(map[string][]string{"": {"."}, "output": {"type=docker,dest=-"}}), step.Env{
		Lookup: environment("HOME=/h"), Log: io.Discard, Dialect: plain.Dialect{}, Open: f.open,
	})
	if !errors.Is(err, step.ErrUsage) {
		t.Errorf("an image is written to a terminal: err = %v", err)
	}
}

func TestRun_Cancelled(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("interrupt")
	f := &fake{build: func(ctx context.Context, _ engine.Request) error {
		cancel(cause)
		<-ctx.Done()
		return context.Cause(ctx)
	}}
	var logs bytes.Buffer
	err := step.Run(ctx, step.FromFlags(map[string][]string{"": {t.TempDir()}}), step.Env{
		Lookup: environment("HOME=/h"), Log: &logs, Dialect: plain.Dialect{}, Open: f.open,
	})
	if !errors.Is(err, cause) || logs.String() != "\nCANCELED: interrupt\n" || !f.closed {
		t.Errorf("err = %v, log %q, closed %v", err, logs.String(), f.closed)
	}
}
