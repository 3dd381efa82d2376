package diag_test

import (
	"testing"

	"github.com/slipway-build/slipway/engine/diag"
)

func TestDistance(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{
		{"", "", 0},
		{"RUN", "RUN", 0},
		{"RNU", "RUN", 1}, // swapped
		{"RU", "RUN", 1},
		{"RUNN", "RUN", 1},
		{"RAN", "RUN", 1},
		{"RUN", "", 3},
		{"ENV", "RUN", 3},
	} {
		if got := diag.Distance(tt.a, tt.b); got != tt.want {
			t.Errorf("Distance(%q, %q) = %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
}

func FuzzDistance(f *testing.F) {
	f.Add("taget", "target")
	f.Fuzz(func(t *testing.T, a, b string) {
		d := diag.Distance(a, b)
		if (d == 0) != (a == b) || d > max(len(a), len(b)) || d < max(len(a), len(b))-min(len(a), len(b)) || d != diag.Distance(b, a) {
			t.Errorf("Distance(%q, %q) = %d", a, b, d)
		}
	})
}
