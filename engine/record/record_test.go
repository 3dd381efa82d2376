package record_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/slipway-build/slipway/engine/content"
	"github.com/slipway-build/slipway/engine/graph"
	"github.com/slipway-build/slipway/engine/record"
	"github.com/slipway-build/slipway/engine/solve"
	"github.com/slipway-build/slipway/engine/tree"
)

func open(t *testing.T, dir string, kept bool) *record.Store {
	t.Helper()
	s, err := record.Open(record.Options{
		Dir:  dir,
		Kept: func(tree.Layer) bool { return kept },
		Warn: func(err error) { t.Errorf("warning: %v", err) },
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var (
	key    = digest.FromString("key")
	theSel = graph.Select{Requests: []graph.Request{{Path: "/a"}}}
)

func TestLayer(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, true)
	if _, status := s.Layer(t.Context(), key); status != solve.Unknown {
		t.Errorf("status of a key that was never recorded = %v", status)
	}
	want := tree.Layer{
		ID: "run-1", DiffID: digest.FromString("diff"), Created: time.Unix(1700000000, 123).UTC(),
		Blobs: []content.Descriptor{{MediaType: "m", Digest: digest.FromString("blob"), Size: 3}},
	}
	s.SetLayer(t.Context(), key, want)
	s.SetInfo(want)
	got, status := open(t, dir, true).Layer(t.Context(), key)
	if diff := cmp.Diff(want, got); diff != "" || status != solve.Kept {
		t.Errorf("status %v, layer (-want +got):\n%s", status, diff)
	}
	if got, status := open(t, dir, false).Layer(t.Context(), key); status != solve.Dropped || got.ID != want.ID {
		t.Errorf("a layer that is gone: %v, %v; want its name, Dropped", got.ID, status)
	}
}

func TestFiles(t *testing.T) {
	s := open(t, t.TempDir(), true)
	id, d := digest.FromString("tree"), digest.FromString("files")
	s.SetFiles(t.Context(), id, theSel, d)
	if got, ok := s.Files(t.Context(), id, theSel); !ok || got != d {
		t.Errorf("Files = %v, %v; want %v", got, ok, d)
	}
	if _, ok := s.Files(t.Context(), digest.FromString("other"), theSel); ok {
		t.Error("found under the identity of another tree")
	}
	if _, ok := s.Files(t.Context(), id, graph.Select{Requests: []graph.Request{{Path: "/b"}}}); ok {
		t.Error("found under another selection")
	}
}

// Whatever happened to a record's file, it is a miss and nothing worse.
func TestInvariant11_DamagedRecordsAreMisses(t *testing.T) {
	damages := map[string]func(name string) error{
		"empty":       func(name string) error { return os.WriteFile(name, nil, 0o600) },
		"cut short":   func(name string) error { return os.Truncate(name, 20) },
		"not JSON":    func(name string) error { return os.WriteFile(name, []byte("\x00\xff"), 0o600) },
		"unreadable":  func(name string) error { return errors.Join(os.Remove(name), os.Mkdir(name, 0o700)) },
		"new version": func(name string) error { return os.WriteFile(name, []byte(`{"version":99,"layer":"run-1"}`), 0o600) },
		"another key": func(name string) error {
			return os.WriteFile(name, []byte(`{"version":1,"key":"sha256:00","layer":"run-1"}`), 0o600)
		},
		"path as layer": func(name string) error {
			return os.WriteFile(name, []byte(`{"version":1,"key":"`+key.String()+`","layer":"../../x"}`), 0o600)
		},
	}
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir, true)
			s.SetLayer(t.Context(), key, tree.Layer{ID: "run-1"})
			err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
				if err == nil && !d.IsDir() {
					err = damage(p)
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			if l, status := s.Layer(t.Context(), key); status != solve.Unknown {
				t.Errorf("Layer = %v, %v; want Unknown", l, status)
			}
		})
	}
}

func TestInvariant11_FailedWriteIsOneWarning(t *testing.T) {
	dir := t.TempDir()
	var warnings int
	s, err := record.Open(record.Options{Dir: dir, Kept: func(tree.Layer) bool { return true }, Warn: func(error) { warnings++ }})
	if err != nil {
		t.Fatal(err)
	}
	// A file where the directory should be makes every write fail, also for root.
	if err := errors.Join(os.RemoveAll(filepath.Join(dir, "keys")), os.WriteFile(filepath.Join(dir, "keys"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	s.SetLayer(t.Context(), key, tree.Layer{ID: "run-1"})
	s.SetLayer(t.Context(), key, tree.Layer{ID: "run-2"})
	if warnings != 1 {
		t.Errorf("%d warnings, want 1", warnings)
	}
	if _, status := s.Layer(t.Context(), key); status != solve.Unknown {
		t.Errorf("status = %v, want Unknown", status)
	}
}

func FuzzLayer(f *testing.F) {
	f.Add([]byte(`{"version":1,"key":"` + key.String() + `","layer":"run-1","created":"2026-01-01T00:00:00Z"}`))
	f.Add([]byte(`{"version":1,"info":{"id":"run-1","blobs":[{"digest":"x"}]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		s := open(t, dir, true)
		s.SetLayer(t.Context(), key, tree.Layer{ID: "run-1"})
		s.SetInfo(tree.Layer{ID: "run-1"})
		err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				err = os.WriteFile(p, b, 0o600)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		l, status := s.Layer(t.Context(), key)
		if status == solve.Kept && !l.ID.Valid() {
			t.Errorf("layer %q is kept", l.ID)
		}
	})
}

func BenchmarkLayer(b *testing.B) {
	s, err := record.Open(record.Options{Dir: b.TempDir(), Kept: func(tree.Layer) bool { return true }})
	if err != nil {
		b.Fatal(err)
	}
	s.SetLayer(b.Context(), key, tree.Layer{ID: "run-1"})
	b.ReportAllocs()
	for b.Loop() {
		s.Layer(b.Context(), key)
	}
}
