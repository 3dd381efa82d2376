package filehash_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/engine/filehash"
	"github.com/slipway-build/slipway/engine/graph"
	"github.com/slipway-build/slipway/engine/inroot"
	"github.com/slipway-build/slipway/engine/tree"
)

// write makes files in dir: "name/" is a directory, "name -> target" a link,
// "name = other" a hard link, "name" a file that contains its name.
func write(t testing.TB, dir string, files ...string) {
	t.Helper()
	for _, f := range files {
		var err error
		if name, target, ok := strings.Cut(f, " -> "); ok {
			mkdir(t, dir, filepath.Dir(name))
			err = os.Symlink(target, filepath.Join(dir, name))
		} else if name, other, ok := strings.Cut(f, " = "); ok {
			mkdir(t, dir, filepath.Dir(name))
			err = os.Link(filepath.Join(dir, other), filepath.Join(dir, name))
		} else if strings.HasSuffix(f, "/") {
			mkdir(t, dir, f)
		} else {
			mkdir(t, dir, filepath.Dir(f))
			err = os.WriteFile(filepath.Join(dir, f), []byte(f), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func mkdir(t testing.TB, dir, name string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
		t.Fatal(err)
	}
}

func view(t testing.TB, dir string) tree.View {
	t.Helper()
	r, err := inroot.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return tree.View{Root: r, Local: true}
}

// list returns what r selects: a line for each match, with the links to it, and
// one for each entry of it.
func list(t testing.TB, v tree.View, r graph.Request) ([]string, error) {
	t.Helper()
	files, err := filehash.Resolve(t.Context(), v, r)
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, m := range files.Matches {
		line := m.Path
		for _, l := range m.Links {
			line += " via " + l.Path
		}
		if m.Real != m.Path {
			line += " at " + m.Real
		}
		lines = append(lines, line)
		err := files.Walk(t.Context(), m, func(e *filehash.Entry) error {
			if e.Top {
				return nil
			}
			line := "  " + e.Rel
			switch e.Type() {
			case unix.S_IFDIR:
				line += "/"
			case unix.S_IFLNK:
				line += " -> " + e.Target
			}
			if e.Implied {
				line += " (implied)"
			}
			if e.Same > 0 {
				line += fmt.Sprintf(" = %d", e.Same)
			}
			lines = append(lines, line)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return lines, nil
}

func TestInvariant05_RequestsSelectAsCopyDoes(t *testing.T) {
	dir := t.TempDir()
	write(t, dir,
		"a/one.txt", "a/two.go", "a/b/three.txt", "a/b/deep/four.txt", "empty/",
		"link -> a/b", "file -> a/one.txt", "abs -> /a/b/../one.txt", "up -> ../../../../a",
		"twice -> link", "dangling -> nothing", "loop -> loop", "a/in -> b",
		"d1/x", "d2/x", "d2/hard = d2/x", "*star",
	)
	if err := unix.Mknod(filepath.Join(dir, "d1/socket"), unix.S_IFSOCK|0o644, 0); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		r    graph.Request
		want string // lines, joined by "|"
		err  string
	}{
		{"a file", graph.Request{Path: "/a/one.txt"}, "/a/one.txt|  ", ""},
		{"a path that leads out", graph.Request{Path: "/../../a/one.txt"}, "/a/one.txt|  ", ""},
		{"the contents of a directory", graph.Request{Path: "/a/b", Contents: true}, "/a/b|  deep/|  deep/four.txt|  three.txt", ""},
		{"a directory", graph.Request{Path: "/a/b"}, "/a/b|  /|  deep/|  deep/four.txt|  three.txt", ""},
		{"an empty directory", graph.Request{Path: "/empty", Contents: true}, "/empty", ""},
		{"through a link", graph.Request{Path: "/link/deep"}, "/link/deep via /link at /a/b/deep|  /|  four.txt", ""},
		{"through two links", graph.Request{Path: "/twice/three.txt"}, "/twice/three.txt via /twice via /link at /a/b/three.txt|  ", ""},
		{"a link", graph.Request{Path: "/file"}, "/file|   -> a/one.txt", ""},
		{"a followed link", graph.Request{Path: "/file", Follow: true}, "/file via /file at /a/one.txt|  ", ""},
		{"an absolute link", graph.Request{Path: "/abs", Follow: true}, "/abs via /abs at /a/one.txt|  ", ""},
		{"a link that tries to get out", graph.Request{Path: "/up/one.txt"}, "/up/one.txt via /up at /a/one.txt|  ", ""},
		{"a dangling link", graph.Request{Path: "/dangling"}, "/dangling|   -> nothing", ""},
		{"a followed dangling link", graph.Request{Path: "/dangling", Follow: true}, "", `"/dangling": not found`},
		{"a loop", graph.Request{Path: "/loop", Follow: true}, "", "too many levels of symbolic links"},
		{"nothing", graph.Request{Path: "/x"}, "", `"/x": not found`},
		{"nothing below a file", graph.Request{Path: "/a/one.txt/x"}, "", `"/a/one.txt/x": not found`},
		{"hard links, no sockets", graph.Request{Path: "/d?", Wildcard: true, Contents: true}, "/d1|  x|/d2|  hard|  x = 4", ""},
		{"a pattern", graph.Request{Path: "/a/*.txt", Wildcard: true}, "/a/one.txt|  ", ""},
		{"a pattern for several components", graph.Request{Path: "/*/*/*.txt", Wildcard: true}, "/a/b/three.txt|  ", ""},
		{"a pattern after a link", graph.Request{Path: "/link/t*", Wildcard: true}, "/link/three.txt via /link at /a/b/three.txt|  ", ""},
		{"a pattern that matches a link", graph.Request{Path: "/fi*", Wildcard: true, Follow: true}, "/file via /file at /a/one.txt|  ", ""},
		{"a pattern that matches nothing", graph.Request{Path: "/a/*.rs", Wildcard: true}, "", ""},
		{"a pattern below nothing", graph.Request{Path: "/x/*.rs", Wildcard: true}, "", ""},
		{"what need not be there", graph.Request{Path: "/x", Wildcard: true, Follow: true}, "", ""},
		{"what need not be there, and is", graph.Request{Path: "/link/three.txt", Wildcard: true, Follow: true}, "/link/three.txt via /link at /a/b/three.txt|  ", ""},
		{"a bad pattern", graph.Request{Path: "/a/[*", Wildcard: true}, "", "syntax error in pattern"},
		{"an asterisk that is none", graph.Request{Path: "/*star"}, "/*star|  ", ""},
		{"exclusion", graph.Request{Path: "/a", Contents: true, Exclude: []string{"**/*.txt", "!b/three.txt", "in"}}, "/a|  b/|  b/deep/|  b/three.txt|  two.go", ""},
		{"exclusion of a directory", graph.Request{Path: "/a", Contents: true, Exclude: []string{"/b/", "in"}}, "/a|  one.txt|  two.go", ""},
		{"exclusion but for something in it", graph.Request{Path: "/a", Contents: true, Exclude: []string{"b", "!b/deep", "in"}}, "/a|  b/ (implied)|  b/deep/|  b/deep/four.txt|  one.txt|  two.go", ""},
		{"exclusion of matches", graph.Request{Path: "/a/*", Wildcard: true, Contents: true, Exclude: []string{"*.txt", "deep", "in"}}, "/a/b|/a/two.go|  ", ""},
		{"parents", graph.Request{Path: "/a/b/deep", Parents: true}, "/|  a/ (implied)|  a/b/ (implied)|  a/b/deep/|  a/b/deep/four.txt", ""},
		{"parents from a pivot", graph.Request{Path: "/a/b/three.txt", Pivot: "/a", Parents: true}, "/a|  b/ (implied)|  b/three.txt", ""},
		{"parents from a pattern", graph.Request{Path: "/d*/x", Pivot: "/d*", Parents: true, Wildcard: true}, "/d1|  x|/d2|  x", ""},
		{"parents with a pattern", graph.Request{Path: "/**/*.txt", Parents: true, Wildcard: true}, "/|  a/ (implied)|  a/b/ (implied)|  a/b/deep/ (implied)|  a/b/deep/four.txt|  a/b/three.txt|  a/one.txt", ""},
		{"parents with a pattern for each component", graph.Request{Path: "/*/b/t*", Parents: true, Wildcard: true}, "/|  a/ (implied)|  a/b/ (implied)|  a/b/three.txt", ""},
		{"parents and exclusion", graph.Request{Path: "/a", Parents: true, Exclude: []string{"a/b", "a/in"}}, "/|  a/|  a/one.txt|  a/two.go", ""},
		{"parents of nothing", graph.Request{Path: "/a/x", Parents: true}, "", `"/a/x": not found`},
		{"parents do not follow links", graph.Request{Path: "/link/three.txt", Parents: true}, "", `"/link/three.txt": not found`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := list(t, view(t, dir), tt.r)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("err = %v, want %q", err, tt.err)
				}
				if strings.Contains(tt.err, "not found") && !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%v does not wrap fs.ErrNotExist", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, strings.Join(got, "|")); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestIgnoredFilesAreNotThere(t *testing.T) {
	dir := t.TempDir()
	write(t, dir,
		"src/a.go", "src/a.md", "docs/api/x.md", "docs/api/y.txt", "docs/index.md",
		"secret", "link -> secret", "hidden -> src", ".git/config", "vendor/m/keep/k", "vendor/m/gone", "vendor/n/gone",
	)
	v := view(t, dir)
	v.Ignored = []string{"docs", "!docs/**/*.md", "secret", "hidden", ".git", "vendor", "!vendor/m/keep", "**/*.tmp"}
	tests := []struct {
		name string
		r    graph.Request
		want string
		err  string
	}{
		{"all", graph.Request{Path: "/", Contents: true}, "/|  docs/|  docs/api/|  docs/api/x.md|  docs/index.md|  link -> secret|  src/|  src/a.go|  src/a.md|  vendor/|  vendor/m/|  vendor/m/keep/|  vendor/m/keep/k", ""},
		{"a file", graph.Request{Path: "/secret"}, "", `"/secret": not found: it is excluded by .dockerignore`},
		{"a directory", graph.Request{Path: "/.git", Contents: true}, "", `"/.git": not found: it is excluded by .dockerignore`},
		{"a directory with nothing to be seen", graph.Request{Path: "/vendor/n", Contents: true}, "", "excluded by .dockerignore"},
		{"a directory with something to be seen", graph.Request{Path: "/vendor", Contents: true}, "/vendor|  m/|  m/keep/|  m/keep/k", ""},
		{"a link to it", graph.Request{Path: "/link", Follow: true}, "", "excluded by .dockerignore"},
		{"through a link that is ignored", graph.Request{Path: "/hidden/a.go"}, "", "excluded by .dockerignore"},
		{"patterns", graph.Request{Path: "/*", Wildcard: true, Contents: true, Exclude: []string{"**/*.go"}}, "/docs|  api/|  api/x.md|  index.md|/link|   -> secret|/src|  a.md|/vendor|  m/|  m/keep/|  m/keep/k", ""},
		{"parents", graph.Request{Path: "/docs/**", Parents: true, Wildcard: true}, "/|  docs/ (implied)|  docs/api/|  docs/api/x.md|  docs/index.md", ""},
		{"parents of a file", graph.Request{Path: "/docs/api/y.txt", Parents: true}, "", "excluded by .dockerignore"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := list(t, v, tt.r)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) || !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("err = %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, strings.Join(got, "|")); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// viewer shows one directory as every tree; a tree with layers as not local.
type viewer struct{ dir string }

func (v viewer) View(_ context.Context, t tree.Tree) (tree.View, error) {
	r, err := inroot.Open(v.dir)
	return tree.View{Root: r, Local: t.Local != ""}, err
}

func hash(t testing.TB, dir string, local bool, r ...graph.Request) string {
	t.Helper()
	h := filehash.New(viewer{dir}, filehash.Options{})
	var tr tree.Tree
	if local {
		tr.Local = "context"
	}
	d, err := h.Hash(t.Context(), tr, graph.Select{Requests: r})
	if err != nil {
		t.Fatal(err)
	}
	return d.Encoded()
}

func TestInvariant05_DigestCoversWhatIsCopied(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to change owners")
	}
	fill := func(t *testing.T) string {
		dir := t.TempDir()
		write(t, dir, "d/a", "d/b", "d/sub/c", "d/link -> a", "d/hard = d/a", "via -> d", "other/x")
		if err := unix.Mkfifo(filepath.Join(dir, "d/fifo"), 0o644); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	at := func(f func(name string) error, name string) func(string) error {
		return func(dir string) error { return f(filepath.Join(dir, name)) }
	}
	contents := graph.Request{Path: "/via", Follow: true, Contents: true}
	itself := graph.Request{Path: "/d"}
	parents := graph.Request{Path: "/d/sub/c", Parents: true}
	tests := []struct {
		name   string
		change func(dir string) error
		r      graph.Request
		local  bool
		same   bool
	}{
		{"nothing", func(string) error { return nil }, contents, false, true},
		{"content", at(func(n string) error { return os.WriteFile(n, []byte("D/a"), 0o644) }, "d/a"), contents, false, false},
		{"size", at(func(n string) error { return os.Truncate(n, 0) }, "d/a"), contents, false, false},
		{"name", func(d string) error { return os.Rename(d+"/d/b", d+"/d/bb") }, contents, false, false},
		{"a new empty directory", at(func(n string) error { return os.Mkdir(n, 0o755) }, "d/new"), contents, false, false},
		{"mode", at(func(n string) error { return os.Chmod(n, 0o600) }, "d/a"), contents, false, false},
		{"set-user-ID bit", at(func(n string) error { return os.Chmod(n, 0o644|fs.ModeSetuid) }, "d/a"), contents, false, false},
		{"owner", at(func(n string) error { return os.Lchown(n, 7, 0) }, "d/a"), contents, false, false},
		{"group", at(func(n string) error { return os.Lchown(n, 0, 7) }, "d/a"), contents, false, false},
		{"owner of a link", at(func(n string) error { return os.Lchown(n, 7, 0) }, "d/link"), contents, false, false},
		{"owner in a local context", at(func(n string) error { return os.Lchown(n, 7, 7) }, "d/a"), contents, true, true},
		{"times", at(func(n string) error { return os.Chtimes(n, time.Unix(1, 1), time.Unix(1, 1)) }, "d/a"), contents, false, true},
		{"target of a link", at(func(n string) error { return errors.Join(os.Remove(n), os.Symlink("b", n)) }, "d/link"), contents, false, false},
		{"hard links that are no more", at(func(n string) error { return errors.Join(os.Remove(n), os.WriteFile(n, []byte("d/a"), 0o644)) }, "d/hard"), contents, false, false},
		{"a hard link from elsewhere", func(d string) error { return os.Link(d+"/d/b", d+"/other/b") }, contents, false, true},
		{"xattr", at(func(n string) error { return unix.Setxattr(n, "user.x", []byte("1"), 0) }, "d/a"), contents, false, false},
		{"xattr of a directory", at(func(n string) error { return unix.Setxattr(n, "user.x", []byte("1"), 0) }, "d/sub"), contents, false, false},
		{"xattr of a link", at(func(n string) error { return unix.Lsetxattr(n, "trusted.x", []byte("1"), 0) }, "d/link"), contents, false, false},
		{"xattr of overlayfs", at(func(n string) error { return unix.Setxattr(n, "trusted.overlay.x", []byte("1"), 0) }, "d/a"), contents, false, true},
		{"type", at(func(n string) error { return errors.Join(os.Remove(n), unix.Mknod(n, unix.S_IFCHR|0o644, 0x103)) }, "d/fifo"), contents, false, false},
		{"mode of the directory that contents are of", at(func(n string) error { return os.Chmod(n, 0o700) }, "d"), contents, false, true},
		{"mode of the directory that is copied", at(func(n string) error { return os.Chmod(n, 0o700) }, "d"), itself, false, false},
		{"xattr of the directory that is copied", at(func(n string) error { return unix.Setxattr(n, "user.x", []byte("1"), 0) }, "d"), itself, false, false},
		{"the link on the way", at(func(n string) error { return errors.Join(os.Remove(n), os.Symlink("/d", n)) }, "via"), contents, false, false},
		{"something else", at(func(n string) error { return os.WriteFile(n, nil, 0o644) }, "other/x"), contents, false, true},
		{"mode of a parent", at(func(n string) error { return os.Chmod(n, 0o700) }, "d/sub"), parents, false, false},
		{"something beside", at(func(n string) error { return os.WriteFile(n, nil, 0o644) }, "d/a"), parents, false, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := hash(t, fill(t), tt.local, tt.r)
			dir := fill(t)
			if err := tt.change(dir); err != nil {
				t.Fatal(err)
			}
			if after := hash(t, dir, tt.local, tt.r); (after == before) != tt.same {
				t.Errorf("digest equal: %v, want %v", after == before, tt.same)
			}
		})
	}
}

func TestInvariant05_SetOfRequestsCounts(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a", "b")
	a, b := graph.Request{Path: "/a"}, graph.Request{Path: "/b"}
	if hash(t, dir, true, a, b) != hash(t, dir, true, b, a, a) {
		t.Error("the order of requests makes a difference")
	}
	if hash(t, dir, true, a) == hash(t, dir, true, a, b) || hash(t, dir, true, a) == hash(t, dir, true, b) {
		t.Error("different requests have one digest")
	}
}

func TestHash_NamesWhatCantBeRead(t *testing.T) {
	// A file that not even root can read: there is nothing at address 0.
	_, err := filehash.New(viewer{"/proc/self"}, filehash.Options{}).Hash(t.Context(), tree.Tree{Local: "c"}, graph.Select{Requests: []graph.Request{{Path: "/mem"}}})
	if !errors.Is(err, unix.EIO) || !strings.Contains(err.Error(), "/mem") {
		t.Errorf("err = %v, want one that names /mem", err)
	}
}

func TestStatCache(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a", "b")
	state := filepath.Join(t.TempDir(), "stat")
	all := graph.Select{Requests: []graph.Request{{Path: "/", Contents: true}}}
	sum := func(now time.Time) string {
		t.Helper()
		h := filehash.New(viewer{dir}, filehash.Options{StatCache: state, Now: func() time.Time { return now }})
		d, err := h.Hash(t.Context(), tree.Tree{Local: "c"}, all)
		if err != nil {
			t.Fatal(err)
		}
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
		return d.Encoded()
	}
	want := sum(time.Now())
	if _, err := os.Stat(state); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("files that were just written to are remembered: %v", err)
	}
	later := time.Now().Add(time.Hour)
	if got := sum(later); got != want {
		t.Errorf("digest differs when remembered: %s, want %s", got, want)
	}
	good, err := os.ReadFile(state)
	if err != nil {
		t.Fatalf("nothing was remembered: %v", err)
	}
	if got := sum(later); got != want {
		t.Errorf("digest differs when known: %s, want %s", got, want)
	}

	// What it says is believed only if it is whole.
	digestOfA := good[len("slipway stat cache 1\n")+4+48:]
	for _, damage := range []func(b []byte) []byte{
		func(b []byte) []byte { return b[:len(b)-1] },
		func(b []byte) []byte { b[len(good)-len(digestOfA)] ^= 1; return b },
		func([]byte) []byte { return nil },
	} {
		if err := os.WriteFile(state, damage(bytes.Clone(good)), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := sum(later); got != want {
			t.Errorf("digest differs with a damaged cache: %s, want %s", got, want)
		}
	}

	if err := os.WriteFile(filepath.Join(dir, "a"), []byte("A"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := sum(later); got == want {
		t.Error("a change was not seen")
	}
}

func BenchmarkHash10000Files(b *testing.B) {
	dir := b.TempDir()
	for i := range 10_000 {
		name := filepath.Join(dir, fmt.Sprintf("d%03d", i/100), fmt.Sprintf("f%d", i))
		if i%100 == 0 {
			mkdir(b, filepath.Dir(name), ".")
		}
		if err := os.WriteFile(name, bytes.Repeat([]byte{byte(i)}, 2000), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	all := graph.Select{Requests: []graph.Request{{Path: "/", Contents: true}}}
	for _, known := range []bool{false, true} {
		b.Run(fmt.Sprintf("known=%v", known), func(b *testing.B) {
			opts := filehash.Options{Now: func() time.Time { return time.Now().Add(time.Hour) }}
			h := filehash.New(viewer{dir}, opts)
			for b.Loop() {
				if !known {
					h = filehash.New(viewer{dir}, opts)
				}
				if _, err := h.Hash(b.Context(), tree.Tree{Local: "c"}, all); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)*10_000/b.Elapsed().Seconds(), "files/s")
		})
	}
}
