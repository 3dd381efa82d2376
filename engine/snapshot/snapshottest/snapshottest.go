// Package snapshottest is the suite that every [snapshot.Snapshotter] passes.
package snapshottest

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/engine/inroot"
	"github.com/slipway-build/slipway/engine/layer"
	"github.com/slipway-build/slipway/engine/snapshot"
)

// Test runs every check against snapshotters that open returns. Each call of
// open returns one that is empty. Checks that need mounts, owners or device
// nodes are skipped where those can't be had.
func Test(t *testing.T, open func(t *testing.T) snapshot.Snapshotter) {
	checks := []struct {
		name  string
		check func(*testing.T, suite)
	}{
		{"NothingIsAnEmptyDirectory", nothing},
		{"WhatIsMissingDoesNotExist", missing},
		{"BadNamesAreRefused", badNames},
		{"DraftsAreNotSeen", drafts},
		{"TheFirstOfAName", firstOfAName},
		{"DiscardedDraftsAreGone", discarded},
		{"ViewsCantBeWritten", readOnly},
		{"UpperHidesLower", stacked},
		{"LayersDoNotKnowWhatIsBelow", parentFree},
		{"DraftsOnTop", onTop},
		{"RootAttributes", rootAttributes},
		{"EverythingOfATar", everything},
		{"OntoAView", ontoAView},
		{"Trimmed", trimmed},
		{"RemovedLayers", removed},
		{"Usage", usage},
		{"SideBySide", sideBySide},
		{"TestInvariant15_ManyLayers", manyLayers},
	}
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) { c.check(t, suite{open(t)}) })
	}
}

type suite struct{ snapshot.Snapshotter }

// An entry is one of a tar: a directory if the name ends with a slash, a link
// if it has a target, a file otherwise.
type entry struct {
	name, content string
	target        string
	mode          int64
	uid           int
	xattr         string // security.capability
}

