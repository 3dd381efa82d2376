package registry_test

import (
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/slipway-build/slipway/engine/registry"
)

// A thief wants to be told secrets, and writes down everything he gets.
func thief(t *testing.T, answer http.HandlerFunc) (host string, rec *recorder) {
	t.Helper()
	return serve(t, answer)
}

func mustNotKnow(t *testing.T, who string, rec *recorder) {
	t.Helper()
	rec.mu.Lock()
	defer rec.mu.Unlock()
	for i, h := range rec.headers {
		for k, v := range h {
			if k == "Authorization" || strings.Contains(strings.Join(v, ""), "geheim") {
				t.Errorf("%s got %s: %v with %s", who, k, v, rec.requests[i])
			}
		}
	}
}

func TestInvariant24_CredentialsDoNotFollowRedirects(t *testing.T) {
	b := blobs{}
	_, docs := imageDocs(b)
	elsewhere, stolen := thief(t, registryOf(docs).ServeHTTP)
	host, rec := serve(t, guarded(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		// Another port of the same machine: net/http would keep the header.
		http.Redirect(w, req, "http://"+elsewhere+req.URL.Path, http.StatusTemporaryRedirect)
	}), "Basic", hasBasic))
	c := newClient(t, registry.Options{Keychain: keychain{host: me}})
	img, err := c.Resolve(t.Context(), host+"/app:1", amd64)
	if err != nil {
		t.Fatal(err)
	}
	if got := read(t, c, img.Layers[0].Blob); got != "layer" {
		t.Errorf("read %q", got)
	}
	mustNotKnow(t, "the target of the redirect", stolen)
	if len(rec.authorized()) == 0 || len(stolen.take()) == 0 {
		t.Error("the test did not test anything")
	}
}

// The other host may also ask for the credentials itself.
func TestInvariant24_ChallengesOfOtherHostsAreIgnored(t *testing.T) {
	elsewhere, stolen := thief(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", "Basic")
		w.WriteHeader(http.StatusUnauthorized)
	})
	host, _ := serve(t, guarded(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		http.Redirect(w, req, "http://"+elsewhere+req.URL.Path, http.StatusTemporaryRedirect)
	}), "Basic", hasBasic))
	_, err := newClient(t, registry.Options{Keychain: keychain{host: me}}).Resolve(t.Context(), host+"/app:1", amd64)
	if err == nil {
		t.Error("resolved what nobody gave")
	}
	mustNotKnow(t, "the target of the redirect", stolen)
}

func TestInvariant24_UploadsElsewhereCarryNoCredentials(t *testing.T) {
	elsewhere, stolen := thief(t, func(w http.ResponseWriter, req *http.Request) {
		_, _ = io.Copy(io.Discard, req.Body)
		w.WriteHeader(http.StatusCreated)
	})
	host, _ := serve(t, guarded(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		switch req.Method {
		case http.MethodHead:
			w.WriteHeader(http.StatusNotFound)
		case http.MethodPost:
			w.Header().Set("Location", "http://"+elsewhere+"/upload?token=1")
			w.WriteHeader(http.StatusAccepted)
		default:
			w.WriteHeader(http.StatusCreated)
		}
	}), "Basic", hasBasic))
	b := blobs{}
	c := newClient(t, registry.Options{Keychain: keychain{host: me}})
	if err := c.Push(t.Context(), []string{host + "/app:1"}, b.image(amd64, "layer"), b, registry.PushOptions{}); err != nil {
		t.Fatal(err)
	}
	mustNotKnow(t, "the place of the upload", stolen)
	if count(stolen.take(), "PUT /upload") != 2 {
		t.Error("the blobs did not go there")
	}
}

func TestInvariant24_MirrorsGetTheirOwnCredentials(t *testing.T) {
	_, docs := imageDocs(blobs{})
	docker := authn.AuthConfig{Username: "hub", Password: "hub-geheim"}
	with, withRec := serve(t, guarded(registryOf(docs), "Basic", hasBasic))
	without, stolen := thief(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", "Basic")
		w.WriteHeader(http.StatusUnauthorized)
	})
	c := newClient(t, registry.Options{
		Keychain: keychain{with: me, "index.docker.io": docker, "index.docker.io/app": docker},
		Mirrors:  map[string][]string{"r.example": {without, with}},
	})
	if _, err := c.Resolve(t.Context(), "r.example/app:1", amd64); err != nil {
		t.Fatal(err)
	}
	mustNotKnow(t, "the mirror without credentials", stolen)
	for _, h := range withRec.authorized() {
		if !strings.HasSuffix(h, basicMe) {
			t.Errorf("the mirror got other credentials than its own: %s", h)
		}
	}
}

