package sandboxtest_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/slipway-build/slipway/engine/sandbox"
	"github.com/slipway-build/slipway/engine/sandbox/sandboxtest"
)

func TestFake(t *testing.T) {
	var fake sandboxtest.Fake
	if err := fake.Run(t.Context(), sandbox.Spec{ID: "one"}); err != nil {
		t.Errorf("the zero Fake says %v", err)
	}
	fake.Do = func(_ context.Context, spec sandbox.Spec) error {
		fmt.Fprintln(spec.Stdout, "output that nobody wants")
		return &sandbox.ExitError{Code: 3}
	}
	exit, _ := errors.AsType[*sandbox.ExitError](fake.Run(t.Context(), sandbox.Spec{ID: "two"}))
	if exit == nil || exit.Code != 3 {
		t.Errorf("error is %v, want what Do returned", exit)
	}
	stop := errors.New("stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	fake.Do = func(context.Context, sandbox.Spec) error { cancel(stop); return nil }
	if err := fake.Run(ctx, sandbox.Spec{ID: "three"}); !errors.Is(err, stop) {
		t.Errorf("error is %v, want the cause", err)
	}
	if specs := fake.Specs(); len(specs) != 3 || specs[1].ID != "two" {
		t.Errorf("specs are %+v", specs)
	}
}
