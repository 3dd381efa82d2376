// Package registry speaks the OCI distribution protocol: it resolves names to
// images, fetches blobs and pushes images. It knows mirrors, credentials,
// retries and nothing of what is in a layer.
//
// A [Client] is made once and used by everybody, so that connections, tokens
// and what was found out about a host are shared. go-containerregistry's
// keychain finds the credentials. Its transports are not used, because they do
// what INVARIANTS 24 forbids: they try plain http for private addresses,
// follow a registry that redirects to http with its credentials, and repeat a
// refresh token at any host that a token server redirects to.
//
// How the parts fit: a [Ref] is a parsed name; an endpoint is one host that can
// be asked about it (the registry itself or a mirror), with its scheme and its
// tokens; above it are Resolve, Fetch and Push, below it the transport that
// retries.
package registry

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/slipway-build/slipway/engine/content"
)

// uploadSlots is how many blobs a Client sends at once. An upload may need a
// second connection, to where the blob comes from; with fewer slots than half
// of the connections to a host, uploads can't wait for each other.
const uploadSlots = 6

// Options configure a Client. The zero value is useful.
type Options struct {
	// Insecure are hosts (host or host:port) that may be spoken to by plain
	// http or with any certificate. Loopback hosts always may by http.
	Insecure []string

	// Mirrors are base URLs to ask before the registry itself, by its host;
	// docker.io and index.docker.io are the same. A path in the URL goes before
	// the repository; without a scheme it is https, for loopback http.
	Mirrors map[string][]string

	// Keychain finds credentials; nil means Docker's configuration file and
	// credential helpers.
	Keychain authn.Keychain

	// Store, if not nil, has manifests and configs that need not be fetched,
	// and receives those that were. It is only asked for what it has itself: it
	// may be opened on the directory of a store whose remote place is this
	// Client.
	Store *content.Store

	// Log, if not nil, is told what happened behind the scenes: retries, mirrors
	// that failed. It is called concurrently.
	Log func(string)

	// Transport, if not nil, is what requests are sent with, for all hosts.
	Transport http.RoundTripper
}

// Client talks to registries. Its methods may be called concurrently.
type Client struct {
	keychain authn.Keychain
	store    *content.Store // what it has itself; may be nil
	log      func(string)
	mirrors  map[string][]*endpoint // by Ref.Host
	uploads  chan struct{}          // slots

	strict, lenient http.RoundTripper // lenient: with any certificate

	mu        sync.Mutex
	insecure  map[string]bool
	endpoints map[string]*endpoint // registries, by Ref.Host
}

// New returns a Client. It is an error if a mirror's URL can't be used.
func New(opts Options) (*Client, error) {
	c := &Client{
		keychain:  opts.Keychain,
		store:     opts.Store,
		log:       opts.Log,
		mirrors:   map[string][]*endpoint{},
		uploads:   make(chan struct{}, uploadSlots),
		strict:    opts.Transport,
		lenient:   opts.Transport,
		insecure:  map[string]bool{},
		endpoints: map[string]*endpoint{},
	}
	if c.keychain == nil {
		c.keychain = authn.DefaultKeychain
	}
	if c.log == nil {
		c.log = func(string) {}
	}
	if opts.Transport == nil {
		c.strict, c.lenient = newBase(false), newBase(true)
	}
	for _, host := range opts.Insecure {
		c.insecure[canonicalHost(host)] = true
	}
	for host, urls := range opts.Mirrors {
		host = canonicalHost(host)
		for _, u := range urls {
			e, err := c.newMirror(host, u)
			if err != nil {
				return nil, err
			}
			c.mirrors[host] = append(c.mirrors[host], e)
		}
	}
	return c, nil
}

func (c *Client) newMirror(of, base string) (*endpoint, error) {
	full := base
	if !strings.Contains(full, "://") {
		full = "//" + full
	}
	u, err := url.Parse(full)
	switch {
	case err != nil:
		return nil, fmt.Errorf("mirror of %s: %w", of, err)
	case u.User != nil:
		return nil, fmt.Errorf("mirror of %s: the URL of %s has credentials; they belong into Docker's configuration", of, u.Host)
	case u.Host == "" || u.RawQuery != "" || u.Fragment != "" || (u.Scheme != "" && u.Scheme != "http" && u.Scheme != "https"):
		return nil, fmt.Errorf("mirror of %s: %q is not a URL such as https://mirror.example", of, base)
	}
	prefix := strings.Trim(u.Path, "/")
	if rest, ok := strings.CutPrefix(prefix+"/", "v2/"); ok {
		prefix = strings.Trim(rest, "/") // people copy it
	}
	e := c.newEndpoint(u.Host)
	e.mirror, e.prefix = true, prefix
	e.rt = &retrier{e.once, mirrorTries, c.log}
	if u.Scheme != "" {
		e.fixScheme(u.Scheme)
	}
	return e, nil
}

// registry returns the endpoint that is the registry host itself.
func (c *Client) registry(host string) *endpoint {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.endpoints[host]
	if e == nil {
		e = c.newEndpoint(host)
		c.endpoints[host] = e
	}
	return e
}

// sources returns the places to read repositories of host from, in order.
// Mirrors that turned out to be down are left out.
func (c *Client) sources(host string) []*endpoint {
	var list []*endpoint
	for _, m := range c.mirrors[host] {
		if !m.down.Load() {
			list = append(list, m)
		}
	}
	return append(list, c.registry(host))
}

// eachSource calls try for each place to read repositories of host from until
// it succeeds, and returns the error of the last: the registry's own.
func (c *Client) eachSource(ctx context.Context, host string, try func(*endpoint) error) error {
	for _, e := range c.sources(host) {
		err := try(e)
		if err == nil || !e.mirror {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		e.noteFailure(err)
		c.log(fmt.Sprintf("mirror %s of %s: %s", e.host, host, err))
	}
	return nil // not reached: the registry itself is no mirror
}

// allowInsecure makes host one that may be spoken to by plain http.
func (c *Client) allowInsecure(host string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.insecure[host] {
		c.insecure[host] = true
		delete(c.endpoints, host) // made for a secure one
	}
}

// isLoopback reports whether host (with or without a port) is this machine.
func isLoopback(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.Trim(host, "[]")
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
