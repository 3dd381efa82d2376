//go:build linux && cgo && (amd64 || arm64)

package runc_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/engine/sandbox"
	"github.com/slipway-build/slipway/engine/sandbox/sandboxtest"
	"github.com/slipway-build/slipway/engine/snapshot"
)

// In the layer of a run is what it made, and no trace of mount points: of the
// directories that they were made in there are copies, which do not differ from
// the originals. When the run is over nothing is mounted, so that the layer can
// be read and mounted again.
func TestOverlay(t *testing.T) {
	base, ex := sandboxtest.Busybox(t), open(t)
	dir := t.TempDir()
	upper, work := filepath.Join(dir, "upper"), filepath.Join(dir, "work")
	for _, d := range []string{upper, work} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	draft := sandboxtest.Root{Dir: upper, Mount: snapshot.Mount{
		Type: "overlay", Lower: []string{base.Dir}, Upper: upper, Work: work, Options: []string{"volatile"},
	}}
	_, err := sandboxtest.Run(t, ex, draft, "echo x >/tmp/file; rm /bin/zcat", func(s *sandbox.Spec) {
		s.Mounts = []sandbox.Mount{
			{Target: "/run/secrets/a", Tmpfs: &sandbox.Tmpfs{}},
			{Target: "/home/app/cache", Tmpfs: &sandbox.Tmpfs{}},
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	err = filepath.WalkDir(upper, func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == upper {
			return err
		}
		rel, err := filepath.Rel(upper, name)
		if err != nil {
			return err
		}
		if d.IsDir() && sameDir(t, name, filepath.Join(base.Dir, rel)) {
			return nil
		}
		got = append(got, rel)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"bin", "bin/zcat", "tmp", "tmp/file"}, got); diff != "" {
		t.Errorf("the layer (-want +got):\n%s", diff)
	}
	// The kernel refuses directories that are in use, if asked to look.
	fd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := os.RemoveAll(filepath.Join(work, "work", "incompat")); err != nil {
		t.Fatal(err)
	}
	for _, o := range [][2]string{{"lowerdir", base.Dir}, {"upperdir", upper}, {"workdir", work}, {"index", "on"}} {
		if err := unix.FsconfigSetString(fd, o[0], o[1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.FsconfigCreate(fd); err != nil {
		t.Errorf("the layer is still in use: %v", err)
	}
}

// sameDir says whether two directories look alike, but for their entries.
func sameDir(t *testing.T, a, b string) bool {
	t.Helper()
	fa, err := os.Stat(a)
	if err != nil {
		t.Fatal(err)
	}
	fb, err := os.Stat(b)
	return err == nil && fa.Mode() == fb.Mode() && fa.ModTime().Equal(fb.ModTime())
}
