// Package engine builds container images from Dockerfiles, in this process.
//
// A build is a straight line: resolve names to digests and turn the Dockerfile
// into a graph (package dockerfile); turn the graph into trees, running only
// what is not recorded (solve, run); make an image of the trees (image); hand
// it to exporters (export).
//
// The engine does not know that there is such a thing as CI.
package engine

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/slipway-build/slipway/engine/content"
	"github.com/slipway-build/slipway/engine/dockerfile"
	"github.com/slipway-build/slipway/engine/graph"
	"github.com/slipway-build/slipway/engine/progress"
	"github.com/slipway-build/slipway/engine/registry"
	"github.com/slipway-build/slipway/engine/sandbox"
	"github.com/slipway-build/slipway/engine/snapshot/overlay"
	"github.com/slipway-build/slipway/platforms"
)

// Options configure an Engine. Root and Executor must be set.
type Options struct {
	// Root is the state directory: everything that is kept between builds.
	// Several processes may share it.
	Root string

	// Executor runs containers; package sandbox/runc has the one for Linux.
	Executor sandbox.Executor

	// Jobs is how many nodes may run at once; 0 means one per CPU.
	Jobs int

	Progress progress.Sink // may be nil

	// Insecure are registry hosts (host or host:port) that may be spoken to by
	// plain http or with any certificate. Loopback always may by http.
	Insecure []string

	// Mirrors are base URLs to try before the registry itself, by its host.
	Mirrors map[string][]string
}

// Engine builds images. Builds may run concurrently in one Engine, and several
// processes may have an Engine open on the same root.
type Engine struct {
	opts  Options
	state *state
	store *content.Store
	snaps *overlay.Snapshotter
	reg   *registry.Client
}

// Request is one build.
type Request struct {
	// Context is the directory of the build context; empty means that there is
	// none, only a Dockerfile.
	Context string

	// ContextTar, if not nil, is the context as a tar stream, compressed or not.
	ContextTar io.Reader

	// File is the Dockerfile's path: as it stands if Context is a directory,
	// within the archive if ContextTar is set. Empty means Dockerfile, else
	// dockerfile, at the context's root. Dockerfile, if not nil, is its content
	// instead.
	File       string
	Dockerfile []byte

	Target    string
	Args      map[string]string
	Labels    map[string]string
	Platforms []platforms.Platform // empty means the host's

	NoCache       bool
	NoCacheStages []string
	Pull          bool // ask registries even for what was resolved before

	Network      graph.NetworkMode
	Hosts        []graph.Host
	ShmSize      int64
	Ulimits      []graph.Ulimit
	CgroupParent string

	// Tags are the names of the image: "registry/repository:tag".
	Tags    []string
	Outputs []Output

	// Image asks for the image's digests even if no output needs them.
	Image bool

	// Epoch, if not nil, is SOURCE_DATE_EPOCH: the time for created and history.
	Epoch *time.Time
}

// Output is one --output: where the image goes.
type Output struct {
	Type  string            // image, registry, oci, docker, local, tar, cacheonly
	Attrs map[string]string // dest, push, compression, …

	// File, if not nil, is written instead of dest (dest=-: standard output).
	File io.WriteCloser
}

// Result is what a build made.
type Result struct {
	Digest   digest.Digest // of the index, or of the manifest if there is only one
	Config   digest.Digest // image ID: of the config of the first platform
	Names    []string      // full names that its outputs gave it
	Metadata map[string]any
	Warnings []dockerfile.Warning
	Unused   []string // build args that were given and not consumed
}

// Open opens the engine whose state is kept in opts.Root. It waits while
// somebody prunes it.
func Open(ctx context.Context, opts Options) (*Engine, error) {
	st, err := openState(ctx, opts.Root, func(line string) {
		opts.Progress.Emit(progress.Event{Kind: progress.Warning, Line: line})
	})
	if err != nil {
		return nil, err
	}
	e := &Engine{opts: opts, state: st}
	if err := e.open(ctx); err != nil {
		return nil, errors.Join(err, st.close())
	}
	return e, nil
}

func (e *Engine) open(ctx context.Context) (err error) {
	if e.snaps, err = overlay.Open(e.state.path("snapshots")); err != nil {
		return err
	}
	if err := e.snaps.Clean(ctx); err != nil { // of processes that were killed
		return err
	}
	cached, err := content.Open(e.state.path("content"), nil)
	if err != nil {
		return err
	}
	e.reg, err = registry.New(registry.Options{
		Insecure: e.opts.Insecure,
		Mirrors:  e.opts.Mirrors,
		Store:    cached,
		Log: func(line string) {
			e.opts.Progress.Emit(progress.Event{Kind: progress.Warning, Line: line})
		},
	})
	if err != nil {
		return err
	}
	e.store, err = content.Open(e.state.path("content"), e.reg)
	return err
}

// Close lets go of the state directory.
func (e *Engine) Close() error { return e.state.close() }
