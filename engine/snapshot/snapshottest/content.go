package snapshottest

import (
	"bytes"
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/engine/inroot"
	"github.com/slipway-build/slipway/engine/layer"
)

func stacked(t *testing.T, s suite) {
	s.commit(t, "a", entry{name: "d/"}, entry{name: "d/1", content: "a"}, entry{name: "d/2", content: "a"}, entry{name: "e/"}, entry{name: "e/1"}, entry{name: "f", content: "a"})
	s.commit(t, "b", entry{name: "d/"}, entry{name: "d/.wh.1"}, entry{name: "d/3", content: "b"}, entry{name: "e/"}, entry{name: "e/.wh..wh..opq"}, entry{name: "f", content: "b"})
	s.commit(t, "none")
	wantLines(t, s.view(t, "a", "b"), "d/", "d/2 a", "d/3 b", "e/", "f b")
	wantLines(t, s.view(t, "none", "a", "none", "b", "none"), "d/", "d/2 a", "d/3 b", "e/", "f b")
	wantLines(t, s.view(t, "none"))
}

func parentFree(t *testing.T, s suite) {
	s.commit(t, "b", entry{name: "d/"}, entry{name: "d/.wh.1"}, entry{name: ".wh.2"}, entry{name: "f"})
	wantLines(t, s.view(t, "b"), "d/", "f ")
	s.commit(t, "a", entry{name: "d/"}, entry{name: "d/1"}, entry{name: "g"})
	wantLines(t, s.view(t, "a", "b"), "d/", "f ", "g ")
	wantLines(t, s.view(t, "b", "a"), "d/", "d/1 ", "f ", "g ")
}

func onTop(t *testing.T, s suite) {
	s.commit(t, "a", entry{name: "d/"}, entry{name: "d/1", content: "a"}, entry{name: "d/2"}, entry{name: "f"})
	d, err := s.Prepare(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Discard() //nolint:errcheck // committed below
	root := mounted(t, d.Mount())
	wantLines(t, list(t, root, "."), "d/", "d/1 a", "d/2 ", "f ")
	put(t, root, "d/1", "changed")
	for _, name := range []string{"d/2", "f"} {
		if err := unix.Unlinkat(root.Fd(), name, 0); err != nil {
			t.Error(err)
		}
	}
	if err := unix.Mkdirat(root.Fd(), "f", 0o755); err != nil {
		t.Error(err)
	}
	root.Close()
	if err := d.Commit(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	wantLines(t, s.view(t, "a", "b"), "d/", "d/1 changed", "f/")
	wantLines(t, s.view(t, "a"), "d/", "d/1 a", "d/2 ", "f ")
	// The layer shows the same over a copy of what it was made on.
	s.commit(t, "copy", entry{name: "d/"}, entry{name: "d/1", content: "a"}, entry{name: "d/2"}, entry{name: "f"})
	wantLines(t, s.view(t, "copy", "b"), "d/", "d/1 changed", "f/")
}

func rootAttributes(t *testing.T, s suite) {
	s.commit(t, "a", entry{name: "./", mode: 0o711, uid: 7}, entry{name: "f"})
	d, err := s.Prepare(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Discard() //nolint:errcheck // the directory is a test's
	root := mounted(t, d.Mount())
	defer root.Close()
	if st, err := root.Stat("/"); err != nil || st.Mode&0o7777 != 0o711 || st.Uid != 7 {
		t.Errorf("root of a draft has mode %o and owner %d, %v", st.Mode, st.Uid, err)
	}
}

const capability = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// What goes through a draft's mount and through a layer's directory comes out
// as the same tar.
func everything(t *testing.T, s suite) {
	s.commit(t, "a", entry{name: "bin/"}, entry{name: "bin/su", content: "su", mode: 0o4755}, entry{name: "bin/ping", content: "ping", xattr: capability},
		entry{name: "bin/sudo", target: "bin/su"}, entry{name: "home/", mode: 0o1777, uid: 1000})
	want := s.tarOfLayer(t, "a")
	d, err := s.Prepare(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Discard() //nolint:errcheck // committed below
	root := mounted(t, d.Mount())
	_, err = layer.Unpack(t.Context(), bytes.NewReader(want), root, layer.UnpackOptions{OnView: true})
	root.Close()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Commit(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	if got := s.tarOfLayer(t, "b"); !bytes.Equal(got, want) {
		t.Errorf("the tar has changed from %q to %q", entriesOf(t, want), entriesOf(t, got))
	}
}

func ontoAView(t *testing.T, s suite) {
	s.commit(t, "a", entry{name: "usr/"}, entry{name: "usr/lib/"}, entry{name: "usr/lib/libc", content: "c"}, entry{name: "tmp/", mode: 0o1777}, entry{name: "etc/"}, entry{name: "etc/1"}, entry{name: "etc/2"})
	d, err := s.Prepare(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Discard() //nolint:errcheck // committed below
	root := mounted(t, d.Mount())
	defer root.Close()
	entries := []entry{{name: "tmp/x"}, {name: "usr/lib/.wh.libc"}, {name: "etc/3"}, {name: "etc/.wh..wh..opq"}, {name: "link", target: "tmp/x"}}
	if _, err := layer.Unpack(t.Context(), tarOf(t, entries), root, layer.UnpackOptions{OnView: true}); err != nil {
		t.Fatal(err)
	}
	if st, err := root.Stat("tmp"); err != nil || st.Mode&0o7777 != 0o1777 {
		t.Errorf("tmp has mode %o, %v", st.Mode, err)
	}
	root.Close()
	if err := d.Commit(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	wantLines(t, s.view(t, "a", "b"), "etc/", "etc/3 ", "link ", "tmp/", "tmp/x ", "usr/", "usr/lib/")
}

// What a program does that changes nothing in the end leaves nothing.
func trimmed(t *testing.T, s suite) {
	s.commit(t, "a", entry{name: "d/"}, entry{name: "d/f", content: "x"}, entry{name: "e/"})
	d, err := s.Prepare(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Discard() //nolint:errcheck // the directory is a test's
	root := mounted(t, d.Mount())
	st, err := root.Lstat("d/f")
	if err != nil {
		t.Fatal(err)
	}
	put(t, root, "d/f", "x")
	put(t, root, "e/passing", "")
	steps := []error{
		unix.Fchmodat(root.Fd(), "d/f", st.Mode&0o7777, 0),
		unix.UtimesNanoAt(root.Fd(), "d/f", []unix.Timespec{st.Mtim, st.Mtim}, 0),
		unix.Unlinkat(root.Fd(), "e/passing", 0),
		unix.Mkdirat(root.Fd(), "new", 0o755),
	}
	root.Close()
	if err := errors.Join(steps...); err != nil {
		t.Fatal(err)
	}
	upper, err := inroot.Open(d.Dir())
	if err != nil {
		t.Fatal(err)
	}
	defer upper.Close()
	m, err := s.View(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	lower := mounted(t, m)
	defer lower.Close()
	if err := layer.Trim(t.Context(), upper, lower); err != nil {
		t.Fatal(err)
	}
	wantLines(t, list(t, upper, "."), "new/")
	if err := d.Commit(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	wantLines(t, entriesOf(t, s.tarOfLayer(t, "b")), "new/")
	wantLines(t, s.view(t, "a", "b"), "d/", "d/f x", "e/", "new/")
}
