package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// sample is what one build cost. CPU is that of the whole process tree, as far
// as each process was waited for; Peak is the resident memory of the largest
// process in it.
type sample struct {
	Seconds float64 `json:"seconds"`
	CPU     float64 `json:"cpu_seconds"`
	Peak    int64   `json:"peak_bytes"`
}

type measured struct {
	sample
	started time.Time
	output  string
}

// openFiles returns how many files this process may have open.
func openFiles() int {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 1024
	}
	return int(min(l.Max, 1<<20))
}

// measure runs a shell command in a process group of its own and waits for it.
// An error has the end of the command's output.
func measure(ctx context.Context, timeout time.Duration, command string, env []string, daemon int) (measured, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("not done after %s", timeout))
	defer cancel()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, "sh", "-c", command)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second

	var before usage
	if daemon != 0 {
		resetPeak(daemon)
		before = treeUsage(daemon)
	}
	m := measured{started: time.Now()}
	err := cmd.Run()
	m.Seconds = time.Since(m.started).Seconds()
	m.output = out.String()
	if ctx.Err() != nil {
		return m, context.Cause(ctx)
	}
	if err != nil {
		return m, fmt.Errorf("%w: %s", err, tail(m.output))
	}
	ru := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	m.CPU = (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()
	m.Peak = ru.Maxrss << 10
	if daemon != 0 {
		after := treeUsage(daemon)
		m.CPU += (after.cpu - before.cpu).Seconds()
		m.Peak = max(m.Peak, after.peak)
	}
	return m, nil
}

// retire makes room where a build worked: it unmounts what the builder left and
// removes large files. Small ones stay until the end of the run, because ext4
// does not use an inode again for a minute or more after it was deleted, and
// looks at each such inode whenever it makes a file: a build after the removal
// of 20 000 files takes five times as long.
func retire(dir string) error {
	if err := unmountBelow(dir); err != nil {
		return err
	}
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		if fi, err := d.Info(); err != nil || fi.Size() < 1<<20 {
			return err
		}
		return os.Remove(path)
	})
}

// removeAll removes dir and unmounts what a builder left mounted below it.
func removeAll(dir string) error {
	if err := unmountBelow(dir); err != nil {
		return err
	}
	// Go's module cache is read-only, which stops everybody but root.
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && os.Getuid() != 0 {
			return os.Chmod(path, 0o700)
		}
		return nil
	})
	return errors.Join(err, os.RemoveAll(dir))
}

func unmountBelow(dir string) error {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	var points []string
	for line := range strings.Lines(string(mounts)) {
		fields := strings.Fields(line)
		if len(fields) > 4 && strings.HasPrefix(fields[4], dir+"/") {
			points = append(points, fields[4])
		}
	}
	slices.Reverse(points) // the last was mounted over the others
	for _, point := range points {
		if err := unix.Unmount(point, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("unmount %s: %w", point, err)
		}
	}
	return nil
}
