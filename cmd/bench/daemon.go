package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// docker is a dockerd that was started for this run.
type docker struct {
	cmd *exec.Cmd
	pid int
	env []string
	dir string
}

// startDocker starts dockerd with everything of its own under dir, and base
// images mirrored by the registry at addr. It touches no firewall and makes no
// bridge: builds use the host's network.
func startDocker(ctx context.Context, dir, addr string) (*docker, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	conf := filepath.Join(dir, "daemon.json")
	text := `{"features": {"containerd-snapshotter": true}, "registry-mirrors": ["http://` + addr + `"]}`
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return nil, err
	}
	logFile, err := os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	defer logFile.Close() //nolint:errcheck // the daemon has its own descriptor
	socket := "unix://" + filepath.Join(dir, "docker.sock")
	// An interrupt must not kill it: stop lets it end its own children.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), "dockerd", "--config-file", conf, "--data-root", filepath.Join(dir, "data"), "--exec-root", filepath.Join(dir, "exec"),
		"--pidfile", filepath.Join(dir, "pid"), "--host", socket, "--iptables=false", "--ip6tables=false", "--bridge=none")
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	d := &docker{cmd: cmd, pid: cmd.Process.Pid, env: []string{"DOCKER_HOST=" + socket}, dir: dir}
	deadline, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		probe := exec.CommandContext(deadline, "docker", "info")
		probe.Env = append(os.Environ(), d.env...)
		if probe.Run() == nil {
			break
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-deadline.Done():
			d.stop()
			text, _ := os.ReadFile(logFile.Name())
			return nil, fmt.Errorf("dockerd does not answer; its log ends: %s", tail(string(text)))
		}
	}
	if !usable(ctx, "docker", "buildx", "version") {
		d.stop()
		return nil, fmt.Errorf("docker has no buildx here")
	}
	return d, nil
}

// stop ends the daemon and waits for it; it stops its containerd itself.
func (d *docker) stop() {
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	_ = d.cmd.Wait()
}

// usage is what a tree of processes has used so far.
type usage struct {
	cpu  time.Duration
	peak int64 // bytes, of the largest process
}

// treeUsage adds up a process and its living descendants; the CPU of those that
// are gone is in that of their parents, which waited for them.
func treeUsage(pid int) usage {
	var u usage
	children := map[int][]int{}
	stats := map[int][]string{}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		text, err := os.ReadFile(filepath.Join(dir, "stat"))
		if err != nil {
			continue
		}
		// The name, in parentheses, may hold anything.
		_, rest, _ := strings.Cut(string(text[strings.LastIndexByte(string(text), ')')+1:]), " ")
		fields := strings.Fields(rest)
		if len(fields) < 15 {
			continue
		}
		id, _ := strconv.Atoi(filepath.Base(dir))
		parent, _ := strconv.Atoi(fields[1])
		stats[id] = fields
		children[parent] = append(children[parent], id)
	}
	const tick = time.Second / 100 // USER_HZ, the same on every Linux
	queue := []int{pid}
	for len(queue) > 0 {
		id := queue[0]
		queue = append(queue[1:], children[id]...)
		fields, ok := stats[id]
		if !ok {
			continue
		}
		for _, f := range fields[11:15] { // utime, stime, cutime, cstime
			n, _ := strconv.Atoi(f)
			u.cpu += time.Duration(n) * tick
		}
		u.peak = max(u.peak, peakOf(id))
	}
	return u
}

func peakOf(pid int) int64 {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return kib << 10
		}
	}
	return 0
}

// resetPeak makes the peak of a process begin anew.
func resetPeak(pid int) {
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0)
}
