package run

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/engine/graph"
	"github.com/slipway-build/slipway/engine/inroot"
	"github.com/slipway-build/slipway/engine/snapshot"
	"github.com/slipway-build/slipway/engine/solve"
	"github.com/slipway-build/slipway/engine/tree"
)

// As the engine does it: from stacked layers to a draft on stacked layers, none
// of which is mounted anywhere.
func TestCopyFiles_BetweenOverlays(t *testing.T) {
	needRoot(t)
	base, upper, work := t.TempDir(), t.TempDir(), t.TempDir()
	low, high := t.TempDir(), t.TempDir()
	for _, d := range []string{base, upper, low, high} {
		check(t, os.Chmod(d, 0o755))
	}
	fill(t, base, "app -> /data", "data/old", "data/d/keep", "data/f 600")
	fill(t, low, "s/f = new", "s/hard == s/f", "s/gone", "s/l -> f", "s/d/ 711", "s/d/x")
	fill(t, high, "s/d/y")
	check(t, unix.Mknod(filepath.Join(high, "s/gone"), unix.S_IFCHR, 0))
	check(t, setOld(filepath.Join(high, "s")))
	check(t, unix.Lsetxattr(filepath.Join(low, "s/l"), "trusted.x", []byte("1"), 0))

	from := mount(t, snapshot.Mount{Type: "overlay", Lower: []string{high, low}})
	dst := mount(t, snapshot.Mount{Type: "overlay", Lower: []string{base}, Upper: upper, Work: work})
	op := graph.Copy{Dest: "/app", DestDir: true, Sources: []graph.CopySource{src("/s")}}
	v := tree.View{Root: from}
	check(t, copyFiles(t.Context(), op, dst, []tree.View{{}, v}, []solve.Read{{}, {}}, func() time.Time { return now }))

	want := []string{"data/", "data/d/", "data/d/x = s/d/x", "data/d/y = s/d/y", "data/f = new", "data/hard == data/f", "data/l -> f"}
	if diff := cmp.Diff(want, show(t, upper)); diff != "" {
		t.Errorf("upper: -want +got:\n%s", diff)
	}
	buf := make([]byte, 8)
	if n, err := unix.Lgetxattr(filepath.Join(upper, "data/l"), "trusted.x", buf); err != nil || string(buf[:n]) != "1" {
		t.Errorf("extended attribute of the link: %q, %v", buf[:max(n, 0)], err)
	}
}

func mount(t *testing.T, m snapshot.Mount) *inroot.Root {
	t.Helper()
	f, err := m.Detached()
	if err != nil {
		t.Skipf("overlayfs can't be mounted: %v", err)
	}
	r := inroot.FromFile(f)
	t.Cleanup(func() { r.Close() })
	return r
}
