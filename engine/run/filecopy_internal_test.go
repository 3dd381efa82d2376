package run

import (
	"context"
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
	"github.com/slipway-build/slipway/engine/solve"
	"github.com/slipway-build/slipway/engine/tree"
)

// now is the time of copies; files that are copied are older.
var (
	now = time.Unix(1_800_000_000, 0)
	old = time.Unix(1_000_000_000, 123456789)
)

// make makes files in dir. Each is "name[ mode][ uid:gid][ op what]": a name that
// ends with "/" is a directory, "->" a symbolic link, "==" a hard link, "=" a
// file with this content; else the file contains its name.
func fill(t testing.TB, dir string, files ...string) {
	t.Helper()
	for _, f := range files {
		fields := strings.Fields(f)
		name := filepath.Join(dir, fields[0])
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		fillOne(t, dir, name, fields)
		if err := setOld(name); err != nil {
			t.Fatal(err)
		}
	}
	for d := range dirsIn(t, dir) { // files made in them touched them
		if err := setOld(d); err != nil {
			t.Fatal(err)
		}
	}
}

func fillOne(t testing.TB, dir, name string, fields []string) {
	t.Helper()
	mode, uid, gid := uint32(0o644), 0, 0
	content := fields[0]
	isDir := strings.HasSuffix(fields[0], "/")
	if isDir {
		mode = 0o755
	}
	for i := 1; i < len(fields); i++ {
		switch {
		case fields[i] == "->":
			check(t, os.Symlink(fields[i+1], name))
			check(t, os.Lchown(name, uid, gid))
			return
		case fields[i] == "==":
			check(t, os.Link(filepath.Join(dir, fields[i+1]), name))
			return
		case fields[i] == "=":
			content = strings.Join(fields[i+1:], " ")
			i = len(fields)
		case strings.Contains(fields[i], ":"):
			_, err := fmt.Sscanf(fields[i], "%d:%d", &uid, &gid)
			check(t, err)
		default:
			_, err := fmt.Sscanf(fields[i], "%o", &mode)
			check(t, err)
		}
	}
	if isDir {
		check(t, os.MkdirAll(name, 0o755))
	} else {
		check(t, os.WriteFile(name, []byte(content), 0o644))
	}
	check(t, os.Lchown(name, uid, gid))
	check(t, unix.Chmod(name, mode))
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func setOld(name string) error {
	ts := timespec(old)
	return unix.UtimesNanoAt(unix.AT_FDCWD, name, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
}

func dirsIn(t testing.TB, dir string) map[string]bool {
	t.Helper()
	dirs := make(map[string]bool)
	check(t, filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs[name] = true
		}
		return err
	}))
	return dirs
}

// show describes what is in dir, a line for each file: "name mode uid:gid time
// op what", without mode if it is 644 or 755, without the owner if it is 0:0.
func show(t testing.TB, dir string) []string {
	t.Helper()
	var lines []string
	seen := make(map[uint64]string)
	check(t, filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == dir {
			return err
		}
		var st unix.Stat_t
		check(t, unix.Lstat(name, &st))
		rel, _ := filepath.Rel(dir, name)
		line := rel
		usual := uint32(0o644)
		if d.IsDir() {
			line, usual = line+"/", 0o755
		}
		if m := st.Mode & modeBits; m != usual && d.Type() != fs.ModeSymlink {
			line += fmt.Sprintf(" %o", m)
		}
		if st.Uid != 0 || st.Gid != 0 {
			line += fmt.Sprintf(" %d:%d", st.Uid, st.Gid)
		}
		switch time.Unix(st.Mtim.Unix()) {
		case now:
			line += " new"
		case old:
		default:
			line += " touched"
		}
		switch {
		case d.Type() == fs.ModeSymlink:
			target, _ := os.Readlink(name)
			line += " -> " + target
		case seen[st.Ino] != "":
			line += " == " + seen[st.Ino]
		case d.Type().IsRegular():
			b, err := os.ReadFile(name)
			check(t, err)
			if string(b) != rel {
				line += " = " + string(b)
			}
			seen[st.Ino] = rel
		}
		lines = append(lines, line)
		return nil
	}))
	return lines
}

