package engine

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/moby/patternmatcher/ignorefile"
	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/engine/diag"
	"github.com/slipway-build/slipway/engine/inroot"
	"github.com/slipway-build/slipway/engine/layer"
)

// Sizes that a Dockerfile and a .dockerignore do not have unless something is
// wrong.
const (
	maxDockerfile = 16 << 20
	maxIgnoreFile = 4 << 20
)

// buildContext is the directory to build from and the Dockerfile.
type buildContext struct {
	dir     string // an empty directory if there is no context
	file    []byte
	name    string // the Dockerfile's, for messages
	ignored []string
	release func()
}

// loadContext finds the context's directory and reads the Dockerfile and the
// .dockerignore that go with it.
func (e *Engine) loadContext(ctx context.Context, req Request) (buildContext, error) {
	c := buildContext{dir: req.Context, release: func() {}}
	if req.ContextTar != nil || req.Context == "" {
		dir, release, err := e.state.tempDir()
		if err != nil {
			return c, fmt.Errorf("make a directory for the context: %w", err)
		}
		c.dir, c.release = dir, release
	}
	if err := c.load(ctx, req); err != nil {
		c.release()
		return c, err
	}
	return c, nil
}

func (c *buildContext) load(ctx context.Context, req Request) error {
	if req.ContextTar != nil {
		if err := c.receive(ctx, req.ContextTar); err != nil {
			return fmt.Errorf("read the context from standard input: %w", err)
		}
	}
	fi, err := os.Stat(c.dir)
	if err == nil && !fi.IsDir() {
		err = errors.New("not a directory")
	}
	if err != nil {
		return diag.Hint(fmt.Errorf("build context %s: %w", c.dir, err), "The last argument is the directory to build from, such as \".\".")
	}
	root, err := inroot.Open(c.dir)
	if err != nil {
		return fmt.Errorf("open build context: %w", err)
	}
	defer root.Close()
	switch {
	case req.Dockerfile != nil:
		c.file, c.name = req.Dockerfile, "Dockerfile"
	case req.ContextTar != nil:
		err = c.readFileIn(root, req.File)
	default:
		err = c.readFile(req.File)
	}
	if err != nil {
		return err
	}
	return c.readIgnored(root, req)
}

// receive takes the archive that standard input has.
func (c *buildContext) receive(ctx context.Context, r io.Reader) error {
	br := bufio.NewReaderSize(r, layer.DetectSize)
	head, err := br.Peek(layer.DetectSize)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if len(head) == 0 {
		return errors.New("it is empty")
	}
	if _, ok := layer.DetectArchive(head); !ok {
		return errors.New("it is not a tar archive, or not a whole one")
	}
	root, err := inroot.Open(c.dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return layer.Extract(ctx, br, root, "/", layer.ExtractOptions{})
}

func readLimited(r io.Reader, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(b)) > limit {
		return nil, fmt.Errorf("larger than %d bytes", limit)
	}
	return b, err
}

// names are those that a Dockerfile may have if none is given.
var names = []string{"Dockerfile", "dockerfile"}

// readFile reads the Dockerfile from a path of the host.
func (c *buildContext) readFile(file string) error {
	candidates, open := []string{file}, os.Open // which may be a pipe: <(...)
	if file == "" {
		candidates, open = nil, openRegular
		for _, n := range names {
			candidates = append(candidates, filepath.Join(c.dir, n))
		}
	}
	var err error
	for _, p := range candidates {
		var f *os.File
		f, err = open(p)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			break
		}
		defer f.Close()
		c.name = p
		if c.file, err = readLimited(f, maxDockerfile); err != nil {
			return fmt.Errorf("read Dockerfile %s: %w", p, err)
		}
		return nil
	}
	return noDockerfile(candidates[0], err)
}

// readFileIn reads the Dockerfile from the context.
func (c *buildContext) readFileIn(root *inroot.Root, file string) error {
	candidates := []string{file}
	if file == "" {
		candidates = names
	}
	var err error
	for _, p := range candidates {
		if c.file, err = root.ReadFile(p, maxDockerfile); err == nil {
			c.name = p
			return nil
		}
	}
	return noDockerfile(candidates[0], err)
}

func noDockerfile(name string, err error) error {
	return diag.Hint(fmt.Errorf("read Dockerfile %s: %w", name, errors.Unwrap(err)), "Name the Dockerfile with -f/--file, or give its directory as the context.")
}

// readIgnored reads the patterns of the Dockerfile's own .dockerignore, else of
// that at the root of the context.
func (c *buildContext) readIgnored(root *inroot.Root, req Request) error {
	b, name, err := c.ignoreFile(root, req)
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	if c.ignored, err = ignorefile.ReadAll(bytes.NewReader(b)); err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	return nil
}

func (c *buildContext) ignoreFile(root *inroot.Root, req Request) (b []byte, name string, err error) {
	if req.Dockerfile == nil && c.name != "" {
		name = c.name + ".dockerignore"
		if req.ContextTar != nil {
			b, err = root.ReadFile(name, maxIgnoreFile)
		} else {
			b, err = readHostFile(name, maxIgnoreFile)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return b, name, err
		}
	}
	name = ".dockerignore"
	b, err = root.ReadFile(name, maxIgnoreFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, name, nil
	}
	return b, name, err
}

func readHostFile(name string, limit int64) ([]byte, error) {
	f, err := openRegular(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readLimited(f, limit)
}

// openRegular opens a file that nobody named, so that it must not be one that
// blocks: a FIFO.
func openRegular(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: name, Err: errors.New("not a regular file")}
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}
