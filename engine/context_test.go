package engine_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/engine"
)

// A FIFO that nobody writes to would be waited for without end.
func TestBuild_FilesThatBlockAreRefused(t *testing.T) {
	b := newBuilder(t)
	for _, name := range []string{"Dockerfile", "Dockerfile.dockerignore", ".dockerignore"} {
		dir := contextDir(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY busybox /\n"})
		path := filepath.Join(dir, name)
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mkfifo(path, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := b.build(engine.Request{Context: dir})
		if err == nil || !strings.Contains(err.Error(), name+": ") || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("%s: %v, want that it is not a regular file", name, err)
		}
	}
}
