package run

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/engine/filehash"
	"github.com/slipway-build/slipway/engine/graph"
	"github.com/slipway-build/slipway/engine/solve"
	"github.com/slipway-build/slipway/engine/tree"
)

// copyAll copies the contents of from to "/" of a new directory.
func copyAll(t testing.TB, from string) string {
	t.Helper()
	to := t.TempDir()
	v := tree.View{Root: open(t, from)}
	op := graph.Copy{Link: true, Dest: "/", DestDir: true, Sources: []graph.CopySource{{Request: src("/").Request}}}
	check(t, copyFiles(t.Context(), op, open(t, to), []tree.View{v}, []solve.Read{{}}, time.Now))
	return to
}

func TestCopyFiles_KeepsAttributes(t *testing.T) {
	needRoot(t)
	from := t.TempDir()
	fill(t, from, "f 4711 5:6", "d/ 2775 5:6")
	capability := []byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0} // cap_net_bind_service+ep
	check(t, unix.Setxattr(from+"/f", "security.capability", capability, 0))
	check(t, unix.Setxattr(from+"/f", "user.name", []byte("value"), 0))
	check(t, unix.Setxattr(from+"/d", "user.name", bytes.Repeat([]byte("x"), 1000), 0))
	check(t, unix.Setxattr(from+"/f", "trusted.overlay.opaque", []byte("y"), 0))
	check(t, unix.Mkfifo(from+"/fifo", 0o640))
	check(t, unix.Mknod(from+"/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	check(t, os.Lchown(from+"/fifo", 7, 8))
	check(t, setOld(from+"/fifo"))

	to := copyAll(t, from)
	for _, name := range []string{"f", "d", "fifo", "null"} {
		var a, b unix.Stat_t
		check(t, unix.Lstat(filepath.Join(from, name), &a))
		check(t, unix.Lstat(filepath.Join(to, name), &b))
		type attrs struct {
			Mode, UID, GID uint32
			Rdev           uint64
			Mtime          unix.Timespec
		}
		want, got := attrs{a.Mode, a.Uid, a.Gid, a.Rdev, a.Mtim}, attrs{b.Mode, b.Uid, b.Gid, b.Rdev, b.Mtim}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: -want +got:\n%s", name, diff)
		}
	}
	for _, x := range []struct{ name, attr, want string }{
		{"f", "security.capability", string(capability)},
		{"f", "user.name", "value"},
		{"d", "user.name", strings.Repeat("x", 1000)},
		{"f", "trusted.overlay.opaque", ""},
	} {
		buf := make([]byte, 2000)
		n, err := unix.Getxattr(filepath.Join(to, x.name), x.attr, buf)
		if n = max(n, 0); string(buf[:n]) != x.want {
			t.Errorf("%s of %s = %q, %v; want %q", x.attr, x.name, buf[:n], err, x.want)
		}
	}
}

// To overlayfs such a device is a whiteout: with --link, where files are not
// written through a mount that refuses it, it would delete what is below.
func TestCopyFiles_RefusesDevicesThatAreWhiteouts(t *testing.T) {
	needRoot(t)
	from, to := t.TempDir(), t.TempDir()
	check(t, unix.Mknod(from+"/passwd", unix.S_IFCHR|0o666, 0))
	op := graph.Copy{Link: true, Dest: "/etc", DestDir: true, Sources: []graph.CopySource{{Request: src("/").Request}}}
	err := copyFiles(t.Context(), op, open(t, to), []tree.View{{Root: open(t, from)}}, []solve.Read{{}}, time.Now)
	if err == nil || !strings.Contains(err.Error(), "/passwd: character device 0/0") {
		t.Errorf("error = %v, want one that names /passwd", err)
	}
	if _, err := os.Lstat(to + "/etc/passwd"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a whiteout was written: %v", err)
	}
}

