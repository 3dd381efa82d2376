package registry_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/slipway-build/slipway/engine/registry"
)

func TestParseRef(t *testing.T) {
	d := digest.FromString("x")
	tests := []struct {
		in, full string
		want     registry.Ref
	}{
		{"debian", "docker.io/library/debian:latest", registry.Ref{Host: "docker.io", Repo: "library/debian", Tag: "latest"}},
		{"debian:12", "docker.io/library/debian:12", registry.Ref{Host: "docker.io", Repo: "library/debian", Tag: "12"}},
		{"me/app", "docker.io/me/app:latest", registry.Ref{Host: "docker.io", Repo: "me/app", Tag: "latest"}},
		{"index.docker.io/debian", "docker.io/library/debian:latest", registry.Ref{Host: "docker.io", Repo: "library/debian", Tag: "latest"}},
		{"localhost/app", "localhost/app:latest", registry.Ref{Host: "localhost", Repo: "app", Tag: "latest"}},
		{"127.0.0.1:5000/a/b/c:v1.2_x", "127.0.0.1:5000/a/b/c:v1.2_x", registry.Ref{Host: "127.0.0.1:5000", Repo: "a/b/c", Tag: "v1.2_x"}},
		{"[::1]:5000/a", "[::1]:5000/a:latest", registry.Ref{Host: "[::1]:5000", Repo: "a", Tag: "latest"}},
		{"r.example/a@" + d.String(), "r.example/a@" + d.String(), registry.Ref{Host: "r.example", Repo: "a", Digest: d}},
		{"r.example/a:1@" + d.String(), "r.example/a:1@" + d.String(), registry.Ref{Host: "r.example", Repo: "a", Tag: "1", Digest: d}},
	}
	for _, test := range tests {
		got, err := registry.ParseRef(test.in)
		if err != nil {
			t.Errorf("ParseRef(%q): %v", test.in, err)
			continue
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("ParseRef(%q) (-want +got):\n%s", test.in, diff)
		}
		if got.String() != test.full {
			t.Errorf("ParseRef(%q).String() = %q, want %q", test.in, got, test.full)
		}
	}
}

func TestParseRef_Refuses(t *testing.T) {
	for _, in := range []string{
		"", ":", "/", "app:", "app@", "app@sha256:12", "App", "r.example/App", "r.example/", "r.example/../x",
		"docker.io/library/..", "a//b", "a b", "https://r.example/a", "r.example/a:b/c:-x", "app:" + strings.Repeat("x", 129),
		"r.example/" + strings.Repeat("x", 250), "r.example:port/a", "a?b", "a#b", "r.example/a\nb", "user@r.example/a",
	} {
		if got, err := registry.ParseRef(in); err == nil {
			t.Errorf("ParseRef(%q) = %v, want an error", in, got)
		}
	}
}

func TestRef_Familiar(t *testing.T) {
	for in, want := range map[string]string{
		"docker.io/library/debian:12": "debian:12", "docker.io/me/app": "me/app:latest", "r.example/library/x:1": "r.example/library/x:1",
	} {
		if r, err := registry.ParseRef(in); err != nil || r.Familiar() != want {
			t.Errorf("%s is %q (%v), want %q", in, r.Familiar(), err, want)
		}
	}
}

// A name that is understood, written out in full, means the same, and nothing
// in it can change the URL that is asked.
func FuzzParseRef(f *testing.F) {
	for _, s := range []string{"debian", "a.b:1/c/d:e", "localhost/x@" + digest.FromString("").String(), "[::1]:1/a", "A/b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := registry.ParseRef(s)
		if err != nil {
			return
		}
		again, err := registry.ParseRef(r.String())
		if err != nil || again != r {
			t.Fatalf("%q is %q, and that is %q (%v)", s, r, again, err)
		}
		if strings.ContainsAny(r.Repo+r.Tag, "?#%\\ \n") || strings.Contains(r.Repo, "..") {
			t.Fatalf("%q gives the repository %q and the tag %q", s, r.Repo, r.Tag)
		}
	})
}
