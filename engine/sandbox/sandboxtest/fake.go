package sandboxtest

import (
	"context"
	"io"
	"slices"
	"sync"

	"github.com/slipway-build/slipway/engine/sandbox"
)

// Fake is an Executor that runs nothing, and remembers what it was to run. The
// zero Fake is ready to use, and succeeds at once.
type Fake struct {
	// Do, if set, is called for every run, by the goroutine that runs it. It
	// gets the Spec with writers that are never nil.
	Do func(ctx context.Context, spec sandbox.Spec) error

	mu    sync.Mutex
	specs []sandbox.Spec
}

var _ sandbox.Executor = (*Fake)(nil)

// Run notes spec and calls Do. When ctx is cancelled it returns the cause.
func (f *Fake) Run(ctx context.Context, spec sandbox.Spec) error {
	f.mu.Lock()
	f.specs = append(f.specs, spec)
	f.mu.Unlock()
	if f.Do != nil {
		if spec.Stdout == nil {
			spec.Stdout = io.Discard
		}
		if spec.Stderr == nil {
			spec.Stderr = io.Discard
		}
		if err := f.Do(ctx, spec); err != nil {
			return err
		}
	}
	return context.Cause(ctx)
}

// Specs returns what was run so far, in the order in which it began.
func (f *Fake) Specs() []sandbox.Spec {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.specs)
}
