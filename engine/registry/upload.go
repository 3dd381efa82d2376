package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/slipway-build/slipway/engine/content"
)

// sendBlob makes the target have a blob: it has it, it mounts it, or gets it.
func (p *delivery) sendBlob(ctx context.Context, t *target, d content.Descriptor) error {
	there, err := t.has(ctx, d)
	if err != nil {
		return err
	}
	if there {
		p.progress(d, d.Size)
		return nil
	}
	select {
	case t.client.uploads <- struct{}{}:
		defer func() { <-t.client.uploads }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	from := t.mountable(d)
	count := &counted{tell: func(n int64) { p.progress(d, n) }}
	for try := 1; ; try++ {
		err := t.upload(ctx, d, from, p.blobs, count)
		if err == nil {
			count.at(d.Size)
			return nil
		}
		again, wait := uploadAgain(err, try)
		if !again || try == tries || ctx.Err() != nil {
			return fmt.Errorf("blob %s: %w", d.Digest, err)
		}
		t.client.log(fmt.Sprintf("push blob %s to %s: %s, starting over in %s", d.Digest, t.ref.Name(), err, wait.Round(time.Millisecond)))
		if err := sleep(ctx, wait); err != nil {
			return err
		}
		from = "" // whatever it was, it does not need to happen again
	}
}

func (t *target) has(ctx context.Context, d content.Descriptor) (bool, error) {
	if err := checkDigest(d.Digest); err != nil {
		return false, err
	}
	resp, err := t.endpoint.do(ctx, request{
		method: http.MethodHead, repo: t.ref.Repo, path: "blobs/" + d.Digest.String(),
		scopes: t.endpoint.pushScope(t.ref.Repo),
	})
	if err != nil {
		return false, err
	}
	_ = resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
		return true, nil
	case http.StatusNotFound:
		return false, nil
	}
	return false, t.endpoint.check(resp, t.ref.Repo)
}

// mountable returns the repository of this registry that has the blob, if
// there is one.
func (t *target) mountable(d content.Descriptor) string {
	source, err := ParseRef(d.Annotations[content.SourceAnnotation])
	if err != nil || source.Host != t.ref.Host || source.Repo == t.ref.Repo {
		return ""
	}
	return source.Repo
}

// errSource marks a failure to read what is to be uploaded.
var errSource = errors.New("read it")

// uploadAgain reports whether an upload that failed is worth another try. What
// came before the body was retried by the transport already.
func uploadAgain(err error, try int) (bool, time.Duration) {
	if errors.Is(err, errSource) || errors.Is(err, errContent) || errors.Is(err, errRedirect) || errors.Is(err, errRealm) {
		return false, 0
	}
	if _, ok := errors.AsType[*AuthError](err); ok {
		return false, 0
	}
	wait := firstWait << (try - 1)
	answer, ok := errors.AsType[*Error](err)
	if !ok {
		return temporary(err), jitter(wait)
	}
	switch s := answer.Status; {
	case s == http.StatusTooManyRequests:
		wait = firstWait429 << (try - 1)
	case s == http.StatusNotFound || s == http.StatusRequestedRangeNotSatisfiable:
		return try < 3, jitter(wait) // the upload's session was lost
	case s < 500 && s != http.StatusRequestTimeout:
		return false, 0
	}
	if answer.RetryAfter > 0 {
		return answer.RetryAfter <= longestWait, answer.RetryAfter
	}
	return true, jitter(wait)
}

// upload mounts the blob from another repository, or sends it as one stream.
// https://github.com/opencontainers/distribution-spec/blob/main/spec.md#post-then-put
func (t *target) upload(ctx context.Context, d content.Descriptor, from string, blobs content.Fetcher, count *counted) error {
	location, err := t.start(ctx, d, from)
	if err != nil || location == nil {
		return err
	}
	resp, err := t.endpoint.do(ctx, request{
		method: http.MethodPut, repo: t.ref.Repo, url: location,
		query:  url.Values{"digest": {d.Digest.String()}},
		header: http.Header{"Content-Type": {"application/octet-stream"}},
		scopes: t.endpoint.pushScope(t.ref.Repo),
		size:   d.Size, once: true,
		body: func() (io.ReadCloser, error) {
			r, err := blobs.Fetch(ctx, d)
			if err != nil {
				return nil, fmt.Errorf("%w: %w", errSource, err)
			}
			return &verified{r: r, want: d, digester: d.Digest.Algorithm().Digester(), count: count}, nil
		},
	})
	if err != nil {
		return err
	}
	if err := t.endpoint.check(resp, t.ref.Repo, http.StatusCreated, http.StatusNoContent, http.StatusAccepted, http.StatusOK); err != nil {
		return err
	}
	return resp.Body.Close()
}