func open(t testing.TB, dir string) *inroot.Root {
	t.Helper()
	r, err := inroot.Open(dir)
	check(t, err)
	t.Cleanup(func() { r.Close() })
	return r
}

type viewer struct{ v tree.View }

func (v viewer) View(context.Context, tree.Tree) (tree.View, error) {
	r, err := v.v.Root.Sub("/")
	return tree.View{Root: r, Local: v.v.Local, Ignored: v.v.Ignored}, err
}

// hashed returns the read of those requests of a view that are in op.
func hashed(t testing.TB, op graph.Copy, input int, v tree.View) solve.Read {
	t.Helper()
	var s graph.Select
	for _, src := range op.Sources {
		if src.Inline == nil && src.Input == input {
			s.Requests = append(s.Requests, src.Request)
		}
	}
	d, err := filehash.New(viewer{v}, filehash.Options{}).Hash(t.Context(), tree.Tree{Local: "c"}, s)
	check(t, err)
	return solve.Read{Tree: tree.Tree{Local: "c"}, Digest: d}
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root to change owners")
	}
}

// src is a request as COPY makes it.
func src(path string) graph.CopySource {
	return graph.CopySource{Input: 1, Request: graph.Request{Path: path, Follow: true, Contents: true, Wildcard: strings.ContainsAny(path, "*?[")}}
}

func (c copyTest) run(t *testing.T) ([]string, error) {
	t.Helper()
	from, to := t.TempDir(), t.TempDir()
	check(t, os.Chmod(from, 0o755))
	fill(t, from, c.from...)
	fill(t, to, c.base...)
	v := tree.View{Root: open(t, from), Local: c.local, Ignored: c.ignored}
	reads := []solve.Read{{}, {}}
	if c.local && c.err == "" {
		reads[1] = hashed(t, c.op, 1, v)
	}
	err := copyFiles(t.Context(), c.op, open(t, to), []tree.View{{}, v}, reads, func() time.Time { return now })
	return show(t, to), err
}

type copyTest struct {
	name    string
	from    []string
	base    []string
	local   bool
	ignored []string
	op      graph.Copy
	want    []string
	err     string
}

