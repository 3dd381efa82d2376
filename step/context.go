package step

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/slipway-build/slipway/engine"
	"github.com/slipway-build/slipway/engine/diag"
)

// maxDockerfile bounds a Dockerfile that is read into memory.
const maxDockerfile = 8 << 20

// open completes the request with its context and Dockerfile, from standard
// input where asked for, and its outputs with standard output.
func (c Config) open(env Env) (engine.Request, error) {
	req := c.Request
	req.Outputs = slices.Clone(req.Outputs)
	for i, o := range req.Outputs {
		if o.Attrs["dest"] == "-" {
			if !env.Piped {
				return req, fmt.Errorf("%w: output type=%s: an image is not written to a terminal: name a file as dest", ErrUsage, o.Type)
			}
			req.Outputs[i].File = stream{env.Stdout}
		}
	}
	if c.Context == "-" {
		return req, c.openStdin(&req, env.Stdin)
	}
	if remote(c.Context) {
		return req, fmt.Errorf("%w: context %q: contexts from elsewhere are not supported in this version: fetch it first and give its directory", ErrUsage, c.Context)
	}
	req.Context = c.Context
	if c.File == "-" {
		var err error
		req.Dockerfile, err = readDockerfile(env.Stdin)
		return req, err
	}
	if req.File = c.File; req.File != "" {
		return req, c.checkFile()
	}
	return req, nil
}

// openStdin opens a context that is on standard input: a tar archive,
// compressed or not, or else a Dockerfile that needs no context.
func (c Config) openStdin(req *engine.Request, stdin io.Reader) error {
	r := bufio.NewReaderSize(stdin, 4096)
	head, err := r.Peek(512)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read context from standard input: %w", err)
	}
	if len(head) == 0 {
		return errors.New("read context from standard input: it is empty")
	}
	if isArchive(head) {
		req.ContextTar, req.File = r, c.File
		return nil
	}
	if c.File != "" {
		return fmt.Errorf("%w: standard input is no tar archive, so it is the Dockerfile; do not name %s as well", ErrUsage, c.File)
	}
	req.Dockerfile, err = readDockerfile(r)
	return err
}

// checkFile finds a Dockerfile missing before anything is done, and says where
// one is that may be meant.
func (c Config) checkFile() error {
	fi, err := os.Stat(c.File)
	if err == nil && fi.IsDir() {
		return fmt.Errorf("open Dockerfile: %s is a directory", c.File)
	}
	if err == nil {
		return nil
	}
	err = fmt.Errorf("open Dockerfile: %w", err)
	in := filepath.Join(c.Context, c.File)
	if _, statErr := os.Stat(in); statErr == nil && errors.Is(err, fs.ErrNotExist) && !filepath.IsAbs(c.File) {
		err = diag.Hint(err, "The path is relative to the working directory: did you mean %s?", in)
	}
	return err
}

// source returns the Dockerfile's text for excerpts, if it can be had again.
func (c Config) source(req engine.Request) []byte {
	if req.Dockerfile != nil {
		return req.Dockerfile
	}
	if path := c.dockerfile(); path != "" {
		if f, err := os.Open(path); err == nil {
			defer f.Close() //nolint:errcheck // nothing was written
			if b, err := readDockerfile(f); err == nil {
				return b
			}
		}
	}
	return nil
}

// dockerfile returns the path of the Dockerfile, if it is a file of its own.
func (c Config) dockerfile() string {
	switch {
	case c.Context == "-" || c.File == "-":
		return ""
	case c.File != "":
		return c.File
	}
	for _, name := range []string{"Dockerfile", "dockerfile"} {
		path := filepath.Join(c.Context, name)
		if fi, err := os.Stat(path); err == nil && fi.Mode().IsRegular() {
			return path
		}
	}
	return ""
}

func readDockerfile(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxDockerfile+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read Dockerfile: %w", err)
	case len(b) > maxDockerfile:
		return nil, fmt.Errorf("read Dockerfile: more than %d bytes", maxDockerfile)
	case b == nil:
		return []byte{}, nil
	}
	return b, nil
}

// remote reports whether a context is one that docker buildx build would fetch.
func remote(context string) bool {
	scheme, _, ok := strings.Cut(context, "://")
	return ok && scheme != "" && !strings.ContainsAny(scheme, "./") ||
		strings.HasPrefix(context, "git@") || strings.HasPrefix(context, "github.com/")
}

// isArchive reports whether a stream that begins with head is a tar archive or
// compressed, which a Dockerfile never looks like.
func isArchive(head []byte) bool {
	for _, magic := range []string{"\x1f\x8b", "BZh", "\xfd7zXZ\x00", "\x28\xb5\x2f\xfd"} {
		if bytes.HasPrefix(head, []byte(magic)) {
			return true
		}
	}
	return isTarHeader(head)
}

// isTarHeader checks the checksum of a tar's first block, which also the
// oldest kinds have; an archive without entries begins with zeros.
func isTarHeader(head []byte) bool {
	const size, from, to = 512, 148, 156
	if len(head) < size {
		return false
	}
	sum := 0
	for i, b := range head[:size] {
		if i >= from && i < to {
			b = ' '
		}
		sum += int(b)
	}
	if sum == (to-from)*' ' && !bytes.ContainsFunc(head[:size], func(r rune) bool { return r != 0 }) {
		return true
	}
	want, err := strconv.ParseInt(strings.Trim(string(head[from:to]), " \x00"), 8, 64)
	return err == nil && want == int64(sum)
}

// stream is standard output, which others close when they are done with it.
type stream struct{ io.Writer }

func (stream) Close() error { return nil }
