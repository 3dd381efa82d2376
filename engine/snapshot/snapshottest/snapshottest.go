// Package snapshottest is the suite that every [snapshot.Snapshotter] passes.
package snapshottest

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
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
