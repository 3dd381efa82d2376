//go:build linux && cgo && (amd64 || arm64)

package runc_test

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/engine/sandbox"
	"github.com/slipway-build/slipway/engine/sandbox/runc"
	"github.com/slipway-build/slipway/engine/sandbox/sandboxtest"
	"github.com/slipway-build/slipway/engine/snapshot"
)

// A helper is this test binary, started to run one script in a container in a
// process of its own, which can be killed or put into other surroundings.
var (
	helperState  = flag.String("helper-state", "", "be a helper, with this state directory")
	helperRoot   = flag.String("helper-root", "", "the helper's root filesystem")
	helperScript = flag.String("helper-script", "", "what the helper runs")
)

// TestHelper is not a test, but what a helper does.
func TestHelper(t *testing.T) {
	if *helperState == "" {
		return
	}
	ex, err := runc.New(runc.Options{Root: *helperState})
	if err != nil {
		t.Fatal(err)
	}
	root := sandboxtest.Root{Mount: snapshot.Mount{Type: "bind", Source: *helperRoot}}
	spec := sandboxtest.Spec(root, *helperScript)
	spec.Stdout, spec.Stderr = os.Stdout, os.Stdout
	err = ex.Run(t.Context(), spec)
	if exit, ok := errors.AsType[*sandbox.ExitError](err); ok {
		fmt.Println(exit)
	} else if err != nil {
		t.Fatal(err)
	}
	if err := ex.Close(); err != nil {
		t.Fatal(err)
	}
}

// helper returns a helper that is not started. Before it, prepare is run by a
// shell that sees mounts of its own; it may be empty.
func helper(t *testing.T, state string, root sandboxtest.Root, prepare, script string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args := []string{
		self, "-test.run=^TestHelper$", "-helper-state=" + state, "-helper-root=" + root.Dir, "-helper-script=" + script,
	}
	if prepare != "" {
		args = append([]string{"unshare", "--mount", "sh", "-ec", prepare + `; exec "$@"`, "sh"}, args...)
	}
	return exec.CommandContext(t.Context(), args[0], args[1:]...)
}

// started starts a helper whose script says "started", and waits for that. It
// returns the cgroups that the helper made.
func started(t *testing.T, cmd *exec.Cmd, state string) []string {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() && lines.Text() != "started" {
	}
	files, err := filepath.Glob(filepath.Join(state, "*", "cgroups"))
	if err != nil || len(files) != 1 {
		t.Fatalf("cgroups are noted in %v, %v", files, err)
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(b))
}

func kill(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
}

// A script runs until the process that runs it is killed. Whether the container
// is process 1 as root, or has become somebody else, nothing of it is left.
func TestInvariant14_NothingRunsAfterSIGKILL(t *testing.T) {
	mark := fmt.Sprint(900000000 + os.Getpid())
	tests := []struct{ name, script string }{
		{"as root", "echo started; exec sleep " + mark},
		{"with children", "sleep " + mark + " & sleep " + mark + " & echo started; wait"},
		{"as another user", "exec su app -c 'echo started; exec sleep " + mark + "'"},
		{"ignoring signals", "trap '' TERM HUP INT; echo started; sleep " + mark},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root, state := sandboxtest.Busybox(t), t.TempDir()
			cmd := helper(t, state, root, "", tt.script)
			groups := started(t, cmd, state)
			if len(processes(t, mark)) == 0 {
				t.Fatal("the script does not run")
			}
			kill(t, cmd)
			eventually(t, "the script still runs", func() bool { return len(processes(t, mark)) == 0 })
			eventually(t, "something is still mounted", func() bool { return !mounted(t, state) && !mounted(t, root.Dir) })
			eventually(t, "the guard still runs", func() bool { return len(processes(t, state)) == 0 })
			checkRemoved(t, state, groups)
		})
	}
}

