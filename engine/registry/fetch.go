package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"

	"github.com/slipway-build/slipway/engine/content"
)

// fetchTries is how often in a row a body may stop without a byte gained.
const fetchTries = 5

// errStopped marks a body that ended too early.
var errStopped = errors.New("the answer stopped midway")

// Fetch opens a blob that is in a registry, as its [content.SourceAnnotation]
// says. A body that stops midway is continued where it stopped. The error wraps
// fs.ErrNotExist if the blob is not there, or desc does not say where.
func (c *Client) Fetch(ctx context.Context, desc content.Descriptor) (io.ReadCloser, error) {
	source := desc.Annotations[content.SourceAnnotation]
	if source == "" {
		return nil, fmt.Errorf("fetch blob %s: in no registry: %w", desc.Digest, fs.ErrNotExist)
	}
	r, err := ParseRef(source)
	if err != nil {
		return nil, fmt.Errorf("fetch blob %s: %w", desc.Digest, err)
	}
	if err := checkDigest(desc.Digest); err != nil {
		return nil, fmt.Errorf("fetch blob: %w", err)
	}
	var body io.ReadCloser
	err = c.eachSource(ctx, r.Host, func(e *endpoint) error {
		b := &blobBody{ctx: ctx, endpoint: e, repo: r.Repo, desc: desc}
		if err := b.open(); err != nil {
			return err
		}
		body = b
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("fetch blob %s of %s: %w", desc.Digest, r.Name(), err)
	}
	return body, nil
}

// A blobBody reads a blob, over several responses if need be.
type blobBody struct {
	ctx      context.Context //nolint:containedctx // Read has none, and asks again
	endpoint *endpoint
	repo     string
	desc     content.Descriptor

	body io.ReadCloser
	done int64 // bytes handed out
	idle int   // failures since the last byte
}

// open asks for what is still missing.
func (b *blobBody) open() error {
	header := http.Header{}
	if b.done > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-", b.done))
	}
	resp, err := b.endpoint.do(b.ctx, request{
		method: http.MethodGet, repo: b.repo, path: "blobs/" + b.desc.Digest.String(),
		header: header, scopes: b.endpoint.pullScope(b.repo),
	})
	if err != nil {
		return err
	}
	if err := b.endpoint.check(resp, b.repo, http.StatusOK, http.StatusPartialContent); err != nil {
		return err
	}
	skip := b.done
	if resp.StatusCode == http.StatusPartialContent {
		if !strings.HasPrefix(resp.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", b.done)) {
			_ = resp.Body.Close()
			return fmt.Errorf("%w: asked for the rest from byte %d, got %q", errContent, b.done, printable(resp.Header.Get("Content-Range"), 100))
		}
		skip = 0
	} else if n := resp.ContentLength; b.desc.Size > 0 && n >= 0 && n != b.desc.Size {
		_ = resp.Body.Close()
		return fmt.Errorf("%w: %d bytes instead of %d", errContent, n, b.desc.Size)
	}
	if _, err := io.CopyN(io.Discard, resp.Body, skip); err != nil {
		_ = resp.Body.Close()
		return fmt.Errorf("%w: %w", errStopped, err)
	}
	b.body = resp.Body
	return nil
}

// Read implements io.Reader.
func (b *blobBody) Read(p []byte) (int, error) {
	for {
		if b.body == nil {
			if err := b.reopen(); err != nil {
				return 0, err
			}
		}
		n, err := b.body.Read(p)
		b.done += int64(n)
		if n > 0 {
			b.idle = 0
		}
		short := errors.Is(err, io.EOF) && b.desc.Size > 0 && b.done < b.desc.Size
		if err == nil || (errors.Is(err, io.EOF) && !short) {
			return n, err
		}
		if short {
			err = io.ErrUnexpectedEOF
		}
		_ = b.body.Close()
		b.body = nil
		if err := b.failed(err); err != nil {
			return n, err
		}
		if n > 0 {
			return n, nil
		}
	}
}

// failed decides whether to go on after err.
func (b *blobBody) failed(err error) error {
	if b.ctx.Err() != nil {
		return context.Cause(b.ctx)
	}
	b.idle++
	if b.idle >= fetchTries {
		return fmt.Errorf("fetch blob %s of %s: stopped after %d bytes: %w", b.desc.Digest, b.endpoint.name, b.done, err)
	}
	wait := jitter(firstWait << (b.idle - 1))
	b.endpoint.client.log(fmt.Sprintf("blob %s of %s: stopped after %d bytes: %s, going on", b.desc.Digest, b.endpoint.name, b.done, err))
	return sleep(b.ctx, wait)
}

