package overlay_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/engine/snapshot"
	"github.com/slipway-build/slipway/engine/snapshot/overlay"
	"github.com/slipway-build/slipway/engine/snapshot/snapshottest"
)

func open(t *testing.T) *overlay.Snapshotter {
	t.Helper()
	s, err := overlay.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSnapshotter(t *testing.T) {
	snapshottest.Test(t, func(t *testing.T) snapshot.Snapshotter { return open(t) })
}

// commit makes a layer that fill writes.
func commit(t *testing.T, s *overlay.Snapshotter, id snapshot.ID, fill func(dir string) error) {
	t.Helper()
	d, err := s.Prepare(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := fill(d.Dir()); err != nil {
		t.Fatal(err)
	}
	if err := d.Commit(t.Context(), id); err != nil {
		t.Fatal(err)
	}
}

func oneFile(dir string) error { return os.WriteFile(filepath.Join(dir, "f"), []byte("x"), 0o644) }

func TestList_KnowsTheLastUse(t *testing.T) {
	dir := t.TempDir()
	s, err := overlay.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	long := time.Now().Add(-48 * time.Hour).Truncate(time.Second)
	for _, id := range []snapshot.ID{"a", "b"} {
		commit(t, s, id, oneFile)
		if err := os.Chtimes(filepath.Join(dir, "layers", string(id)), long, long); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.View(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	for range 2 { // taking the measure is no use of it
		infos, err := s.List(t.Context())
		if err != nil || len(infos) != 2 {
			t.Fatalf("List = %v, %v", infos, err)
		}
		for _, in := range infos {
			if old := in.LastUsed.Equal(long); old != (in.ID == "a") {
				t.Errorf("%s was last used %v", in.ID, in.LastUsed)
			}
			if in.Usage.Inodes != 2 {
				t.Errorf("%s has %d inodes, want 2", in.ID, in.Usage.Inodes)
			}
		}
	}
}

func TestInvariant15_MergesAreMadeOnce(t *testing.T) {
	dir := t.TempDir()
	s, err := overlay.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	var ids []snapshot.ID
	for i := range 603 {
		id := snapshot.ID(fmt.Sprint("l", i))
		commit(t, s, id, func(dir string) error { return os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), nil, 0o644) })
		ids = append(ids, id)
	}
	for _, tt := range []struct{ layers, dirs, merged int }{
		{400, 400, 0}, {401, 202, 1}, {402, 203, 1}, {599, 400, 1}, {600, 202, 2}, {603, 205, 2}, {450, 251, 2},
	} {
		m, err := s.View(t.Context(), ids[:tt.layers]...)
		if err != nil {
			t.Fatal(err)
		}
		if len(m.Lower) != tt.dirs {
			t.Errorf("%d layers are %d directories, want %d", tt.layers, len(m.Lower), tt.dirs)
		}
		merged, err := filepath.Glob(filepath.Join(dir, "layers", "merged-*"))
		if err != nil || len(merged) != tt.merged {
			t.Errorf("after %d layers there are %d merged ones, want %d", tt.layers, len(merged), tt.merged)
		}
	}
}

// What is merged shows what the kernel shows of the same layers.
func TestInvariant15_MergedIsAsStacked(t *testing.T) {
	if err := unix.Mknod(filepath.Join(t.TempDir(), "w"), unix.S_IFCHR, 0); err != nil {
		t.Skipf("whiteouts can't be made here: %v", err)
	}
	s := open(t)
	shapes := []func(dir string) error{
		nil, // nothing
		func(d string) error { return os.Symlink("target", d) },
		func(d string) error { return os.Mkdir(d, 0o750) },
		func(d string) error { return unix.Mknod(d, unix.S_IFCHR, 0) },
		func(d string) error { return errors.Join(os.Mkdir(d, 0o755), oneFile(d)) },
		func(d string) error {
			return errors.Join(os.Mkdir(d, 0o711), os.WriteFile(filepath.Join(d, "g"), nil, 0o600), unix.Setxattr(d, "trusted.overlay.opaque", []byte("y"), 0), unix.Setxattr(d, "user.x", []byte("1"), 0))
		},
		func(d string) error { return os.WriteFile(d, []byte("file"), 0o644) },
		func(d string) error {
			return errors.Join(os.Mkdir(d, 0o755), unix.Mknod(filepath.Join(d, "f"), unix.S_IFCHR, 0), unix.Setxattr(d, "trusted.overlay.origin", nil, 0))
		},
	}
	// Each entry goes through its own sequence of shapes, in four layers.
	n := len(shapes)
	var stack []snapshot.ID
	for l := range 4 {
		id := snapshot.ID(fmt.Sprint("layer", l))
		commit(t, s, id, func(dir string) error {
			for i := range n * n * n * n / 8 {
				seq := []int{i % n, i / n % n, i / n / n % n, (i*7 + i/n) % n}
				if mk := shapes[seq[l]]; mk != nil {
					if err := mk(filepath.Join(dir, fmt.Sprint("e", i))); err != nil {
						return err
					}
				}
			}
			return nil
		})
		stack = append(stack, id)
	}
	// Fillers make the stack long enough: two layers are in the first block,
	// one in the second, one is not merged.
	var long []snapshot.ID
	at := map[int]snapshot.ID{0: stack[0], 150: stack[1], 300: stack[2], 610: stack[3]}
	for i := range 650 {
		if id, ok := at[i]; ok {
			long = append(long, id)
			continue
		}
		id := snapshot.ID(fmt.Sprint("filler", i))
		commit(t, s, id, func(dir string) error { return os.Mkdir(filepath.Join(dir, "filler"), 0o755) })
		long = append(long, id)
	}
	want, got := describe(t, s, stack), describe(t, s, long)
	if len(want) < 100 {
		t.Fatalf("only %d files were compared", len(want))
	}
	for name, w := range want {
		if got[name] != w {
			t.Errorf("%s is %q when merged, %q when stacked", name, got[name], w)
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok && !strings.Contains(name, "filler") {
			t.Errorf("%s is there only when merged", name)
		}
	}
}

// describe returns what there is to say about each file of a stack.
func describe(t *testing.T, s *overlay.Snapshotter, ids []snapshot.ID) map[string]string {
	t.Helper()
	m, err := s.View(t.Context(), ids...)
	if err != nil {
		t.Fatal(err)
	}
	f, err := m.Detached()
	if errors.Is(err, unix.EPERM) {
		t.Skipf("mounting is not possible here: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	root := fmt.Sprintf("/proc/self/fd/%d/", f.Fd())
	files := map[string]string{}
	err = filepath.WalkDir(root, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := os.Lstat(p)
		if err != nil {
			return err
		}
		desc := fi.Mode().String()
		if fi.Mode().IsRegular() {
			desc += fmt.Sprint(fi.Size())
		}
		buf := make([]byte, 100)
		if n, err := unix.Lgetxattr(p, "user.x", buf); err == nil {
			desc += " " + string(buf[:n])
		}
		files[strings.TrimPrefix(p, root)] = desc
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	delete(files, "") // the top of the stack
	return files
}

func TestClean_LeavesDraftsOfTheLiving(t *testing.T) {
	dir := t.TempDir()
	s, err := overlay.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	d, err := s.Prepare(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := oneFile(d.Dir()); err != nil {
		t.Fatal(err)
	}
	orphan := filepath.Join(dir, "drafts", "orphan")
	if err := os.MkdirAll(filepath.Join(orphan, "work", "work"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(orphan, "work", "work"), 0); err != nil {
		t.Fatal(err)
	}
	other, err := overlay.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Clean(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(orphan); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the orphan: %v", err)
	}
	if err := d.Commit(t.Context(), "x"); err != nil {
		t.Errorf("the living: %v", err)
	}
	left, err := os.ReadDir(filepath.Join(dir, "drafts"))
	if err != nil || len(left) != 0 {
		t.Errorf("left are %v, %v", left, err)
	}
}

// TestMain is also the process that is killed while it has a draft.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "hold-draft" {
		holdDraft(os.Args[2])
	}
	os.Exit(m.Run())
}

func holdDraft(dir string) {
	s, err := overlay.Open(dir)
	if err != nil {
		panic(err)
	}
	d, err := s.Prepare(nil) //nolint:staticcheck // there is no context to be had
	if err != nil {
		panic(err)
	}
	f, err := d.Mount().Detached()
	if err != nil {
		fmt.Println("skip", err)
		return
	}
	if err := unix.Mkdirat(int(f.Fd()), "made", 0o755); err != nil {
		panic(err)
	}
	fmt.Println("ready")
	select {}
}

func TestInvariant14_AKilledOwnerLeavesOnlyADraft(t *testing.T) {
	dir := t.TempDir()
	s, err := overlay.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, "hold-draft", dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	n, err := out.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	drafts := func() int {
		entries, err := os.ReadDir(filepath.Join(dir, "drafts"))
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	if err := s.Clean(t.Context()); err != nil {
		t.Error(err)
	}
	if got := drafts(); strings.HasPrefix(string(buf[:n]), "ready") && got != 1 {
		t.Errorf("%d drafts while the owner lives, want 1", got)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if strings.HasPrefix(string(buf[:n]), "skip") {
		t.Skip(string(buf[:n]))
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), dir) {
		t.Error("a mount is left")
	}
	if err := s.Clean(t.Context()); err != nil {
		t.Error(err)
	}
	if got := drafts(); got != 0 {
		t.Errorf("%d drafts after the owner was killed, want 0", got)
	}
}
