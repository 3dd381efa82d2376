package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
)

// An endpoint is one host that can be asked: a registry or a mirror of one.
type endpoint struct {
	client *Client
	name   string // in image names and messages
	host   string // on the wire
	prefix string // of repositories, without slashes around it
	mirror bool
	down   atomic.Bool // a mirror that did not answer is not asked again

	insecure bool
	rt       http.RoundTripper // retrying
	once     http.RoundTripper // not retrying, for bodies that can't be sent again

	mu     sync.Mutex
	scheme string // empty until it is known
	auth   challenge
	tokens map[string]*tokenSlot // by scope
	creds  map[string]*credentials
}

// newEndpoint makes the endpoint for host. The client's mutex is held, or the
// client is not in use yet.
func (c *Client) newEndpoint(host string) *endpoint {
	e := &endpoint{
		client: c, name: host, host: host,
		insecure: c.insecure[host],
		once:     c.strict,
		tokens:   map[string]*tokenSlot{},
		creds:    map[string]*credentials{},
	}
	if host == dockerHub {
		e.host = dockerHubAPI
	}
	if e.insecure {
		e.once = &anyCertificate{e.host, c.lenient, c.strict}
	}
	e.rt = &retrier{e.once, tries, c.log}
	switch {
	case isLoopback(host):
		e.scheme = "http" // see tlsOnLoopback
	case !e.insecure:
		e.scheme = "https"
	}
	return e
}

func (e *endpoint) fixScheme(s string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.scheme = s
}

// anyCertificate accepts any certificate of one host, not of those that it
// leads to.
type anyCertificate struct {
	host            string
	lenient, strict http.RoundTripper
}

func (t *anyCertificate) RoundTrip(req *http.Request) (*http.Response, error) {
	if withPort(req.URL.Host, "https") == withPort(t.host, "https") {
		return t.lenient.RoundTrip(req)
	}
	return t.strict.RoundTrip(req)
}

// findScheme returns how to speak to the host. Of an insecure one it is found
// out by asking, without credentials.
func (e *endpoint) findScheme(ctx context.Context) (string, error) {
	e.mu.Lock()
	scheme := e.scheme
	e.mu.Unlock()
	if scheme != "" {
		return scheme, nil
	}
	scheme = "https"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+e.host+"/v2/", nil)
	if err != nil {
		return "", err
	}
	resp, err := watch(e.once, req)
	switch {
	case err == nil:
		_ = resp.Body.Close()
	case ctx.Err() != nil:
		return "", context.Cause(ctx)
	default:
		scheme = "http"
	}
	e.fixScheme(scheme)
	return scheme, nil
}

// repo returns the repository's name at this endpoint.
func (e *endpoint) repo(name string) string {
	if e.prefix != "" {
		return e.prefix + "/" + name
	}
	return name
}

// noteFailure remembers that a mirror can't be reached or is broken.
func (e *endpoint) noteFailure(err error) {
	if answer, ok := errors.AsType[*Error](err); ok && answer.Status < 500 {
		return
	}
	if _, ok := errors.AsType[*AuthError](err); ok || errors.Is(err, errContent) || errors.Is(err, fs.ErrNotExist) {
		return
	}
	e.down.Store(true)
}

// A request is what an endpoint is asked.
type request struct {
	method string
	repo   string   // as in Ref.Repo
	path   string   // after the repository, such as "manifests/1"
	url    *url.URL // instead of repo and path: where an upload goes
	query  url.Values
	header http.Header
	scopes []string // of the token

	// body, if not nil, is sent. once says that it can't be sent again.
	body func() (io.ReadCloser, error)
	size int64
	once bool
}

func bytesBody(b []byte) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }
}

// do sends r with the credentials that belong to this host and to no other,
// getting a token first where one is wanted. The status is for the caller to
// check.
func (e *endpoint) do(ctx context.Context, r request) (*http.Response, error) {
	for try := 1; ; try++ {
		scheme, err := e.findScheme(ctx)
		if err != nil {
			return nil, err
		}
		authorization, err := e.authorization(ctx, scheme, r)
		if err != nil {
			return nil, err
		}
		resp, err := e.send(ctx, scheme, authorization, r)
		if err != nil {
			return nil, e.explain(err)
		}
		switch {
		case try == 1 && e.tlsOnLoopback(resp, scheme):
			try = 0
			continue
		case try == 1 && resp.StatusCode == http.StatusUnauthorized && e.owns(resp.Request.URL, scheme):
			if e.challenged(resp, authorization, r) {
				_ = resp.Body.Close()
				continue
			}
		}
		return resp, nil
	}
}

