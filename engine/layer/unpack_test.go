package layer_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/engine/layer"
)

// capability is cap_net_raw+ep as the kernel stores it.
const capability = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

func everything() []ent {
	ns := time.Unix(1_600_000_000, 123_456_789)
	long := strings.Repeat("long/", 60) + strings.Repeat("n", 200)
	ents := []ent{
		{Header: tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o711, ModTime: day}},
		{Header: tar.Header{Typeflag: tar.TypeDir, Name: "dir/", Mode: 0o1777, Uid: 1000, Gid: 3_000_000, ModTime: ns}},
		{tar.Header{Name: "dir/setuid", Mode: 0o4755, Uid: 1, Gid: 2, ModTime: ns}, "#!/bin/sh"},
		{Header: tar.Header{Name: "dir/empty", Mode: 0, ModTime: time.Unix(-5, 0)}},
		{tar.Header{Name: "dir/ping", Mode: 0o755, Uid: 5, ModTime: day, PAXRecords: map[string]string{
			"SCHILY.xattr.security.capability":      capability,
			"SCHILY.xattr.user.comment":             "hello",
			"SCHILY.xattr.security.selinux":         "not ours",
			"SCHILY.xattr.trusted.overlay.opaque":   "y",
			"SCHILY.xattr.trusted.overlay.redirect": "/etc",
		}}, "ping"},
		{tar.Header{Name: "dir/large", Mode: 0o600, ModTime: day}, strings.Repeat("0123456789abcdef", 50_000)},
		{tar.Header{Name: "dir/sparse", Mode: 0o600, ModTime: day}, "head" + strings.Repeat("\x00", 2<<20) + "tail"},
		link("dir/a-link", "dir/ping"),
		link("link", "/dir/setuid"),
		symlink("symlink", "../../etc/passwd"),
		{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: "owned", Linkname: "/nowhere", Uid: 7, Gid: 8, ModTime: ns}},
		link("link-to-symlink", "symlink"),
		{Header: tar.Header{Typeflag: tar.TypeFifo, Name: "fifo", Mode: 0o622, ModTime: ns}},
		{Header: tar.Header{Typeflag: tar.TypeChar, Name: "null", Mode: 0o666, Devmajor: 1, Devminor: 3, ModTime: day}},
		{Header: tar.Header{Typeflag: tar.TypeBlock, Name: "loop", Mode: 0o660, Gid: 6, Devmajor: 7, Devminor: 300, ModTime: day}},
		file("caf\xe9-\u00fc \n", "bytes are bytes"),
		file("dir/.wh.gone", ""),
		dir("new"), file("new/.wh..wh..opq", ""), file("new/x", "x"),
		{Header: tar.Header{Typeflag: tar.TypeDir, Name: "dir/unreadable/", ModTime: ns}},
		file("dir/unreadable/in", "it"),
		file(".wh..wh.plnk/1", "aufs"),
	}
	for i := range len(long) {
		if long[i] == '/' {
			ents = append(ents, dir(long[:i]))
		}
	}
	return append(ents, file(long, "deep"))
}

