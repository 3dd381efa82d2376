//go:build linux

package snapshot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func needMounts(t *testing.T) {
	t.Helper()
	fd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		t.Skipf("overlay mounts are not possible here: %v", err)
	}
	unix.Close(fd)
}

// lowers makes n directories, each with a file of its own and one that all have.
func lowers(t *testing.T, n int) []string {
	t.Helper()
	top := t.TempDir()
	var dirs []string
	for i := range n {
		dir := filepath.Join(top, fmt.Sprint(i))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, f := range []string{"all", fmt.Sprint("only-", i)} {
			if err := os.WriteFile(filepath.Join(dir, f), []byte(fmt.Sprint(i)), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		dirs = append(dirs, dir)
	}
	return dirs
}

func readAt(t *testing.T, dir *os.File, name string) string {
	t.Helper()
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err.Error()
	}
	defer unix.Close(fd)
	buf := make([]byte, 100)
	n, err := unix.Read(fd, buf)
	if err != nil {
		return err.Error()
	}
	return string(buf[:n])
}

func writeAt(dir *os.File, name, data string) error {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_WRONLY|unix.O_CREAT|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte(data))
	return err
}

// attached says whether something is mounted in dir.
func attached(t *testing.T, dir string) bool {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(b), dir)
}

func TestInvariant15_BothWaysToMountOverlayAreEqual(t *testing.T) {
	needMounts(t)
	ways := map[string]func(Mount) (int, error){"string": overlayByString}
	if lowerByOne() {
		ways["config"] = overlayByConfig
	}
	for name, mount := range ways {
		for _, n := range []int{2, 40, 130, 400} {
			t.Run(fmt.Sprint(name, n), func(t *testing.T) {
				dirs, draft := lowers(t, n), t.TempDir()
				m := Mount{Type: "overlay", Lower: dirs, Upper: draft + "/fs", Work: draft + "/work", Options: []string{"volatile"}}
				for _, d := range []string{m.Upper, m.Work} {
					if err := os.Mkdir(d, 0o755); err != nil {
						t.Fatal(err)
					}
				}
				fd, err := mount(m)
				if err != nil {
					t.Fatal(err)
				}
				f := os.NewFile(uintptr(fd), "mount")
				defer f.Close()
				if got := readAt(t, f, "all"); got != "0" {
					t.Errorf("all is %q, want that of the topmost directory", got)
				}
				last := fmt.Sprint(n - 1)
				if got := readAt(t, f, "only-"+last); got != last {
					t.Errorf("the lowest directory's file is %q, want %q", got, last)
				}
				if err := writeAt(f, "new", "x"); err != nil {
					t.Error(err)
				}
				if _, err := os.Stat(m.Upper + "/new"); err != nil {
					t.Error(err)
				}
				if attached(t, dirs[0]) {
					t.Error("a mount is attached")
				}
			})
		}
	}
}

func TestDetached(t *testing.T) {
	needMounts(t)
	dirs, draft := lowers(t, 2), t.TempDir()
	for _, d := range []string{"fs", "work"} {
		if err := os.Mkdir(filepath.Join(draft, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	long := filepath.Join(t.TempDir(), strings.Repeat("x", 200), strings.Repeat(`y\`, 100))
	if err := os.MkdirAll(long, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(long+"/all", []byte("long"), 0o644); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name     string
		m        Mount
		want     string // content of the file "all"
		writable bool
	}{
		{"bind", Mount{Type: "bind", Source: dirs[0]}, "0", true},
		{"read-only bind", Mount{Type: "bind", Source: dirs[0], Options: []string{"ro"}}, "0", false},
		{"overlay", Mount{Type: "overlay", Lower: dirs}, "0", false},
		{"long names", Mount{Type: "overlay", Lower: []string{long, dirs[0]}}, "long", false},
		{"draft", Mount{Type: "overlay", Lower: dirs, Upper: draft + "/fs", Work: draft + "/work", Options: []string{"volatile"}}, "0", true},
		{"draft again", Mount{Type: "overlay", Lower: dirs, Upper: draft + "/fs", Work: draft + "/work", Options: []string{"volatile"}}, "0", true},
		{"read-only draft", Mount{Type: "overlay", Lower: dirs, Upper: draft + "/fs", Work: draft + "/work", Options: []string{"ro"}}, "0", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, err := tt.m.Detached()
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if got := readAt(t, f, "all"); got != tt.want {
				t.Errorf("all is %q, want %q", got, tt.want)
			}
			err = writeAt(f, "new", "x")
			if tt.writable && err != nil {
				t.Error(err)
			}
			if !tt.writable && !errors.Is(err, unix.EROFS) {
				t.Errorf("write: %v, want EROFS", err)
			}
		})
	}
}

func TestDetached_SaysWhatIsWrong(t *testing.T) {
	needMounts(t)
	for _, tt := range []struct {
		m    Mount
		want string
	}{
		{Mount{Type: "nfs"}, "not supported"},
		{Mount{Type: "bind", Source: "/does/not/exist"}, "/does/not/exist"},
		{Mount{Type: "overlay", Lower: []string{"/does/not/exist", "/"}}, "/does/not/exist"},
		{Mount{Type: "overlay", Lower: lowers(t, 2), Options: []string{"nonsense=on"}}, "nonsense"},
	} {
		f, err := tt.m.Detached()
		if err == nil {
			f.Close()
			t.Errorf("%v was mounted", tt.m)
		} else if !strings.Contains(err.Error(), tt.want) {
			t.Errorf("error %q does not say %q", err, tt.want)
		}
	}
}

func TestAttach(t *testing.T) {
	needMounts(t)
	target := t.TempDir()
	if err := (Mount{Type: "overlay", Lower: lowers(t, 2)}).Attach(target); err != nil {
		t.Fatal(err)
	}
	_, err := os.Stat(filepath.Join(target, "only-1"))
	if uerr := unix.Unmount(target, unix.MNT_DETACH); uerr != nil {
		t.Error(uerr)
	}
	if err != nil {
		t.Error(err)
	}
}
