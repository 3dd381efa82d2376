package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// timeout is how long anything may take that has to happen. It is only ever
// waited for when something is broken.
const timeout = 20 * time.Second

// needSandbox skips what can't be done here.
func needSandbox(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("containers need root")
	}
	if _, err := os.Stat(bases()); err != nil {
		t.Skip("make bases first")
	}
}

// A rig is a place to run slipway in: a working directory, a state directory
// and a registry.
type rig struct {
	*testing.T
	*gate
	dir, state string
	contexts   string // where contexts are, if they are shared
}

// newRig makes a rig whose working directory has the files.
func newRig(t *testing.T, files map[string]string) *rig {
	t.Helper()
	r := &rig{T: t, gate: newGate(t), dir: t.TempDir()}
	r.state = filepath.Join(t.TempDir(), "state")
	for name, data := range files {
		writeOld(t, filepath.Join(r.dir, name), strings.ReplaceAll(data, "REGISTRY", r.addr))
	}
	return r
}

// writeOld writes a file with a fixed time, so that images of it are the same.
func writeOld(t *testing.T, name, data string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{name, filepath.Dir(name)} {
		if err := os.Chtimes(p, time.Unix(1e9, 0), time.Unix(1e9, 0)); err != nil {
			t.Fatal(err)
		}
	}
}

// A process is a slipway that runs.
type process struct {
	*rig
	cmd  *exec.Cmd
	log  *logBuffer
	done chan struct{} // closed when it has ended
}

// start starts slipway. STATE and REGISTRY in arguments are replaced.
func (r *rig) start(stdin io.Reader, stdout io.Writer, args ...string) *process {
	r.Helper()
	p := &process{rig: r, log: &logBuffer{grew: make(chan struct{}, 1)}, done: make(chan struct{})}
	args = slices.Clone(args)
	for i := range args {
		args[i] = strings.NewReplacer("REGISTRY", r.addr, "STATE", r.state, "CONTEXTS/../-", "-", "CONTEXTS", r.contexts).Replace(args[i])
	}
	p.cmd = exec.Command("slipway", args...) //nolint:noctx // signals are what this is about
	p.cmd.Dir, p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = r.dir, stdin, stdout, p.log
	p.cmd.Env = append(os.Environ(), "SLIPWAY_ROOT="+r.state, "HOME="+r.dir, "SOURCE_DATE_EPOCH=1000000000")
	p.cmd.WaitDelay = time.Second
	if err := p.cmd.Start(); err != nil {
		r.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait() // the state says it
		close(p.done)
	}()
	r.Cleanup(func() {
		_ = p.cmd.Process.Kill() // if the test has failed
		<-p.done
	})
	return p
}

// run runs slipway to its end and returns the exit code.
func (r *rig) run(args ...string) (code int, log string) {
	r.Helper()
	p := r.start(nil, nil, args...)
	return p.wait(), p.log.String()
}

// mustRun runs slipway, which has to succeed.
func (r *rig) mustRun(args ...string) string {
	r.Helper()
	code, log := r.run(args...)
	if code != 0 {
		r.Fatalf("slipway %s: exit code %d\n%s", strings.Join(args, " "), code, log)
	}
	return log
}

// wait returns the exit code, as a shell does.
func (p *process) wait() int {
	p.Helper()
	select {
	case <-p.done:
	case <-time.After(timeout):
		_ = p.cmd.Process.Signal(syscall.SIGQUIT)
		<-p.done
		p.Fatalf("it does not end:\n%s", p.log)
	}
	ws, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !ok {
		p.Fatal("no wait status")
	}
	if ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return ws.ExitStatus()
}

// until waits for something to become true while the process runs.
func (p *process) until(what string, ok func() bool) {
	p.Helper()
	late := time.After(timeout)
	tick := time.NewTicker(4 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-p.log.grew:
		case <-tick.C:
		case <-p.done:
			if !ok() {
				p.Fatalf("it ended (%v) before %s\n%s", p.cmd.ProcessState, what, p.log)
			}
		case <-late:
			p.Fatalf("never %s\n%s", what, p.log)
		}
	}
}

// opened reports whether the process has the file open.
func (p *process) opened(name string) bool {
	fds := fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid)
	entries, err := os.ReadDir(fds)
	if err != nil {
		return false
	}
	return slices.ContainsFunc(entries, func(e fs.DirEntry) bool {
		to, err := os.Readlink(filepath.Join(fds, e.Name()))
		return err == nil && to == name
	})
}