func TestUnpack_EverythingOfARealLayer(t *testing.T) {
	needRoot(t)
	b := tarOf(t, everything()...)
	got := unpack(t, b)
	lines := list(t, got)
	want := []string{
		"/dir 41777 1000:3000000 1600000000.123456789",
		"/dir/a-link 100755 5:0 1700000000.000000000 4 ",
		"/dir/empty 100000 0:0 -5.000000000 0 ",
		"/dir/gone whiteout",
		"/dir/ping = /dir/a-link",
		"/dir/setuid 104755 1:2 1600000000.123456789 9 ",
		"/dir/unreadable 40000 0:0 1600000000.123456789",
		"/fifo 10622 0:0 1600000000.123456789",
		"/link = /dir/setuid",
		"/link-to-symlink 120777 0:0 1700000000.000000000 -> ../../etc/passwd",
		"/loop 60660 0:6 1700000000.000000000 dev 7:300",
		"/new 40755 0:0 1700000000.000000000 trusted.overlay.opaque=\"y\"",
		"/null 20666 0:0 1700000000.000000000 dev 1:3",
		"/owned 120777 7:8 1600000000.123456789 -> /nowhere",
		"/symlink = /link-to-symlink",
	}
	all := strings.Join(lines, "\n") + "\n"
	for _, w := range want {
		if !strings.Contains("\n"+all, "\n"+w) {
			t.Errorf("no line %q", w)
		}
	}
	if !strings.Contains(all, "security.capability="+`"\x01\x00\x00\x02\x00 `) || !strings.Contains(all, `user.comment="hello"`) {
		t.Error("xattrs are missing")
	}
	if strings.Contains(all, "plnk") || strings.Contains(all, "redirect") {
		t.Error("what belongs to the union file system was unpacked")
	}
	if t.Failed() {
		t.Log("\n" + all)
	}
	var st unix.Stat_t
	if err := unix.Lstat(got, &st); err != nil || st.Mode&0o777 != 0o711 || st.Mtim.Sec != day.Unix() {
		t.Errorf("root has mode %o and time %d, %v", st.Mode, st.Mtim.Sec, err)
	}
	if err := unix.Lstat(got+"/dir/sparse", &st); err != nil || st.Size != 2<<20+8 || st.Blocks*512 > 1<<19 {
		t.Errorf("sparse file has %d bytes in %d blocks, %v", st.Size, st.Blocks, err)
	}

	// The way back and forth again changes nothing.
	t1 := writeTar(t, got, layer.WriteOptions{})
	again := unpack(t, t1)
	if diff := cmp.Diff(lines, list(t, again)); diff != "" {
		t.Errorf("after a round trip (-before +after):\n%s", diff)
	}
	if !bytes.Equal(t1, writeTar(t, again, layer.WriteOptions{})) {
		t.Error("the tar is not a function of the directory")
	}
}

func TestInvariant03_DiffIDCoversTheWholeStream(t *testing.T) {
	plain := append(tarOf(t, dir("d"), file("d/f", "x")), make([]byte, 70_000)...)
	want := digest.FromBytes(plain)
	zw, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"plain":         plain,
		"gzip":          gz(t, plain),
		"gzip members":  append(gz(t, plain[:777]), gz(t, plain[777:])...),
		"zstd":          zw.EncodeAll(plain, nil),
		"zstd frames":   zw.EncodeAll(plain[777:], zw.EncodeAll(plain[:777], nil)),
		"zstd skipping": append([]byte("\x50\x2a\x4d\x18\x01\x00\x00\x00x"), zw.EncodeAll(plain, nil)...),
	} {
		got, err := layer.Unpack(t.Context(), bytes.NewReader(b), openRoot(t, t.TempDir()), layer.UnpackOptions{})
		if err != nil || got.DiffID != want || got.Size != int64(len(plain)) {
			t.Errorf("%s: Unpack = %v, %v; want %s", name, got, err, want)
		}
	}
	empty, err := layer.Unpack(t.Context(), bytes.NewReader(nil), openRoot(t, t.TempDir()), layer.UnpackOptions{})
	if err != nil || empty.DiffID != digest.Canonical.FromBytes(nil) {
		t.Errorf("nothing: Unpack = %v, %v", empty, err)
	}
}

func TestInvariant04_LayersThatNeedTheirParentsAreFoundOut(t *testing.T) {
	needRoot(t)
	for name, ents := range map[string][]ent{
		"file without its directory": {file("lib/x", "x")},
		"directory in the air":       {dir("a/b")},
		"below a link":               {symlink("lib", "usr/lib"), file("lib/x", "x")},
		"below a file":               {file("lib", ""), file("lib/x", "x")},
		"link outside":               {link("x", "bin/sh")},
		"link to what is not there":  {dir("bin"), link("x", "bin/sh")},
		"link to a deleted file":     {file(".wh.sh", ""), link("x", "sh")},
		"whiteout in the air":        {file("tmp/.wh.x", "")},
		"opaque in the air":          {file("tmp/.wh..wh..opq", "")},
		"opaque root":                {file(".wh..wh..opq", "")},
		"below what became a link":   {dir("d"), dir("d/e"), symlink("d", "etc"), file("d/e/x", "x")},
	} {
		_, err := layer.Unpack(t.Context(), bytes.NewReader(tarOf(t, ents...)), openRoot(t, t.TempDir()), layer.UnpackOptions{})
		if !errors.Is(err, layer.ErrNeedsParents) {
			t.Errorf("%s: error %v, want ErrNeedsParents", name, err)
		}
	}
}

