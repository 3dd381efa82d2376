package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A phase is a moment in the life of a process at which it can be ended.
type phase struct {
	name    string
	args    []string                           // CONTEXTS is where contexts returns
	prepare func(r *rig) (undo func())         // before it starts; may be nil
	stdin   func(r *rig) (whole, part []byte)  // the part comes, and then nothing more
	stdout  bool                               // is a pipe that nobody reads
	shut    func(g *gate) <-chan struct{}      // may be nil
	ready   func(p *process, held func() bool) // waits for the moment
	out     []string                           // what it writes: afterwards not there, or whole
	tag     string                             // what it pushes
	next    []string                           // what is done next, if it is not the same
}

const (
	baseArg   = "BASE=REGISTRY/library/busybox"
	manyFiles = 800
)

// dockerfiles are contexts of one file.
var dockerfiles = map[string]string{
	// The base is not unpacked: whoever wants its layer fetches it.
	"lazy":   "ARG BASE\nFROM $BASE\nLABEL a=b\n",
	"unpack": "ARG BASE\nFROM $BASE AS base\nFROM scratch\nCOPY --from=base /bin/busybox /\n",
	// What predefined arguments are is in no key.
	"run": "ARG BASE\nFROM $BASE AS base\n" +
		"RUN if [ \"$FTP_PROXY\" = wait ]; then echo ready; sleep 1000 & sleep 1000; fi; mkdir /o; echo x >/o/f; touch -d @1000000000 /o/f\n" +
		"FROM scratch\nCOPY --from=base /o/f /\n",
	"cache": "ARG BASE\nFROM $BASE AS base\n" +
		"RUN --mount=type=cache,target=/c,sharing=locked mkdir /o; echo x >/o/f; touch -d @1000000000 /o/f\n" +
		"FROM scratch\nCOPY --from=base /o/f /\n",
	"many": "FROM scratch\nCOPY files /\n",
	"big":  "FROM scratch\nCOPY data /\n",
}

