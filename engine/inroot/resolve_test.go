package inroot_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/engine/inroot"
)

func TestInvariant12_ResolveStaysInside(t *testing.T) {
	r := hostile(t)
	tests := []struct {
		name   string
		follow bool
		want   string // path, "?" after it if there is nothing
		links  int
		err    error
	}{
		{"/", true, "/", 0, nil},
		{"/etc/passwd", true, "/etc/passwd", 0, nil},
		{"../../etc/passwd", true, "/etc/passwd", 0, nil},
		{"absolute", false, "/absolute", 0, nil},
		{"absolute", true, "/etc", 1, nil},
		{"absolute/passwd", false, "/etc/passwd", 1, nil},
		{"up/passwd", true, "/etc/passwd", 1, nil},
		{"a/b/back", true, "/etc/passwd", 1, nil},
		{"out", true, "/secret?", 1, nil},
		{"out/x/y", true, "/secret/x/y?", 1, nil},
		{"new/x", true, "/new/x?", 0, nil},
		{"etc/passwd/x", true, "", 0, unix.ENOTDIR},
		{"loop", true, "", 0, unix.ELOOP},
	}
	for _, tt := range tests {
		got, err := r.Resolve(tt.name, tt.follow)
		if !errors.Is(err, tt.err) {
			t.Errorf("Resolve(%q): %v, want %v", tt.name, err, tt.err)
		}
		if err != nil {
			continue
		}
		path := got.Path
		if !got.Exists {
			path += "?"
		}
		if path != tt.want || len(got.Links) != tt.links {
			t.Errorf("Resolve(%q) = %s via %v, want %s via %d", tt.name, path, got.Links, tt.want, tt.links)
		}
	}
}

// Resolve comes to where the kernel comes, if that comes anywhere.
func FuzzResolve(f *testing.F) {
	f.Add("a/b/c\nl -> a/b\nm -> /l/../b/./c", "m/x")
	f.Add("l -> ../../..\n", "l/l/l")
	f.Add("a/l -> ../a/l\n", "a/l")
	f.Add("a/b/c\nx -> a/b/c/../../b//", "x/c")
	f.Fuzz(func(t *testing.T, links, name string) {
		if len(links) > 300 || len(name) > 100 || strings.Contains(links+name, "\x00") {
			return
		}
		dir := t.TempDir()
		r, err := inroot.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		for line := range strings.SplitSeq(links, "\n") {
			link, target, isLink := strings.Cut(line, " -> ")
			if r.MkdirAll(filepath.Dir(filepath.Clean("/"+link)), 0o755, nil) != nil {
				continue
			}
			dirfd, base, err := r.OpenDir(link)
			if err != nil {
				continue
			}
			if isLink {
				_ = unix.Symlinkat(target, dirfd, base)
			} else {
				_ = unix.Mkdirat(dirfd, base, 0o755)
			}
			_ = unix.Close(dirfd)
		}
		name = filepath.Clean("/" + name) // as Resolve does
		for _, follow := range []bool{false, true} {
			want, wantErr := r.Lstat(name)
			if follow {
				want, wantErr = r.Stat(name)
			}
			got, err := r.Resolve(name, follow)
			if wantErr != nil { // "missing/.." is nothing to the kernel
				continue
			}
			if err != nil || !got.Exists || got.Stat.Ino != want.Ino {
				t.Errorf("Resolve(%q, %v) = %s, %v, %v; want inode %d", name, follow, got.Path, got.Exists, err, want.Ino)
			}
		}
	})
}
