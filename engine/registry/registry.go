// Package registry speaks the OCI distribution protocol: it resolves names to
// images, fetches blobs and pushes images. It knows mirrors, credentials,
// retries and nothing of what is in a layer.
//
// A [Client] is made once and used by everybody, so that connections, tokens
// and what was found out about a host are shared. go-containerregistry's
// keychain finds the credentials. Its transports are not used, because they do
// what INVARIANTS 24 forbids: fall back to plain http for private addresses,
// follow a redirect to http with credentials, repeat a refresh token at the
// host that a token server redirects to.
//
// How the parts fit: a [Ref] is a parsed name; an endpoint is one host that can
// be asked about it (the registry itself or a mirror), with its scheme and its
// tokens; above it are Resolve, Fetch and Push, below it the transport that
// retries.
package registry

import (
	"net/http"
	"sync"

	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/slipway-build/slipway/engine/content"
)

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

	// Transport, if not nil, is used instead of a transport of its own. Hosts
	// in Insecure then need certificates that it accepts.
	Transport http.RoundTripper
}

// Client talks to registries. Its methods may be called concurrently.
type Client struct {
	opts    Options
	mirrors map[string][]string // by Ref.Host
	uploads chan struct{}       // slots

	secure, insecure http.RoundTripper // retrying; insecure accepts any certificate

	mu        sync.Mutex
	insecures map[string]bool
	endpoints map[string]*endpoint // by base URL
}