// contexts makes directories to build from.
func contexts(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range dockerfiles {
		writeOld(t, filepath.Join(dir, name, "Dockerfile"), data)
	}
	for i := range manyFiles {
		writeOld(t, filepath.Join(dir, "many", "files", fmt.Sprintf("%d", i)), strings.Repeat("x", i))
	}
	data := make([]byte, 12<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(data) // never fails
	writeOld(t, filepath.Join(dir, "big", "data"), string(data))
	return dir
}

func phases() []phase {
	build := func(context string, more ...string) []string {
		return append([]string{"build", "--metadata-file", "meta.json", "--build-arg", baseArg, "CONTEXTS/" + context}, more...)
	}
	fetching := func(after int) func(g *gate) <-chan struct{} {
		return func(g *gate) <-chan struct{} { return g.shut(blobAsked, after) }
	}
	pushing := func(g *gate) <-chan struct{} { return g.shut(uploadBegun, 0) }
	held := func(p *process, held func() bool) { p.until("held back", held) }
	some := func(n int, pattern func(p *process) string) func(p *process, held func() bool) {
		return func(p *process, held func() bool) {
			p.until("writing", func() bool {
				names, err := filepath.Glob(pattern(p))
				return err == nil && len(names) >= n || held()
			})
		}
	}
	inState := func(name string) func(p *process) string {
		return func(p *process) string { return filepath.Join(p.state, name) }
	}
	inDir := func(name string) func(p *process) string {
		return func(p *process) string { return filepath.Join(p.dir, name) }
	}
	return []phase{
		{
			name: "resolving a tag", args: build("lazy", "-o", "type=oci,dest=out"), out: []string{"out"},
			shut:  func(g *gate) <-chan struct{} { return g.shut(tagAsked, 0) },
			ready: held,
		},
		{
			name: "fetching a layer", args: build("unpack", "-o", "type=oci,dest=out"), out: []string{"out"},
			shut: fetching(2000), ready: held,
		},
		{
			name: "unpacking", args: build("unpack", "-o", "type=oci,dest=out"), out: []string{"out"},
			shut: fetching(900_000),
			ready: func(p *process, held func() bool) {
				p.until("unpacked a file", func() bool {
					names, _ := filepath.Glob(filepath.Join(p.state, "snapshots/drafts/*/fs/*"))
					return held() && len(names) > 0
				})
			},
		},
		{
			name: "reading a context", args: build("../-", "-o", "type=oci,dest=out"), out: []string{"out"},
			stdin: archive,
			ready: func(p *process, _ func() bool) {
				p.until("reading", func() bool { return p.drained() && p.opened(p.glob("tmp/*")) })
			},
		},
		{
			name: "waiting for a context", args: build("../-", "-o", "type=oci,dest=out"), out: []string{"out"},
			stdin: func(r *rig) (whole, part []byte) { whole, _ = archive(r); return whole, whole[:10] },
			ready: func(p *process, _ func() bool) { p.until("reading", func() bool { return p.drained() }) },
		},
		{
			name: "reading a Dockerfile", args: build("lazy", "-f", "-", "-o", "type=oci,dest=out"), out: []string{"out"},
			stdin: func(*rig) (whole, part []byte) {
				whole = []byte(dockerfiles["lazy"])
				return whole, whole[:10]
			},
			ready: func(p *process, _ func() bool) { p.until("reading", func() bool { return p.drained() }) },
		},
		{
			name: "running", args: build("run", "-o", "type=oci,dest=out", "--build-arg", "FTP_PROXY=wait"), out: []string{"out"},
			next: build("run", "-o", "type=oci,dest=out"),
			ready: func(p *process, _ func() bool) {
				p.until("ready", func() bool { return strings.Contains(p.log.String(), " ready\n") })
			},
		},
		{
			name: "copying", args: build("many", "-t", "REGISTRY/x/y", "--push"), tag: "x/y",
			shut: pushing, ready: some(100, inState("snapshots/drafts/*/fs/*")),
		},
		{
			name: "packing", args: build("big", "-t", "REGISTRY/x/y", "--push"), tag: "x/y",
			shut: pushing, ready: some(1, inState("content/ingest/*")),
		},
		{
			name: "writing an oci tar", args: build("lazy", "-o", "type=oci,dest=out"), out: []string{"out"},
			shut: fetching(300_000), ready: held,
		},
		{
			name: "writing an oci directory", args: build("lazy", "-o", "type=oci,dest=out,tar=false"), out: []string{"out/index.json"},
			shut: fetching(300_000), ready: held,
		},
		{
			name: "writing a docker tar", args: build("lazy", "-o", "type=docker,dest=out"), out: []string{"out"},
			shut: fetching(300_000), ready: held,
		},
		{
			name: "writing a directory", args: build("many", "-o", "type=local,dest=out", "-o", "type=image,name=REGISTRY/x/y,push=true"),
			out: []string{"out"}, tag: "x/y",
			shut: pushing, ready: some(100, inDir(".slipway-*/*")),
		},
		{
			name: "writing into a directory", args: build("many", "-o", "type=local,dest=out", "-o", "type=image,name=REGISTRY/x/y,push=true"),
			prepare: func(r *rig) func() {
				writeOld(r.T, filepath.Join(r.dir, "out", "old"), "old")
				return func() {}
			},
			tag: "x/y", shut: pushing, ready: some(100, inDir("out/.slipway-*/*")),
		},
		{
			name: "writing a tar", args: build("many", "-o", "type=tar,dest=out", "-o", "type=image,name=REGISTRY/x/y,push=true"),
			out: []string{"out"}, tag: "x/y",
			shut: pushing, ready: some(1, inDir(".slipway-*")),
		},
		{
			name: "sending a blob", args: build("big", "-t", "REGISTRY/x/y", "--push"), tag: "x/y",
			shut: func(g *gate) <-chan struct{} { return g.shut(blobSent, 1<<20) }, ready: held,
		},
		{
			name: "sending a manifest", args: build("unpack", "-t", "REGISTRY/x/y", "--push"), tag: "x/y",
			shut: func(g *gate) <-chan struct{} { return g.shut(manifestSent, 0) }, ready: held,
		},
		{
			name: "waiting for a cache mount", args: build("cache", "--no-cache", "-o", "type=oci,dest=out"), out: []string{"out"},
			prepare: func(r *rig) func() {
				r.mustRun("build", "--build-arg", baseArg, r.contexts+"/cache")
				return r.locked(r.glob("mounts/*/lock"))
			},
			ready: func(p *process, _ func() bool) {
				lock := p.glob("mounts/*/lock")
				p.until("waiting", func() bool { return p.opened(lock) })
			},
		},
		{
			name: "waiting for the state directory", args: build("unpack", "-o", "type=oci,dest=out"), out: []string{"out"},
			prepare: lockedState, ready: waitingForState,
		},
		{
			// It does not matter whether anybody reads on.
			name: "writing to standard output", args: build("unpack", "-o", "type=tar,dest=-"), next: build("unpack", "-o", "type=oci,dest=out"),
			stdout: true,
			ready:  func(p *process, _ func() bool) { p.until("writing", func() bool { return p.stuck() }) },
		},
		{
			name: "waiting to prune", args: []string{"prune", "--wait"}, next: build("unpack"),
			prepare: lockedState, ready: waitingForState,
		},
	}
}

// lockedState makes a state directory that somebody has for himself.
func lockedState(r *rig) func() {
	r.mustRun("build", "--build-arg", baseArg, r.contexts+"/lazy")
	return r.locked(filepath.Join(r.state, "lock"))
}

func waitingForState(p *process, _ func() bool) {
	p.until("waiting", func() bool { return p.opened(filepath.Join(p.state, "lock")) })
}

// glob returns the one file of the state directory that has the name.
func (r *rig) glob(pattern string) string {
	r.Helper()
	names, err := filepath.Glob(filepath.Join(r.state, pattern))
	if err != nil || len(names) != 1 {
		r.Fatalf("%s: %v, %v", pattern, names, err)
	}
	return names[0]
}

// locked locks a file until it is undone.
func (r *rig) locked(name string) (undo func()) {
	r.Helper()
	f, err := os.Open(name)
	if err == nil {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
	}
	if err != nil {
		r.Fatal(err)
	}
	return func() { _ = f.Close() }
}

// archive returns a context as a tar, and a part of it.
func archive(r *rig) (whole, part []byte) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(name string, data []byte) {
		err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data)), ModTime: time.Unix(1e9, 0)})
		if err == nil {
			_, err = w.Write(data)
		}
		if err != nil {
			r.Fatal(err)
		}
	}
	add("Dockerfile", []byte("FROM scratch\nCOPY . /\n"))
	add("1", []byte("one"))
	add("2", bytes.Repeat([]byte("two"), 10_000))
	if err := w.Close(); err != nil {
		r.Fatal(err)
	}
	return b.Bytes(), b.Bytes()[:b.Len()/2]
}

