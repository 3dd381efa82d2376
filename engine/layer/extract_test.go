package layer_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/ulikunitz/xz"
	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/engine/layer"
)

func extract(t *testing.T, into, dest string, opts layer.ExtractOptions, b []byte) error {
	t.Helper()
	return layer.Extract(t.Context(), bytes.NewReader(b), openRoot(t, into), dest, opts)
}

func TestExtract_WhiteoutsMeanNothing(t *testing.T) {
	root := unpack(t, tarOf(t, dir("d"), file("d/old", "old")))
	if err := extract(t, root, "d", layer.ExtractOptions{}, tarOf(t, file(".wh.old", "1"), file(".wh..wh..opq", "2"))); err != nil {
		t.Fatal(err)
	}
	want := []string{"/d", "/d/.wh..wh..opq 2", "/d/.wh.old 1", "/d/old old"}
	if diff := cmp.Diff(want, contents(t, root)); diff != "" {
		t.Errorf("tree (-want +got):\n%s", diff)
	}
}

func TestExtract_DirectoriesThatExist(t *testing.T) {
	needRoot(t)
	root := unpack(t, tarOf(t, ent{Header: tar.Header{Typeflag: tar.TypeDir, Name: "dest/", Mode: 0o700, Uid: 5, ModTime: day}}, dir("dest/sub"), file("dest/sub/f", "f")))
	err := extract(t, root, "/dest", layer.ExtractOptions{}, tarOf(t,
		ent{Header: tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o777, Uid: 9, ModTime: day}},
		ent{Header: tar.Header{Typeflag: tar.TypeDir, Name: "./sub/", Mode: 0o750, Uid: 9, ModTime: day}},
		file("./deep/er/f", "")))
	if err != nil {
		t.Fatal(err)
	}
	got := list(t, root)
	for i, want := range []string{"/dest 40700 5:0", "/dest/deep 40755 0:0", "/dest/deep/er 40755 0:0", "/dest/deep/er/f 100644 0:0", "/dest/sub 40750 9:0", "/dest/sub/f 100644 0:0"} {
		if i >= len(got) || !strings.HasPrefix(got[i], want) {
			t.Errorf("got %q, want %q in line %d", got, want, i)
		}
	}
}

func TestExtract_Owner(t *testing.T) {
	needRoot(t)
	root, uid, gid := t.TempDir(), 7, 8
	opts := layer.ExtractOptions{UID: &uid, GID: &gid}
	b := tarOf(t, ent{Header: tar.Header{Name: "a/f", Uid: 1, Gid: 1, Mode: 0o4755}}, symlink("l", "x"))
	if err := extract(t, root, "new/dest", opts, b); err != nil {
		t.Fatal(err)
	}
	for _, line := range list(t, root) {
		if !strings.Contains(line, " 7:8 ") {
			t.Errorf("owner in %q is not 7:8", line)
		}
	}
	var st unix.Stat_t
	if err := unix.Lstat(root+"/new/dest/a/f", &st); err != nil || st.Mode != unix.S_IFREG|0o4755 {
		t.Errorf("mode is %o, %v", st.Mode, err)
	}
}

