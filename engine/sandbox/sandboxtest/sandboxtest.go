// Package sandboxtest holds the suite that every sandbox.Executor passes, the
// root filesystem that it runs in, and a fake for tests of others.
package sandboxtest

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/slipway-build/slipway/engine/sandbox"
	"github.com/slipway-build/slipway/engine/snapshot"
)

// Root is a root filesystem for one test.
type Root struct {
	Mount snapshot.Mount
	Dir   string // where its files can be seen and made from outside
}

// Busybox returns a new root with busybox in /bin, a passwd and a group file,
// and nothing to mount anything on. It skips the test where there is no static
// busybox, or where it can't run in a root of its own.
func Busybox(t testing.TB) Root {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("it takes root to run containers")
	}
	const static = "/bin/busybox"
	list, err := exec.CommandContext(t.Context(), static, "--list").Output()
	if err != nil {
		t.Skipf("no busybox (Debian: busybox-static): %v", err)
	}
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"bin": 0o755, "tmp": os.ModeSticky | 0o777, "home/app": 0o755} {
		must(t, os.MkdirAll(filepath.Join(dir, name), 0o755))
		must(t, os.Chmod(filepath.Join(dir, name), mode))
	}
	must(t, os.Chmod(dir, 0o755))
	must(t, copyFile(filepath.Join(dir, "bin/busybox"), static))
	for name := range strings.FieldsSeq(string(list)) {
		if name != "busybox" {
			must(t, os.Symlink("busybox", filepath.Join(dir, "bin", name)))
		}
	}
	r := Root{Mount: snapshot.Mount{Type: "bind", Source: dir}, Dir: dir}
	r.Write(t, "etc/passwd", "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n")
	r.Write(t, "etc/group", "root:x:0:\nwheel:x:10:root,app\napps:x:1001:\naudio:x:29:app\n")
	return r
}

func copyFile(to, from string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(dst, src); err != nil {
		return err
	}
	return dst.Close()
}

// Write makes a file in the root, and what leads to it.
func (r Root) Write(t testing.TB, name, content string) {
	t.Helper()
	name = filepath.Join(r.Dir, name)
	must(t, os.MkdirAll(filepath.Dir(name), 0o755))
	must(t, os.WriteFile(name, []byte(content), 0o644))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A Change makes a Spec different from what Spec makes.
type Change func(*sandbox.Spec)

var runs atomic.Int64

// Spec returns a Spec that runs script with busybox's shell in root.
func Spec(root Root, script string, changes ...Change) sandbox.Spec {
	spec := sandbox.Spec{
		ID:   "test-" + strconv.Itoa(os.Getpid()) + "-" + strconv.FormatInt(runs.Add(1), 10),
		Args: []string{"sh", "-c", script},
		Env:  []string{"PATH=/bin"},
		Dir:  "/",
		Root: root.Mount,
	}
	for _, change := range changes {
		change(&spec)
	}
	return spec
}

// Run runs script and returns all that it wrote.
func Run(t testing.TB, ex sandbox.Executor, root Root, script string, changes ...Change) (string, error) {
	t.Helper()
	return RunContext(t.Context(), ex, root, script, changes...)
}

// RunContext is Run with a context.
func RunContext(ctx context.Context, ex sandbox.Executor, root Root, script string, changes ...Change) (string, error) {
	var out bytes.Buffer
	spec := Spec(root, script, changes...)
	spec.Stdout, spec.Stderr = &out, &out
	err := ex.Run(ctx, spec)
	return out.String(), err
}