// A feed is a pipe whose writer stops in the middle.
type feed struct{ r, w *os.File }

func (r *rig) feed(data []byte) feed {
	r.Helper()
	in, out, err := os.Pipe()
	if err == nil {
		_, err = out.Write(data) // less than a pipe holds
	}
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { _, _ = in.Close(), out.Close() })
	return feed{in, out}
}

// drained reports whether the process has read what its standard input had.
func (p *process) drained() bool {
	f, ok := p.cmd.Stdin.(*os.File)
	if !ok {
		return false
	}
	n, err := unix.IoctlGetInt(int(f.Fd()), unix.TIOCINQ)
	return err == nil && n == 0
}

// stuck reports whether standard output, a pipe, takes no more.
func (p *process) stuck() bool {
	f, ok := p.cmd.Stdout.(*os.File)
	if !ok {
		return false
	}
	fds := []unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLOUT}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n == 0
}

// expected is what an undisturbed build gives: the digest, and what it writes.
func (ph phase) expected(t *testing.T, contexts string) (digest, out string) {
	t.Helper()
	r := newRig(t, nil)
	r.contexts = contexts
	args := ph.args
	if ph.next != nil {
		args = ph.next
	}
	ph.again(r, args)
	return r.digest("meta.json"), ph.written(r)
}

