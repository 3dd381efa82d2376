package sandboxtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-build/slipway/engine/sandbox"
)

// Test checks that an executor does what package sandbox promises. root makes a
// root for each test, such as [Busybox].
func Test(t *testing.T, open func(testing.TB) sandbox.Executor, root func(testing.TB) Root) {
	s := suite{open: open, root: root}
	t.Run("Exit", s.testExit)
	t.Run("NotStarted", s.testNotStarted)
	t.Run("Streams", s.testStreams)
	t.Run("Environment", s.testEnvironment)
	t.Run("Users", s.testUsers)
	t.Run("Mounts", s.testMounts)
	t.Run("NothingIsLeft", s.testNothingIsLeft)
	t.Run("WhatTheRunMadeStays", s.testWhatTheRunMadeStays)
	t.Run("Machine", s.testMachine)
	t.Run("Network", s.testNetwork)
	t.Run("Ulimits", s.testUlimits)
	t.Run("Cancel", s.testCancel)
	t.Run("Background", s.testBackground)
	t.Run("Concurrent", s.testConcurrent)
}

type suite struct {
	open func(testing.TB) sandbox.Executor
	root func(testing.TB) Root
}

// A scenario is a script and what it shall write and return.
type scenario struct {
	name    string
	script  string
	change  Change
	want    string
	code    int    // of an ExitError
	wantErr string // of another error, a part of it
}

func (s suite) run(t *testing.T, root Root, scenarios []scenario) {
	ex := s.open(t)
	for _, sc := range scenarios {
		t.Run(sc.name, func(t *testing.T) {
			change := sc.change
			if change == nil {
				change = func(*sandbox.Spec) {}
			}
			got, err := Run(t, ex, root, sc.script, change)
			sc.check(t, err)
			if diff := cmp.Diff(sc.want, got); diff != "" {
				t.Errorf("output (-want +got):\n%s", diff)
			}
		})
	}
}

func (sc scenario) check(t *testing.T, err error) {
	t.Helper()
	exit, isExit := errors.AsType[*sandbox.ExitError](err)
	switch {
	case sc.wantErr != "":
		if err == nil || isExit || !strings.Contains(err.Error(), sc.wantErr) {
			t.Errorf("error is %v, want one with %q", err, sc.wantErr)
		}
	case sc.code != 0:
		if !isExit || exit.Code != sc.code {
			t.Errorf("error is %v, want exit code %d", err, sc.code)
		}
	case err != nil:
		t.Errorf("error is %v", err)
	}
}

func (s suite) testExit(t *testing.T) {
	s.run(t, s.root(t), []scenario{
		{name: "success", script: "exit 0"},
		{name: "failure", script: "exit 3", code: 3},
		{name: "255", script: "exit 255", code: 255},
		{name: "a child killed", script: "sh -c 'kill -9 $$'; exit $?", code: 137, want: "Killed\n"},
		{name: "not found by the shell", script: "nosuch 2>/dev/null", code: 127},
	})
}

func args(args ...string) Change { return func(s *sandbox.Spec) { s.Args = args } }

func (s suite) testNotStarted(t *testing.T) {
	root := s.root(t)
	root.Write(t, "text", "not a program")
	root.Write(t, "script", "#!/no/such/shell\n")
	must(t, os.Chmod(filepath.Join(root.Dir, "script"), 0o755))
	root.Write(t, "garbage", "\x00\x01\x02\x03")
	must(t, os.Chmod(filepath.Join(root.Dir, "garbage"), 0o755))
	dir := func(dir string) Change { return func(s *sandbox.Spec) { s.Dir = dir } }
	s.run(t, root, []scenario{
		{name: "not in PATH", change: args("nosuch"), wantErr: `"nosuch": executable file not found in $PATH`},
		{name: "not there", change: args("/no/such"), wantErr: `"/no/such": no such file or directory`},
		{name: "not executable", change: args("/text"), wantErr: `"/text": permission denied`},
		{name: "a directory", change: args("/bin"), wantErr: `"/bin": permission denied`},
		{name: "no interpreter", change: args("/script"), wantErr: `"/script": no such file or directory`},
		{name: "another format", change: args("/garbage"), wantErr: `"/garbage": exec format error`},
		{name: "no command", change: args(), wantErr: "no command"},
		{name: "missing directory", change: dir("/no/such"), wantErr: `/no/such`},
		{name: "relative directory", change: dir("bin"), wantErr: `"bin"`},
		{name: "directory is a file", change: dir("/text"), wantErr: `/text`},
		{name: "unusable ID", change: func(s *sandbox.Spec) { s.ID = "../x" }, wantErr: `"../x"`},
		{name: "invalid variable", change: func(s *sandbox.Spec) { s.Env = []string{"X"} }, wantErr: `"X"`},
	})
}

