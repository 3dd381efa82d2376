package registry_test

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/slipway-build/slipway/engine/content"
	"github.com/slipway-build/slipway/engine/registry"
)

var me = authn.AuthConfig{Username: "me", Password: "geheim"}

const basicMe = "Basic bWU6Z2VoZWlt"

// guarded wants a header, and says how to come by it.
func guarded(inner http.Handler, challenge string, ok func(*http.Request) bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if !ok(req) {
			w.Header().Set("WWW-Authenticate", challenge)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		inner.ServeHTTP(w, req)
	})
}

func hasBasic(req *http.Request) bool { return req.Header.Get("Authorization") == basicMe }

// image serves one image and returns it.
func imageDocs(b blobs) (content.Descriptor, map[string]document) {
	m := b.image(amd64, "layer")
	docs := map[string]document{"manifests/1": {mediaType: m.MediaType, body: b[m.Digest]}}
	for d, data := range b {
		docs["manifests/"+d.String()] = document{body: data, mediaType: m.MediaType}
		docs["blobs/"+d.String()] = document{body: data}
	}
	return m, docs
}

func TestAuth_Basic(t *testing.T) {
	_, docs := imageDocs(blobs{})
	host, rec := serve(t, guarded(registryOf(docs), `Basic realm="r"`, hasBasic))
	c := newClient(t, registry.Options{Keychain: keychain{host: me}})
	if _, err := c.Resolve(t.Context(), host+"/app:1", amd64); err != nil {
		t.Fatal(err)
	}
	if n := len(rec.take()); n != 4 { // one to be told, then HEAD, manifest, config
		t.Errorf("%d requests, want 4", n)
	}
	_, err := newClient(t, registry.Options{}).Resolve(t.Context(), host+"/app:1", amd64)
	if auth, ok := errors.AsType[*registry.AuthError](err); !ok || !auth.Anonymous || auth.Status != 401 || auth.Host != host || auth.Repository != "app" {
		t.Errorf("without credentials: %v", err)
	}
	wrong := keychain{host: {Username: "me", Password: "falsch"}}
	_, err = newClient(t, registry.Options{Keychain: wrong}).Resolve(t.Context(), host+"/app:1", amd64)
	if auth, ok := errors.AsType[*registry.AuthError](err); !ok || auth.Anonymous || strings.Contains(err.Error(), "falsch") {
		t.Errorf("with wrong credentials: %v", err)
	}
}

func TestAuth_DockerConfiguration(t *testing.T) {
	_, docs := imageDocs(blobs{})
	host, _ := serve(t, guarded(registryOf(docs), "Basic", hasBasic))
	helper := "#!/bin/sh\nread host\n[ \"$host\" = " + host + " ] && echo '{\"Username\":\"me\",\"Secret\":\"geheim\"}' && exit\n" +
		"echo credentials not found in native keychain\nexit 1\n"
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "docker-credential-vault"), []byte(helper), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	t.Setenv("HOME", t.TempDir())
	for name, config := range map[string]string{
		"file":   `{"auths":{"` + host + `":{"auth":"bWU6Z2VoZWlt"}}}`,
		"helper": `{"credHelpers":{"` + host + `":"vault"}}`,
		"store":  `{"credsStore":"vault"}`,
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		t.Setenv("DOCKER_CONFIG", dir)
		c, err := registry.New(registry.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Resolve(t.Context(), host+"/app:1", amd64); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// tokenServer gives tokens that name what they are for.
type tokenServer struct {
	asked   atomic.Int32
	expires int
	refresh string // wanted in a POST instead of a password
}

func (s *tokenServer) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	s.asked.Add(1)
	_ = req.ParseForm()
	if (s.refresh == "") != (req.Method == http.MethodGet) || (s.refresh != "" && req.PostForm.Get("refresh_token") != s.refresh) || (s.refresh == "" && !hasBasic(req)) {
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, `{"details":"incorrect username or password"}`)
		return
	}
	token := strings.Join(strings.Fields(strings.Join(req.Form["scope"], " ")), "+") + "@" + req.Form.Get("service")
	_ = json.NewEncoder(w).Encode(map[string]any{"token": token, "expires_in": s.expires})
}

