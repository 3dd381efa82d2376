package run

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/engine/graph"
	"github.com/slipway-build/slipway/engine/inroot"
	"github.com/slipway-build/slipway/engine/solve"
	"github.com/slipway-build/slipway/engine/tree"
)

// However the trees and the destination look, nothing outside the destination
// is written to, nothing outside the source is read.
func FuzzCopyStaysInside(f *testing.F) {
	f.Add("app -> /etc\netc/", "d/app/x\nd/y", "/app", "/d", uint8(0))
	f.Add("app -> ../../../outside", "x", "/app/", "/x", uint8(1))
	f.Add("a -> b\nb -> ../outside\n", "d/a/x", "/", "/d", uint8(3))
	f.Add("x -> ../outside/file", "x", "/x", "/x", uint8(0))
	f.Add("", "x -> ../outside/secret\nd -> ../outside", "/y", "/x", uint8(3))
	f.Add("", "a/x -> /outside\na/b\nc/x/y", "/", "/*", uint8(7))
	f.Add("a/b -> ..\n", "d/a/b/c", "/a/b/../../..", "/d", uint8(8))
	f.Fuzz(func(t *testing.T, base, from, dest, source string, flags uint8) {
		if len(base)+len(from)+len(dest)+len(source) > 400 || os.Getuid() != 0 {
			return
		}
		top := t.TempDir()
		for _, d := range []string{"outside", "from", "to"} {
			check(t, os.Mkdir(filepath.Join(top, d), 0o755))
		}
		check(t, os.WriteFile(filepath.Join(top, "outside/file"), []byte("outside"), 0o644))
		check(t, os.WriteFile(filepath.Join(top, "outside/secret"), []byte("SECRET"), 0o644))
		scatter(t, filepath.Join(top, "to"), base)
		scatter(t, filepath.Join(top, "from"), from)
		before := append(snapshotOf(t, filepath.Join(top, "outside")), snapshotOf(t, filepath.Join(top, "from"))...)

		v := tree.View{Root: open(t, filepath.Join(top, "from")), Local: flags&16 != 0}
		op := graph.Copy{
			Link: flags&32 != 0, Unpack: flags&64 != 0, Dest: filepath.Clean("/" + dest), DestDir: strings.HasSuffix(dest, "/"), Mode: "u+rwX",
			Sources: []graph.CopySource{{Input: 1, Request: graph.Request{
				Path: filepath.Clean("/" + source), Follow: flags&1 != 0, Contents: flags&2 != 0, Wildcard: flags&4 != 0, Parents: flags&8 != 0,
			}}, {Inline: &graph.Inline{Name: source, Mode: 0o644, Dir: flags&128 != 0}}},
		}
		err := copyFiles(t.Context(), op, open(t, filepath.Join(top, "to")), []tree.View{{}, v}, []solve.Read{{}, {}}, time.Now)
		after := append(snapshotOf(t, filepath.Join(top, "outside")), snapshotOf(t, filepath.Join(top, "from"))...)
		if a, b := strings.Join(after, "\n"), strings.Join(before, "\n"); a != b {
			t.Errorf("changed outside (%v): %s\nwas: %s", err, a, b)
		}
		for _, line := range snapshotOf(t, filepath.Join(top, "to")) {
			if strings.Contains(line, "SECRET") {
				t.Errorf("copied from outside: %s", line)
			}
		}
		if entries, err := os.ReadDir(top); err != nil || len(entries) != 3 {
			t.Errorf("something new beside: %v, %v", entries, err)
		}
	})
}

