package dockerfile

import (
	"net/url"
	"regexp"
	"strings"
	"sync"
)

// scpStyle is git@host:path.
var scpStyle = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-zA-Z0-9-_]+@[a-zA-Z0-9-.]+:`) })

// isGit reports whether a source of ADD is a git repository: a URL whose scheme
// or whose .git says so.
func isGit(src string) bool {
	scheme, _, ok := strings.Cut(src, "://")
	if !ok {
		return scpStyle().MatchString(src)
	}
	switch strings.ToLower(scheme) {
	case "git", "ssh":
		return true
	case "http", "https":
		u, err := url.Parse(src)
		return err == nil && strings.HasSuffix(u.Path, ".git")
	}
	return false
}

// isURL reports whether a source of ADD is fetched by HTTP.
func isURL(src string) bool {
	return strings.HasPrefix(src, "http://") || strings.HasPrefix(src, "https://")
}
