//go:build linux && cgo && (amd64 || arm64)

package runc_test

import (
	"testing"
	"time"

	"github.com/slipway-build/slipway/engine/sandbox"
	"github.com/slipway-build/slipway/engine/sandbox/runc"
	"github.com/slipway-build/slipway/engine/sandbox/sandboxtest"
)

func open(t testing.TB) sandbox.Executor { return openWith(t, runc.Options{}) }

func openWith(t testing.TB, opts runc.Options) *runc.Executor {
	t.Helper()
	if opts.Root == "" {
		opts.Root = t.TempDir()
	}
	opts.Grace = 5 * time.Second
	ex, err := runc.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ex.Close(); err != nil {
			t.Error(err)
		}
	})
	return ex
}

func TestExecutor(t *testing.T) { sandboxtest.Test(t, open, sandboxtest.Busybox) }

func BenchmarkRun_True(b *testing.B) {
	root, ex := sandboxtest.Busybox(b), open(b)
	spec := sandboxtest.Spec(root, "", func(s *sandbox.Spec) { s.Args = []string{"true"} })
	b.ReportAllocs()
	for b.Loop() {
		if err := ex.Run(b.Context(), spec); err != nil {
			b.Fatal(err)
		}
	}
}