func (e *endpoint) send(ctx context.Context, scheme, authorization string, r request) (*http.Response, error) {
	u := r.url
	if u == nil {
		u = &url.URL{Scheme: scheme, Host: e.host, Path: "/v2/" + e.repo(r.repo) + "/" + r.path}
	}
	if r.query != nil {
		with := *u // what its query has stays as it is: it may be signed
		with.RawQuery = strings.TrimPrefix(with.RawQuery+"&"+r.query.Encode(), "&")
		u = &with
	}
	req, err := http.NewRequestWithContext(ctx, r.method, u.String(), nil)
	if err != nil {
		return nil, err
	}
	maps.Copy(req.Header, r.header)
	req.Header.Set("User-Agent", "slipway")
	if r.body != nil && r.size > 0 {
		if req.Body, err = r.body(); err != nil {
			return nil, err
		}
		req.GetBody, req.ContentLength = r.body, r.size
	}
	inner := e.rt
	if r.once {
		inner = e.once
	}
	client := http.Client{
		Transport:     &authorizer{e, scheme, authorization, inner},
		CheckRedirect: e.checkRedirect,
	}
	return client.Do(req)
}

// An authorizer adds the Authorization header to requests for the endpoint's
// own host and scheme. It is set here, below http.Client, because that keeps
// the header when it is redirected to another port or a subdomain.
type authorizer struct {
	e             *endpoint
	scheme        string
	authorization string
	inner         http.RoundTripper
}

func (a *authorizer) RoundTrip(req *http.Request) (*http.Response, error) {
	if a.authorization != "" && a.e.owns(req.URL, a.scheme) {
		req = req.Clone(req.Context())
		req.Header.Set("Authorization", a.authorization)
	}
	if rt, ok := a.inner.(*retrier); ok {
		return rt.RoundTrip(req)
	}
	return watch(a.inner, req)
}

// owns reports whether u is at this very host, port and scheme.
func (e *endpoint) owns(u *url.URL, scheme string) bool {
	return u.Scheme == scheme && withPort(u.Host, u.Scheme) == withPort(e.host, scheme)
}

// withPort completes host by the scheme's port.
func withPort(host, scheme string) string {
	host = strings.ToLower(host)
	if _, _, err := net.SplitHostPort(host); err == nil {
		return host
	}
	port := "443"
	if scheme == "http" {
		port = "80"
	}
	return net.JoinHostPort(strings.Trim(host, "[]"), port)
}

// errRedirect is a redirect that is not followed.
var errRedirect = errors.New("redirect refused")

func (e *endpoint) checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) >= 10 {
		return fmt.Errorf("%w: more than 10", errRedirect)
	}
	if from := via[len(via)-1].URL; from.Scheme == "https" && req.URL.Scheme != "https" && !e.insecure {
		return fmt.Errorf("%w: from https to %s://%s", errRedirect, req.URL.Scheme, req.URL.Host)
	}
	return nil
}

// tlsOnLoopback notices that a registry on this machine, which is first spoken
// to by plain http, wants TLS.
func (e *endpoint) tlsOnLoopback(resp *http.Response, scheme string) bool {
	if resp.StatusCode != http.StatusBadRequest || scheme != "http" || !isLoopback(e.host) || !e.owns(resp.Request.URL, scheme) {
		return false
	}
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 1024)) // what there is decides
	if !bytes.Contains(b, []byte("HTTPS")) {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(bytes.NewReader(b), resp.Body), resp.Body}
		return false
	}
	_ = resp.Body.Close()
	e.fixScheme("https")
	return true
}

// explain makes the error of a round trip name the registry.
func (e *endpoint) explain(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err // its text has the URL, which may be signed
	}
	if errors.Is(err, http.ErrSchemeMismatch) {
		return &InsecureError{Host: e.name}
	}
	return fmt.Errorf("registry %s: %w", e.name, err)
}
