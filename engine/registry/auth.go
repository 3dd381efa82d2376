package registry

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
)

// A challenge is how an endpoint wants to be authenticated to, once it said so.
type challenge struct {
	scheme         string // "basic", "bearer"; empty: not asked so far
	realm, service string
}

// A tokenSlot holds the bearer token of one scope.
type tokenSlot struct {
	fetching chan struct{} // held while the token is fetched, so that it is fetched once
	value    string
	expires  time.Time
}

// credentials are those of one repository at one endpoint.
type credentials struct {
	user, password string
	identity       string // refresh token
	bearer         string // token for the registry itself
}

func (c *credentials) empty() bool { return *c == credentials{} }

// resource is what a keychain is asked about.
type resource struct{ host, repo string }

func (r resource) String() string      { return r.host + "/" + r.repo }
func (r resource) RegistryStr() string { return r.host }

// credentialsFor returns the credentials for a repository of this endpoint's
// own host. They are looked up once: a helper may be a process.
func (e *endpoint) credentialsFor(ctx context.Context, repo string) (*credentials, error) {
	e.mu.Lock()
	creds := e.creds[repo]
	e.mu.Unlock()
	if creds != nil {
		return creds, nil
	}
	host := e.name
	if host == dockerHub {
		host = dockerHubKey
	}
	a, err := authn.Resolve(ctx, e.client.keychain, resource{host, e.repo(repo)})
	if err != nil {
		return nil, fmt.Errorf("credentials for registry %s: %w", e.name, err)
	}
	cfg, err := authn.Authorization(ctx, a)
	if err != nil {
		return nil, fmt.Errorf("credentials for registry %s: %w", e.name, err)
	}
	creds = &credentials{cfg.Username, cfg.Password, cfg.IdentityToken, cfg.RegistryToken}
	if creds.user == "" && cfg.Auth != "" {
		if b, err := base64.StdEncoding.DecodeString(cfg.Auth); err == nil {
			creds.user, creds.password, _ = strings.Cut(string(b), ":")
		}
	}
	e.mu.Lock()
	e.creds[repo] = creds
	e.mu.Unlock()
	return creds, nil
}

// anonymous reports whether there are no credentials for the repository.
func (e *endpoint) anonymous(repo string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	creds := e.creds[repo]
	return creds == nil || creds.empty()
}

// authorization returns the header for r: empty as long as the endpoint did
// not ask for one.
func (e *endpoint) authorization(ctx context.Context, scheme string, r request) (string, error) {
	if r.url != nil && !e.owns(r.url, scheme) {
		return "", nil
	}
	e.mu.Lock()
	auth := e.auth
	e.mu.Unlock()
	if auth.scheme == "" {
		return "", nil
	}
	creds, err := e.credentialsFor(ctx, r.repo)
	if err != nil {
		return "", err
	}
	switch {
	case creds.bearer != "":
		return "Bearer " + creds.bearer, nil
	case auth.scheme == "basic":
		if creds.user == "" && creds.password == "" {
			return "", nil
		}
		return basic(creds), nil
	}
	token, err := e.token(ctx, scheme, auth, creds, r)
	if err != nil {
		return "", err
	}
	return "Bearer " + token, nil
}

func basic(c *credentials) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(c.user+":"+c.password))
}