// reopen opens the rest. The transport has retried already, so an error of a
// response is final; one while skipping is another stop.
func (b *blobBody) reopen() error {
	for {
		err := b.open()
		if err == nil {
			return nil
		}
		if !errors.Is(err, errStopped) {
			return fmt.Errorf("fetch blob %s of %s: %w", b.desc.Digest, b.endpoint.name, err)
		}
		if err := b.failed(err); err != nil {
			return err
		}
	}
}

// Close closes the response.
func (b *blobBody) Close() error {
	if b.body == nil {
		return nil
	}
	return b.body.Close()
}

// fetchSmall reads a blob or manifest of at most limit bytes and checks its
// digest. It reads it from, and keeps it in, the client's store.
func (c *Client) fetchSmall(ctx context.Context, r Ref, path string, desc content.Descriptor, limit int64) ([]byte, string, error) {
	if err := checkDigest(desc.Digest); err != nil {
		return nil, "", err
	}
	if b, ok := c.stored(ctx, desc, limit); ok {
		return b, desc.MediaType, nil
	}
	var b []byte
	var mediaType string
	err := c.eachSource(ctx, r.Host, func(e *endpoint) (err error) {
		b, mediaType, err = e.get(ctx, r.Repo, path+desc.Digest.String(), limit)
		if err != nil {
			return err
		}
		if got := desc.Digest.Algorithm().FromBytes(b); got != desc.Digest {
			return fmt.Errorf("%w: %s%s has the digest %s", errContent, path, desc.Digest, got)
		}
		return nil
	})
	if err != nil {
		return nil, "", err
	}
	c.keep(ctx, desc, b)
	if desc.MediaType != "" {
		mediaType = desc.MediaType
	}
	return b, mediaType, nil
}

// stored returns a blob that the store has itself.
func (c *Client) stored(ctx context.Context, desc content.Descriptor, limit int64) ([]byte, bool) {
	if c.store == nil {
		return nil, false
	}
	size, err := c.store.Stat(desc.Digest)
	if err != nil {
		return nil, false
	}
	b, err := c.store.Get(ctx, content.Descriptor{Digest: desc.Digest, Size: size}, limit)
	if err != nil || desc.Digest.Algorithm().FromBytes(b) != desc.Digest {
		return nil, false // fetch it again
	}
	return b, true
}

// keep puts a blob into the store. A failure costs the next build a request.
func (c *Client) keep(ctx context.Context, desc content.Descriptor, b []byte) {
	if c.store == nil {
		return
	}
	err := c.store.Add(ctx, content.Descriptor{Digest: desc.Digest, Size: int64(len(b))}, bytes.NewReader(b))
	if err != nil {
		c.log("keep " + desc.Digest.String() + ": " + err.Error())
	}
}

// get reads a small body.
func (e *endpoint) get(ctx context.Context, repo, path string, limit int64) ([]byte, string, error) {
	for try := 1; ; try++ {
		b, mediaType, err := e.getOnce(ctx, repo, path, limit)
		if errors.Is(err, errStopped) && try < fetchTries && ctx.Err() == nil {
			if err := sleep(ctx, jitter(firstWait<<(try-1))); err != nil {
				return nil, "", err
			}
			continue
		}
		return b, mediaType, err
	}
}

func (e *endpoint) getOnce(ctx context.Context, repo, path string, limit int64) ([]byte, string, error) {
	header := http.Header{}
	if strings.HasPrefix(path, "manifests/") {
		header.Set("Accept", accept)
	}
	resp, err := e.do(ctx, request{method: http.MethodGet, repo: repo, path: path, header: header, scopes: e.pullScope(repo)})
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	if err := e.check(resp, repo, http.StatusOK); err != nil {
		return nil, "", err
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, "", fmt.Errorf("registry %s: read %s: %w: %w", e.name, path, errStopped, err)
	}
	if int64(len(b)) > limit {
		return nil, "", fmt.Errorf("%w: %s is larger than %d bytes", errContent, path, limit)
	}
	return b, mediaTypeOf(resp), nil
}

func mediaTypeOf(resp *http.Response) string {
	t, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	return strings.TrimSpace(t)
}