func TestCopyFiles_KeepsHoles(t *testing.T) {
	needRoot(t)
	from := t.TempDir()
	const size = 64 << 20
	f, err := os.OpenFile(filepath.Join(from, "sparse"), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o644)
	check(t, err)
	check(t, f.Truncate(size))
	for _, at := range []int64{1 << 20, 33 << 20} {
		_, err = f.WriteAt(bytes.Repeat([]byte("data"), 1000), at)
		check(t, err)
	}
	check(t, f.Close())
	want, err := os.ReadFile(f.Name())
	check(t, err)
	for _, local := range []bool{false, true} {
		to := t.TempDir()
		v := tree.View{Root: open(t, from), Local: local}
		op := graph.Copy{Link: true, Dest: "/", DestDir: true, Sources: []graph.CopySource{src("/sparse")}}
		reads := []solve.Read{{}, hashed(t, op, 1, tree.View{Root: v.Root, Local: true})}
		check(t, copyFiles(t.Context(), op, open(t, to), []tree.View{{}, v}, reads, time.Now))
		got, err := os.ReadFile(filepath.Join(to, "sparse"))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("local %v: content differs, or %v", local, err)
		}
		var st unix.Stat_t
		check(t, unix.Stat(filepath.Join(to, "sparse"), &st))
		if st.Blocks*512 > size/4 {
			t.Errorf("local %v: holes were filled: %d bytes on disk", local, st.Blocks*512)
		}
	}
}

func TestCopyFiles_LargeFile(t *testing.T) {
	needRoot(t)
	from := t.TempDir()
	want := bytes.Repeat([]byte("0123456789abcdef"), 100_001)
	check(t, os.WriteFile(filepath.Join(from, "f"), want, 0o644))
	got, err := os.ReadFile(filepath.Join(copyAll(t, from), "f"))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("content differs, or %v", err)
	}
}

func archive(t testing.TB, compress bool, headers ...tar.Header) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		h.ModTime = old.Truncate(time.Second)
		h.Size = int64(len(h.Linkname))
		content := h.Linkname
		h.Linkname = ""
		if h.Typeflag == tar.TypeDir {
			h.Size = 0
		}
		check(t, w.WriteHeader(&h))
		_, err := w.Write([]byte(content)[:h.Size])
		check(t, err)
	}
	check(t, w.Close())
	if !compress {
		return b.String()
	}
	var z bytes.Buffer
	g := gzip.NewWriter(&z)
	_, err := g.Write(b.Bytes())
	check(t, errors.Join(err, g.Close()))
	return z.String()
}

func TestCopyFiles_Unpacks(t *testing.T) {
	needRoot(t)
	from := t.TempDir()
	for name, content := range map[string]string{
		"a.tar":    archive(t, false, tar.Header{Name: "x", Mode: 0o600, Uid: 5, Gid: 6, Linkname: "in a tar"}),
		"b.bin":    archive(t, true, tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o700}, tar.Header{Name: "d/y", Mode: 0o644, Linkname: "in a gzipped tar"}),
		"c.tar.gz": "not an archive",
	} {
		check(t, os.WriteFile(filepath.Join(from, name), []byte(content), 0o644))
	}
	v := tree.View{Root: open(t, from), Local: true}
	op := graph.Copy{Unpack: true, Dest: "/to", DestDir: true, Sources: []graph.CopySource{src("/*")}}
	to := t.TempDir()
	check(t, copyFiles(t.Context(), op, open(t, to), []tree.View{{}, v}, []solve.Read{{}, hashed(t, op, 1, v)}, time.Now))
	for name, want := range map[string]string{"x": "in a tar", "d/y": "in a gzipped tar", "c.tar.gz": "not an archive"} {
		if got, err := os.ReadFile(filepath.Join(to, "to", name)); string(got) != want {
			t.Errorf("%s = %q, %v; want %q", name, got, err, want)
		}
	}
	var st unix.Stat_t
	check(t, unix.Stat(filepath.Join(to, "to/x"), &st))
	if st.Uid != 5 || st.Gid != 6 {
		t.Errorf("owner %d:%d, want that of the archive", st.Uid, st.Gid)
	}

	op.Owner = graph.Owner{User: "9"}
	to = t.TempDir()
	check(t, copyFiles(t.Context(), op, open(t, to), []tree.View{{}, v}, []solve.Read{{}, {}}, time.Now))
	for _, name := range []string{"to", "to/x", "to/c.tar.gz"} {
		check(t, unix.Stat(filepath.Join(to, name), &st))
		if st.Uid != 9 || st.Gid != 9 {
			t.Errorf("%s: owner %d:%d, want 9:9", name, st.Uid, st.Gid)
		}
	}

	// What can't be extracted because it changed is not blamed on the archive.
	check(t, os.WriteFile(filepath.Join(from, "a.tar"), []byte(archive(t, false, tar.Header{Name: "x", Linkname: "other"})), 0o644))
	err := copyFiles(t.Context(), op, open(t, t.TempDir()), []tree.View{{}, v}, []solve.Read{{}, {Digest: "sha256:0"}}, time.Now)
	if !errors.Is(err, solve.ErrChanged) {
		t.Errorf("err = %v, want solve.ErrChanged", err)
	}
}

