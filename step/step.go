// Package step is the build step: what happens between a pipeline, or a person
// at a terminal, handing over inputs and getting back a digest. It knows the
// defaults, what the log looks like and what can be done about errors; it does
// not know where inputs come from (ci) or how images are built (engine).
package step

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/slipway-build/slipway/ci"
	"github.com/slipway-build/slipway/engine"
	"github.com/slipway-build/slipway/engine/diag"
	"github.com/slipway-build/slipway/engine/progress"
	"github.com/slipway-build/slipway/engine/sandbox"
)

// Env is all of the outside world that a step touches, but for files.
type Env struct {
	Lookup func(name string) (string, bool) // reads a variable

	Stdin  io.Reader
	Stdout io.Writer // results that were asked for there
	Piped  bool      // Stdout is no terminal
	Log    io.Writer // everything that is for people

	// Size returns the size of the terminal that Log is; nil if it is none.
	Size  func() (width, height int)
	Color bool // Log shows colours

	Dialect ci.Dialect

	// Executor makes what runs containers; dir is a directory of its own.
	Executor func(dir string) (Executor, error)

	// Root says that this process runs as root.
	Root bool

	// Open opens the engine; nil means the real one. For tests.
	Open func(ctx context.Context, opts engine.Options) (Builder, error)
}

// Executor runs containers. Close is called when the build has ended.
type Executor interface {
	sandbox.Executor
	Close() error
}

// Builder is what a step needs of an [engine.Engine].
type Builder interface {
	Build(ctx context.Context, req engine.Request) (engine.Result, error)
	Close() error
}

// ErrShown marks an error that the log has explained already.
var ErrShown = errors.New("see the log")

// Run does one build step: it builds what src asks for, shows it in the log and
// hands the results to the pipeline. An error that wraps [ErrUsage] was not
// shown; every other one wraps [ErrShown].
func Run(ctx context.Context, src Source, env Env) error {
	cfg, err := Load(src, env.Lookup)
	var req engine.Request
	if err == nil {
		req, err = cfg.open(env)
	}
	if errors.Is(err, ErrUsage) {
		env.Dialect.Console(env.Log).Annotate(ci.Annotation{Level: ci.Error, Message: err.Error()})
		return err
	}
	l := newLog(ctx, cfg, env)
	l.notices(cfg.Notices)
	begin := time.Now()
	var res engine.Result
	if err == nil {
		res, err = build(ctx, cfg, req, env, l.report.sink)
	}
	l.report.close()
	l.warnings(res)
	if err == nil {
		err = cfg.deliver(res, env)
	}
	if err != nil {
		l.failure(ctx, req, err)
		return fmt.Errorf("%w: %w", ErrShown, err)
	}
	l.summary(res, time.Since(begin))
	return nil
}

// build is the part of a step that the engine does.
func build(ctx context.Context, cfg Config, req engine.Request, env Env, sink progress.Sink) (res engine.Result, err error) {
	// Whether results can be handed over shows before the work is done.
	if err := env.Dialect.SetOutputs(nil); err != nil {
		return res, err
	}
	if err := cfg.removeStale(); err != nil {
		return res, err
	}
	e, err := openEngine(ctx, cfg, env, sink)
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	return e.Build(ctx, req)
}

func openEngine(ctx context.Context, cfg Config, env Env, sink progress.Sink) (Builder, error) {
	opts := engine.Options{
		Root: cfg.Root, Jobs: cfg.Jobs, Progress: sink, Insecure: cfg.Insecure, Mirrors: cfg.Mirrors,
	}
	if env.Open != nil {
		return env.Open(ctx, opts)
	}
	if !env.Root {
		return nil, diag.Hint(errors.New("open engine: this process does not run as root"), "%s", rootHint)
	}
	x, err := env.Executor(filepath.Join(cfg.Root, "run"))
	if err != nil {
		return nil, err
	}
	opts.Executor = x
	e, err := engine.Open(ctx, opts)
	if err != nil {
		return nil, errors.Join(err, x.Close())
	}
	return opened{e, x}, nil
}

// opened is an engine with what was opened for it.
type opened struct {
	*engine.Engine
	executor Executor
}

// Close closes both.
func (o opened) Close() error { return errors.Join(o.Engine.Close(), o.executor.Close()) }
