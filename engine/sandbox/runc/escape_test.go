//go:build linux && cgo && (amd64 || arm64)

package runc_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/engine/sandbox"
	"github.com/slipway-build/slipway/engine/sandbox/sandboxtest"
	"github.com/slipway-build/slipway/engine/snapshot"
)

// CVE-2024-21626: a working directory behind a descriptor that leaked, through
// which the host's files could be reached.
func TestInvariant13_CVE_2024_21626_WorkingDirectory(t *testing.T) {
	root, ex := sandboxtest.Busybox(t), open(t)
	for fd := range 16 {
		for _, dir := range []string{"/proc/self/fd/%d", "/proc/self/fd/%d/..", "/proc/1/fd/%d", "/link%d"} {
			dir = strings.Replace(dir, "%d", fmt.Sprint(fd), 1)
			if strings.HasPrefix(dir, "/link") {
				if err := os.Symlink(fmt.Sprintf("/proc/self/fd/%d/../..", fd), filepath.Join(root.Dir, dir)); err != nil {
					t.Fatal(err)
				}
			}
			out, err := sandboxtest.Run(t, ex, root, "pwd; ls", func(s *sandbox.Spec) { s.Dir = dir })
			if err == nil || out != "" || !strings.Contains(err.Error(), "working directory") {
				t.Errorf("in %s: %q, %v", dir, out, err)
			}
		}
	}
	// Nor has any process of the container a descriptor that leads outside.
	out, err := sandboxtest.Run(t, ex, root, "ls -l 2>/dev/null /proc/[0-9]*/fd /proc/[0-9]*/cwd /proc/[0-9]*/root /proc/[0-9]*/exe | grep -v -e 'pipe:' -e ' /dev/null$' -e ' /proc/[0-9]*/fd$' -e ' /$' -e ' /bin/busybox$' | grep -e '->'")
	if err == nil || out != "" {
		t.Errorf("descriptors: %s", out)
	}
}

// CVE-2024-23651: the source of a mount, in a tree that another run may write
// to, is swapped for a link while it is looked at.
func TestInvariant13_CVE_2024_23651_SwappedSource(t *testing.T) {
	root, ex := sandboxtest.Busybox(t), open(t)
	host := t.TempDir()
	if err := os.WriteFile(filepath.Join(host, "secret"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	tree := t.TempDir()
	if err := os.Mkdir(filepath.Join(tree, "cache"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(host, filepath.Join(tree, "other")); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Renameat2(unix.AT_FDCWD, filepath.Join(tree, "cache"), unix.AT_FDCWD, filepath.Join(tree, "other"), unix.RENAME_EXCHANGE)
			}
		}
	})
	defer wg.Wait()
	defer close(stop)
	mount := sandbox.Mount{Target: "/cache", Tree: &snapshot.Mount{Type: "bind", Source: tree}, Path: "cache"}
	for range 20 {
		// It finds the directory, or the link, which leads nowhere in the tree.
		out, err := sandboxtest.Run(t, ex, root, "ls /cache", func(s *sandbox.Spec) { s.Mounts = []sandbox.Mount{mount} })
		if out != "" {
			t.Fatalf("the host's directory was mounted: %s, %v", out, err)
		}
	}
}