// tlsRegistry starts a server with TLS. What trusts its certificate is returned
// too.
func tlsRegistry(t *testing.T, h http.Handler) (host string, rec *recorder, rt http.RoundTripper) {
	t.Helper()
	rec = &recorder{Handler: h}
	s := httptest.NewUnstartedServer(rec)
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // it complains of what is tested
	s.StartTLS()
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "https://"), rec, s.Client().Transport
}

// public makes a server on this machine look like one of the world: its name
// is not that of a loopback host.
type public struct {
	inner http.RoundTripper
	hosts map[string]string
}

func (p public) RoundTrip(req *http.Request) (*http.Response, error) {
	if to, ok := p.hosts[req.URL.Host]; ok {
		u := *req.URL
		u.Host = to
		req = req.Clone(req.Context())
		req.URL = &u
	}
	return p.inner.RoundTrip(req)
}

func TestInvariant24_TokenServerOverPlainHTTP(t *testing.T) {
	realm, stolen := thief(t, (&tokenServer{}).ServeHTTP)
	for _, challenge := range []string{
		`Bearer realm="http://` + realm + `/token",service="s"`,
		`Bearer realm="http://r.example/token",service="s"`,
		`Bearer realm="file:///etc/passwd",service="s"`,
		`Bearer realm="//` + realm + `/token",service="s"`,
		`Bearer realm="https://a:b@r.example/token",service="s"`,
	} {
		host, _, rt := tlsRegistry(t, guarded(http.NotFoundHandler(), challenge, func(*http.Request) bool { return false }))
		c := newClient(t, registry.Options{
			Keychain:  keychain{"r.example": me},
			Transport: public{rt, map[string]string{"r.example": host}},
		})
		_, err := c.Resolve(t.Context(), "r.example/app:1", amd64)
		if err == nil || !contains(err.Error(), "r.example", "token server") || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%s: got %v", challenge, err)
		}
	}
	if n := len(stolen.take()); n != 0 {
		t.Errorf("the token server was asked %d times", n)
	}
}

// A registry of plain http may have its token server beside it, but not send
// us with our password through the net.
func TestInvariant24_TokenServerFarFromAPlainRegistry(t *testing.T) {
	host, _ := serve(t, guarded(http.NotFoundHandler(), `Bearer realm="http://tokens.example/"`, func(*http.Request) bool { return false }))
	_, err := newClient(t, registry.Options{Keychain: keychain{host: me}}).Resolve(t.Context(), host+"/app:1", amd64)
	if err == nil || !strings.Contains(err.Error(), "http://tokens.example is not https") {
		t.Errorf("got %v", err)
	}
}

func TestInvariant24_TokenServersDoNotPassSecretsOn(t *testing.T) {
	var got atomic.Int32
	elsewhere, stolen := thief(t, func(_ http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		if strings.Contains(string(body)+req.URL.RawQuery, "refresh-me") {
			got.Add(1)
		}
	})
	realm, _ := serve(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		http.Redirect(w, req, "http://"+elsewhere+"/", http.StatusTemporaryRedirect)
	}))
	for _, creds := range []authn.AuthConfig{me, {IdentityToken: "refresh-me"}} {
		host, _ := serve(t, guarded(http.NotFoundHandler(), `Bearer realm="http://`+realm+`/"`, func(*http.Request) bool { return false }))
		_, err := newClient(t, registry.Options{Keychain: keychain{host: creds}}).Resolve(t.Context(), host+"/app:1", amd64)
		if err == nil || !strings.Contains(err.Error(), "redirect refused") {
			t.Errorf("got %v", err)
		}
	}
	mustNotKnow(t, "the target of the token server", stolen)
	if got.Load() != 0 || len(stolen.take()) != 0 {
		t.Error("the target of the token server was asked")
	}
}