func TestUnpack_WhiteoutsAndDuplicates(t *testing.T) {
	needRoot(t)
	tests := []struct {
		name string
		ents []ent
		want []string // prefixes of lines
	}{
		{"whiteout", []ent{file(".wh.a", "")}, []string{"/a whiteout"}},
		{"whiteout twice", []ent{file(".wh.a", ""), file(".wh.a", "")}, []string{"/a whiteout"}},
		{"file after its whiteout", []ent{file(".wh.a", ""), file("a", "x")}, []string{"/a 100644"}},
		{"file before its whiteout", []ent{file("a", "x"), file(".wh.a", "")}, []string{"/a 100644"}},
		{"directory after its whiteout", []ent{file(".wh.d", ""), dir("d")}, []string{"/d 40755 0:0 1700000000.000000000 trusted.overlay.opaque"}},
		{"directory before its whiteout", []ent{dir("d"), file("d/f", ""), file(".wh.d", "")}, []string{"/d 40755 0:0 1700000000.000000000 trusted.overlay.opaque", "/d/f 100644"}},
		{"opaque after its content", []ent{dir("d"), file("d/f", ""), file("d/.wh..wh..opq", "")}, []string{"/d 40755 0:0 1700000000.000000000 trusted.overlay.opaque", "/d/f 100644"}},
		{"directory over a file hides more", []ent{file("d", ""), dir("d")}, []string{"/d 40755 0:0 1700000000.000000000 trusted.overlay.opaque"}},
		{"file over a directory", []ent{dir("d"), file("d/f", ""), file("d", "x")}, []string{"/d 100644"}},
		{"the last of two files", []ent{file("a", "1"), file("a", "22")}, []string{"/a 100644 0:0 1700000000.000000000 2"}},
		{"file over a link", []ent{symlink("a", "/etc/passwd"), file("a", "22")}, []string{"/a 100644 0:0 1700000000.000000000 2"}},
		{"link over itself", []ent{file("a", "1"), link("a", "a"), link("b", "a"), link("b", "a")}, []string{"/a 100644 0:0 1700000000.000000000 1", "/b = /a"}},
		{"second directory keeps content", []ent{dir("d"), file("d/f", ""), {Header: tar.Header{Typeflag: tar.TypeDir, Name: "d", Mode: 0o700, ModTime: day}}}, []string{"/d 40700", "/d/f 100644"}},
		{"device 0/0", []ent{{Header: tar.Header{Typeflag: tar.TypeChar, Name: "a"}}}, []string{"/a whiteout"}},
		{"old metadata", []ent{dir(".wh..wh.plnk"), file(".wh..wh.aufs", ""), file(".wh..wh.orph/x", "")}, nil},
		{"absolute names", []ent{dir("/d"), file("/d/../d/./f", "")}, []string{"/d 40755", "/d/f 100644"}},
		{"global header", []ent{{Header: tar.Header{Typeflag: tar.TypeXGlobalHeader, Name: "pax_global_header", PAXRecords: map[string]string{"comment": "x"}}}, file("a", "")}, []string{"/a 100644"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := list(t, unpack(t, tarOf(t, tt.ents...)))
			if len(got) != len(tt.want) {
				t.Fatalf("got %q, want %q", got, tt.want)
			}
			for i := range got {
				if !strings.HasPrefix(got[i], tt.want[i]) {
					t.Errorf("got %q, want %q", got[i], tt.want[i])
				}
			}
		})
	}
}