func tarOf(t *testing.T, entries []entry) *bytes.Buffer {
	t.Helper()
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for _, e := range entries {
		hdr := &tar.Header{Name: e.name, Mode: e.mode, Uid: e.uid, Size: int64(len(e.content)), Format: tar.FormatPAX}
		switch {
		case strings.HasSuffix(e.name, "/"):
			hdr.Typeflag = tar.TypeDir
		case e.target != "":
			hdr.Typeflag, hdr.Linkname = tar.TypeLink, e.target
		}
		if hdr.Mode == 0 {
			hdr.Mode = 0o755
		}
		if e.xattr != "" {
			hdr.PAXRecords = map[string]string{"SCHILY.xattr.security.capability": e.xattr}
		}
		if err := tw.WriteHeader(hdr); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(tw, e.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	return &buf
}

// commit makes the layer id of its own, from the entries of a tar.
func (s suite) commit(t *testing.T, id snapshot.ID, entries ...entry) {
	t.Helper()
	d, err := s.Prepare(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Discard() //nolint:errcheck // the directory is a test's
	root, err := inroot.Open(d.Dir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	_, err = layer.Unpack(t.Context(), tarOf(t, entries), root, layer.UnpackOptions{})
	if errors.Is(err, unix.EPERM) {
		t.Skipf("this takes more rights: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Commit(t.Context(), id); err != nil {
		t.Fatal(err)
	}
}

// mounted opens what m shows.
func mounted(t *testing.T, m snapshot.Mount) *inroot.Root {
	t.Helper()
	f, err := m.Detached()
	if errors.Is(err, unix.EPERM) {
		t.Skipf("mounting is not possible here: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return inroot.FromFile(f)
}

// view lists what layers show when stacked.
func (s suite) view(t *testing.T, layers ...snapshot.ID) []string {
	t.Helper()
	m, err := s.View(t.Context(), layers...)
	if err != nil {
		t.Fatal(err)
	}
	root := mounted(t, m)
	defer root.Close()
	return list(t, root, ".")
}

// list lists the files below a directory, with the content of regular ones.
func list(t *testing.T, root *inroot.Root, dir string) []string {
	t.Helper()
	f, err := root.OpenFile(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	names, err := f.Readdirnames(-1)
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	var lines []string
	for _, name := range names {
		full := strings.TrimPrefix(dir+"/"+name, "./")
		st, err := root.Lstat(full)
		if err != nil {
			t.Fatal(err)
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			lines = append(append(lines, full+"/"), list(t, root, full)...)
		case unix.S_IFREG:
			b, err := root.ReadFile(full, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			lines = append(lines, full+" "+string(b))
		default:
			lines = append(lines, full)
		}
	}
	return lines
}

func wantLines(t *testing.T, got []string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

// put writes a file at a mount.
func put(t *testing.T, root *inroot.Root, name, content string) {
	t.Helper()
	f, err := root.OpenFile(name, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.WriteString(f, content); err != nil {
		t.Fatal(err)
	}
}

// tarOfLayer writes a committed layer as a tar.
func (s suite) tarOfLayer(t *testing.T, id snapshot.ID) []byte {
	t.Helper()
	dir, err := s.Dir(id)
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	if err := layer.Write(t.Context(), &buf, dir, layer.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func entriesOf(t *testing.T, b []byte) []string {
	t.Helper()
	var names []string
	tr := tar.NewReader(bytes.NewReader(b))
	for {
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, hdr.Name)
	}
}

func nothing(t *testing.T, s suite) {
	wantLines(t, s.view(t))
	m, err := s.View(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	root := mounted(t, m)
	defer root.Close()
	if st, err := root.Stat("/"); err != nil || st.Mode&0o7777 != 0o755 {
		t.Errorf("root of nothing has mode %o, %v", st.Mode, err)
	}
}

func missing(t *testing.T, s suite) {
	if _, err := s.Prepare(t.Context(), "none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Prepare on a missing layer: %v", err)
	}
	if _, err := s.View(t.Context(), "none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("View of a missing layer: %v", err)
	}
	if _, err := s.Dir("none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Dir of a missing layer: %v", err)
	}
	if _, err := s.Stat(t.Context(), "none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Stat of a missing layer: %v", err)
	}
	if err := s.Remove(t.Context(), "none"); err != nil {
		t.Errorf("Remove of a missing layer: %v", err)
	}
}

func badNames(t *testing.T, s suite) {
	for _, id := range []snapshot.ID{"", ".", "..", "../x", "a/b", "a\x00", "ü", snapshot.ID(strings.Repeat("x", 129))} {
		if _, err := s.Dir(id); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Dir(%q): %v", id, err)
		}
		if err := s.Remove(t.Context(), id); err == nil {
			t.Errorf("Remove(%q) was accepted", id)
		}
		d, err := s.Prepare(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Commit(t.Context(), id); err == nil {
			t.Errorf("Commit(%q) was accepted", id)
		}
		if err := d.Discard(); err != nil {
			t.Error(err)
		}
	}
	s.commit(t, "sha256:A-b_c.0", entry{name: "f"})
	wantLines(t, s.view(t, "sha256:A-b_c.0"), "f ")
}

func drafts(t *testing.T, s suite) {
	d, err := s.Prepare(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Discard() //nolint:errcheck // committed below
	root := mounted(t, d.Mount())
	put(t, root, "f", "1")
	root.Close()
	if _, err := s.Dir("x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("before Commit: %v", err)
	}
	if err := d.Commit(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	if err := d.Discard(); err != nil {
		t.Errorf("Discard after Commit: %v", err)
	}
	if err := d.Commit(t.Context(), "y"); err == nil {
		t.Error("a draft was committed twice")
	}
	wantLines(t, s.view(t, "x"), "f 1")
}

func firstOfAName(t *testing.T, s suite) {
	s.commit(t, "x", entry{name: "f", content: "first"})
	s.commit(t, "x", entry{name: "f", content: "second"})
	wantLines(t, s.view(t, "x"), "f first")
}

func discarded(t *testing.T, s suite) {
	d, err := s.Prepare(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(d.Discard(), d.Discard()); err != nil {
		t.Error(err)
	}
	if err := d.Commit(t.Context(), "x"); err == nil {
		t.Error("a discarded draft was committed")
	}
}

func readOnly(t *testing.T, s suite) {
	s.commit(t, "a", entry{name: "f"})
	s.commit(t, "b", entry{name: "g"})
	for _, ids := range [][]snapshot.ID{nil, {"a"}, {"a", "b"}} {
		m, err := s.View(t.Context(), ids...)
		if err != nil {
			t.Fatal(err)
		}
		root := mounted(t, m)
		if _, err := root.OpenFile("new", unix.O_WRONLY|unix.O_CREAT, 0o644); !errors.Is(err, unix.EROFS) {
			t.Errorf("view of %q can be written: %v", ids, err)
		}
		root.Close()
	}
}

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

func removed(t *testing.T, s suite) {
	s.commit(t, "x", entry{name: "f"})
	if err := s.Remove(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	missingAgain := suite{s.Snapshotter}
	if _, err := missingAgain.View(t.Context(), "x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("View of a removed layer: %v", err)
	}
	s.commit(t, "x", entry{name: "g"})
	wantLines(t, s.view(t, "x"), "g ")
}

func usage(t *testing.T, s suite) {
	s.commit(t, "x", entry{name: "d/"}, entry{name: "d/f", content: strings.Repeat("x", 100_000)}, entry{name: "link", target: "d/f"})
	for range 2 { // the second time it may be remembered
		u, err := s.Stat(t.Context(), "x")
		if err != nil || u.Bytes < 100_000 || u.Bytes > 150_000 || u.Inodes != 3 {
			t.Errorf("Stat = %+v, %v; want 100000 bytes and 3 inodes", u, err)
		}
	}
}

func sideBySide(t *testing.T, s suite) {
	s.commit(t, "base", entry{name: "f"})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			d, err := s.Prepare(t.Context(), "base")
			if err != nil {
				t.Error(err)
				return
			}
			defer d.Discard() //nolint:errcheck // the directory is a test's
			if err := d.Commit(t.Context(), snapshot.ID(fmt.Sprint("layer", i/2))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	wantLines(t, s.view(t, "base", "layer0", "layer1", "layer2", "layer3"), "f ")
}

// Each layer has a file of its own, replaces the one that all have, deletes the
// file of the layer two below, and every tenth starts a directory anew.
func manyLayers(t *testing.T, s suite) {
	var ids []snapshot.ID
	for i := range 600 {
		id := snapshot.ID(fmt.Sprintf("diff-%064d", i))
		entries := []entry{
			{name: "all", content: fmt.Sprint(i)},
			{name: fmt.Sprint("only-", i), content: fmt.Sprint(i)},
			{name: "d/"},
			{name: fmt.Sprint("d/", i)},
		}
		if i >= 2 {
			entries = append(entries, entry{name: fmt.Sprint(".wh.only-", i-2)})
		}
		if i%10 == 0 {
			entries = append(entries, entry{name: "d/.wh..wh..opq"})
		}
		s.commit(t, id, entries...)
		ids = append(ids, id)
	}
	for _, n := range []int{40, 130, 600} {
		want := []string{fmt.Sprintf("all %d", n-1), "d/"}
		for i := n - 10; i < n; i++ {
			want = append(want, fmt.Sprintf("d/%d ", i))
		}
		want = append(want, fmt.Sprintf("only-%d %d", n-2, n-2), fmt.Sprintf("only-%d %d", n-1, n-1))
		wantLines(t, s.view(t, ids[:n]...), want...)

		d, err := s.Prepare(t.Context(), ids[:n]...)
		if err != nil {
			t.Fatal(err)
		}
		root := mounted(t, d.Mount())
		put(t, root, "d/new", "")
		root.Close()
		if err := d.Discard(); err != nil {
			t.Error(err)
		}
	}
}