func (s suite) testStreams(t *testing.T) {
	root, ex := s.root(t), s.open(t)
	var stdout, stderr bytes.Buffer
	spec := Spec(root, "echo out; echo err >&2; cat; echo end")
	spec.Stdout, spec.Stderr = &stdout, &stderr
	must(t, ex.Run(t.Context(), spec))
	if stdout.String() != "out\nend\n" || stderr.String() != "err\n" {
		t.Errorf("stdout %q, stderr %q", &stdout, &stderr)
	}

	t.Run("one writer keeps the order", func(t *testing.T) {
		out, err := Run(t, ex, root, "for i in 1 2 3 4 5; do echo o$i; echo e$i >&2; done")
		if want := "o1\ne1\no2\ne2\no3\ne3\no4\ne4\no5\ne5\n"; err != nil || out != want {
			t.Errorf("output is %q, %v", out, err)
		}
	})
	t.Run("without writers", func(t *testing.T) {
		must(t, ex.Run(t.Context(), Spec(root, "echo out; echo err >&2")))
	})
	t.Run("a megabyte and more", func(t *testing.T) {
		out, err := Run(t, ex, root, "dd if=/dev/zero bs=1024 count=4096 2>/dev/null; echo end")
		if want := 4<<20 + len("end\n"); err != nil || len(out) != want {
			t.Errorf("output has %d bytes, want %d; %v", len(out), want, err)
		}
	})
	t.Run("a writer that fails is the error", func(t *testing.T) {
		full := errors.New("disk full")
		spec := Spec(root, "dd if=/dev/zero bs=1024 count=1024 2>/dev/null")
		spec.Stdout = failing{full}
		if err := ex.Run(t.Context(), spec); !errors.Is(err, full) {
			t.Errorf("error is %v, want %v", err, full)
		}
	})
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

func (s suite) testEnvironment(t *testing.T) {
	env := func(env ...string) Change { return func(s *sandbox.Spec) { s.Env = env } }
	s.run(t, s.root(t), []scenario{
		{name: "as given", change: func(s *sandbox.Spec) {
			s.Args, s.Env = []string{"/bin/env"}, []string{"A=1", "B=", "HOME=/h"}
		}, want: "A=1\nB=\nHOME=/h\n"},
		{name: "the last counts", script: "echo $A", change: env("PATH=/bin", "A=1", "A=2"), want: "2\n"},
		{name: "HOME is root's", script: "echo $HOME", want: "/root\n"},
		{name: "an empty HOME too", script: "echo $HOME", change: env("PATH=/bin", "HOME="), want: "/root\n"},
		{name: "HOME of nobody known", script: "echo $HOME", change: user("4242"), want: "/\n"},
		{name: "PATH is searched in order", script: "echo $0", change: func(s *sandbox.Spec) {
			s.Env = []string{"PATH=/none:/etc/passwd:/tmp::bin:/bin"}
		}, want: "sh\n"},
		{name: "directory", script: "pwd", change: func(s *sandbox.Spec) { s.Dir = "/home/app" }, want: "/home/app\n"},
	})
}

func user(name string) Change { return func(s *sandbox.Spec) { s.User = name } }

func (s suite) testUsers(t *testing.T) {
	root := s.root(t)
	script := "id -u; id -g; id -G; echo $HOME"
	s.run(t, root, []scenario{
		{name: "root", script: script, want: "0\n0\n0 10\n/root\n"},
		{name: "name", script: script, change: user("app"), want: "1000\n1001\n1001 10 29\n/home/app\n"},
		{name: "uid", script: script, change: user("1000"), want: "1000\n1001\n1001 10 29\n/home/app\n"},
		{name: "name and group", script: script, change: user("app:audio"), want: "1000\n29\n29\n/home/app\n"},
		{name: "uid and gid", script: script, change: user("1000:0"), want: "1000\n0\n0\n/home/app\n"},
		{name: "numbers that nobody has", script: script, change: user("7:8"), want: "7\n8\n8\n/\n"},
		{name: "unknown name", change: user("nobody"), wantErr: "unable to find user nobody: no matching entries in passwd file"},
		{name: "unknown group", change: user("app:nobody"), wantErr: "unable to find group nobody"},
		{name: "it can write to its output", script: "echo ok >/dev/stdout; echo ok >/dev/stderr", change: user("app"), want: "ok\nok\n"},
		{name: "no capabilities", script: "grep CapEff /proc/self/status", change: user("app"), want: "CapEff:\t0000000000000000\n"},
	})
}

func (s suite) testMachine(t *testing.T) {
	root := s.root(t)
	s.run(t, root, []scenario{
		{name: "process 1", script: "echo $$", want: "1\n"},
		{name: "descriptors", script: "ls /proc/self/fd | tr '\\n' ' '", want: "0 1 2 3 "}, // 3 is the directory itself
		{name: "standard input is empty", script: "cat; readlink /proc/self/fd/0", want: "/dev/null\n"},
		{name: "host name", script: "hostname", want: "buildkitsandbox\n"},
		{
			name: "another", script: "hostname; head -1 /etc/hosts", change: func(s *sandbox.Spec) { s.Hostname = "other" },
			want: "other\n127.0.0.1\tlocalhost other\n",
		},
		{name: "hosts", script: "cat /etc/hosts", change: func(s *sandbox.Spec) {
			s.Hosts = []sandbox.Host{{Name: "db", IP: "10.0.0.1"}, {Name: "six", IP: "fe80::1"}}
		}, want: "127.0.0.1\tlocalhost buildkitsandbox\n::1\tlocalhost ip6-localhost ip6-loopback\n10.0.0.1\tdb\nfe80::1\tsix\n"},
		{name: "no such address", change: func(s *sandbox.Spec) { s.Hosts = []sandbox.Host{{Name: "db", IP: "db"}} }, wantErr: `add host "db"`},
		{name: "devices", script: "ls /dev | tr '\\n' ' '", want: devices()},
		{
			name: "they work", script: "echo x >/dev/null; head -c2 /dev/zero | wc -c; head -c2 /dev/urandom | wc -c; echo x >/dev/full",
			want: "2\n2\nsh: write error: No space left on device\n", code: 1,
		},
		{name: "shared memory", script: "df -k /dev/shm | awk 'END {print $2}'", want: "65536\n"},
		{name: "more of it", script: "df -k /dev/shm | awk 'END {print $2}'", change: func(s *sandbox.Spec) { s.ShmSize = 8 << 20 }, want: "8192\n"},
		{name: "masked files are empty", script: "cat /proc/kcore /proc/keys /proc/timer_list 2>/dev/null | wc -c", want: "0\n"},
		{name: "settings are read-only", script: "echo x >/proc/sys/kernel/hostname", want: "sh: can't create /proc/sys/kernel/hostname: Read-only file system\n", code: 1},
		{name: "sysfs is read-only", script: "mkdir /sys/fs/x", want: "mkdir: can't create directory '/sys/fs/x': Read-only file system\n", code: 1},
		{name: "nothing can be mounted", script: "mount -t tmpfs none /tmp 2>/dev/null", code: 1},
		{name: "insecure can", script: "mount -t tmpfs none /tmp; echo $?", change: func(s *sandbox.Spec) { s.Insecure = true }, want: "0\n"},
	})
}

// devices are in /dev; core only where the kernel has it.
func devices() string {
	list := "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero "
	if _, err := os.Stat("/proc/kcore"); err == nil {
		return "core " + list
	}
	return list
}

func (s suite) testNetwork(t *testing.T) {
	root := s.root(t)
	none := func(s *sandbox.Spec) { s.Network = sandbox.NoNetwork }
	host, err := os.Readlink("/proc/self/ns/net")
	must(t, err)
	s.run(t, root, []scenario{
		{name: "host", script: "readlink /proc/self/ns/net", want: host + "\n"},
		{name: "none has a loopback", script: "ls /sys/class/net | tr '\\n' ' '; ip -o addr show lo | grep -c 127.0.0.1", change: none, want: "lo 1\n"},
		{name: "that works", script: "ping -c1 -W1 127.0.0.1 >/dev/null && echo pong", change: none, want: "pong\n"},
		{name: "and nothing else", script: "ip route | wc -l", change: none, want: "0\n"},
		{name: "unknown", change: func(s *sandbox.Spec) { s.Network = 9 }, wantErr: "network 9"},
	})
}

func (s suite) testUlimits(t *testing.T) {
	limit := func(u ...sandbox.Ulimit) Change { return func(s *sandbox.Spec) { s.Ulimits = u } }
	s.run(t, s.root(t), []scenario{
		{name: "set", script: "ulimit -Sn; ulimit -Hn; ulimit -c", want: "64\n128\n0\n", change: limit(
			sandbox.Ulimit{Name: "nofile", Soft: 64, Hard: 128}, sandbox.Ulimit{Name: "core"})},
		{name: "unlimited", script: "ulimit -f", want: "unlimited\n", change: limit(sandbox.Ulimit{Name: "fsize", Soft: -1, Hard: -1})},
		{name: "too high is clamped", script: "test $(ulimit -n) -gt 0", change: limit(
			sandbox.Ulimit{Name: "nofile", Soft: 1 << 40, Hard: 1 << 40})},
		{name: "unknown", change: limit(sandbox.Ulimit{Name: "nosuch"}), wantErr: `"nosuch"`},
		{name: "soft above hard", change: limit(sandbox.Ulimit{Name: "nofile", Soft: 2, Hard: 1}), wantErr: "nofile"},
	})
}

func (s suite) testCancel(t *testing.T) {
	root, ex := s.root(t), s.open(t)
	stop := errors.New("stop")
	tests := []struct {
		name   string
		script string
		want   string
	}{
		{"a process that does not care", "echo started; sleep 1000", "started\n"},
		{"one with children", "echo started; sleep 1000 & sleep 1000 & wait", "started\n"},
		{"one that cleans up", "trap 'echo bye; exit 7' TERM; echo started; while :; do sleep 0.1; done", "started\nbye\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			out := &watched{when: "started\n", do: func() { cancel(stop) }}
			spec := Spec(root, tt.script)
			spec.Stdout, spec.Stderr = out, out
			start := time.Now()
			if err := ex.Run(ctx, spec); !errors.Is(err, stop) {
				t.Errorf("error is %v, want the cause", err)
			}
			if took := time.Since(start); took > 8*time.Second {
				t.Errorf("it took %v", took)
			}
			if got := out.String(); got != tt.want {
				t.Errorf("output is %q, want %q", got, tt.want)
			}
		})
	}
	t.Run("before the start", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(stop)
		if out, err := RunContext(ctx, ex, root, "echo started"); !errors.Is(err, stop) || out != "" {
			t.Errorf("got %q, %v", out, err)
		}
	})
}