func TestUnpack_RefusesHostileTars(t *testing.T) {
	needRoot(t)
	raw := func(change func([]byte)) []byte {
		b := tarOf(t, file("name", "x"))
		change(b[:512])
		sum := 0
		copy(b[148:156], "        ")
		for _, c := range b[:512] {
			sum += int(c)
		}
		copy(b[148:], []byte{byte('0' + sum>>12&7), byte('0' + sum>>9&7), byte('0' + sum>>6&7), byte('0' + sum>>3&7), byte('0' + sum&7), 0})
		return b
	}
	big := tarOf(t, file("big", strings.Repeat("x", 1<<20)))
	tests := []struct {
		name string
		b    []byte
		want string
	}{
		{"dot dot", tarOf(t, file("../x", "")), `"../x" leads out of the root`},
		{"dot dot inside", tarOf(t, file("a/../../x", "")), "leads out of the root"},
		{"absolute dot dot", tarOf(t, file("/../x", "")), "leads out of the root"},
		{"link out", tarOf(t, link("x", "../../etc/passwd")), "leads out of the root"},
		{"link to a directory", tarOf(t, dir("d"), link("x", "d")), "which is a directory"},
		{"whiteout of nothing", tarOf(t, file(".wh.", "")), "not valid"},
		{"whiteout of itself", tarOf(t, dir("d"), file("d/.wh..", "")), "not valid"},
		{"whiteout of the parent", tarOf(t, dir("d"), file("d/.wh...", "")), "not valid"},
		{"whiteout directory", tarOf(t, dir(".wh.x"), file(".wh.x/y", "")), "a whiteout is not a directory"},
		{"file as root", tarOf(t, file(".", "")), "not a directory"},
		{"negative size", raw(func(h []byte) { copy(h[124:], "-0000000001\x00") }), "read tar"},
		{"negative base-256 size", raw(func(h []byte) { copy(h[124:], bytes.Repeat([]byte{0xff}, 12)) }), "read tar"},
		{"negative owner", raw(func(h []byte) { copy(h[108:], bytes.Repeat([]byte{0xff}, 8)) }), "owner"},
		{"unknown type", raw(func(h []byte) { h[156] = 'Z' }), "not supported"},
		{"device number", tarOf(t, ent{Header: tar.Header{Typeflag: tar.TypeChar, Name: "x", Devmajor: 1 << 20}}), "device number"},
		{"bad checksum", append([]byte("x"), tarOf(t, file("x", ""))...), "read tar"},
		{"truncated", big[:5000], "unexpected EOF"},
		{"truncated gzip", gz(t, big)[:500], "decompress gzip: unexpected EOF"},
		{"garbage after gzip", append(gz(t, big), "garbage"...), "gzip"},
		{"no tar", []byte(strings.Repeat("hello ", 200)), "read tar"},
		{"bzip2", []byte("BZh91AY&SY"), "not for layers"},
		{"long name", tarOf(t, file(strings.Repeat("n", 300), "")), "file name too long"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := layer.Unpack(t.Context(), bytes.NewReader(tt.b), openRoot(t, t.TempDir()), layer.UnpackOptions{})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

func TestInvariant20_UnpackIsBounded(t *testing.T) {
	opts := layer.UnpackOptions{MaxSize: 1 << 20}
	bomb := gz(t, tarOf(t, file("x", strings.Repeat("\x00", 8<<20))))
	trailing := gz(t, append(tarOf(t, file("x", "")), make([]byte, 8<<20)...))
	for name, b := range map[string][]byte{"content": bomb, "trailing zeros": trailing} {
		_, err := layer.Unpack(t.Context(), bytes.NewReader(b), openRoot(t, t.TempDir()), opts)
		if err == nil || !strings.Contains(err.Error(), "1048576 bytes") {
			t.Errorf("%s: error %v, want one about the limit", name, err)
		}
	}
}

func TestUnpack_Stops(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("that is enough")
	b := tarOf(t, file("x", strings.Repeat("x", 8<<20)))
	r := &watched{r: bytes.NewReader(b), after: 3 << 20, call: func() { cancel(stop) }}
	if _, err := layer.Unpack(ctx, r, openRoot(t, t.TempDir()), layer.UnpackOptions{}); !errors.Is(err, stop) {
		t.Errorf("error %v, want %v", err, stop)
	}
}

// watched calls a function when some bytes were read.
type watched struct {
	r     io.Reader
	after int
	call  func()
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	if w.after -= n; w.after < 0 {
		w.call()
	}
	return n, err
}

// On a view, here a plain directory, deletions delete and links are followed.
func TestUnpack_OnView(t *testing.T) {
	needRoot(t)
	tests := []struct {
		name string
		ents []ent
		want []string // names and, after a space, the content of files
	}{
		{"below a link", []ent{file("lib/x", "1")}, []string{"/usr/lib/x 1"}},
		{"below an absolute link", []ent{file("abs/x", "1")}, []string{"/usr/lib/x 1"}},
		{"missing parents", []ent{file("a/b/c", "1")}, []string{"/a", "/a/b", "/a/b/c 1"}},
		{"link to a lower file", []ent{link("passwd", "etc/passwd")}, []string{"/passwd root"}},
		{"whiteout", []ent{file("etc/.wh.passwd", "")}, []string{"-/etc/passwd root"}},
		{"whiteout of a directory", []ent{file(".wh.etc", "")}, []string{"-/etc", "-/etc/passwd root", "-/etc/sub", "-/etc/sub/f 1"}},
		{"whiteout of nothing", []ent{file("etc/.wh.nothing", "")}, nil},
		{"whiteout of a link", []ent{file(".wh.lib", "")}, []string{"-/lib"}},
		{"opaque after", []ent{file("etc/new", "1"), file("etc/.wh..wh..opq", "")}, []string{"-/etc/passwd root", "-/etc/sub", "-/etc/sub/f 1", "/etc/new 1"}},
		{"opaque before", []ent{file("etc/.wh..wh..opq", ""), file("etc/sub/g", "1")}, []string{"-/etc/passwd root", "-/etc/sub/f 1", "/etc/sub/g 1"}},
		{"opaque around", []ent{file("etc/sub/g", "1"), file("etc/.wh..wh..opq", "")}, []string{"-/etc/passwd root", "-/etc/sub/f 1", "/etc/sub/g 1"}},
		{"new directory and its whiteout", []ent{dir("etc"), file(".wh.etc", "")}, []string{"-/etc/passwd root", "-/etc/sub", "-/etc/sub/f 1"}},
		{"device 0/0", []ent{{Header: tar.Header{Typeflag: tar.TypeChar, Name: "etc/passwd"}}}, []string{"-/etc/passwd root"}},
		{"directory over a link", []ent{dir("lib"), file("lib/x", "1")}, []string{"/lib/x 1"}},
		{"link replaced by a directory", []ent{file("lib/x", "1"), dir("lib"), file("lib/y", "2")}, []string{"/lib/y 2", "/usr/lib/x 1"}},
		{"file over a directory", []ent{file("etc", "1")}, []string{"-/etc", "-/etc/passwd root", "-/etc/sub", "-/etc/sub/f 1", "/etc 1"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			base := []ent{dir("etc"), file("etc/passwd", "root"), dir("etc/sub"), file("etc/sub/f", "1"), dir("usr"), dir("usr/lib"), symlink("lib", "usr/lib"), symlink("abs", "/usr/lib")}
			root := unpack(t, tarOf(t, base...))
			before := contents(t, root)
			_, err := layer.Unpack(t.Context(), bytes.NewReader(tarOf(t, tt.ents...)), openRoot(t, root), layer.UnpackOptions{OnView: true})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, changes(before, contents(t, root))); diff != "" {
				t.Errorf("changes (-want +got):\n%s", diff)
			}
		})
	}
}

func TestUnpack_OnViewRefusesAFileForADirectory(t *testing.T) {
	root := unpack(t, tarOf(t, file("etc", "")))
	for _, e := range []ent{file("etc/x", ""), link("x", "etc/y")} {
		_, err := layer.Unpack(t.Context(), bytes.NewReader(tarOf(t, e)), openRoot(t, root), layer.UnpackOptions{OnView: true})
		if !errors.Is(err, unix.ENOTDIR) {
			t.Errorf("%s: error %v, want ENOTDIR", e.Name, err)
		}
	}
}

// contents describes a tree by names and contents only.
func contents(tb testing.TB, root string) []string {
	tb.Helper()
	var lines []string
	for _, line := range list(tb, root) {
		name, _, _ := strings.Cut(line, " ")
		fi, err := os.Lstat(filepath.Join(root, name))
		if err != nil {
			tb.Fatal(err)
		}
		if fi.Mode().IsRegular() {
			b, err := os.ReadFile(filepath.Join(root, name))
			if err != nil {
				tb.Fatal(err)
			}
			if len(b) > 64 {
				sum := sha256.Sum256(b)
				b = sum[:]
			}
			name += " " + string(b)
		}
		lines = append(lines, name)
	}
	return lines
}

// changes lists lines that are gone, with a minus, and then new ones.
func changes(before, after []string) []string {
	var diff []string
	for _, l := range before {
		if !slices.Contains(after, l) {
			diff = append(diff, "-"+l)
		}
	}
	for _, l := range after {
		if !slices.Contains(before, l) {
			diff = append(diff, l)
		}
	}
	return diff
}