func TestInvariant12_ExtractStaysInside(t *testing.T) {
	for name, ents := range map[string][]ent{
		"dot dot":          {file("../secret", "x")},
		"link out":         {symlink("out", "../../.."), file("out/secret", "x")},
		"absolute link":    {symlink("out", "/"), file("out/secret", "x")},
		"link, then link":  {symlink("a", ".."), symlink("a/b", ".."), file("a/b/secret", "x")},
		"hard link":        {link("copy", "../secret"), file("copy", "x")},
		"link to the file": {symlink("f", "../secret"), file("f", "x")},
		"through a link":   {symlink("up", ".."), link("copy", "up/secret")},
		"directory":        {symlink("d", ".."), dir("d"), file("d/secret", "x")},
		"time of a link":   {dir("d"), symlink("d", "../secret")},
		"proc":             {symlink("p", "/proc/self/root"), file("p/secret", "x")},
	} {
		top := t.TempDir()
		for _, d := range []string{"root", "root/dest"} {
			if err := os.Mkdir(filepath.Join(top, d), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		for _, f := range []string{"secret", "root/secret"} {
			if err := os.WriteFile(filepath.Join(top, f), []byte("untouched"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		before := list(t, top)
		err := extract(t, filepath.Join(top, "root"), "dest", layer.ExtractOptions{}, tarOf(t, ents...))
		t.Logf("%s: %v", name, err)
		inside := func(lines []string) (kept []string) {
			for _, l := range lines {
				if !strings.HasPrefix(l, "/root/dest") {
					kept = append(kept, l)
				}
			}
			return kept
		}
		if diff := cmp.Diff(inside(before), inside(list(t, top))); diff != "" {
			t.Errorf("%s: outside has changed (-before +after):\n%s", name, diff)
		}
	}
}

func TestExtract_Refuses(t *testing.T) {
	err := extract(t, t.TempDir(), "", layer.ExtractOptions{}, tarOf(t, ent{Header: tar.Header{Typeflag: tar.TypeChar, Name: "x"}}))
	if err == nil || !strings.Contains(err.Error(), "character device 0/0") {
		t.Errorf("error %v", err)
	}
	err = extract(t, unpack(t, tarOf(t, file("f", ""))), "f", layer.ExtractOptions{}, tarOf(t))
	if !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("error %v, want ENOTDIR", err)
	}
}

// compressed returns b in every form that ADD takes.
func compressed(t *testing.T, b []byte) map[layer.Compression][]byte {
	t.Helper()
	forms := map[layer.Compression][]byte{layer.Uncompressed: b, layer.Gzip: gz(t, b)}
	var buf bytes.Buffer
	w, err := xz.NewWriter(&buf)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	forms[layer.Xz] = buf.Bytes()
	for kind, name := range map[layer.Compression]string{layer.Bzip2: "bzip2", layer.Zstd: "zstd"} {
		cmd := exec.CommandContext(t.Context(), name, "-c")
		cmd.Stdin = bytes.NewReader(b)
		out, err := cmd.Output()
		if err != nil {
			t.Logf("%s is not tried: %v", name, err)
			continue
		}
		forms[kind] = out
	}
	return forms
}

func TestDetectArchive(t *testing.T) {
	for kind, b := range compressed(t, tarOf(t, dir("d"), file("d/f", someText(3<<19)))) {
		if got, ok := layer.DetectArchive(b[:min(len(b), layer.DetectSize)]); !ok || got != kind {
			t.Errorf("DetectArchive = %s, %v; want %s", got, ok, kind)
		}
		root := t.TempDir()
		if err := extract(t, root, "", layer.ExtractOptions{}, b); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		if fi, err := os.Stat(root + "/d/f"); err != nil || fi.Size() != 3<<19 {
			t.Errorf("%s: %v", kind, err)
		}
	}
	for kind, b := range compressed(t, []byte(someText(3<<19))) {
		if got, ok := layer.DetectArchive(b[:min(len(b), layer.DetectSize)]); ok || got != kind {
			t.Errorf("DetectArchive of text = %s, %v; want %s", got, ok, kind)
		}
	}
	for _, head := range []string{"", "x", "BZh", "BZh9", "\x1f\x8b\x08", "\xfd7zXZ\x00", "(\xb5/\xfd", strings.Repeat("\x00", 2048)} {
		if kind, ok := layer.DetectArchive([]byte(head)); ok {
			t.Errorf("%q is taken for an archive, %s", head, kind)
		}
	}
}

func TestExtract_RefusesXzThatNeedsMuchMemory(t *testing.T) {
	b := compressed(t, tarOf(t, file("f", "x")))[layer.Xz]
	b = bytes.Clone(b)
	i := bytes.IndexByte(b[12:], 0x21) // the filter, with its one property
	b[12+i+2] = 40                     // 4 GiB
	err := extract(t, t.TempDir(), "", layer.ExtractOptions{}, b)
	if err == nil || !strings.Contains(err.Error(), "window") {
		t.Errorf("error %v, want one about the window", err)
	}
}