func TestInvariant24_NoRedirectFromTLSToPlainHTTP(t *testing.T) {
	plain, stolen := thief(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	host, _, rt := tlsRegistry(t, guarded(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		http.Redirect(w, req, "http://r.example"+req.URL.Path, http.StatusFound)
	}), "Basic", hasBasic))
	c := newClient(t, registry.Options{
		Keychain:  keychain{"r.example": me},
		Transport: splitScheme{public{rt, map[string]string{"r.example": host}}, public{http.DefaultTransport, map[string]string{"r.example": plain}}},
	})
	_, err := c.Resolve(t.Context(), "r.example/app:1", amd64)
	if err == nil || !strings.Contains(err.Error(), "redirect refused: from https to http://r.example") {
		t.Errorf("got %v", err)
	}
	if n := len(stolen.take()); n != 0 {
		t.Errorf("%d requests went by plain http", n)
	}
}

// A registry behind a proxy that ends TLS calls itself http: it is spoken to by
// https all the same.
func TestPush_StaysWithTLS(t *testing.T) {
	plain, stolen := thief(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusCreated) })
	host, rec, rt := tlsRegistry(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		switch req.Method {
		case http.MethodHead:
			w.WriteHeader(http.StatusNotFound)
		case http.MethodPost:
			w.Header().Set("Location", "http://r.example/v2/app/blobs/uploads/1")
			w.WriteHeader(http.StatusAccepted)
		default:
			_, _ = io.Copy(io.Discard, req.Body)
			w.WriteHeader(http.StatusCreated)
		}
	}))
	b := blobs{}
	c := newClient(t, registry.Options{
		Transport: splitScheme{public{rt, map[string]string{"r.example": host}}, public{http.DefaultTransport, map[string]string{"r.example": plain}}},
	})
	if err := c.Push(t.Context(), []string{"r.example/app:1"}, b.image(amd64, "layer"), b, registry.PushOptions{}); err != nil {
		t.Fatal(err)
	}
	if n := count(rec.take(), "PUT /v2/app/blobs/uploads/1"); n != 2 || len(stolen.take()) != 0 {
		t.Errorf("%d uploads by TLS, want 2", n)
	}
}

type splitScheme struct{ https, http http.RoundTripper }

func (s splitScheme) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme == "https" {
		return s.https.RoundTrip(req)
	}
	return s.http.RoundTrip(req)
}

// A private address is no reason to speak plain http.
func TestInvariant24_PlainHTTPOnlyWhereItIsAllowed(t *testing.T) {
	_, docs := imageDocs(blobs{})
	plain, rec := serve(t, registryOf(docs))
	rt := public{&http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}}, map[string]string{"10.1.2.3:5000": plain}}
	c := newClient(t, registry.Options{Transport: rt, Keychain: keychain{"10.1.2.3:5000": me}})
	_, err := c.Resolve(t.Context(), "10.1.2.3:5000/app:1", amd64)
	if insecure, ok := errors.AsType[*registry.InsecureError](err); !ok || insecure.Host != "10.1.2.3:5000" {
		t.Errorf("got %v, want an InsecureError", err)
	}
	if n := len(rec.take()); n != 0 {
		t.Errorf("%d requests went by plain http", n)
	}
	c = newClient(t, registry.Options{Transport: rt, Insecure: []string{"10.1.2.3:5000"}})
	if _, err := c.Resolve(t.Context(), "10.1.2.3:5000/app:1", amd64); err != nil {
		t.Errorf("with leave to: %v", err)
	}
}

func TestResolve_TLSOnLoopback(t *testing.T) {
	_, docs := imageDocs(blobs{})
	host, _, rt := tlsRegistry(t, registryOf(docs))
	if _, err := newClient(t, registry.Options{Transport: rt}).Resolve(t.Context(), host+"/app:1", amd64); err != nil {
		t.Errorf("with a certificate that is trusted: %v", err)
	}
	if _, err := newClient(t, registry.Options{}).Resolve(t.Context(), host+"/app:1", amd64); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("with one that is not: %v", err)
	}
	if _, err := newClient(t, registry.Options{Insecure: []string{host}}).Resolve(t.Context(), host+"/app:1", amd64); err != nil {
		t.Errorf("with one that is not, but with leave: %v", err)
	}
}