// scatter makes files in dir as far as that is possible without leaving it:
// "name -> target", "name/", "name".
func scatter(t *testing.T, dir, list string) {
	r := open(t, dir)
	for line := range strings.SplitSeq(list, "\n") {
		name, target, isLink := strings.Cut(line, " -> ")
		if strings.Contains(line, "\x00") || name == "" {
			continue
		}
		if r.MkdirAll(filepath.Dir(filepath.Clean("/"+name)), 0o755, nil) != nil {
			continue
		}
		dirfd, base, err := r.OpenDir(name)
		if err != nil {
			continue
		}
		switch {
		case isLink:
			_ = unix.Symlinkat(target, dirfd, base)
		case strings.HasSuffix(name, "/"):
			_ = unix.Mkdirat(dirfd, base, 0o755)
		default:
			if fd, err := unix.Openat(dirfd, base, unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_WRONLY, 0o644); err == nil {
				check(t, writeAll(fd, []byte(name)))
				check(t, unix.Close(fd))
			}
		}
		check(t, unix.Close(dirfd))
	}
}

// snapshotOf describes dir and what is in it, with inodes, modes and times.
func snapshotOf(t *testing.T, dir string) []string {
	var lines []string
	check(t, filepath.WalkDir(dir, func(name string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		check(t, unix.Lstat(name, &st))
		line := fmt.Sprint(name, st.Ino, st.Mode, st.Uid, st.Gid, st.Size, st.Mtim)
		if d.Type().IsRegular() {
			b, err := os.ReadFile(name)
			check(t, err)
			line += " " + string(b)
		}
		lines = append(lines, line)
		return nil
	}))
	return lines
}

// A mode is parsed or refused; what it gives are permission bits, and applying
// an octal one twice is applying it once.
func FuzzChmod(f *testing.F) {
	for _, s := range []string{"755", "7777", "u=rwX,go=rX", "+x", "g=u", "a-w,u+s,o=", "+t", "u+r-x=w", "go=u-w,+X", "00000000755", "8", "u", ",", "u+y"} {
		f.Add(s, uint32(0o644), true)
	}
	f.Fuzz(func(t *testing.T, s string, mode uint32, dir bool) {
		c, err := parseChmod(s)
		if err != nil {
			return
		}
		got := c.apply(mode, dir)
		if got&^modeBits != 0 {
			t.Errorf("chmod %q of %o = %o", s, mode, got)
		}
		if c.octal && c.apply(got, dir) != got {
			t.Errorf("chmod %q of %o is not stable", s, mode)
		}
		if c.directory()&^permBits != 0 {
			t.Errorf("chmod %q makes directories %o", s, c.directory())
		}
	})
}

func TestChmod(t *testing.T) {
	tests := []struct {
		mode string
		old  uint32
		dir  bool
		want uint32
	}{
		{"", 0o4640, false, 0o4640},
		{"755", 0o4640, false, 0o755},
		{"0", 0o777, false, 0},
		{"7777", 0, true, 0o7777},
		{"u=rwX,go=rX", 0o600, false, 0o644},
		{"u=rwX,go=rX", 0o700, false, 0o755},
		{"u=rwX,go=rX", 0o600, true, 0o755},
		{"+x", 0o640, false, 0o751},
		{"-w", 0o666, false, 0o444},
		{"g=u", 0o750, false, 0o770},
		{"go=u-w", 0o700, false, 0o755},
		{"o=", 0o777, false, 0o770},
		{"u+s", 0o755, false, 0o4755},
		{"g+s", 0o755, true, 0o2755},
		{"+t", 0o777, true, 0o1777},
		{"u-s", 0o6755, false, 0o2755},
		{"a=r", 0o4777, false, 0o444},
		{"=", 0o4777, false, 0},
		{"u+r-x", 0o300, false, 0o600},
		{"a+X", 0o644, false, 0o644},
		{"a+X", 0o744, false, 0o755},
	}
	for _, tt := range tests {
		c, err := parseChmod(tt.mode)
		if err != nil {
			t.Errorf("%q: %v", tt.mode, err)
			continue
		}
		if got := c.apply(tt.old, tt.dir); got != tt.want {
			t.Errorf("chmod %q of %o (directory: %v) = %o, want %o", tt.mode, tt.old, tt.dir, got, tt.want)
		}
	}
	for _, s := range []string{"8", "10000", "0x1", "u", "+q", "u+x,", ",u+x", "u=rwx go=r", "-1", "rw"} {
		if _, err := parseChmod(s); err == nil {
			t.Errorf("chmod %q is accepted", s)
		}
	}
}

