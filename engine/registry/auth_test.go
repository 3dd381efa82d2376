package registry_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
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
