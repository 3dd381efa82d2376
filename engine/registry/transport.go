package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

const (
	tries        = 6
	mirrorTries  = 3                      // there is the registry itself
	firstWait    = 250 * time.Millisecond // doubled each time: 8 s in all
	firstWait429 = time.Second            // 31 s in all
	longestWait  = 2 * time.Minute        // of what Retry-After asks for

	headerTimeout = time.Minute      // for an answer to a request without a body
	commitTimeout = 10 * time.Minute // for the answer once a body was sent; it may be copied then
	stallTimeout  = time.Minute      // without a byte of a body, either way
)

var errStalled = errors.New("the connection stalled")

// newBase returns the transport below everything else. HTTP/1.1 only: uploads
// over HTTP/2 are slower with several registries, and one connection for all
// blobs is what a body that is read slowly would block.
func newBase(anyCertificate bool) *http.Transport {
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 15 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:       &tls.Config{InsecureSkipVerify: anyCertificate}, //nolint:gosec // asked for by the user, per host
		TLSHandshakeTimeout:   15 * time.Second,
		ExpectContinueTimeout: time.Second,
		MaxIdleConns:          64,
		MaxIdleConnsPerHost:   16,
		MaxConnsPerHost:       32, // more than Fetch and Push need at once; see uploadSlots
		IdleConnTimeout:       30 * time.Second,
		WriteBufferSize:       64 << 10,
		ReadBufferSize:        64 << 10,
		DisableCompression:    true, // blobs are what they are
	}
}

// retrier repeats requests that failed for reasons that pass: network errors,
// 408, 429 and 5xx. Requests with a body need GetBody for that.
type retrier struct {
	inner http.RoundTripper
	tries int
	log   func(string)
}

func (t *retrier) RoundTrip(req *http.Request) (*http.Response, error) {
	for try := 1; ; try++ {
		resp, err := watch(t.inner, req)
		again, wait := worthRetrying(resp, err, try)
		if !again || try == t.tries || req.Context().Err() != nil || (req.Body != nil && req.GetBody == nil) {
			return resp, err
		}
		t.log(fmt.Sprintf("%s %s%s: %s, trying again in %s",
			req.Method, req.URL.Host, req.URL.Path, reason(resp, err), wait.Round(time.Millisecond)))
		if resp != nil {
			_, _ = io.CopyN(io.Discard, resp.Body, 64<<10) // so that the connection can be used again
			_ = resp.Body.Close()
		}
		if err := sleep(req.Context(), wait); err != nil {
			return nil, err
		}
		if req.Body != nil {
			body, err := req.GetBody()
			if err != nil {
				return nil, err
			}
			req = req.Clone(req.Context())
			req.Body = body
		}
	}
}

// worthRetrying reports whether another try could go better, and when.
func worthRetrying(resp *http.Response, err error, try int) (bool, time.Duration) {
	wait := firstWait << (try - 1)
	if err != nil {
		return temporary(err), jitter(wait)
	}
	switch s := resp.StatusCode; {
	case s == http.StatusTooManyRequests:
		wait = firstWait429 << (try - 1)
	case s == http.StatusRequestTimeout:
	case s >= 500 && s != http.StatusNotImplemented && s != http.StatusHTTPVersionNotSupported:
	default:
		return false, 0
	}
	if after := retryAfter(resp); after > 0 {
		return after <= longestWait, after
	}
	return true, jitter(wait)
}

// temporary reports whether a network error may pass.
func temporary(err error) bool {
	if errors.Is(err, http.ErrSchemeMismatch) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return false
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return false // no TLS; http.Client makes it an ErrSchemeMismatch
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		return !dns.IsNotFound
	}
	return true
}

func reason(resp *http.Response, err error) string {
	if err != nil {
		return err.Error()
	}
	return resp.Status
}

// jitter spreads d by a quarter either way.
func jitter(d time.Duration) time.Duration { return d*3/4 + rand.N(d/2+1) }

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// watch does one round trip and gives it up when nothing moves: neither the
// request's body, nor the answer's header, nor its body.
func watch(rt http.RoundTripper, req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	first := headerTimeout
	if req.Body != nil {
		first = stallTimeout
	}
	timer := time.AfterFunc(first, func() { cancel(errStalled) })
	sent := req.Clone(ctx)
	var answered atomic.Bool
	if req.Body != nil {
		sent.Body = &sentBody{req.Body, timer, &answered}
	}
	resp, err := rt.RoundTrip(sent)
	answered.Store(true)
	timer.Stop()
	if err != nil {
		if errors.Is(context.Cause(ctx), errStalled) {
			err = errStalled
		}
		cancel(nil)
		return nil, err
	}
	resp.Request = req
	resp.Body = &receivedBody{body: resp.Body, timer: timer, ctx: ctx, cancel: cancel}
	return resp, nil
}

// A sentBody is watched while the network takes what was read.
type sentBody struct {
	io.ReadCloser
	timer    *time.Timer
	answered *atomic.Bool // the timer is not ours any more
}

func (b *sentBody) Read(p []byte) (int, error) {
	if b.answered.Load() {
		return b.ReadCloser.Read(p)
	}
	b.timer.Stop() // the source may be slow
	n, err := b.ReadCloser.Read(p)
	switch {
	case b.answered.Load():
	case errors.Is(err, io.EOF):
		b.timer.Reset(commitTimeout)
	default:
		b.timer.Reset(stallTimeout)
	}
	return n, err
}

// A receivedBody is watched while it is being read.
type receivedBody struct {
	body   io.ReadCloser
	timer  *time.Timer
	ctx    context.Context //nolint:containedctx // the round trip's, to see why it ended
	cancel context.CancelCauseFunc
}

func (b *receivedBody) Read(p []byte) (int, error) {
	b.timer.Reset(stallTimeout)
	n, err := b.body.Read(p)
	b.timer.Stop()
	if err != nil && errors.Is(context.Cause(b.ctx), errStalled) {
		err = errStalled
	}
	return n, err
}

func (b *receivedBody) Close() error {
	b.timer.Stop()
	err := b.body.Close()
	b.cancel(nil)
	return err
}
