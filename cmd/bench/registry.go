package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/olareg/olareg"
	"github.com/olareg/olareg/config"
)

// serveCommand is the argument that makes this program the registry. It is a
// process of its own, so that its memory is not taken for that of a builder: a
// process that is started begins with the peak of the one that started it.
const serveCommand = "serve-registry"

// registry is a running registry on loopback.
type registry struct {
	addr, dir string
	cmd       *exec.Cmd
	stdin     io.Closer
}

// startRegistry starts a registry with the base images under library/, as
// docker.io has them. It keeps its repositories as OCI layouts in dir.
func startRegistry(ctx context.Context, listen, dir, bases string) (*registry, error) {
	for name, tags := range map[string]string{"busybox": "latest", "debian": "bookworm-slim", "golang": "1.26"} {
		if err := linkLayout(filepath.Join(bases, name), filepath.Join(dir, "library", name)); err != nil {
			return nil, fmt.Errorf("base image %s:%s: %w", name, tags, err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, serveCommand, listen, dir)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // an interrupt is for this process
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	r := &registry{dir: dir, cmd: cmd, stdin: stdin}
	addr, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		r.stop()
		return nil, fmt.Errorf("start registry: %w", err)
	}
	r.addr = strings.TrimSpace(addr)
	return r, nil
}

// stop ends the registry: it lives as long as its standard input.
func (r *registry) stop() {
	_ = r.stdin.Close()
	_ = r.cmd.Wait()
}

// serve is the registry's process: it prints its address and serves dir until
// standard input ends.
func serve(listen, dir string) error {
	off := false
	conf := config.Config{
		Storage: config.ConfigStorage{StoreType: config.StoreDir, RootDir: dir, GC: config.ConfigGC{Frequency: -1, Untagged: &off, EmptyRepo: &off}},
		Log:     slog.New(slog.DiscardHandler),
	}
	conf.SetDefaults()
	handler := olareg.New(conf)
	var lc net.ListenConfig
	l, err := lc.Listen(context.Background(), "tcp", listen)
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	fmt.Println(l.Addr())
	_, err = io.Copy(io.Discard, os.Stdin)
	_ = handler.Close() // complains of repositories that are gone
	return errors.Join(err, srv.Close(), ignoreClosed(<-done))
}

func ignoreClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// linkLayout makes to an OCI layout with the blobs of from, without copying
// them where the file system has hard links.
func linkLayout(from, to string) error {
	blobs := filepath.Join("blobs", "sha256")
	if err := os.MkdirAll(filepath.Join(to, blobs), 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(filepath.Join(from, blobs))
	if err != nil {
		return err
	}
	names := []string{"oci-layout", "index.json"}
	for _, e := range entries {
		name := filepath.Join(blobs, e.Name())
		if err := os.Link(filepath.Join(from, name), filepath.Join(to, name)); err != nil {
			names = append(names, name)
		}
	}
	for _, name := range names {
		data, err := os.ReadFile(filepath.Join(from, name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, name), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}
