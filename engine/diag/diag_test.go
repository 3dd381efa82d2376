package diag_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/slipway-build/slipway/engine/diag"
)

func TestExplain(t *testing.T) {
	base := errors.New("exit code 2")
	near, far := diag.Origin{File: "Dockerfile", Line: 4, Last: 5}, diag.Origin{File: "Dockerfile", Line: 1, Last: 1}
	tests := []struct {
		name     string
		err      error
		wantAt   diag.Origin
		wantHint string
	}{
		{"plain", base, diag.Origin{}, ""},
		{"nil", nil, diag.Origin{}, ""},
		{"at", diag.At(base, near), near, ""},
		{"hint", diag.Hint(base, "set %s", "X"), diag.Origin{}, "set X"},
		{"inner wins", diag.At(fmt.Errorf("step: %w", diag.At(base, near)), far), near, ""},
		{"both kinds", diag.At(fmt.Errorf("step: %w", diag.Hint(base, "try")), far), far, "try"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			at, hint := diag.Explain(tt.err)
			if at != tt.wantAt || hint != tt.wantHint {
				t.Errorf("Explain = %v, %q; want %v, %q", at, hint, tt.wantAt, tt.wantHint)
			}
			if tt.err != nil && !errors.Is(tt.err, base) {
				t.Errorf("errors.Is lost the cause of %v", tt.err)
			}
		})
	}
	if diag.At(nil, near) != nil || diag.Hint(nil, "x") != nil {
		t.Error("a note on no error is an error")
	}
}