// challenged takes note of a 401 to a request that was sent with the header
// used, and reports whether it is worth trying again.
func (e *endpoint) challenged(resp *http.Response, used string, r request) bool {
	auth, ok := parseChallenge(resp.Header.Values("WWW-Authenticate"))
	if !ok {
		return false
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	changed := e.auth != auth
	e.auth = auth
	if slot := e.tokens[scopeKey(r.scopes)]; slot != nil && used == "Bearer "+slot.value {
		slot.expires = time.Time{} // revoked, or the registry's clock differs
		return true
	}
	return changed || used == "" || auth.scheme == "bearer"
}

func scopeKey(scopes []string) string { return strings.Join(scopes, " ") }

// token returns the bearer token for the scopes of r.
func (e *endpoint) token(ctx context.Context, scheme string, auth challenge, creds *credentials, r request) (string, error) {
	e.mu.Lock()
	slot := e.tokens[scopeKey(r.scopes)]
	if slot == nil {
		slot = &tokenSlot{fetching: make(chan struct{}, 1)}
		e.tokens[scopeKey(r.scopes)] = slot
	}
	e.mu.Unlock()

	select {
	case slot.fetching <- struct{}{}:
		defer func() { <-slot.fetching }()
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
	e.mu.Lock()
	value, expires := slot.value, slot.expires
	e.mu.Unlock()
	if time.Now().Before(expires) {
		return value, nil
	}
	value, lifetime, err := e.fetchToken(ctx, scheme, auth, creds, r)
	if err != nil {
		return "", err
	}
	e.mu.Lock()
	slot.value, slot.expires = value, time.Now().Add(lifetime*9/10)
	e.mu.Unlock()
	return value, nil
}

// fetchToken asks the token server that the registry named.
// https://distribution.github.io/distribution/spec/auth/token/
func (e *endpoint) fetchToken(ctx context.Context, scheme string, auth challenge, creds *credentials, r request) (string, time.Duration, error) {
	realm, err := e.checkRealm(auth.realm, scheme)
	if err != nil {
		return "", 0, err
	}
	req, err := tokenRequest(ctx, realm, auth.service, creds, r.scopes)
	if err != nil {
		return "", 0, err
	}
	client := http.Client{
		Transport: e.rt,
		CheckRedirect: func(next *http.Request, via []*http.Request) error {
			if len(via) >= 5 || next.URL.Host != realm.Host || next.URL.Scheme != realm.Scheme {
				return fmt.Errorf("%w: token server %s leads to %s://%s", errRedirect, realm.Host, next.URL.Scheme, next.URL.Host)
			}
			return nil
		},
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", 0, e.explain(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusBadRequest { // what some say to wrong credentials
		resp.StatusCode = http.StatusUnauthorized
	}
	if err := e.check(resp, r.repo, http.StatusOK); err != nil {
		return "", 0, err
	}
	var answer struct {
		Token       string `json:"token"`
		AccessToken string `json:"access_token"`
		ExpiresIn   int    `json:"expires_in"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&answer); err != nil {
		return "", 0, fmt.Errorf("registry %s: token server %s: %w", e.name, realm.Host, err)
	}
	if answer.Token == "" {
		answer.Token = answer.AccessToken
	}
	if answer.Token == "" || strings.ContainsAny(answer.Token, "\r\n") {
		return "", 0, fmt.Errorf("registry %s: token server %s sent no token", e.name, realm.Host)
	}
	// The specification's default, and its minimum, is 60 seconds.
	return answer.Token, time.Duration(min(max(answer.ExpiresIn, 60), 86400)) * time.Second, nil
}

// tokenRequest asks with a refresh token by POST, as OAuth 2 has it, otherwise
// by GET, with a password if there is one.
func tokenRequest(ctx context.Context, realm *url.URL, service string, creds *credentials, scopes []string) (*http.Request, error) {
	if creds.identity != "" {
		form := url.Values{
			"grant_type":    {"refresh_token"},
			"refresh_token": {creds.identity},
			"client_id":     {"slipway"},
			"service":       {service},
			"scope":         {scopeKey(scopes)},
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, realm.String(), strings.NewReader(form.Encode()))
		if err != nil {
			return nil, err
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		return req, nil
	}
	u := *realm
	q := u.Query()
	if service != "" {
		q.Set("service", service)
	}
	q["scope"] = scopes
	if creds.user != "" {
		q.Set("account", creds.user)
	}
	u.RawQuery = q.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	if creds.user != "" || creds.password != "" {
		req.Header.Set("Authorization", basic(creds))
	}
	return req, nil
}

var errRealm = errors.New("token server refused")

// checkRealm says where a token may be asked for. The registry chooses the
// token server; it can't make us send credentials in the clear, unless it is
// spoken to in the clear itself and the server is as near as it.
func (e *endpoint) checkRealm(realm, scheme string) (*url.URL, error) {
	u, err := url.Parse(realm)
	if err != nil || u.Host == "" || u.User != nil {
		return nil, fmt.Errorf("registry %s: %w: %q is not a usable URL", e.name, errRealm, printable(realm, 100))
	}
	switch {
	case u.Scheme == "https":
		return u, nil
	case u.Scheme == "http" && scheme == "http" &&
		(isLoopback(u.Host) || u.Hostname() == hostname(e.host) || e.insecure):
		return u, nil
	}
	return nil, fmt.Errorf("registry %s: %w: %s://%s is not https", e.name, errRealm, u.Scheme, u.Host)
}

func hostname(host string) string { return (&url.URL{Host: host}).Hostname() }

// parseChallenge reads WWW-Authenticate headers and returns the first scheme
// that we know.
func parseChallenge(headers []string) (challenge, bool) {
	for _, h := range headers {
		scheme, rest, _ := strings.Cut(strings.TrimSpace(h), " ")
		scheme = strings.ToLower(scheme)
		if scheme == "basic" {
			return challenge{scheme: scheme}, true
		}
		if scheme != "bearer" {
			continue
		}
		params := parseParams(rest)
		if params["realm"] != "" {
			return challenge{scheme, params["realm"], params["service"]}, true
		}
	}
	return challenge{}, false
}

// parseParams reads key=value and key="quoted value", separated by commas.
func parseParams(s string) map[string]string {
	params := map[string]string{}
	for s != "" {
		key, rest, ok := strings.Cut(s, "=")
		if !ok {
			break
		}
		key = strings.ToLower(strings.Trim(key, " ,\t"))
		var value string
		if strings.HasPrefix(rest, `"`) {
			value, s = unquote(rest[1:])
		} else {
			value, s, _ = strings.Cut(rest, ",")
			value = strings.TrimSpace(value)
		}
		if _, seen := params[key]; !seen {
			params[key] = value
		}
	}
	return params
}

// unquote reads a quoted string up to its closing quote.
func unquote(s string) (value, rest string) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '"':
			return b.String(), s[i+1:]
		case s[i] == '\\' && i+1 < len(s):
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String(), ""
}

// scopes for pulling and pushing, and for mounting from other repositories.
func (e *endpoint) pullScope(repo string) []string {
	return []string{"repository:" + e.repo(repo) + ":pull"}
}

func (e *endpoint) pushScope(repo string, from ...string) []string {
	scopes := []string{"repository:" + e.repo(repo) + ":pull,push"}
	from = slices.Sorted(slices.Values(from))
	for _, f := range from {
		if f != repo {
			scopes = append(scopes, "repository:"+f+":pull")
		}
	}
	return scopes
}
