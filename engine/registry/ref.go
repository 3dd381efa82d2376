package registry

import (
	"fmt"
	"regexp"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
)

// Docker Hub has one name in image names and another on the wire.
const (
	dockerHub    = "docker.io"
	dockerHubKey = "index.docker.io" // in Docker's configuration file
	dockerHubAPI = "registry-1.docker.io"
)

// Ref is the parsed name of an image.
type Ref struct {
	Host   string        // "docker.io" for Docker Hub, "host" or "host:port" otherwise
	Repo   string        // "library/debian"
	Tag    string        // may be empty if there is a digest
	Digest digest.Digest // may be empty; what counts, if there is also a tag
}

// The grammar of distribution's reference package, compiled when first used.
var grammar = sync.OnceValue(func() (g struct{ host, repo, tag *regexp.Regexp }) {
	const label = `(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])`
	g.host = regexp.MustCompile(`^(?:` + label + `(?:\.` + label + `)*|\[[a-fA-F0-9:]+\])(?::[0-9]{1,5})?$`)
	const part = `[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*`
	g.repo = regexp.MustCompile(`^` + part + `(?:/` + part + `)*$`)
	g.tag = regexp.MustCompile(`^\w[\w.-]{0,127}$`)
	return g
})

// ParseRef reads the name of an image as people write it and completes it: no
// host means Docker Hub, neither tag nor digest means "latest".
func ParseRef(s string) (Ref, error) {
	bad := func(format string, args ...any) (Ref, error) {
		return Ref{}, fmt.Errorf("image name %q: %s", s, fmt.Sprintf(format, args...))
	}
	if strings.Contains(s, "://") {
		return bad("must not have a scheme")
	}
	name, dgst, pinned := strings.Cut(s, "@")
	r := Ref{Digest: digest.Digest(dgst)}
	if pinned {
		if err := r.Digest.Validate(); err != nil {
			return bad("invalid digest %q", dgst)
		}
	}
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		name, r.Tag = name[:i], name[i+1:]
		if !grammar().tag.MatchString(r.Tag) {
			return bad("invalid tag %q", r.Tag)
		}
	}
	if r.Tag == "" && !pinned {
		r.Tag = "latest"
	}
	r.Host, r.Repo = dockerHub, name
	if host, rest, ok := strings.Cut(name, "/"); ok && isHost(host) {
		r.Host, r.Repo = canonicalHost(host), rest
	}
	if r.Host == dockerHub && r.Repo != "" && !strings.Contains(r.Repo, "/") {
		r.Repo = "library/" + r.Repo
	}
	switch {
	case !grammar().host.MatchString(r.Host):
		return bad("invalid host %q", r.Host)
	case len(r.Host)+len(r.Repo) > 255:
		return bad("longer than 255 characters")
	case !grammar().repo.MatchString(r.Repo):
		if strings.ToLower(r.Repo) != r.Repo {
			return bad("must be in lower case")
		}
		return bad("invalid repository %q", r.Repo)
	}
	return r, nil
}

// isHost reports whether the part of a name before its first slash is a host,
// by Docker's rule.
func isHost(s string) bool {
	return strings.ContainsAny(s, ".:[") || s == "localhost" || strings.ToLower(s) != s
}

// canonicalHost maps the names of Docker Hub to the one in image names.
func canonicalHost(host string) string {
	switch host {
	case dockerHubKey, dockerHubAPI:
		return dockerHub
	}
	return host
}

// Name returns the repository with its host: "docker.io/library/debian".
func (r Ref) Name() string { return r.Host + "/" + r.Repo }

// String returns the full name.
func (r Ref) String() string {
	s := r.Name()
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + r.Digest.String()
	}
	return s
}

// Familiar returns the name as people write it: "debian:12" for
// "docker.io/library/debian:12".
func (r Ref) Familiar() string {
	s := r.String()
	if rest, ok := strings.CutPrefix(s, dockerHub+"/library/"); ok {
		return rest
	}
	return strings.TrimPrefix(s, dockerHub+"/")
}