// A link to what isn't there is the archive's fault: nothing changed.
func TestCopyFiles_BrokenLinkInAnArchive(t *testing.T) {
	needRoot(t)
	from := t.TempDir()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	check(t, w.WriteHeader(&tar.Header{Name: "x", Typeflag: tar.TypeLink, Linkname: "no/such"}))
	check(t, w.Close())
	check(t, os.WriteFile(filepath.Join(from, "a.tar"), b.Bytes(), 0o644))
	v := tree.View{Root: open(t, from), Local: true}
	op := graph.Copy{Unpack: true, Dest: "/to", DestDir: true, Sources: []graph.CopySource{src("/a.tar")}}
	err := copyFiles(t.Context(), op, open(t, t.TempDir()), []tree.View{{}, v}, []solve.Read{{}, hashed(t, op, 1, v)}, time.Now)
	if err == nil || errors.Is(err, solve.ErrChanged) || !strings.Contains(err.Error(), "hard link to no/such") {
		t.Errorf("err = %v, want one that names the link", err)
	}
}

func TestInvariant07_CopyNoticesAChange(t *testing.T) {
	needRoot(t)
	tests := []struct {
		name   string
		change func(dir string) error
		want   string // in the message
	}{
		{"content", func(d string) error { return os.WriteFile(d+"/src/a", []byte("SRC/A"), 0o644) }, "/src/a changed during the build"},
		{"mode", func(d string) error { return os.Chmod(d+"/src/b", 0o600) }, "/src/b changed during the build"},
		{"a new file", func(d string) error { return os.WriteFile(d+"/src/new", nil, 0o644) }, "/src/new changed during the build"},
		{"a removed file", func(d string) error { return os.Remove(d + "/src/a") }, "/src changed during the build"},
		{"a removed source", func(d string) error { return os.Remove(d + "/file") }, "/file changed during the build"},
		{"a link on the way", func(d string) error { return errors.Join(os.Remove(d+"/link"), os.Symlink("./src", d+"/link")) }, "changed during the build"},
		{"times", func(d string) error { return os.Chtimes(d+"/src/a", now, now) }, ""},
		{"something else", func(d string) error { return os.WriteFile(d+"/other", nil, 0o644) }, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			fill(t, dir, "src/a", "src/b", "file", "link -> src")
			op := graph.Copy{Dest: "/", DestDir: true, Sources: []graph.CopySource{src("/link"), src("/file")}}
			v := tree.View{Root: open(t, dir), Local: true}
			read := hashed(t, op, 1, v)
			var sel graph.Select
			for _, s := range op.Sources {
				sel.Requests = append(sel.Requests, s.Request)
			}
			waitForTick(t)
			check(t, tt.change(dir))
			for kind, err := range map[string]error{
				"copyFiles":  copyFiles(t.Context(), op, open(t, t.TempDir()), []tree.View{{}, v}, []solve.Read{{}, read}, time.Now),
				"selectInto": selectInto(t.Context(), v, sel, read, open(t, t.TempDir())),
			} {
				if tt.want == "" {
					if err != nil {
						t.Errorf("%s: %v", kind, err)
					}
					continue
				}
				if !errors.Is(err, solve.ErrChanged) || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("%s: err = %v, want %q", kind, err, tt.want)
				}
			}
		})
	}
}

