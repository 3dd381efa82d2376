//go:build linux && cgo && (amd64 || arm64)

package runc

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/engine/sandbox"
	"github.com/slipway-build/slipway/engine/sandbox/sandboxtest"
)

func newExecutor(t testing.TB) *Executor {
	t.Helper()
	ex, err := New(Options{Root: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ex.Close(); err != nil {
			t.Error(err)
		}
	})
	return ex
}

// status returns the fields of a /proc/PID/status that say what a process may.
func status(text string) map[string]string {
	fields := map[string]string{}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(line, ":")
		switch name {
		case "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters",
			"Speculation_Store_Bypass", "Uid", "Gid", "Groups", "Umask", "SigBlk", "SigIgn":
			fields[name] = strings.TrimSpace(value)
		}
	}
	return fields
}

const showStatus = "cat /proc/self/status"

func TestInvariant16_PrivilegesAreThoseOfBuildKit(t *testing.T) {
	root, ex := sandboxtest.Busybox(t), newExecutor(t)
	all := fmt.Sprintf("%016x", ex.caps.permitted)
	const fourteen, none = "00000000a80425fb", "0000000000000000"
	tests := []struct {
		name     string
		user     string
		insecure bool
		want     map[string]string
	}{
		{name: "root", want: map[string]string{
			"CapInh": none, "CapPrm": fourteen, "CapEff": fourteen, "CapBnd": fourteen, "CapAmb": none, "Seccomp": "2",
		}},
		{name: "another user", user: "app", want: map[string]string{
			"CapInh": none, "CapPrm": none, "CapEff": none, "CapBnd": fourteen, "CapAmb": none, "Seccomp": "2",
		}},
		{name: "insecure", insecure: true, want: map[string]string{
			"CapInh": all, "CapPrm": all, "CapEff": all, "CapAmb": all, "Seccomp": "0",
		}},
		{name: "insecure, another user", user: "app", insecure: true, want: map[string]string{
			"CapInh": all, "CapPrm": all, "CapEff": all, "CapAmb": all, "Seccomp": "0",
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out, err := sandboxtest.Run(t, ex, root, showStatus, func(s *sandbox.Spec) { s.User, s.Insecure = tt.user, tt.insecure })
			if err != nil {
				t.Fatal(err)
			}
			got := status(out)
			if got["NoNewPrivs"] != "0" {
				t.Error("no new privileges")
			}
			for name := range got {
				if _, ok := tt.want[name]; !ok {
					delete(got, name)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// The oracle: the same process, started by the runc binary with BuildKit's spec.
func TestInvariant16_StatusEqualsRunc(t *testing.T) {
	runc, err := exec.LookPath("runc")
	if err != nil {
		t.Skip("no runc to compare with")
	}
	root, ex := sandboxtest.Busybox(t), newExecutor(t)
	root.Write(t, "dev/.keep", "") // runc leaves its mount points
	for _, tt := range []struct {
		user string
		as   specs.User
	}{
		{"0:0", specs.User{AdditionalGids: []uint32{0}}},
		{"app", specs.User{UID: 1000, GID: 1001, AdditionalGids: []uint32{1001, 10, 29}}},
	} {
		t.Run(tt.user, func(t *testing.T) {
			want, err := runRunc(t, runc, root, tt.as)
			if err != nil {
				t.Skipf("runc: %v: %s", err, want)
			}
			got, err := sandboxtest.Run(t, ex, root, showStatus, func(s *sandbox.Spec) { s.User = tt.user })
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(status(want), status(got)); diff != "" {
				t.Errorf("(-runc +ours):\n%s", diff)
			}
		})
	}
}

func runRunc(t *testing.T, runc string, root sandboxtest.Root, user specs.User) (string, error) {
	t.Helper()
	spec := &specs.Spec{
		Version: "1.0.2",
		Root:    &specs.Root{Path: root.Dir},
		Process: &specs.Process{
			User: user, Args: []string{"sh", "-c", showStatus}, Env: []string{"PATH=/bin"}, Cwd: "/",
			Capabilities: &specs.LinuxCapabilities{Bounding: defaultCapNames, Effective: defaultCapNames, Permitted: defaultCapNames},
		},
		Mounts: []specs.Mount{{Destination: "/proc", Type: "proc", Source: "proc"}, {Destination: "/dev", Type: "tmpfs", Source: "tmpfs"}},
		Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{
			{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace},
		}},
	}
	var err error
	if spec.Linux.Seccomp, err = seccomp.GetDefaultProfile(spec); err != nil {
		t.Fatal(err)
	}
	config, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	bundle := t.TempDir()
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), config, 0o644); err != nil {
		t.Fatal(err)
	}
	id := fmt.Sprintf("slipway-test-%d-%d", os.Getpid(), user.UID)
	out, err := exec.CommandContext(t.Context(), runc, "--root", t.TempDir(), "run", "--bundle", bundle, id).CombinedOutput()
	return string(out), err
}

// addProgram puts a program into the root that makes system calls.
func addProgram(t *testing.T, root sandboxtest.Root, name string, mode os.FileMode, p *program) {
	t.Helper()
	p.call(unix.SYS_EXIT_GROUP, 0)
	f, err := p.file()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	root.Write(t, name, string(b))
	if err := os.Chmod(filepath.Join(root.Dir, name), mode); err != nil {
		t.Fatal(err)
	}
}

const anyErrno = 1<<64 - 1

func TestInvariant16_SystemCalls(t *testing.T) {
	root, ex := sandboxtest.Busybox(t), newExecutor(t)
	var p program
	calls := []struct {
		name string
		op   int
		want unix.Errno // 0: whatever the kernel says, but EPERM and ENOSYS
	}{
		{"unshare", p.try(unix.SYS_UNSHARE, anyErrno, unix.CLONE_NEWUSER), unix.EPERM},
		{"mount", p.try(unix.SYS_MOUNT, anyErrno), unix.EPERM},
		{"bpf", p.try(unix.SYS_BPF, anyErrno), unix.EPERM},
		{"keyctl", p.try(unix.SYS_KEYCTL, anyErrno), unix.EPERM},
		{"add_key", p.try(unix.SYS_ADD_KEY, anyErrno), unix.EPERM},
		{"perf_event_open", p.try(unix.SYS_PERF_EVENT_OPEN, anyErrno), unix.EPERM},
		{"userfaultfd", p.try(unix.SYS_USERFAULTFD, anyErrno), unix.EPERM},
		{"io_uring_setup", p.try(unix.SYS_IO_URING_SETUP, anyErrno), unix.EPERM},
		{"kexec_load", p.try(unix.SYS_KEXEC_LOAD, anyErrno), unix.EPERM},
		{"open_by_handle_at", p.try(unix.SYS_OPEN_BY_HANDLE_AT, anyErrno), unix.EPERM},
		{"setns", p.try(unix.SYS_SETNS, anyErrno, -1), unix.EPERM},
		{"clone with a namespace", p.try(unix.SYS_CLONE, anyErrno, unix.CLONE_NEWUSER|unix.CLONE_THREAD), unix.EPERM},
		{"clone3", p.try(unix.SYS_CLONE3, anyErrno), unix.ENOSYS},
		{"socket of vsock", p.try(unix.SYS_SOCKET, anyErrno, unix.AF_VSOCK, -1), unix.EPERM},
		{"socket with garbage above", p.try(unix.SYS_SOCKET, anyErrno, uint64(1<<32|unix.AF_INET), -1), unix.EPERM},
		{"personality", p.try(unix.SYS_PERSONALITY, anyErrno, 0x40000), unix.EPERM},
		{"one newer than the profile", p.try(999, anyErrno), unix.ENOSYS},
		{"socket", p.try(unix.SYS_SOCKET, anyErrno, unix.AF_INET, -1), unix.EINVAL},
		{"read", p.try(unix.SYS_READ, anyErrno, -1), unix.EBADF},
		{"chroot", p.try(unix.SYS_CHROOT, anyErrno), unix.EFAULT},
		{"ptrace", p.try(unix.SYS_PTRACE, anyErrno, 0x4200, 999), unix.ESRCH},
	}
	addProgram(t, root, "probe", 0o755, &p)
	out, err := sandboxtest.Run(t, ex, root, "exec /probe 4>&1")
	if err != nil {
		t.Fatal(err)
	}
	reports, err := readReports(strings.NewReader(out))
	if err != nil {
		t.Fatal(err)
	}
	for _, call := range calls {
		i := slices.IndexFunc(reports, func(r report) bool { return r.op == uint64(call.op) })
		if i < 0 {
			t.Errorf("%s succeeded", call.name)
		} else if reports[i].errno != call.want {
			t.Errorf("%s: %v, want %v", call.name, reports[i].errno, call.want)
		}
	}
}

// A program that is setuid root makes a file that belongs to root.
func TestInvariant16_SetuidProgramsWork(t *testing.T) {
	root, ex := sandboxtest.Busybox(t), newExecutor(t)
	var p program
	at := unix.AT_FDCWD
	p.call(unix.SYS_OPENAT, at, p.text("/tmp/proof"), unix.O_CREAT|unix.O_WRONLY, 0o644)
	p.call(unix.SYS_SETRESUID, 0, 0, 0)
	addProgram(t, root, "setuid", os.ModeSetuid|0o755, &p)
	out, err := sandboxtest.Run(t, ex, root, "/setuid 4>&1 && stat -c %u /tmp/proof && id -u", func(s *sandbox.Spec) { s.User = "app" })
	if err != nil || out != "0\n1000\n" {
		t.Errorf("got %q, %v", out, err)
	}
}
