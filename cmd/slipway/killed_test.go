package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// killedContext has stages that depend on each other and some that do not, and
// makes the same image each time.
var killedContext = map[string]string{
	"Dockerfile": `FROM REGISTRY/library/busybox AS base
RUN mkdir /o; echo base >/o/base
FROM base AS a
RUN --mount=type=cache,target=/c echo a >/o/a; echo a >>/c/a
COPY files /o/files
FROM base AS b
COPY --from=a /o/a /o/from-a
RUN cat /o/from-a >/o/b; rm /o/base
FROM base AS last
COPY --from=a /o /o/a
COPY --from=b /o /o/b
RUN find /o -exec touch -h -d @1000000000 {} +
FROM scratch
COPY --from=last /o/ /
`,
	"files/1": "one", "files/2": "two", "files/3": strings.Repeat("three", 10_000),
}

// TestInvariant14_KilledAnywhere kills builds after a random number of events,
// several times in the same state directory, and lets the next one finish.
func TestInvariant14_KilledAnywhere(t *testing.T) {
	needSandbox(t)
	t.Parallel()
	clean := newRig(t, killedContext)
	args := []string{"build", "--progress", "rawjson", "--metadata-file", "meta.json", "-t", "REGISTRY/x/y", "--push", "."}
	total := strings.Count(clean.mustRun(args...), "\n")
	want := clean.digest("meta.json")

	const seed, kills, lives = 14, 30, 3
	random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // the same each time
	for range kills / lives {
		var after []int
		for range lives {
			after = append(after, random.IntN(total))
		}
		t.Run(fmt.Sprintf("%v of %d", after, total), func(t *testing.T) {
			r := newRig(t, nil)
			if err := os.CopyFS(r.dir, os.DirFS(clean.dir)); err != nil {
				t.Fatal(err)
			}
			_ = os.Remove(filepath.Join(r.dir, "meta.json"))
			r.addr = clean.addr // what is pushed by then is the same
			for _, n := range after {
				p := r.start(nil, nil, append([]string{"build", "--no-cache-filter", "b"}, args[1:]...)...)
				ended := p.untilLines(n)
				children := p.children()
				_ = p.cmd.Process.Signal(syscall.SIGKILL)
				if code := p.wait(); code != 137 && !ended {
					t.Fatalf("exit code %d\n%s", code, p.log)
				}
				r.ends(children)
				r.notMounted()
				r.whole()
			}
			r.mustRun(args...)
			if got := r.digest("meta.json"); got != want {
				t.Errorf("it is %s, want %s", got, want)
			}
			r.tidy()
			r.whole()
			r.notMounted()
		})
	}
}

// untilLines waits until the log has so many lines, or the process ends.
func (p *process) untilLines(n int) (ended bool) {
	for {
		if strings.Count(p.log.String(), "\n") >= n {
			return false
		}
		select {
		case <-p.log.grew:
		case <-p.done:
			return true
		}
	}
}

// TestInvariant14_KilledWhilePruning kills a prune that is about to remove a
// layer, and builds with what it has left.
func TestInvariant14_KilledWhilePruning(t *testing.T) {
	needSandbox(t)
	t.Parallel()
	r := newRig(t, killedContext)
	args := []string{"build", "--metadata-file", "meta.json", "-o", "type=oci,dest=out", "."}
	r.mustRun(args...)
	want := r.digest("meta.json")
	drafts := filepath.Join(r.state, "snapshots", "drafts")
	unlock := r.locked(drafts) // where a layer goes to be removed
	p := r.start(nil, nil, "prune", "--all")
	p.until("removing", func() bool { return p.opened(drafts) })
	_ = p.cmd.Process.Signal(syscall.SIGKILL)
	if code := p.wait(); code != 137 {
		t.Errorf("exit code %d\n%s", code, p.log)
	}
	unlock()
	r.whole()
	r.mustRun(args...)
	if got := r.digest("meta.json"); got != want {
		t.Errorf("it is %s, want %s", got, want)
	}
	r.tidy()
	r.mustRun("prune", "--all")
	r.tidy()
}