// again runs what was ended, undisturbed.
func (ph phase) again(r *rig, args []string) {
	r.Helper()
	var stdin io.Reader
	if ph.stdin != nil {
		whole, _ := ph.stdin(r)
		f := r.feed(whole)
		stdin = f.r
		_ = f.w.Close()
	}
	p := r.start(stdin, nil, args...)
	if code := p.wait(); code != 0 {
		r.Fatalf("exit code %d\n%s", code, p.log)
	}
}

// written is a digest of what the phase writes; empty if there is nothing.
func (ph phase) written(r *rig) string {
	r.Helper()
	h := sha256.New()
	found := false
	for _, name := range ph.out {
		err := filepath.WalkDir(filepath.Join(r.dir, name), func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			found = true
			fmt.Fprintln(h, strings.TrimPrefix(p, r.dir), d.Type())
			if !d.Type().IsRegular() {
				return nil
			}
			b, err := os.ReadFile(p)
			h.Write(b)
			return err
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			r.Fatal(err)
		}
	}
	if !found {
		return ""
	}
	return hex.EncodeToString(h.Sum(nil))
}

// end runs the phase up to its moment and ends it with the signal.
func (ph phase) end(r *rig, sig syscall.Signal) {
	r.Helper()
	undo := func() {}
	if ph.prepare != nil {
		undo = ph.prepare(r)
	}
	defer undo()
	reached := make(<-chan struct{})
	if ph.shut != nil {
		reached = ph.shut(r.gate)
	}
	var stdin io.Reader
	if ph.stdin != nil {
		_, part := ph.stdin(r)
		stdin = r.feed(part).r
	}
	var stdout io.Writer
	if ph.stdout {
		stdout = r.feed(nil).w
	}
	p := r.start(stdin, stdout, ph.args...)
	ph.ready(p, func() bool {
		select {
		case <-reached:
			return true
		default:
			return false
		}
	})
	children := p.children()
	if err := p.cmd.Process.Signal(sig); err != nil {
		r.Fatal(err)
	}
	if code := p.wait(); code != 128+int(sig) {
		r.Errorf("exit code %d, want %d\n%s", code, 128+int(sig), p.log)
	}
	r.ends(children)
}

// TestInvariant14_EndedInAnyPhase ends slipway in every phase of its life, by
// every signal, and looks at what it leaves: nothing that runs or is mounted,
// nothing that is half-written, and nothing that changes what comes next.
func TestInvariant14_EndedInAnyPhase(t *testing.T) {
	needSandbox(t)
	dir := contexts(t)
	for _, ph := range phases() {
		t.Run(ph.name, func(t *testing.T) {
			t.Parallel()
			digest, out := ph.expected(t, dir)
			for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL} {
				t.Run(unix.SignalName(sig), func(t *testing.T) { ph.test(t, dir, sig, digest, out) })
			}
		})
	}
}

func (ph phase) test(t *testing.T, dir string, sig syscall.Signal, digest, out string) {
	r := newRig(t, nil)
	r.contexts = dir
	ph.end(r, sig)
	cgroups := r.cgroups()
	r.notMounted()
	r.whole()
	if got := ph.written(r); got != "" && got != out {
		t.Errorf("%s is there, but not whole", ph.out)
	}
	if ph.tag != "" && r.tagged(ph.tag, "latest") {
		t.Errorf("%s was pushed", ph.tag)
	}
	if _, err := os.Stat(filepath.Join(r.dir, "meta.json")); err == nil {
		t.Error("meta.json was written")
	}
	if sig != syscall.SIGKILL {
		r.tidy()
		r.noStage(r.dir)
	}
	r.open()

	args := ph.args
	if ph.next != nil {
		args = ph.next
	}
	ph.again(r, args)
	if got := r.digest("meta.json"); got != digest {
		t.Errorf("built again it is %s, want %s", got, digest)
	}
	if got := ph.written(r); got != out {
		t.Errorf("built again %s is not what it is else", ph.out)
	}
	if ph.tag != "" && !r.tagged(ph.tag, "latest") {
		t.Errorf("%s was not pushed", ph.tag)
	}
	r.tidy()
	r.noStage(r.dir)
	r.whole()
	r.notMounted()
	for _, g := range cgroups {
		if _, err := os.Stat(g); err == nil {
			t.Errorf("cgroup %s is left", g)
		}
	}
}