// If the guard was killed too, the kernel ends the container, and the next
// executor removes what is left, but nothing of one that is in use.
func TestInvariant14_TheNextOneCleansUp(t *testing.T) {
	mark := fmt.Sprint(800000000 + os.Getpid())
	root, state := sandboxtest.Busybox(t), t.TempDir()
	cmd := helper(t, state, root, "", "echo started; exec sleep "+mark)
	groups := started(t, cmd, state)
	for _, file := range mustGlob(t, "/proc/[0-9]*/cmdline") {
		b, _ := os.ReadFile(file) // it may be gone by now
		if args := strings.Split(string(b), "\x00"); len(args) > 3 && args[1] == "init" && strings.HasPrefix(args[3], state) {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			if err != nil {
				t.Fatal(err)
			}
			if err := unix.Kill(pid, unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
	}
	eventually(t, "the guard still runs", func() bool { return len(processes(t, state+"/")) == 0 })
	kill(t, cmd)
	eventually(t, "the script still runs", func() bool { return len(processes(t, mark)) == 0 })
	eventually(t, "something is still mounted", func() bool { return !mounted(t, state) })

	var executors []*runc.Executor
	for range 2 {
		ex, err := runc.New(runc.Options{Root: state})
		if err != nil {
			t.Fatal(err)
		}
		executors = append(executors, ex)
	}
	for _, ex := range executors {
		if _, err := sandboxtest.Run(t, ex, sandboxtest.Busybox(t), "true"); err != nil {
			t.Error(err)
		}
		if err := ex.Close(); err != nil {
			t.Error(err)
		}
	}
	checkRemoved(t, state, groups)
}

func checkRemoved(t *testing.T, state string, groups []string) {
	t.Helper()
	for _, dir := range groups {
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("cgroup %s is left", dir)
		}
	}
	if left, err := os.ReadDir(state); err != nil || len(left) != 1 { // the lock
		t.Errorf("left in the state directory: %v, %v", left, err)
	}
}

// processes returns those on the machine with mark in their command line,
// except helpers.
func processes(t *testing.T, mark string) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, file := range files {
		b, _ := os.ReadFile(file) // it may be gone by now
		if cmd := string(b); strings.Contains(cmd, mark) && !strings.Contains(cmd, "-helper-state") {
			found = append(found, cmd)
		}
	}
	return found
}

// mounted says whether some process sees a mount at or below dir.
func mounted(t *testing.T, dir string) bool {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		b, _ := os.ReadFile(file)
		if strings.Contains(string(b), dir) {
			return true
		}
	}
	return false
}

func eventually(t *testing.T, not string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for range 1000 {
		if is() {
			return
		}
		<-tick.C
	}
	t.Error(not)
}

// Wherever cgroups are, or are not, containers run, and devices other than the
// usual can't be opened.
func TestCgroups_Surroundings(t *testing.T) {
	const readOnly = "for d in /sys/fs/cgroup/*; do mount -o bind,remount,ro $d || :; done; mount -o bind,remount,ro /sys/fs/cgroup"
	const unified = "umount -R /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup"
	tests := []struct{ name, prepare string }{
		{"as they are", ""},
		{"read-only", readOnly},
		{"cgroup v2", unified},
		{"cgroup v2, read-only", unified + "; mount -o bind,remount,ro /sys/fs/cgroup"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root, state := sandboxtest.Busybox(t), t.TempDir()
			script := "mknod /tmp/mem c 1 1; head -c1 /tmp/mem; echo x >/dev/null && echo fine; exit 3"
			out, err := helper(t, state, root, tt.prepare, script).CombinedOutput()
			want := "head: /tmp/mem: Operation not permitted\nfine\nexit code: 3\n"
			got := strings.ReplaceAll(string(out), "Permission denied", "Operation not permitted")
			if err != nil || !strings.HasPrefix(got, want) {
				t.Errorf("%v\n%s", err, out)
			}
			checkRemoved(t, state, nil)
		})
	}
}

func TestCgroups_NoneAreMounted(t *testing.T) {
	out, err := helper(t, t.TempDir(), sandboxtest.Busybox(t), "umount -R /sys/fs/cgroup", "true").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "no cgroups are mounted in /sys/fs/cgroup") {
		t.Errorf("%v\n%s", err, out)
	}
}
