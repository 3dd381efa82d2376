package platforms_test

import (
	"testing"

	"github.com/slipway-build/slipway/platforms"
)

func TestParse(t *testing.T) {
	tests := []struct{ in, want string }{
		{"linux/amd64", "linux/amd64"},
		{"linux/arm64/v8", "linux/arm64"},
		{"linux/aarch64", "linux/arm64"},
		{"linux/x86_64", "linux/amd64"},
		{"linux/arm", "linux/arm/v7"},
		{"Linux/ARM/v6", "linux/arm/v6"},
		{"a/b/c/d", ""},
		{"", ""},
	}
	for _, tt := range tests {
		p, err := platforms.Parse(tt.in)
		if err != nil {
			if tt.want != "" {
				t.Errorf("Parse(%q): %v", tt.in, err)
			}
			continue
		}
		if got := platforms.Format(p); got != tt.want {
			t.Errorf("Parse(%q) = %s, want %q", tt.in, got, tt.want)
		}
	}
}

func TestBest(t *testing.T) {
	parse := func(s string) platforms.Platform {
		p, err := platforms.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	have := []platforms.Platform{parse("linux/amd64"), parse("linux/arm/v6"), parse("linux/arm/v7"), parse("linux/arm64")}
	tests := []struct {
		want string
		i    int
	}{
		{"linux/amd64", 0},
		{"linux/arm/v7", 2},
		{"linux/arm/v6", 1},
		{"linux/arm64", 3},
		{"linux/s390x", -1},
		{"windows/amd64", -1},
	}
	for _, tt := range tests {
		if got := platforms.Best(parse(tt.want), have); got != tt.i {
			t.Errorf("Best(%s) = %d, want %d", tt.want, got, tt.i)
		}
	}
}