// logBuffer is what a process has said.
type logBuffer struct {
	mu   sync.Mutex
	b    bytes.Buffer
	grew chan struct{}
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case l.grew <- struct{}{}:
	default:
	}
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// A life is a process that must not outlive the one that started it; the
// number alone may be given to another.
type life struct {
	pid   int
	start string
}

// stat returns the parent, the state and the start of a process.
func stat(pid int) (parent int, state, start string, ok bool) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, "", "", false
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	parent, _ = strconv.Atoi(f[1])
	return parent, f[0], f[19], true
}

// children returns all that descend from the process now.
func (p *process) children() []life {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		p.Fatal(err)
	}
	parents, lives := map[int]int{}, map[int]life{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if parent, _, start, ok := stat(pid); ok {
			parents[pid], lives[pid] = parent, life{pid, start}
		}
	}
	var all []life
	for pid := range lives {
		for up := parents[pid]; up > 1; up = parents[up] {
			if up == p.cmd.Process.Pid {
				all = append(all, lives[pid])
				break
			}
		}
	}
	return all
}

// ends waits until none of the processes runs: the kernel takes a moment.
func (r *rig) ends(lives []life) {
	r.Helper()
	late := time.Now().Add(10 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for _, l := range lives {
		for {
			_, state, start, ok := stat(l.pid)
			if !ok || start != l.start || state == "Z" {
				break
			}
			if time.Now().After(late) {
				cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", l.pid))
				r.Errorf("process %d still runs: %q", l.pid, cmdline)
				break
			}
			<-tick.C
		}
	}
}

// cgroups returns those that dead and living processes have made.
func (r *rig) cgroups() []string {
	files, err := filepath.Glob(filepath.Join(r.state, "run", "*", "cgroups"))
	if err != nil {
		r.Fatal(err)
	}
	var all []string
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			r.Fatal(err)
		}
		all = append(all, strings.Fields(string(b))...)
	}
	return all
}

// notMounted checks that nothing of the rig is.
func (r *rig) notMounted() {
	r.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		r.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, r.state+"/") {
			r.Errorf("still mounted: %s", line)
		}
	}
}

// whole checks that every blob is what its name says.
func (r *rig) whole() {
	r.Helper()
	dir := filepath.Join(r.state, "content", "blobs", "sha256")
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		r.Fatal(err)
	}
	for _, e := range entries {
		f, err := os.Open(filepath.Join(dir, e.Name()))
		if err != nil {
			r.Fatal(err)
		}
		h := sha256.New()
		_, err = io.Copy(h, f)
		_ = f.Close()
		if got := hex.EncodeToString(h.Sum(nil)); err != nil || got != e.Name() {
			r.Errorf("blob %s has the digest %s, %v", e.Name(), got, err)
		}
	}
}

// tidy checks that the state directory, which nobody uses now, has nothing in
// it that was only for the time being.
func (r *rig) tidy() {
	r.Helper()
	empty := []string{
		"holders/*", "tmp/*", "run/*/lock", "snapshots/drafts/*", "content/ingest/*",
		".tmp-*", "records/*/.tmp-*", "records/*/*/.tmp-*", "records/*.tmp", "records/new/*", "mounts/*/new",
	}
	for _, pattern := range empty {
		left, err := filepath.Glob(filepath.Join(r.state, pattern))
		if err != nil {
			r.Fatal(err)
		}
		if len(left) > 0 {
			r.Errorf("left behind: %s", left)
		}
	}
}

// noStage checks that no file that was to become something else is in the
// directory or just below it.
func (r *rig) noStage(dir string) {
	r.Helper()
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasPrefix(d.Name(), ".slipway-") {
			r.Errorf("half-written, and visible: %s", p)
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		r.Fatal(err)
	}
}

// tagged reports whether the registry has the tag.
func (r *rig) tagged(repo, tag string) bool {
	r.Helper()
	req, err := http.NewRequestWithContext(r.Context(), http.MethodHead, "http://"+r.addr+"/v2/"+repo+"/manifests/"+tag, nil)
	if err != nil {
		r.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// digest returns the digest in a metadata file.
func (r *rig) digest(name string) string {
	r.Helper()
	b, err := os.ReadFile(filepath.Join(r.dir, name))
	if err != nil {
		r.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		r.Fatal(err)
	}
	d, _ := m["containerimage.digest"].(string)
	return d
}