// start begins an upload and returns where to send the blob: nil if it was
// mounted.
func (t *target) start(ctx context.Context, d content.Descriptor, from string) (*url.URL, error) {
	r := request{
		method: http.MethodPost, repo: t.ref.Repo, path: "blobs/uploads/",
		scopes: t.endpoint.pushScope(t.ref.Repo),
	}
	if from != "" {
		mount := r
		mount.query = url.Values{"mount": {d.Digest.String()}, "from": {from}}
		mount.scopes = t.endpoint.pushScope(t.ref.Repo, from)
		resp, err := t.endpoint.do(ctx, mount)
		switch {
		case err == nil && resp.StatusCode == http.StatusCreated:
			return nil, resp.Body.Close()
		case err == nil && resp.StatusCode == http.StatusAccepted:
			_ = resp.Body.Close()
			return t.location(ctx, resp)
		case err == nil:
			_ = resp.Body.Close()
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		}
		// Mounting is a favour: perhaps the other repository may not be read.
	}
	resp, err := t.endpoint.do(ctx, r)
	if err != nil {
		return nil, err
	}
	if err := t.endpoint.check(resp, t.ref.Repo, http.StatusAccepted); err != nil {
		return nil, err
	}
	_ = resp.Body.Close()
	return t.location(ctx, resp)
}

// location reads where an upload goes. Behind a proxy that ends TLS registries
// often say http of themselves: it stays https. Another host may be named, and
// gets the blob but no credentials.
func (t *target) location(ctx context.Context, resp *http.Response) (*url.URL, error) {
	scheme, err := t.endpoint.findScheme(ctx)
	if err != nil {
		return nil, err
	}
	u, err := resp.Location() // relative to the request
	if err != nil {
		return nil, fmt.Errorf("%w: registry %s: location of the upload: %w", errContent, t.endpoint.name, err)
	}
	if u.Scheme == "http" && scheme == "https" && u.Host == t.endpoint.host {
		u.Scheme = "https"
	}
	if (u.Scheme != "https" && u.Scheme != scheme) || u.Host == "" || u.User != nil {
		return nil, fmt.Errorf("registry %s: %w: upload to %s://%s", t.endpoint.name, errRedirect, u.Scheme, u.Host)
	}
	return u, nil
}

// verified passes a blob on, but not its end if the digest is wrong: then the
// registry gets less than was announced.
type verified struct {
	r        io.ReadCloser
	want     content.Descriptor
	digester digest.Digester
	done     int64
	count    *counted
}

func (v *verified) Read(p []byte) (int, error) {
	n, err := v.r.Read(p)
	v.digester.Hash().Write(p[:n])
	v.done += int64(n)
	switch {
	case v.done > v.want.Size:
		return 0, fmt.Errorf("%w: blob %s has more than %d bytes", errSource, v.want.Digest, v.want.Size)
	case v.done == v.want.Size && n > 0:
		if got := v.digester.Digest(); got != v.want.Digest {
			return 0, fmt.Errorf("%w: blob %s has the digest %s", errSource, v.want.Digest, got)
		}
	case errors.Is(err, io.EOF) && v.done < v.want.Size:
		return 0, fmt.Errorf("%w: blob %s ends after %d of %d bytes", errSource, v.want.Digest, v.done, v.want.Size)
	case err != nil && !errors.Is(err, io.EOF):
		return 0, fmt.Errorf("%w: %w", errSource, err)
	}
	v.count.at(v.done)
	return n, err
}

func (v *verified) Close() error { return v.r.Close() }
