//go:build linux && cgo && (amd64 || arm64)

package runc_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/engine/sandbox"
	"github.com/slipway-build/slipway/engine/sandbox/runc"
	"github.com/slipway-build/slipway/engine/sandbox/sandboxtest"
)

// memoryGroup makes a cgroup with a memory limit and returns its name. It skips
// where the hierarchy is not as it expects.
func memoryGroup(t *testing.T) string {
	t.Helper()
	name := fmt.Sprintf("slipway-test-%d", os.Getpid())
	dir := filepath.Join("/sys/fs/cgroup/memory", name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Skipf("no memory cgroup can be made: %v", err)
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
		_ = os.Remove(filepath.Join("/sys/fs/cgroup/devices", name))
	})
	if err := os.WriteFile(filepath.Join(dir, "memory.limit_in_bytes"), []byte("33554432"), 0o644); err != nil {
		t.Skip(err)
	}
	return name
}

func TestOutOfMemory(t *testing.T) {
	root := sandboxtest.Busybox(t)
	parent := memoryGroup(t)
	ex := open(t)
	in := func(s *sandbox.Spec) { s.CgroupParent = parent }
	tests := []struct {
		name, script string
		want         bool
	}{
		{"the process", "exec tail /dev/zero", true},
		{"a child", "tail /dev/zero; exit $?", true},
		{"a child, which the process does not mind", "tail /dev/zero; exit 5", true},
		{"killed otherwise", "sh -c 'kill -9 $$'; exit $?", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out, err := sandboxtest.Run(t, ex, root, tt.script, in)
			exit, ok := errors.AsType[*sandbox.ExitError](err)
			if !ok || exit.Code != 137 && exit.Code != 5 || exit.OOMKilled != tt.want {
				t.Errorf("error is %#v, output %q", err, out)
			}
		})
	}
}

func TestCgroupParent_Refused(t *testing.T) {
	root, ex := sandboxtest.Busybox(t), open(t)
	for _, parent := range []string{"../x", "system.slice:a:", "/../x"} {
		_, err := sandboxtest.Run(t, ex, root, "true", func(s *sandbox.Spec) { s.CgroupParent = parent })
		if err == nil || !strings.Contains(err.Error(), "cgroup parent") {
			t.Errorf("%q: error is %v", parent, err)
		}
	}
}

// What a run takes it gives back: descriptors, threads, children, cgroups,
// state, mounts.
func TestNothingAccumulates(t *testing.T) {
	root, state := sandboxtest.Busybox(t), t.TempDir()
	ex := openWith(t, runc.Options{Root: state})
	count := func() map[string]int {
		counts := map[string]int{}
		for _, dir := range []string{"/proc/self/fd", "/proc/self/task"} {
			entries, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			counts[dir] = len(entries)
		}
		for _, file := range mustGlob(t, "/proc/self/task/*/children") {
			b, _ := os.ReadFile(file) // threads end
			counts["children"] += len(strings.Fields(string(b)))
		}
		b, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			t.Fatal(err)
		}
		counts["mounts"] = strings.Count(string(b), root.Dir) + strings.Count(string(b), state)
		counts["state"] = len(mustGlob(t, state+"/*/run/*"))
		for _, file := range mustGlob(t, state+"/*/cgroups") {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for dir := range strings.FieldsSeq(string(b)) {
				counts["cgroups"] += len(mustGlob(t, dir+"/*/tasks"))
			}
		}
		return counts
	}
	work := func() {
		for _, script := range []string{"true", "false", "sleep 100 & true"} {
			_, _ = sandboxtest.Run(t, ex, root, script)
		}
		_, _ = sandboxtest.Run(t, ex, root, "true", func(s *sandbox.Spec) { s.Args = []string{"nosuch"} })
		_, _ = sandboxtest.Run(t, ex, root, "true", func(s *sandbox.Spec) { s.User = "nosuch" })
		_, _ = sandboxtest.Run(t, ex, root, "true", func(s *sandbox.Spec) { s.Mounts = []sandbox.Mount{{Target: "/x"}} })
	}
	work()
	before := count()
	for range 10 {
		work()
	}
	eventually(t, "something accumulates", func() bool {
		after := count()
		for what, n := range before {
			// A thread more or less is the runtime's business.
			if slack := map[bool]int{true: 8}[strings.HasSuffix(what, "task")]; after[what] > n+slack {
				t.Logf("%s: %d, before %d", what, after[what], n)
				return false
			}
		}
		return true
	})
}

func mustGlob(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return files
}
