package layer_test

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-build/slipway/engine/layer"
)

// fence makes a directory to unpack into, beside files that must stay as they
// are, and returns it with a check that they did.
func fence(t *testing.T) (root string, check func()) {
	t.Helper()
	top := t.TempDir()
	root = filepath.Join(top, "a", "root")
	for _, d := range []string{root, filepath.Join(top, "a", "etc"), filepath.Join(top, "etc")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(filepath.Dir(d), "f"), []byte("untouched"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	outside := func() (lines []string) {
		for _, l := range list(t, top) {
			if !strings.HasPrefix(l, "/a/root") {
				lines = append(lines, l)
			}
		}
		return lines
	}
	before := outside()
	return root, func() {
		t.Helper()
		if diff := cmp.Diff(before, outside()); diff != "" {
			t.Errorf("outside has changed (-before +after):\n%s", diff)
		}
	}
}

// scripted makes a tar of lines: a letter for the type, the name, a tab, and
// the target of a link or the content of a file. What a tar can't say is left
// out.
func scripted(t *testing.T, script string) []byte {
	t.Helper()
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	types := map[byte]byte{
		'd': tar.TypeDir, 'h': tar.TypeLink, 's': tar.TypeSymlink, 'p': tar.TypeFifo, 'c': tar.TypeChar, 'f': tar.TypeReg,
	}
	for i, line := range strings.Split(script, "\n") {
		if line == "" || i == 100 {
			continue
		}
		name, rest, _ := strings.Cut(line[1:], "\t")
		hdr := &tar.Header{Typeflag: types[line[0]], Name: name, Mode: int64(i * 0o111), ModTime: day, Format: tar.FormatPAX}
		switch hdr.Typeflag {
		case tar.TypeReg:
			hdr.Size = int64(len(rest))
		case tar.TypeLink, tar.TypeSymlink:
			hdr.Linkname = rest
		case tar.TypeChar:
			hdr.Devminor = int64(len(rest))
		case 0:
			continue
		}
		if tw.WriteHeader(hdr) == nil && hdr.Size > 0 {
			if _, err := tw.Write([]byte(rest)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

var scripts = []string{
	"dd\nfd/f\tx\nhl\td/f\nsd/s\t../../f",
	"sout\t..\nfout/f\tx\ndout\nfout/f\ty",
	"sroot\t/\nfroot/etc/f\tx",
	"sa\t..\nsa/b\t..\nfa/b/f\tx",
	"hl\t../f\nfl\tx",
	"sl\t../f\nfl\tx\nhm\tl",
	"f.wh.a\nda\nfa/.wh..wh..opq\nfa/.wh.b\nfa/b\tx",
	"f.wh..wh..opq\nf.wh...\nf.wh..\nf.wh.",
	"dd\ndd/e\nsd\t..\nfd/e/f\tx",
	"c.wh.x\ncd\ndd\nfd/f\nfd\ndd",
	"d.\nd..\nf../f\tx\nf/../../f\tx",
	"dd\nsd/p\t/proc/self/root\nfd/p/f\tx",
	"pfifo\nffifo\tx\nhfifo2\tfifo",
}

// Whatever a layer has, nothing outside of the root changes; and what could be
// unpacked becomes a tar that unpacks to the same again.
func FuzzUnpack(f *testing.F) {
	needRoot(f)
	for _, s := range scripts {
		f.Add(s, false)
		f.Add(s, true)
	}
	f.Fuzz(func(t *testing.T, script string, onView bool) {
		root, check := fence(t)
		opts := layer.UnpackOptions{OnView: onView, MaxSize: 1 << 20}
		_, err := layer.Unpack(t.Context(), bytes.NewReader(scripted(t, script)), openRoot(t, root), opts)
		check()
		if err != nil || onView {
			return
		}
		first := writeTar(t, root, layer.WriteOptions{})
		again := unpack(t, first)
		if diff := cmp.Diff(list(t, root), list(t, again)); diff != "" {
			t.Errorf("after a round trip (-before +after):\n%s", diff)
		}
		if !bytes.Equal(first, writeTar(t, again, layer.WriteOptions{})) {
			t.Error("the tar has changed in a round trip")
		}
	})
}

func FuzzExtract(f *testing.F) {
	needRoot(f)
	for _, s := range scripts {
		f.Add(s, "d/..")
		f.Add(s, "")
	}
	f.Fuzz(func(t *testing.T, script, dest string) {
		root, check := fence(t)
		opts := layer.ExtractOptions{MaxSize: 1 << 20}
		_ = layer.Extract(t.Context(), bytes.NewReader(scripted(t, script)), openRoot(t, root), dest, opts)
		check()
	})
}

// Whatever the bytes are, there is no panic and nothing outside changes; and
// what a layer unpacks from, ADD takes for an archive.
func FuzzUnpackBytes(f *testing.F) {
	needRoot(f)
	b := tarOf(f, dir("d"), file("d/f", "x"), link("l", "d/f"))
	f.Add(b)
	f.Add(gz(f, b))
	f.Add([]byte("BZh91AY&SY"))
	f.Add([]byte("\xfd7zXZ\x00\x00\x04"))
	f.Add([]byte("\x28\xb5\x2f\xfd\x00"))
	f.Add([]byte("\x50\x2a\x4d\x18\x01\x00\x00\x00x"))
	f.Fuzz(func(t *testing.T, b []byte) {
		root, check := fence(t)
		un, err := layer.Unpack(t.Context(), bytes.NewReader(b), openRoot(t, root), layer.UnpackOptions{MaxSize: 1 << 20})
		check()
		_, isArchive := layer.DetectArchive(b)
		if err == nil && len(list(t, root)) > 0 && !isArchive {
			t.Errorf("a layer of %d bytes is not taken for an archive", un.Size)
		}
	})
}
