package main

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/olareg/olareg"
	"github.com/olareg/olareg/config"
)

// A gate is a registry that holds back one answer: the first for which match
// is true. Of a body that goes either way it lets after bytes pass first.
type gate struct {
	addr     string
	registry http.Handler

	mu      sync.Mutex
	match   func(*http.Request) bool // nil: everything passes
	after   int
	reached chan struct{} // closed when somebody stands before the gate
	opened  chan struct{}
}

// newGate starts a registry that has the base images.
func newGate(t *testing.T) *gate {
	t.Helper()
	dir := t.TempDir()
	if err := os.Symlink(bases(), filepath.Join(dir, "library")); err != nil {
		t.Fatal(err)
	}
	conf := config.Config{
		Storage: config.ConfigStorage{StoreType: config.StoreMem, RootDir: dir},
		Log:     slog.New(slog.DiscardHandler),
	}
	conf.SetDefaults()
	registry := olareg.New(conf)
	g := &gate{registry: registry}
	server := httptest.NewServer(g)
	g.addr = strings.TrimPrefix(server.URL, "http://")
	t.Cleanup(func() {
		g.open()
		server.CloseClientConnections()
		server.Close()
		_ = registry.Close()
	})
	return g
}

// shut holds back the first request for which match is true, or its body after
// so many bytes. The channel is closed when it is there.
func (g *gate) shut(match func(*http.Request) bool, after int) <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.match, g.after = match, after
	g.reached, g.opened = make(chan struct{}), make(chan struct{})
	return g.reached
}

// open lets everything pass.
func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.opened != nil {
		close(g.opened)
	}
	g.match, g.opened = nil, nil
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	if g.match == nil || !g.match(r) {
		g.mu.Unlock()
		g.registry.ServeHTTP(w, r)
		return
	}
	h := &hold{ResponseWriter: w, left: g.after, reached: g.reached, opened: g.opened}
	g.mu.Unlock()
	switch {
	case h.left == 0:
		h.wait()
	case r.Body != http.NoBody:
		r.Body = heldBody{r.Body, h}
	}
	g.registry.ServeHTTP(h, r)
}

// hold is one answer that the gate holds back.
type hold struct {
	http.ResponseWriter
	left            int
	once            sync.Once
	reached, opened chan struct{}
}

func (h *hold) wait() {
	h.once.Do(func() {
		select {
		case <-h.reached: // another one was first
		default:
			close(h.reached)
		}
		<-h.opened
		panic(http.ErrAbortHandler) // nobody is interested any more
	})
}

func (h *hold) pass(n int) {
	if h.left -= n; h.left <= 0 {
		h.wait()
	}
}

// Write implements io.Writer.
func (h *hold) Write(p []byte) (int, error) {
	for done := 0; done < len(p); {
		part := p[done:]
		if h.left > 0 && h.left < len(part) {
			part = part[:h.left]
		}
		n, err := h.ResponseWriter.Write(part)
		if err != nil {
			return done + n, err
		}
		_ = http.NewResponseController(h.ResponseWriter).Flush()
		done += n
		h.pass(n)
	}
	return len(p), nil
}

type heldBody struct {
	io.ReadCloser
	hold *hold
}

func (b heldBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		b.hold.pass(n)
	}
	return n, err
}

// The requests of a build, by what they are for.

func tagAsked(r *http.Request) bool {
	return strings.HasSuffix(r.URL.Path, "/manifests/latest") && r.Method != http.MethodPut
}

func blobAsked(r *http.Request) bool {
	return r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/sha256:")
}

func blobSent(r *http.Request) bool {
	return (r.Method == http.MethodPut || r.Method == http.MethodPatch) && strings.Contains(r.URL.Path, "/blobs/uploads/")
}

func uploadBegun(r *http.Request) bool {
	return r.Method == http.MethodPost && strings.Contains(r.URL.Path, "/blobs/uploads/")
}

func manifestSent(r *http.Request) bool {
	return r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/manifests/")
}