func TestCopyFiles(t *testing.T) {
	needRoot(t)
	tests := []copyTest{
		{
			name: "a file to a name", from: []string{"f 640 = x"},
			op:   graph.Copy{Dest: "/a/b/g", Sources: []graph.CopySource{src("/f")}},
			want: []string{"a/ new", "a/b/ new", "a/b/g 640 = x"},
		},
		{
			name: "a file into a directory that is made", from: []string{"f"},
			op:   graph.Copy{Dest: "/a", DestDir: true, Sources: []graph.CopySource{src("/f")}},
			want: []string{"a/ new", "a/f = f"},
		},
		{
			name: "a file into a directory that is there", from: []string{"f"}, base: []string{"a/ 700 5:6"},
			op:   graph.Copy{Dest: "/a", Sources: []graph.CopySource{src("/f")}},
			want: []string{"a/ 700 5:6 touched", "a/f = f"},
		},
		{
			name: "a file over another", from: []string{"f"}, base: []string{"a 600 5:6"},
			op:   graph.Copy{Dest: "/a", Sources: []graph.CopySource{src("/f")}},
			want: []string{"a = f"},
		},
		{
			name: "a file over a link that leads nowhere", from: []string{"f"}, base: []string{"a -> /x/y"},
			op:   graph.Copy{Dest: "/a", Sources: []graph.CopySource{src("/f")}},
			want: []string{"a -> /x/y", "x/ new", "x/y = f"},
		},
		{
			name: "a file over a link in a directory", from: []string{"f"}, base: []string{"d/f -> ../g", "g"},
			op:   graph.Copy{Dest: "/d", DestDir: true, Sources: []graph.CopySource{src("/f")}},
			want: []string{"d/ touched", "d/f = f", "g"},
		},
		{
			name: "a file onto a directory", from: []string{"f"}, base: []string{"d/f/"},
			op:  graph.Copy{Dest: "/d", DestDir: true, Sources: []graph.CopySource{src("/f")}},
			err: "cannot replace to directory /d/f with file",
		},
		{
			name: "a directory onto a file", from: []string{"d/x/y"}, base: []string{"x"},
			op:  graph.Copy{Dest: "/", Sources: []graph.CopySource{src("/d")}},
			err: "cannot copy to non-directory: /x",
		},
		{
			name: "a directory onto a link to one", from: []string{"d/x/y"}, base: []string{"x -> z", "z/"},
			op:  graph.Copy{Dest: "/", Sources: []graph.CopySource{src("/d")}},
			err: "cannot copy to non-directory: /x",
		},
		{
			name: "a directory onto a file that is the destination", from: []string{"d/x"}, base: []string{"f"},
			op:  graph.Copy{Dest: "/f", Sources: []graph.CopySource{src("/d")}},
			err: "cannot copy to non-directory: /f",
		},
		{
			name: "contents to a new directory", from: []string{"d/ 700 5:6", "d/f 7:8", "d/sub/ 711 9:9", "d/sub/g 4755"},
			op:   graph.Copy{Dest: "/new", Sources: []graph.CopySource{src("/d")}},
			want: []string{"new/", "new/f 7:8 = d/f", "new/sub/ 711 9:9", "new/sub/g 4755 = d/sub/g"},
		},
		{
			name: "contents into directories that are there", from: []string{"d/sub/ 711 9:9", "d/sub/g", "d/sub/link -> g"}, base: []string{"to/ 700 5:6", "to/sub/ 750 1:1", "to/sub/h"},
			op:   graph.Copy{Dest: "/to", Sources: []graph.CopySource{src("/d")}},
			want: []string{"to/ 700 5:6", "to/sub/ 711 9:9", "to/sub/g = d/sub/g", "to/sub/h", "to/sub/link -> g"},
		},
		{
			name: "a local context belongs to root", from: []string{"d/f 7:8", "d/s/ 1777 5:5", "d/l 3:3 -> f"}, local: true,
			op:   graph.Copy{Dest: "/new", Sources: []graph.CopySource{src("/d")}},
			want: []string{"new/", "new/f = d/f", "new/l -> f", "new/s/ 1777"},
		},
		{
			name: "chown", from: []string{"d/f 4755 7:8", "d/s/ 1777 5:5", "d/l 3:3 -> f"},
			op:   graph.Copy{Dest: "/a/new", Owner: graph.Owner{User: "10", Group: "20"}, Sources: []graph.CopySource{src("/d")}},
			want: []string{"a/ 10:20 new", "a/new/ 10:20", "a/new/f 4755 10:20 = d/f", "a/new/l 10:20 -> f", "a/new/s/ 1777 10:20"},
		},
		{
			name: "chown by name", from: []string{"f"}, base: []string{"etc/passwd = app:x:1000:1001::/:/bin/sh", "etc/group = staff:x:50:"},
			op:   graph.Copy{Dest: "/f", Owner: graph.Owner{User: "app", Group: "staff"}, Sources: []graph.CopySource{src("/f")}},
			want: []string{"etc/", "etc/group = staff:x:50:", "etc/passwd = app:x:1000:1001::/:/bin/sh", "f 1000:50"},
		},
		{
			name: "chown to a user's primary group", from: []string{"f"}, base: []string{"etc/passwd = app:x:1000:1001::/:/bin/sh"},
			op:   graph.Copy{Dest: "/f", Owner: graph.Owner{User: "app"}, Sources: []graph.CopySource{src("/f")}},
			want: []string{"etc/", "etc/passwd = app:x:1000:1001::/:/bin/sh", "f 1000:1001"},
		},
		{
			name: "chown to a number", from: []string{"f"},
			op:   graph.Copy{Dest: "/f", Owner: graph.Owner{User: "12"}, Sources: []graph.CopySource{src("/f")}},
			want: []string{"f 12:12"},
		},
		{
			name: "chown to root where there is no passwd", from: []string{"f 5:5"},
			op:   graph.Copy{Dest: "/f", Owner: graph.Owner{User: "root", Group: "root"}, Sources: []graph.CopySource{src("/f")}},
			want: []string{"f"},
		},
		{
			name: "chown to nobody", from: []string{"f"},
			op:  graph.Copy{Dest: "/f", Owner: graph.Owner{User: "ghost"}, Sources: []graph.CopySource{src("/f")}},
			err: `chown: user "ghost": no such name in /etc/passwd`,
		},
		{
			name: "octal chmod", from: []string{"d/f", "d/s/", "d/l -> f"},
			op:   graph.Copy{Dest: "/a/b", Mode: "4750", Sources: []graph.CopySource{src("/d")}},
			want: []string{"a/ 750 new", "a/b/ 750", "a/b/f 4750 = d/f", "a/b/l -> f", "a/b/s/ 4750"},
		},
		{
			name: "symbolic chmod", from: []string{"d/f 600", "d/x 700", "d/s/ 700"},
			op:   graph.Copy{Dest: "/a/b", Mode: "go=u-w,+X", Sources: []graph.CopySource{src("/d")}},
			want: []string{"a/ new", "a/b/", "a/b/f = d/f", "a/b/s/", "a/b/x 755 = d/x"},
		},
		{
			name: "bad chmod", from: []string{"f"},
			op:  graph.Copy{Dest: "/", Mode: "u+y", Sources: []graph.CopySource{src("/f")}},
			err: `chmod "u+y"`,
		},
		{
			name: "hard links", from: []string{"d/a/f", "d/b/g == d/a/f", "d/h == d/a/f", "d/i"},
			op:   graph.Copy{Dest: "/", Sources: []graph.CopySource{src("/d")}, Owner: graph.Owner{User: "1"}},
			want: []string{"a/ 1:1", "a/f 1:1 = d/a/f", "b/ 1:1", "b/g 1:1 == a/f", "h 1:1 == a/f", "i 1:1 = d/i"},
		},
		{
			name: "hard links between matches", from: []string{"d/a", "d/b == d/a"},
			op:   graph.Copy{Dest: "/", Sources: []graph.CopySource{src("/d/*")}},
			want: []string{"a = d/a", "b == a"},
		},
		{
			name: "matches that replace one another", from: []string{"a/x = 1", "b/x = 2", "b/y == a/x"},
			op:   graph.Copy{Dest: "/", Sources: []graph.CopySource{src("/*")}},
			want: []string{"x = 2", "y = 1"},
		},
		{
			name: "files that replace one another", from: []string{"a/x = 1", "b/x = 2"},
			op:   graph.Copy{Dest: "/", Sources: []graph.CopySource{src("/*/x")}},
			want: []string{"x = 2"},
		},
		{
			name: "several sources, the last wins", from: []string{"a/x = 1", "b/x = 2", "c = 3"},
			op:   graph.Copy{Dest: "/to", DestDir: true, Sources: []graph.CopySource{src("/a"), src("/c"), src("/b")}},
			want: []string{"to/", "to/c = 3", "to/x = 2"},
		},
		{
			name: "a link is followed, those in directories are not", from: []string{"d/f", "d/l -> f", "to -> d", "l -> d/f"},
			op:   graph.Copy{Dest: "/x", DestDir: true, Sources: []graph.CopySource{src("/to"), src("/l")}},
			want: []string{"x/ new", "x/f = d/f", "x/l = d/f"},
		},
		{
			name: "a directory by its name", from: []string{"d/ 711 3:4", "d/f"}, base: []string{"to/"},
			op:   graph.Copy{Dest: "/to", Sources: []graph.CopySource{{Input: 1, Request: graph.Request{Path: "/d"}}}},
			want: []string{"to/ touched", "to/d/ 711 3:4", "to/d/f = d/f"},
		},
		{
			name: "a directory to a new name", from: []string{"d/ 711 3:4", "d/f"},
			op:   graph.Copy{Dest: "/to", Sources: []graph.CopySource{{Input: 1, Request: graph.Request{Path: "/d"}}}},
			want: []string{"to/ 711 3:4", "to/f = d/f"},
		},
		{
			name: "parents", from: []string{"a/ 711 3:4", "a/b/ 700", "a/b/c/d", "a/x", "a/b/l -> c"}, base: []string{"to/a/b/ 755 9:9"},
			op:   graph.Copy{Dest: "/to", DestDir: true, Sources: []graph.CopySource{{Input: 1, Request: graph.Request{Path: "/a/b/c", Pivot: "/a", Parents: true}}, {Input: 1, Request: graph.Request{Path: "/a/b/l", Parents: true}}}},
			want: []string{"to/", "to/a/ 711", "to/a/b/ 700 9:9 touched", "to/a/b/l -> c", "to/b/ 700", "to/b/c/", "to/b/c/d = a/b/c/d"},
		},
		{
			name: "exclusion", from: []string{"d/a.txt", "d/b", "d/e/c.txt"}, local: true,
			op:   graph.Copy{Dest: "/", Sources: []graph.CopySource{{Input: 1, Request: graph.Request{Path: "/d", Contents: true, Exclude: []string{"**/*.txt"}}}}},
			want: []string{"b = d/b", "e/"},
		},
		{
			name: "what .dockerignore excludes", from: []string{"a", "b", "c/d", "c/e"}, local: true, ignored: []string{"b", "c", "!c/e"},
			op:   graph.Copy{Dest: "/", Sources: []graph.CopySource{src("/")}},
			want: []string{"a", "c/", "c/e"},
		},
		{
			name: "a pattern that matches nothing makes nothing", from: []string{"a"},
			op:   graph.Copy{Dest: "/x/y", DestDir: true, Sources: []graph.CopySource{src("/b*")}},
			want: nil,
		},
		{
			name: "no such file", from: []string{"a"},
			op:  graph.Copy{Dest: "/x/y", DestDir: true, Sources: []graph.CopySource{src("/b")}},
			err: `"/b": not found`,
		},
		{
			name: "a heredoc",
			op:   graph.Copy{Dest: "/a/f", Sources: []graph.CopySource{{Inline: &graph.Inline{Name: "EOT", Mode: 0o644, Data: []byte("hi")}}}},
			want: []string{"a/ new", "a/f new = hi"},
		},
		{
			name: "heredocs into a directory", base: []string{"a/"},
			op:   graph.Copy{Dest: "/a", Mode: "700", Owner: graph.Owner{User: "3"}, Sources: []graph.CopySource{{Inline: &graph.Inline{Name: "x", Mode: 0o644, Data: []byte("1")}}, {Inline: &graph.Inline{Name: "y", Mode: 0o644}}}},
			want: []string{"a/ touched", "a/x 700 3:3 new = 1", "a/y 700 3:3 new = "},
		},
		{
			name: "WORKDIR", base: []string{"a/ 700"},
			op:   graph.Copy{Dest: "/a/b/c", Owner: graph.Owner{User: "3", Group: "4"}, Sources: []graph.CopySource{{Inline: &graph.Inline{Dir: true, Mode: 0o755}}}},
			want: []string{"a/ 700 touched", "a/b/ 3:4 new", "a/b/c/ 3:4 new"},
		},
		{
			name: "WORKDIR that is there", base: []string{"a/ 700 5:5"},
			op:   graph.Copy{Dest: "/a", Owner: graph.Owner{User: "3"}, Sources: []graph.CopySource{{Inline: &graph.Inline{Dir: true, Mode: 0o755}}}},
			want: []string{"a/ 700 5:5"},
		},
		{
			name: "WORKDIR of a user that is not there",
			op:   graph.Copy{Dest: "/a", Owner: graph.Owner{User: "later"}, Sources: []graph.CopySource{{Inline: &graph.Inline{Dir: true, Mode: 0o755}}}},
			want: []string{"a/ new"},
		},
		{
			name: "WORKDIR through a link", base: []string{"l -> /x/../y"},
			op:   graph.Copy{Dest: "/l/z", Sources: []graph.CopySource{{Inline: &graph.Inline{Dir: true, Mode: 0o755}}}},
			want: []string{"l -> /x/../y", "y/ new", "y/z/ new"},
		},
		{
			name: "WORKDIR that is a file", base: []string{"a"},
			op:  graph.Copy{Dest: "/a", Sources: []graph.CopySource{{Inline: &graph.Inline{Dir: true, Mode: 0o755}}}},
			err: "not a directory",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.run(t)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("err = %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