func TestResolveOwner(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir,
		"real/passwd = app:x:1000:1001::/:/bin/sh",
		"etc/group -> ../real/group",
	)
	check(t, os.WriteFile(filepath.Join(dir, "real/group"), []byte("\n# comment\nbroken\nstaff:x:50:a,b\n"), 0o644))
	check(t, os.Symlink("/real/passwd", filepath.Join(dir, "etc/passwd"))) // absolute: inside
	tests := []struct {
		o    graph.Owner
		want *ids
		err  string
	}{
		{graph.Owner{}, nil, ""},
		{graph.Owner{User: "app"}, &ids{1000, 1001}, ""},
		{graph.Owner{User: "app", Group: "staff"}, &ids{1000, 50}, ""},
		{graph.Owner{User: "app", Group: "7"}, &ids{1000, 7}, ""},
		{graph.Owner{User: "7"}, &ids{7, 7}, ""},
		{graph.Owner{User: "7", Group: "staff"}, &ids{7, 50}, ""},
		{graph.Owner{Group: "staff"}, &ids{0, 50}, ""},
		{graph.Owner{User: "root", Group: "root"}, &ids{0, 0}, ""},
		{graph.Owner{User: "ghost"}, nil, `user "ghost": no such name in /etc/passwd`},
		{graph.Owner{User: "app", Group: "ghost"}, nil, `group "ghost": no such name in /etc/group`},
		{graph.Owner{User: "-1"}, nil, "not a number between"},
		{graph.Owner{User: "2147483648"}, nil, "not a number between"},
		{graph.Owner{User: "99999999999999999999"}, nil, "not a number between"},
	}
	for _, tt := range tests {
		got, err := resolveOwner(tt.o, open(t, dir))
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%+v: err = %v, want %q", tt.o, err, tt.err)
			}
			continue
		}
		if err != nil || (got == nil) != (tt.want == nil) || got != nil && *got != *tt.want {
			t.Errorf("%+v = %v, %v; want %v", tt.o, got, err, tt.want)
		}
	}
	var none *inroot.Root
	if _, err := resolveOwner(graph.Owner{User: "app"}, none); err == nil {
		t.Error("a name is found where there are no files")
	}
}

func BenchmarkCopy20000Files(b *testing.B) {
	needRoot(b)
	dir := b.TempDir()
	data := []byte(strings.Repeat("x", 2000))
	for i := range 20_000 {
		name := filepath.Join(dir, fmt.Sprintf("d%03d", i/100), fmt.Sprintf("f%d", i))
		if i%100 == 0 {
			check(b, os.Mkdir(filepath.Dir(name), 0o755))
		}
		check(b, os.WriteFile(name, data, 0o644))
	}
	op := graph.Copy{Link: true, Dest: "/", DestDir: true, Sources: []graph.CopySource{{Request: src("/").Request}}}
	for _, local := range []bool{true, false} {
		b.Run(fmt.Sprintf("local=%v", local), func(b *testing.B) {
			v := tree.View{Root: open(b, dir), Local: local}
			read := solve.Read{}
			if local {
				read = hashed(b, op, 0, v)
			}
			for i := 0; b.Loop(); i++ {
				to := filepath.Join(b.TempDir(), fmt.Sprint(i))
				check(b, os.Mkdir(to, 0o755))
				check(b, copyFiles(b.Context(), op, open(b, to), []tree.View{v}, []solve.Read{read}, time.Now))
				b.StopTimer()
				check(b, os.RemoveAll(to))
				b.StartTimer()
			}
			b.ReportMetric(float64(b.N)*20_000/b.Elapsed().Seconds(), "files/s")
		})
	}
}
