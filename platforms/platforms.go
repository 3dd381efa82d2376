// Package platforms names what images are built for: parsing, normalising and
// matching strings such as linux/arm64/v8. It is a leaf: it imports nothing of
// ours. The rules are those of containerd's library, which BuildKit uses too.
package platforms

import (
	"fmt"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Platform is the image specification's type, so that it needs no conversion.
type Platform = ocispec.Platform

// Parse reads one platform, such as linux/amd64, linux/arm/v7, arm64 or local,
// and returns it normalised.
func Parse(s string) (Platform, error) {
	if s == "local" {
		return Host(), nil
	}
	p, err := platforms.Parse(s)
	if err != nil {
		return Platform{}, fmt.Errorf("parse platform %q: want os/arch or os/arch/variant, such as linux/arm64", s)
	}
	return Normalize(p), nil
}

// Host returns the platform that this process runs on.
func Host() Platform {
	p := platforms.DefaultSpec()
	return Normalize(Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant})
}

// Normalize returns p in the form in which equal platforms are equal values:
// lower case, canonical architecture names, no variant where it is the default.
func Normalize(p Platform) Platform { return platforms.Normalize(p) }

// Format returns p as os/arch or os/arch/variant.
func Format(p Platform) string { return platforms.Format(p) }

// Match reports whether an image for have runs where want is asked for: the
// same platform, or an older variant of it.
func Match(want, have Platform) bool { return platforms.Only(want).Match(have) }

// Best returns the index of the platform in have that serves want best, or -1.
func Best(want Platform, have []Platform) int {
	m, best := platforms.Only(want), -1
	for i, p := range have {
		if m.Match(p) && (best < 0 || m.Less(p, have[best])) {
			best = i
		}
	}
	return best
}
