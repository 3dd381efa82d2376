package sandboxtest

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-build/slipway/engine/sandbox"
	"github.com/slipway-build/slipway/engine/snapshot"
)

func (s suite) testMounts(t *testing.T) {
	root := s.root(t)
	root.Write(t, "srv/old", "covered\n")
	must(t, os.Symlink("/srv", filepath.Join(root.Dir, "link")))
	must(t, os.Symlink("/run/elsewhere/file", filepath.Join(root.Dir, "dangling")))

	outside := Root{Dir: t.TempDir()}
	outside.Write(t, "dir/file", "content\n")
	outside.Write(t, "dir/sub/file", "below\n")
	must(t, os.Symlink("/dir/sub", filepath.Join(outside.Dir, "sub")))
	tree := &snapshot.Mount{Type: "bind", Source: outside.Dir}
	dir := filepath.Join(outside.Dir, "dir")
	file := filepath.Join(dir, "file")

	mounts := func(list ...sandbox.Mount) Change { return func(s *sandbox.Spec) { s.Mounts = list } }
	size := &sandbox.Tmpfs{Size: 1 << 20, Mode: 0o700}
	s.run(t, root, []scenario{
		{name: "directory", script: "cat /srv/file", want: "content\n", change: mounts(sandbox.Mount{Target: "/srv", Dir: dir})},
		{name: "file", script: "cat /srv/old", want: "content\n", change: mounts(sandbox.Mount{Target: "/srv/old", Dir: file})},
		{name: "new file", script: "cat /etc/deep/er/file", want: "content\n", change: mounts(sandbox.Mount{Target: "/etc/deep/er/file", Dir: file})},
		{name: "writable", script: "echo x >>/srv/sub/file && cat /srv/sub/file", want: "below\nx\n", change: mounts(sandbox.Mount{Target: "/srv", Dir: dir})},
		{
			name: "read-only", script: "echo x >/srv/file", want: "sh: can't create /srv/file: Read-only file system\n", code: 1,
			change: mounts(sandbox.Mount{Target: "/srv", Dir: dir, ReadOnly: true}),
		},
		{name: "tree", script: "cat /a/dir/file", want: "content\n", change: mounts(sandbox.Mount{Target: "/a", Tree: tree})},
		{name: "path in a tree", script: "cat /a/file", want: "content\n", change: mounts(sandbox.Mount{Target: "/a", Tree: tree, Path: "dir"})},
		{name: "file in a tree", script: "cat /a", want: "content\n", change: mounts(sandbox.Mount{Target: "/a", Tree: tree, Path: "/dir/file"})},
		{name: "link in a tree", script: "ls /a", want: "file\n", change: mounts(sandbox.Mount{Target: "/a", Tree: tree, Path: "sub"})},
		{
			name: "read-only tree", script: "echo x >/a/dir/file", want: "sh: can't create /a/dir/file: Read-only file system\n", code: 1,
			change: mounts(sandbox.Mount{Target: "/a", Tree: tree, ReadOnly: true}),
		},
		{name: "behind a link", script: "cat /srv/file", want: "content\n", change: mounts(sandbox.Mount{Target: "/link", Dir: dir})},
		{name: "behind a dangling link", script: "cat /run/elsewhere/file", want: "content\n", change: mounts(sandbox.Mount{Target: "/dangling", Dir: file})},
		{name: "in order", script: "cat /srv/sub/file", want: "content\n", change: mounts(
			sandbox.Mount{Target: "/srv", Dir: dir}, sandbox.Mount{Target: "/srv/sub/file", Dir: file})},
		{name: "the later covers", script: "ls /srv", change: mounts(
			sandbox.Mount{Target: "/srv", Dir: dir}, sandbox.Mount{Target: "/srv", Tmpfs: &sandbox.Tmpfs{}})},
		{name: "tmpfs", script: "df -k /t | awk 'END {print $2}'; stat -c %a /t; echo x >/t/x", want: "1024\n700\n", change: mounts(sandbox.Mount{Target: "/t", Tmpfs: size})},
		{
			name: "read-only tmpfs", script: "echo x >/t/x", want: "sh: can't create /t/x: Read-only file system\n", code: 1,
			change: mounts(sandbox.Mount{Target: "/t", ReadOnly: true, Tmpfs: size}),
		},
		{name: "tmpfs keeps a directory's mode", script: "stat -c %a /tmp /t", want: "1777\n1777\n", change: mounts(
			sandbox.Mount{Target: "/tmp", Tmpfs: &sandbox.Tmpfs{}}, sandbox.Mount{Target: "/t", Tmpfs: &sandbox.Tmpfs{}})},
		{name: "in /dev", script: "cat /dev/x/file", want: "content\n", change: mounts(sandbox.Mount{Target: "/dev/x", Dir: dir})},
		{name: "on /dev/shm", script: "ls /dev/shm", want: "file\nsub\n", change: mounts(sandbox.Mount{Target: "/dev/shm", Dir: dir})},
		{name: "on /", change: mounts(sandbox.Mount{Target: "/", Dir: dir}), wantErr: "mount /"},
		{name: "in /proc", change: mounts(sandbox.Mount{Target: "/proc/self", Dir: dir}), wantErr: "mount /proc/self"},
		{name: "relative", change: mounts(sandbox.Mount{Target: "srv", Dir: dir}), wantErr: "mount srv"},
		{name: "directory on a file", change: mounts(sandbox.Mount{Target: "/etc/passwd", Dir: dir}), wantErr: "/etc/passwd"},
		{name: "file on a directory", change: mounts(sandbox.Mount{Target: "/etc", Dir: file}), wantErr: "/etc"},
		{name: "missing", change: mounts(sandbox.Mount{Target: "/x", Dir: dir + "/nosuch"}), wantErr: "mount /x"},
		{name: "missing in a tree", change: mounts(sandbox.Mount{Target: "/x", Tree: tree, Path: "nosuch"}), wantErr: "mount /x"},
		{name: "no source", change: mounts(sandbox.Mount{Target: "/x"}), wantErr: "mount /x"},
		{name: "two sources", change: mounts(sandbox.Mount{Target: "/x", Dir: dir, Tree: tree}), wantErr: "mount /x"},
	})
	for _, name := range []string{"a", "t", "x", "run", "dev", "proc", "sys", "etc/deep", "etc/hosts"} {
		if _, err := os.Lstat(filepath.Join(root.Dir, name)); err == nil {
			t.Errorf("/%s is left", name)
		}
	}
}