func TestInvariant07_BindMountIsACopyOfTheSelection(t *testing.T) {
	needRoot(t)
	dir, to := t.TempDir(), t.TempDir()
	fill(t, dir, "a/b/f 600 5:6", "a/b/g 5:6", "a/c", "to -> a/b", "secret", "x/ 711 7:7", "x/y")
	v := tree.View{Root: open(t, dir), Local: true, Ignored: []string{"a/b/g"}}
	s := graph.Select{Requests: []graph.Request{
		{Path: "/to", Follow: true, Contents: true},
		{Path: "/x", Follow: true},
		{Path: "/a/c", Follow: true},
	}}
	d, err := filehash.New(viewer{v}, filehash.Options{}).Hash(t.Context(), tree.Tree{Local: "c"}, s)
	check(t, err)
	check(t, selectInto(t.Context(), v, s, solve.Read{Digest: d}, open(t, to)))
	want := []string{"a/ touched", "a/b/", "a/b/f 600", "a/c", "to touched -> a/b", "x/ 711", "x/y"}
	if diff := cmp.Diff(want, show(t, to)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// While files are written to, COPY copies what was hashed or says that it
// changed; there is nothing in between.
func TestInvariant07_WritersBeside(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	for i := range 50 {
		fill(t, dir, fmt.Sprintf("d/f%d", i))
	}
	v := tree.View{Root: open(t, dir), Local: true}
	op := graph.Copy{Dest: "/", DestDir: true, Sources: []graph.CopySource{src("/")}}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ctx.Err() == nil; i++ {
			name := fmt.Sprintf("%s/d/f%d", dir, i%50)
			if i%7 == 0 {
				_ = os.Remove(name)
			}
			_ = os.WriteFile(name, fmt.Appendf(nil, "%d", i), 0o644)
		}
	}()
	hasher := filehash.New(viewer{v}, filehash.Options{})
	for range 30 {
		read := solve.Read{Tree: tree.Tree{Local: "c"}}
		var err error
		read.Digest, err = hasher.Hash(t.Context(), read.Tree, graph.Select{Requests: []graph.Request{op.Sources[0].Request}})
		if err != nil {
			continue // a file went away
		}
		to := t.TempDir()
		err = copyFiles(t.Context(), op, open(t, to), []tree.View{{}, v}, []solve.Read{{}, read}, time.Now)
		if errors.Is(err, solve.ErrChanged) {
			continue
		}
		check(t, err)
		same, err := filehash.New(viewer{tree.View{Root: open(t, to), Local: true}}, filehash.Options{}).Hash(t.Context(), read.Tree, graph.Select{Requests: []graph.Request{op.Sources[0].Request}})
		check(t, err)
		if same != read.Digest {
			t.Error("what was copied is not what was hashed, and nothing was said")
		}
	}
	stop()
	<-done
}

// waitForTick returns when files get another ctime than they would have before.
func waitForTick(t *testing.T) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "probe")
	var first, st unix.Stat_t
	for st.Ctim == first.Ctim {
		check(t, os.WriteFile(name, nil, 0o644))
		check(t, os.Chmod(name, 0o600))
		check(t, unix.Stat(name, &st))
		if first.Ino == 0 {
			first = st
		}
	}
}
