package engine_test

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/engine"
	"github.com/slipway-build/slipway/engine/sandbox/runc"
)

// Whoever waits for the state directory says for whom, once it takes a while.
func TestPrune_SaysForWhomItWaits(t *testing.T) {
	b := newBuilder(t)
	x, err := runc.New(runc.Options{Root: filepath.Join(b.state, "run")})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	e, err := engine.Open(t.Context(), engine.Options{Root: b.state, Executor: x})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	told := errors.New("told")
	ctx, cancel := context.WithCancelCause(t.Context())
	var notice string
	_, err = engine.Prune(ctx, b.state, engine.PruneOptions{Wait: true, Notice: func(line string) {
		notice = line
		cancel(told)
	}})
	if !errors.Is(err, told) || !strings.Contains(notice, "in use by process") {
		t.Errorf("err = %v, notice %q", err, notice)
	}
}
