// Package flight lets concurrent callers share one call of a function.
package flight

import (
	"context"
	"errors"
	"sync"
)

// A Group calls a function at most once per key, and gives its outcome to
// everyone who asks, now or later, until it is forgotten. The zero Group is
// ready to use; it must not be copied.
type Group[K comparable, V any] struct {
	mu    sync.Mutex
	calls map[K]*call[V]
}

type call[V any] struct {
	done chan struct{} // closed when v and err are set
	v    V
	err  error
}

var errAborted = errors.New("flight: call did not return")

// Do returns the outcome for k, which fn gives if nobody asked before. Waiting
// for somebody else's call ends with ctx; the call itself goes on.
func (g *Group[K, V]) Do(ctx context.Context, k K, fn func() (V, error)) (V, error) {
	g.mu.Lock()
	c, ok := g.calls[k]
	if !ok {
		if g.calls == nil {
			g.calls = make(map[K]*call[V])
		}
		c = &call[V]{done: make(chan struct{}), err: errAborted}
		g.calls[k] = c
	}
	g.mu.Unlock()
	if !ok {
		defer close(c.done) // also if fn panics; err is errAborted then
		c.v, c.err = fn()
		return c.v, c.err
	}
	select {
	case <-c.done:
		return c.v, c.err
	case <-ctx.Done():
		var zero V
		return zero, context.Cause(ctx)
	}
}

// Forget makes the next Do of k call its function again.
func (g *Group[K, V]) Forget(k K) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.calls, k)
}