// CVE-2024-23652: a run replaces the place of a mount by a link, so that what is
// removed after it is somewhere else.
func TestInvariant13_CVE_2024_23652_SwappedStub(t *testing.T) {
	root, ex := sandboxtest.Busybox(t), open(t)
	host := t.TempDir()
	victims := []string{filepath.Join(host, "b/c"), filepath.Join(root.Dir, "victim/b/c"), filepath.Join(root.Dir, "a/b/c")}
	for _, victim := range victims[:2] {
		if err := os.MkdirAll(victim, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, script := range []string{
		"mv /a /moved && ln -s " + host + " /a",
		"mv /a /moved && ln -s /victim /a",
		"mv /a /moved && mkdir -p /a/b/c",
	} {
		_, err := sandboxtest.Run(t, ex, root, script, func(s *sandbox.Spec) {
			s.Mounts = []sandbox.Mount{{Target: "/a/b/c", Tmpfs: &sandbox.Tmpfs{}}}
		})
		if err != nil {
			t.Fatalf("%s: %v", script, err)
		}
		for _, victim := range victims[:2] {
			if _, err := os.Stat(victim); err != nil {
				t.Errorf("after %s: %v", script, err)
			}
		}
		if _, err := os.Lstat(filepath.Join(root.Dir, "moved/b/c")); err == nil {
			t.Errorf("after %s: the mount point is left", script)
		}
		if strings.Contains(script, "mkdir") {
			if _, err := os.Stat(victims[2]); err != nil {
				t.Errorf("what the run made was removed: %v", err)
			}
		}
		for _, name := range []string{"a", "moved"} {
			if err := os.RemoveAll(filepath.Join(root.Dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// Links in an image lead nowhere but into it: what is mounted behind them, and
// the directories made for it, are inside.
func TestInvariant12_TargetsStayInside(t *testing.T) {
	root, ex := sandboxtest.Busybox(t), open(t)
	host := t.TempDir()
	for link, to := range map[string]string{
		"absolute": host, "up": "../../../../../../.." + host, "proc-link": "/proc/self/root" + host, "loop": "loop",
	} {
		if err := os.Symlink(to, filepath.Join(root.Dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(host+"/hosts", filepath.Join(root.Dir, "etc/hosts")); err != nil {
		t.Fatal(err)
	}
	for _, target := range []string{"/absolute/x", "/up/x", "/proc-link/x", "/loop/x"} {
		// Whether it works is another matter.
		_, _ = sandboxtest.Run(t, ex, root, "touch "+target+"/file", func(s *sandbox.Spec) {
			s.Mounts = []sandbox.Mount{{Target: target, Tmpfs: &sandbox.Tmpfs{}}}
		})
		if left, err := os.ReadDir(host); err != nil || len(left) > 0 {
			t.Errorf("%s: the host's directory has %v, %v", target, left, err)
		}
	}
}

// A passwd that is no regular file, or has no end, is an error, and not waited for.
func TestInvariant12_Passwd(t *testing.T) {
	ex := open(t)
	tests := []struct {
		name string
		make func(file string) error
	}{
		{"a FIFO", func(file string) error { return unix.Mkfifo(file, 0o644) }},
		{"a directory", func(file string) error { return os.Mkdir(file, 0o755) }},
		{"a device", func(file string) error { return unix.Mknod(file, unix.S_IFCHR|0o644, int(unix.Mkdev(1, 5))) }},
		{"too large", func(file string) error {
			return os.WriteFile(file, make([]byte, 11<<20), 0o644)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root := sandboxtest.Busybox(t)
			file := filepath.Join(root.Dir, "etc/passwd")
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
			if err := tt.make(file); err != nil {
				t.Fatal(err)
			}
			_, err := sandboxtest.Run(t, ex, root, "true", func(s *sandbox.Spec) { s.User = "app" })
			if err == nil || !strings.Contains(err.Error(), "/etc/passwd") {
				t.Errorf("error is %v", err)
			}
		})
	}
}

// The host's /dev/null is not what the container has as standard input: its
// owner and mode could be changed.
func TestStdinIsTheContainersOwn(t *testing.T) {
	root, ex := sandboxtest.Busybox(t), open(t)
	before, err := os.Stat("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sandboxtest.Run(t, ex, root, "chmod 600 /proc/self/fd/0; chown 5:5 /proc/self/fd/0; chmod 600 /dev/null"); err != nil {
		t.Error(err)
	}
	after, err := os.Stat("/dev/null")
	if err != nil || after.Mode() != before.Mode() {
		t.Errorf("/dev/null of the host is %v, was %v; %v", after.Mode(), before.Mode(), err)
	}
}