func hasToken(want string) func(*http.Request) bool {
	return func(req *http.Request) bool { return req.Header.Get("Authorization") == "Bearer "+want }
}

func TestAuth_Token(t *testing.T) {
	for _, refresh := range []string{"", "refresh-me"} {
		_, docs := imageDocs(blobs{})
		tokens := &tokenServer{refresh: refresh}
		realm, _ := serve(t, tokens)
		host, rec := serve(t, guarded(registryOf(docs), `Bearer realm="http://`+realm+`/token?x=1",service="the \"registry\"",scope="repository:app:pull"`,
			hasToken(`repository:app:pull@the "registry"`)))
		creds := me
		if refresh != "" {
			creds = authn.AuthConfig{IdentityToken: refresh}
		}
		c := newClient(t, registry.Options{Keychain: keychain{host: creds}})
		img, err := c.Resolve(t.Context(), host+"/app:1", amd64)
		if err != nil {
			t.Fatal(err)
		}
		_ = read(t, c, img.Layers[0].Blob)
		if n := tokens.asked.Load(); n != 1 {
			t.Errorf("%d tokens were asked for, want 1", n)
		}
		for _, h := range rec.authorized() {
			if strings.Contains(h, "Basic") || strings.Contains(h, "refresh-me") {
				t.Errorf("the registry got more than the token: %s", h)
			}
		}
	}
}

func TestAuth_TokenRefused(t *testing.T) {
	realm, _ := serve(t, &tokenServer{})
	host, _ := serve(t, guarded(http.NotFoundHandler(), `Bearer realm="http://`+realm+`",service="s"`, func(*http.Request) bool { return false }))
	_, err := newClient(t, registry.Options{Keychain: keychain{host: {Username: "me", Password: "falsch"}}}).Resolve(t.Context(), host+"/app:1", amd64)
	auth, ok := errors.AsType[*registry.AuthError](err)
	if !ok || auth.Anonymous || auth.Host != host || !strings.Contains(err.Error(), "incorrect username or password") {
		t.Errorf("got %v", err)
	}
}

// A token that the registry does not accept any more is fetched again, also in
// the middle of a push.
func TestAuth_TokenExpires(t *testing.T) {
	_, inner := newRegistry(t)
	var serial atomic.Int32
	realm, _ := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, `{"access_token":"t%d"}`, serial.Add(1))
	}))
	host, _ := serve(t, guarded(inner, `bearer Realm="http://`+realm+`"`, func(req *http.Request) bool {
		token := req.Header.Get("Authorization")
		return token != "" && (token != "Bearer t1" || req.Method != http.MethodPut)
	}))
	b := blobs{}
	root := b.image(amd64, "one", "two", "three")
	c := newClient(t, registry.Options{Keychain: keychain{host: me}})
	if err := c.Push(t.Context(), []string{host + "/app:1"}, root, b, registry.PushOptions{}); err != nil {
		t.Fatal(err)
	}
	if n := serial.Load(); n != 2 {
		t.Errorf("%d tokens were asked for, want 2", n)
	}
}

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

// Whatever a registry says in WWW-Authenticate, there is an answer in time.
func FuzzChallenge(f *testing.F) {
	for _, s := range []string{`Basic realm="x"`, `Bearer realm="https://t.example/",service="a,b",scope="x y"`, `Bearer realm="a\"b`, `Negotiate`, `Bearer =,=,`, `Bearer realm=`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		rt := roundTripper(func(req *http.Request) *http.Response {
			w := newResponse()
			w.Header()["Www-Authenticate"] = []string{s}
			if u, err := url.Parse(req.URL.String()); err != nil || (u.Host != "r.example" && u.Scheme != "https") {
				t.Errorf("%q leads to %s", s, req.URL)
			}
			w.WriteHeader(http.StatusUnauthorized)
			return w.Result()
		})
		ctx, cancel := withTimeout(t, 10*time.Second)
		defer cancel()
		if _, err := newClient(t, registry.Options{Transport: rt, Keychain: keychain{"r.example": me}}).Resolve(ctx, "r.example/app:1", amd64); err == nil {
			t.Error("resolved")
		}
	})
}