// What a run leaves running ends with it, also if it holds its output open.
func (s suite) testBackground(t *testing.T) {
	root, ex := s.root(t), s.open(t)
	start := time.Now()
	out, err := Run(t, ex, root, "sleep 1000 & (sleep 1000 & exec sleep 1000) & echo done")
	if err != nil || out != "done\n" {
		t.Errorf("got %q, %v", out, err)
	}
	if took := time.Since(start); took > 8*time.Second {
		t.Errorf("it took %v", took)
	}
}

func (s suite) testConcurrent(t *testing.T) {
	ex := s.open(t)
	var wg sync.WaitGroup
	for i := range 8 {
		root := s.root(t) // a root is for one run at a time
		wg.Go(func() {
			script := fmt.Sprintf("echo %d >/dev/shm/x; sleep 0.2; cat /dev/shm/x; exit %d", i, i)
			out, err := Run(t, ex, root, script, func(s *sandbox.Spec) {
				s.Network = sandbox.Network(i % 2)
				s.Mounts = []sandbox.Mount{{Target: fmt.Sprintf("/mnt/%d", i), Tmpfs: &sandbox.Tmpfs{}}}
			})
			exit, _ := errors.AsType[*sandbox.ExitError](err)
			if out != fmt.Sprintln(i) || i == 0 && err != nil || i > 0 && (exit == nil || exit.Code != i) {
				t.Errorf("run %d: %q, %v", i, out, err)
			}
		})
	}
	wg.Wait()
}
