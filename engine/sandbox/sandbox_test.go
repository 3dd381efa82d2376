package sandbox_test

import (
	"testing"

	"github.com/slipway-build/slipway/engine/sandbox"
)

func TestExitError(t *testing.T) {
	tests := []struct {
		err  sandbox.ExitError
		want string
	}{
		{sandbox.ExitError{Code: 1}, "exit code: 1"},
		{sandbox.ExitError{Code: 139, Signal: "segmentation fault"}, "exit code: 139 (signal: segmentation fault)"},
		{sandbox.ExitError{Code: 137, Signal: "killed", OOMKilled: true}, "exit code: 137: the process was killed because memory ran out"},
	}
	for _, tt := range tests {
		if got := tt.err.Error(); got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.err, got, tt.want)
		}
	}
}
