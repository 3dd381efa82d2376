package engine_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/olareg/olareg"
	olaregconfig "github.com/olareg/olareg/config"

	"github.com/slipway-build/slipway/engine"
	"github.com/slipway-build/slipway/engine/progress"
	"github.com/slipway-build/slipway/engine/sandbox/runc"
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
