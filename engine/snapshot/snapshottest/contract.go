package snapshottest

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/engine/snapshot"
)

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

func removed(t *testing.T, s suite) {
	s.commit(t, "x", entry{name: "f"})
	if err := s.Remove(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.View(t.Context(), "x"); !errors.Is(err, fs.ErrNotExist) {
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
