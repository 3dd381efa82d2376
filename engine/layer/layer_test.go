package layer_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/engine/inroot"
	"github.com/slipway-build/slipway/engine/layer"
)

// needRoot skips tests that make devices, owners and trusted xattrs.
func needRoot(tb testing.TB) {
	tb.Helper()
	dir := tb.TempDir()
	if err := unix.Mknod(filepath.Join(dir, "w"), unix.S_IFCHR, 0); err != nil {
		tb.Skipf("whiteouts can't be made here: %v", err)
	}
	if err := unix.Setxattr(dir, "trusted.overlay.opaque", []byte("y"), 0); err != nil {
		tb.Skipf("trusted xattrs can't be set here: %v", err)
	}
}

// An ent is an entry of a tar.
type ent struct {
	tar.Header
	body string
}

var day = time.Unix(1_700_000_000, 0)

func file(name, body string) ent {
	return ent{tar.Header{Name: name, Mode: 0o644, ModTime: day}, body}
}

func dir(name string) ent {
	return ent{Header: tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755, ModTime: day}}
}

func link(name, target string) ent {
	return ent{Header: tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target, Mode: 0o644, ModTime: day}}
}

func symlink(name, target string) ent {
	return ent{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777, ModTime: day}}
}

func tarOf(tb testing.TB, ents ...ent) []byte {
	tb.Helper()
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for _, e := range ents {
		hdr := e.Header
		if e.body != "" {
			hdr.Size = int64(len(e.body))
		}
		hdr.Format = tar.FormatPAX
		if err := tw.WriteHeader(&hdr); err != nil {
			tb.Fatalf("%s: %v", hdr.Name, err)
		}
		if _, err := io.WriteString(tw, e.body); err != nil {
			tb.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		tb.Fatal(err)
	}
	return buf.Bytes()
}

func gz(tb testing.TB, b []byte) []byte {
	tb.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	if _, err := w.Write(b); err != nil {
		tb.Fatal(err)
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return buf.Bytes()
}

func openRoot(tb testing.TB, dir string) *inroot.Root {
	tb.Helper()
	r, err := inroot.Open(dir)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { r.Close() })
	return r
}

func unpack(tb testing.TB, b []byte) string {
	tb.Helper()
	dir := tb.TempDir()
	if _, err := layer.Unpack(tb.Context(), bytes.NewReader(b), openRoot(tb, dir), layer.UnpackOptions{}); err != nil {
		tb.Fatal(err)
	}
	return dir
}

// list describes everything in dir, a line for each file.
func list(tb testing.TB, dir string) []string {
	tb.Helper()
	first := map[uint64]string{}
	var lines []string
	err := filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		rel := strings.TrimPrefix(p, dir)
		if rel == "" {
			return nil
		}
		line := fmt.Sprintf("%s %o %d:%d %d.%09d", rel, st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %d %.4x", st.Size, sha256.Sum256(b))
		case unix.S_IFLNK:
			target, err := os.Readlink(p)
			if err != nil {
				return err
			}
			line += " -> " + target
		case unix.S_IFCHR, unix.S_IFBLK:
			line += fmt.Sprintf(" dev %d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
			if st.Rdev == 0 && st.Mode&unix.S_IFMT == unix.S_IFCHR {
				line = rel + " whiteout"
			}
		}
		if st.Nlink > 1 && st.Mode&unix.S_IFMT != unix.S_IFDIR && !strings.HasSuffix(line, "whiteout") {
			if f, ok := first[st.Ino]; ok {
				line = rel + " = " + f
			} else {
				first[st.Ino] = rel
			}
		}
		lines = append(lines, line+xattrs(tb, p))
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	return lines
}

func xattrs(tb testing.TB, p string) string {
	tb.Helper()
	buf := make([]byte, 4096)
	n, err := unix.Llistxattr(p, buf)
	if err != nil {
		tb.Fatal(err)
	}
	names := strings.FieldsFunc(string(buf[:n]), func(r rune) bool { return r == 0 })
	sort.Strings(names)
	var s string
	for _, name := range names {
		if name == "trusted.overlay.origin" { // only says that there may be whiteouts
			continue
		}
		v := make([]byte, 4096)
		n, err := unix.Lgetxattr(p, name, v)
		if err != nil {
			tb.Fatal(err)
		}
		s += fmt.Sprintf(" %s=%q", name, v[:n])
	}
	return s
}

func writeTar(tb testing.TB, dir string, opts layer.WriteOptions) []byte {
	tb.Helper()
	var buf bytes.Buffer
	if err := layer.Write(tb.Context(), &buf, dir, opts); err != nil {
		tb.Fatal(err)
	}
	return buf.Bytes()
}

// names lists the entries of a tar.
func names(tb testing.TB, b []byte) []string {
	tb.Helper()
	var ns []string
	tr := tar.NewReader(bytes.NewReader(b))
	for {
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return ns
		}
		if err != nil {
			tb.Fatal(err)
		}
		n := hdr.Name
		if hdr.Linkname != "" {
			n += " -> " + hdr.Linkname
		}
		ns = append(ns, n)
	}
}
