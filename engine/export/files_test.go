package export_test

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/engine/content"
	"github.com/slipway-build/slipway/engine/export"
	"github.com/slipway-build/slipway/platforms"
)

var modified = time.Unix(1_500_000_000, 123456789)

// files makes a directory: a name that ends with a slash is a directory, a
// value "-> x" a symbolic link, "= x" a hard link, everything else a file.
func files(t *testing.T, list ...string) string {
	t.Helper()
	dir := t.TempDir()
	for i := 0; i < len(list); i += 2 {
		path := filepath.Join(dir, list[i])
		link, isLink := strings.CutPrefix(list[i+1], "-> ")
		first, isHard := strings.CutPrefix(list[i+1], "= ")
		var err error
		switch {
		case strings.HasSuffix(list[i], "/"):
			err = os.Mkdir(path, 0o755)
		case isLink:
			err = os.Symlink(link, path)
		case isHard:
			err = os.Link(filepath.Join(dir, first), path)
		default:
			err = os.WriteFile(path, []byte(list[i+1]), 0o640)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// list describes what a directory has, by path.
func list(t *testing.T, dir string) map[string]string {
	t.Helper()
	m := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		switch {
		case e.IsDir():
			m[rel] = "dir"
		case e.Type() == fs.ModeSymlink:
			link, err := os.Readlink(path)
			m[rel] = "-> " + link
			return err
		case e.Type().IsRegular():
			b, err := os.ReadFile(path)
			m[rel] = string(b)
			return err
		default:
			m[rel] = e.Type().String()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

type image struct {
	platform platforms.Platform
	dir      string
}

// of makes an artifact that has file systems only.
func of(images ...image) (export.Artifact, viewer) {
	v := viewer{}
	a := export.Artifact{Root: content.Descriptor{Digest: "sha256:x"}}
	for _, i := range images {
		a.Images = append(a.Images, export.Image{Platform: i.platform, Tree: v.add(i.dir)})
	}
	return a, v
}

func exportTo(t *testing.T, dest string, attrs map[string]string, images ...image) error {
	t.Helper()
	a, v := of(images...)
	if attrs == nil {
		attrs = map[string]string{}
	}
	attrs["dest"] = dest
	_, err := run(t, "local", attrs, export.Deps{Viewer: v}, a)
	return err
}

func TestLocal(t *testing.T) {
	src := files(t, "bin/", "", "bin/app", "code", "bin/same", "= bin/app", "etc/", "", "etc/link", "-> /etc/passwd", "up", "-> ../../..", "empty/", "")
	if err := errors.Join(
		os.Chmod(filepath.Join(src, "bin/app"), 0o751|fs.ModeSetuid),
		unix.Mkfifo(filepath.Join(src, "pipe"), 0o600),
		os.Chtimes(filepath.Join(src, "bin/app"), modified, modified),
		os.Chtimes(filepath.Join(src, "bin"), modified, modified),
		os.Chmod(filepath.Join(src, "empty"), 0o555),
	); err != nil {
		t.Fatal(err)
	}
	xattr := unix.Setxattr(filepath.Join(src, "bin/app"), "user.note", []byte("hello"), 0)
	if os.Geteuid() == 0 {
		if err := os.Chown(filepath.Join(src, "bin/app"), 1234, 1234); err != nil {
			t.Fatal(err)
		}
		_ = os.Chmod(filepath.Join(src, "bin/app"), 0o751|fs.ModeSetuid)
	}
	dest := filepath.Join(t.TempDir(), "not", "there")
	if err := exportTo(t, dest, nil, image{amd64, src}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(list(t, src), list(t, dest)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	mustHold(t, filepath.Dir(dest), "there")
	var app, same, dir, empty unix.Stat_t
	for name, st := range map[string]*unix.Stat_t{"bin/app": &app, "bin/same": &same, "bin": &dir, "empty": &empty} {
		if err := unix.Lstat(filepath.Join(dest, name), st); err != nil {
			t.Fatal(err)
		}
	}
	if app.Ino != same.Ino {
		t.Error("the hard link became a copy")
	}
	if app.Mode&0o7777 != 0o4751 || empty.Mode&0o7777 != 0o555 {
		t.Errorf("modes are %o and %o, want 4751 and 555", app.Mode&0o7777, empty.Mode&0o7777)
	}
	if int(app.Uid) != os.Geteuid() || int(app.Gid) != os.Getegid() {
		t.Errorf("the owner is %d:%d, want who runs the build", app.Uid, app.Gid)
	}
	for name, st := range map[string]unix.Stat_t{"bin/app": app, "bin": dir} {
		if got := time.Unix(st.Mtim.Unix()); !got.Equal(modified) {
			t.Errorf("%s is of %v, want %v", name, got, modified)
		}
	}
	if xattr == nil {
		buf := make([]byte, 16)
		if n, err := unix.Getxattr(filepath.Join(dest, "bin/app"), "user.note", buf); err != nil || string(buf[:n]) != "hello" {
			t.Errorf("user.note is %q, %v", buf[:max(n, 0)], err)
		}
	}
}

func TestLocal_MergesWithWhatIsThere(t *testing.T) {
	src := files(t, "a", "new", "d/", "", "d/x", "new", "was-dir", "file", "was-file/", "", "was-file/y", "new", "was-link/", "", "was-link/z", "new")
	outside := files(t, "secret", "old")
	dest := files(t, "a", "old", "keep", "old", "d/", "", "d/keep", "old", "was-dir/", "", "was-dir/sub/", "", "was-dir/sub/f", "old",
		"was-file", "old", "was-link", "-> "+outside)
	if err := exportTo(t, dest, nil, image{amd64, src}); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"a": "new", "keep": "old", "d": "dir", "d/keep": "old", "d/x": "new", "was-dir": "file",
		"was-file": "dir", "was-file/y": "new", "was-link": "dir", "was-link/z": "new",
	}
	if diff := cmp.Diff(want, list(t, dest)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]string{"secret": "old"}, list(t, outside)); diff != "" {
		t.Errorf("a link of the destination was followed (-want +got):\n%s", diff)
	}
}

// An image that first brings a link, and in the next build files for where it
// leads, does not write there.
func TestInvariant12_LinksDoNotLeadOutOfTheDestination(t *testing.T) {
	outside := files(t, "passwd", "root")
	dest := t.TempDir()
	for _, src := range []string{
		files(t, "etc", "-> "+outside, "lib/", "", "lib/deep", "-> "+outside),
		files(t, "etc/", "", "etc/passwd", "evil", "lib/", "", "lib/deep/", "", "lib/deep/passwd", "evil"),
	} {
		if err := exportTo(t, dest, nil, image{amd64, src}); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(map[string]string{"passwd": "root"}, list(t, outside)); diff != "" {
		t.Errorf("outside (-want +got):\n%s", diff)
	}
	want := map[string]string{"etc": "dir", "etc/passwd": "evil", "lib": "dir", "lib/deep": "dir", "lib/deep/passwd": "evil"}
	if diff := cmp.Diff(want, list(t, dest)); diff != "" {
		t.Errorf("dest (-want +got):\n%s", diff)
	}
}

func TestLocal_Platforms(t *testing.T) {
	one, two := files(t, "a", "amd64"), files(t, "b", "arm")
	dest := t.TempDir()
	if err := exportTo(t, dest, nil, image{amd64, one}, image{arm, two}); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"linux_amd64": "dir", "linux_amd64/a": "amd64", "linux_arm_v7": "dir", "linux_arm_v7/b": "arm"}
	if diff := cmp.Diff(want, list(t, dest)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	dest = t.TempDir()
	if err := exportTo(t, dest, map[string]string{"platform-split": "false"}, image{amd64, one}, image{arm, two}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"a": "amd64", "b": "arm"}, list(t, dest)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	err := exportTo(t, dest, map[string]string{"platform-split": "false"}, image{amd64, one}, image{arm, files(t, "c", "", "a", "arm")})
	if err == nil || !strings.Contains(err.Error(), "/a: is in the images of several platforms") {
		t.Errorf("two files of one name: %v", err)
	}
	if diff := cmp.Diff(map[string]string{"a": "amd64", "b": "arm"}, list(t, dest)); diff != "" {
		t.Errorf("after an error (-want +got):\n%s", diff)
	}
}

func TestLocal_PartOfTheImage(t *testing.T) {
	src := files(t, "out/", "", "out/app", "x", "link", "-> /out", "file", "")
	for _, path := range []string{"out", "/out", "/link", "../../link"} {
		dest := t.TempDir()
		if err := exportTo(t, dest, map[string]string{"src": path}, image{amd64, src}); err != nil {
			t.Errorf("src=%s: %v", path, err)
		}
		if diff := cmp.Diff(map[string]string{"app": "x"}, list(t, dest)); diff != "" {
			t.Errorf("src=%s (-want +got):\n%s", path, diff)
		}
	}
	for _, path := range []string{"nowhere", "file"} {
		if err := exportTo(t, t.TempDir(), map[string]string{"src": path}, image{amd64, src}); err == nil || !strings.Contains(err.Error(), "src="+path) {
			t.Errorf("src=%s: %v", path, err)
		}
	}
}

func TestLocal_LeavesNothingBehind(t *testing.T) {
	src := files(t, "a", "x", "b/", "", "b/c", "y")
	parent := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	a, v := of(image{amd64, src})
	e, err := export.New("local", map[string]string{"dest": filepath.Join(parent, "dest")}, export.Deps{Viewer: v})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Export(ctx, a); err == nil {
		t.Error("exported after the end")
	}
	mustHold(t, parent)
	file := filepath.Join(parent, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := exportTo(t, file, nil, image{amd64, src}); err == nil || !strings.Contains(err.Error(), "write "+file) {
		t.Errorf("a file as destination: %v", err)
	}
	mustHold(t, parent, "file")
}

func TestTar(t *testing.T) {
	src := files(t, "bin/", "", "bin/app", "code", "bin/same", "= bin/app", "link", "-> /etc/passwd")
	if err := errors.Join(
		os.Chmod(filepath.Join(src, "bin/app"), 0o751|fs.ModeSetuid),
		unix.Mkfifo(filepath.Join(src, "pipe"), 0o600),
		os.Chtimes(filepath.Join(src, "bin/app"), modified, modified),
	); err != nil {
		t.Fatal(err)
	}
	a, v := of(image{amd64, src})
	epoch := time.Unix(77, 0)
	for _, clamp := range []*time.Time{nil, &epoch} {
		var out buffer
		if _, err := run(t, "tar", nil, export.Deps{Viewer: v, File: &out, Epoch: clamp}, a); err != nil {
			t.Fatal(err)
		}
		var names []string
		tr := tar.NewReader(&out.Buffer)
		for {
			h, err := tr.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, string(h.Typeflag)+" "+h.Name+" "+h.Linkname)
			if h.Uname != "" || h.Uid != os.Geteuid() {
				t.Errorf("%s belongs to %d %q", h.Name, h.Uid, h.Uname)
			}
			want := modified
			if clamp != nil {
				want = epoch
			}
			if h.Name == "bin/app" && (h.Mode != 0o4751 || !h.ModTime.Equal(want) || h.Size != 4) {
				t.Errorf("header is %+v", h)
			}
		}
		want := []string{"5 bin/ ", "0 bin/app ", "1 bin/same bin/app", "2 link /etc/passwd", "6 pipe "}
		if diff := cmp.Diff(want, names); diff != "" {
			t.Errorf("entries (-want +got):\n%s", diff)
		}
	}
	a, v = of(image{amd64, src}, image{arm, files(t, "b", "arm")})
	var out buffer
	if _, err := run(t, "tar", map[string]string{"src": "/"}, export.Deps{Viewer: v, File: &out}, a); err != nil {
		t.Fatal(err)
	}
	names := untarNames(t, &out)
	want := []string{"linux_amd64/", "linux_amd64/bin/", "linux_amd64/bin/app", "linux_amd64/bin/same", "linux_amd64/link", "linux_amd64/pipe", "linux_arm_v7/", "linux_arm_v7/b"}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("two platforms (-want +got):\n%s", diff)
	}
}

func untarNames(t *testing.T, r io.Reader) (names []string) {
	t.Helper()
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
}