// A root is after a run as it was before, whatever was mounted in it: also the
// times of its directories.
func (s suite) testNothingIsLeft(t *testing.T) {
	root, ex := s.root(t), s.open(t)
	root.Write(t, "opt/app/file", "content\n")
	outside := t.TempDir()
	before := list(t, root.Dir)
	for _, script := range []string{"true", "false"} {
		_, _ = Run(t, ex, root, script, func(s *sandbox.Spec) {
			s.Mounts = []sandbox.Mount{
				{Target: "/opt/cache/a/b", Dir: outside},
				{Target: "/opt/cache/c", Dir: outside},
				{Target: "/run/secrets/token", Tmpfs: &sandbox.Tmpfs{}},
				{Target: "/run/secrets/token/deep", Tmpfs: &sandbox.Tmpfs{}},
			}
		})
		if diff := cmp.Diff(before, list(t, root.Dir)); diff != "" {
			t.Errorf("after %s (-before +after):\n%s", script, diff)
		}
	}
	if left := list(t, outside); len(left) != 1 {
		t.Errorf("left in what was mounted: %v", left)
	}
}

// list returns all paths in dir with what stat says of them.
func list(t testing.TB, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	must(t, filepath.WalkDir(dir, func(name string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		name, err = filepath.Rel(dir, name)
		files[name] = fi.Mode().String() + " " + fi.ModTime().String()
		return err
	}))
	return files
}

// What a run makes in a place that was only made to mount something stays, and
// so does the time at which it did.
func (s suite) testWhatTheRunMadeStays(t *testing.T) {
	root, ex := s.root(t), s.open(t)
	_, err := Run(t, ex, root, "echo mine >/opt/file; touch -d '2001-02-03 04:05:06' /opt; echo $((1+1)) >/etc/new", func(s *sandbox.Spec) {
		s.Mounts = []sandbox.Mount{{Target: "/opt/cache", Tmpfs: &sandbox.Tmpfs{}}}
	})
	must(t, err)
	if b, err := os.ReadFile(filepath.Join(root.Dir, "opt/file")); err != nil || string(b) != "mine\n" {
		t.Errorf("/opt/file is %q, %v", b, err)
	}
	fi, err := os.Stat(filepath.Join(root.Dir, "opt"))
	must(t, err)
	if got := fi.ModTime().UTC().Format("2006-01-02 15:04:05"); got != "2001-02-03 04:05:06" {
		t.Errorf("/opt is of %s", got)
	}
	for _, name := range []string{"opt/cache", "etc/hosts", "etc/resolv.conf"} {
		if _, err := os.Lstat(filepath.Join(root.Dir, name)); err == nil {
			t.Errorf("/%s is left", name)
		}
	}
}
