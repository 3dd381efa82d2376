package inroot_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/engine/inroot"
)

// A directory with links that try to lead out of it, beside one with a secret.
func hostile(t *testing.T) *inroot.Root {
	t.Helper()
	top := t.TempDir()
	dir := filepath.Join(top, "root")
	for _, d := range []string{dir, filepath.Join(dir, "etc"), filepath.Join(dir, "a/b")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(top, "secret"), "outside")
	write(t, filepath.Join(dir, "etc/passwd"), "inside")
	for link, target := range map[string]string{
		"absolute": "/etc",
		"up":       "../../../../etc",
		"out":      "../secret",
		"abs-out":  filepath.Join(top, "secret"),
		"magic":    "/proc/self/root",
		"a/b/back": "../../etc/passwd",
		"loop":     "loop",
	} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	r, err := inroot.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func write(t *testing.T, name, data string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestInvariant12_PathsStayInside(t *testing.T) {
	r := hostile(t)
	tests := []struct {
		name string
		want string // content, or
		err  error
	}{
		{name: "/etc/passwd", want: "inside"},
		{name: "etc/passwd", want: "inside"},
		{name: "../../etc/passwd", want: "inside"},
		{name: "absolute/passwd", want: "inside"},
		{name: "up/passwd", want: "inside"},
		{name: "a/b/back", want: "inside"},
		{name: "out", err: fs.ErrNotExist},
		{name: "abs-out", err: fs.ErrNotExist},
		{name: "../secret", err: fs.ErrNotExist},
		{name: "magic/etc/passwd", err: fs.ErrNotExist},
		{name: "loop", err: unix.ELOOP},
	}
	for _, tt := range tests {
		b, err := r.ReadFile(tt.name, 100)
		if !errors.Is(err, tt.err) || string(b) != tt.want {
			t.Errorf("ReadFile(%q) = %q, %v; want %q, %v", tt.name, b, err, tt.want, tt.err)
		}
	}
}

func TestReadFile_Limits(t *testing.T) {
	r := hostile(t)
	if _, err := r.ReadFile("etc/passwd", 3); err == nil {
		t.Error("a file over the limit was read")
	}
	if _, err := r.ReadFile("etc", 100); err == nil {
		t.Error("a directory was read as a file")
	}
	if err := unix.Mkfifoat(r.Fd(), "fifo", 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := r.ReadFile("fifo", 100); err == nil {
		t.Error("a FIFO was read as a file")
	}
}

func TestMkdirAll(t *testing.T) {
	r := hostile(t)
	var made []string
	note := func(_ int, name string) error { made = append(made, name); return nil }
	if err := r.MkdirAll("/absolute/x/y", 0o755, note); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Lstat("etc/x/y"); err != nil {
		t.Errorf("the link was not followed: %v", err)
	}
	if len(made) != 2 {
		t.Errorf("made %q, want x and y", made)
	}
	if err := r.MkdirAll("out/x", 0o755, nil); err == nil {
		t.Error("made a directory behind a link that leads out")
	}
	if err := r.MkdirAll("etc/passwd/x", 0o755, nil); err == nil {
		t.Error("made a directory below a file")
	}
}

func TestSplit(t *testing.T) {
	for name, want := range map[string][2]string{
		"/":           {"/", "."},
		"":            {"/", "."},
		"..":          {"/", "."},
		"/a/../../b/": {"/", "b"},
		"a/b":         {"/a/", "b"},
	} {
		if dir, base := inroot.Split(name); dir != want[0] || base != want[1] {
			t.Errorf("Split(%q) = %q, %q; want %q", name, dir, base, want)
		}
	}
}
