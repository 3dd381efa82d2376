package step

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/docker/go-units"

	"github.com/slipway-build/slipway/engine/graph"
	"github.com/slipway-build/slipway/platforms"
)

// errUnsupported follows the name of an input in a message.
var errUnsupported = errors.New("is not supported in this version")

func text(field func(*Config) *string) func(*loader, string) error {
	return func(l *loader, s string) error { *field(&l.Config) = s; return nil }
}

func items(field func(*Config) *[]string) func(*loader, string) error {
	return func(l *loader, s string) error {
		f := field(&l.Config)
		*f = append(*f, s)
		return nil
	}
}

func boolean(field func(*loader) *bool) func(*loader, string) error {
	return func(l *loader, s string) error {
		v, err := strconv.ParseBool(s)
		if err != nil {
			return fmt.Errorf("%q is neither true nor false", s)
		}
		*field(l) = v
		return nil
	}
}

// unsupported refuses every value but those that ask for nothing. Values are
// not repeated in the message: they may be secret.
func unsupported(off ...string) func(*loader, string) error {
	return func(_ *loader, s string) error {
		if slices.Contains(off, strings.TrimSpace(s)) {
			return nil
		}
		return errUnsupported
	}
}

// ignored accepts every value and says why it has no effect.
func ignored(why string) func(*loader, string) error {
	return func(l *loader, _ string) error {
		notice := l.input + " has no effect: " + why
		if !slices.Contains(l.Notices, notice) {
			l.Notices = append(l.Notices, notice)
		}
		return nil
	}
}

func setLoad(l *loader, s string) error {
	var load bool
	if err := boolean(func(*loader) *bool { return &load })(l, s); err != nil || !load {
		return err
	}
	return errors.New("there is no Docker daemon to load into: " +
		"write a file with the output type=docker,dest=image.tar, and load it with docker load -i image.tar")
}

func setFile(l *loader, s string) error {
	if strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://") {
		return fmt.Errorf("%q: a Dockerfile from a URL is not supported in this version", s)
	}
	l.File = s
	return nil
}

func setBuildArg(l *loader, s string) error {
	name, value, ok := strings.Cut(s, "=")
	if name == "" {
		return fmt.Errorf("%q is not NAME=VALUE", s)
	}
	if !ok {
		if value, ok = l.lookup(name); !ok {
			return nil // as in docker build
		}
	}
	l.setArg(name, value)
	return nil
}

func setLabel(l *loader, s string) error {
	name, value, _ := strings.Cut(s, "=")
	if name == "" {
		return fmt.Errorf("%q is not NAME=VALUE", s)
	}
	if l.Request.Labels == nil {
		l.Request.Labels = make(map[string]string)
	}
	l.Request.Labels[name] = value
	return nil
}

func setPlatform(l *loader, s string) error {
	p, err := platforms.Parse(s)
	if err != nil {
		return err
	}
	for _, have := range l.Request.Platforms {
		if platforms.Format(have) == platforms.Format(p) {
			return nil
		}
	}
	l.Request.Platforms = append(l.Request.Platforms, p)
	return nil
}

// What the name of an image may look like, by the grammar of the distribution
// specification's reference implementation, without a digest. Compiled when
// first used: this binary also starts as the first process of containers.
var (
	imageName = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^(?:` + imageHost + `/)?` + imagePart + `(?:/` + imagePart + `)*(?::[\w][\w.-]{0,127})?$`)
	})
	repository = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^(?:[^/]*[.:][^/]*/|localhost/)?([^:]*)`)
	})
)

const (
	imageHost = `(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?`
	imagePart = `[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*`
)

func setTag(l *loader, s string) error {
	switch {
	case imageName().MatchString(s):
	case strings.Contains(s, "@"):
		return fmt.Errorf("%q: an image that is being built has no digest yet", s)
	default:
		if m := repository().FindStringSubmatch(s); m != nil && strings.ToLower(m[1]) != m[1] {
			return fmt.Errorf("%q: the name of a repository is in lower case", s)
		}
		return fmt.Errorf("%q is not the name of an image: want [HOST[:PORT]/]PATH[:TAG]", s)
	}
	if !slices.Contains(l.Request.Tags, s) {
		l.Request.Tags = append(l.Request.Tags, s)
	}
	return nil
}

// setHost takes NAME:IP and NAME=IP, the IP in brackets or not.
func setHost(l *loader, s string) error {
	i := strings.IndexAny(s, ":=")
	if i <= 0 {
		return fmt.Errorf("%q is not NAME:IP", s)
	}
	name, ip := s[:i], s[i+1:]
	if ip == "host-gateway" {
		return fmt.Errorf("%q: host-gateway is not supported in this version: RUN is on the host's network, so 127.0.0.1 is the host", s)
	}
	addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(ip, "["), "]"))
	if err != nil {
		return fmt.Errorf("%q: %q is not an IP address", s, ip)
	}
	if strings.ContainsAny(name, " \t\n#") {
		return fmt.Errorf("%q: %q is not the name of a host", s, name)
	}
	l.Request.Hosts = append(l.Request.Hosts, graph.Host{Name: name, IP: addr.String()})
	return nil
}

func setNetwork(l *loader, s string) error {
	switch m := graph.NetworkMode(s); m {
	case graph.NetworkDefault, graph.NetworkNone, graph.NetworkHost:
		l.Request.Network = m
		return nil
	}
	return fmt.Errorf("%q is not a network mode: want default, none or host", s)
}

func setShmSize(l *loader, s string) error {
	n, err := units.RAMInBytes(s)
	if err != nil || n < 0 {
		return fmt.Errorf("%q is not a size such as 128m", s)
	}
	l.Request.ShmSize = n
	return nil
}

func setUlimit(l *loader, s string) error {
	u, err := units.ParseUlimit(s)
	if err != nil {
		return fmt.Errorf("%q: %w", s, err)
	}
	l.Request.Ulimits = append(l.Request.Ulimits, graph.Ulimit{Name: u.Name, Soft: u.Soft, Hard: u.Hard})
	return nil
}

// setMirror takes HOST=URL, and a URL alone as Docker's daemon does.
func setMirror(l *loader, s string) error {
	host, mirror, ok := strings.Cut(s, "=")
	if !ok || strings.Contains(host, "://") {
		host, mirror = "docker.io", s
	}
	u, err := url.Parse(mirror)
	if err != nil || host == "" || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return fmt.Errorf("%q is not HOST=URL, such as docker.io=https://mirror.example", s)
	}
	if l.Mirrors == nil {
		l.Mirrors = make(map[string][]string)
	}
	l.Mirrors[host] = append(l.Mirrors[host], mirror)
	return nil
}

func setInsecure(l *loader, s string) error {
	if u, err := url.Parse("//" + s); err != nil || u.Host != s {
		return fmt.Errorf("%q is not HOST or HOST:PORT", s)
	}
	l.Insecure = append(l.Insecure, s)
	return nil
}

func setProgress(l *loader, s string) error {
	modes := []string{"auto", "plain", "tty", "rawjson", "quiet", "none"}
	if !slices.Contains(modes, s) {
		return fmt.Errorf("%q is not one of %s", s, strings.Join(modes, ", "))
	}
	l.Progress = s
	return nil
}

func setJobs(l *loader, s string) error {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		return fmt.Errorf("%q is not a number of steps", s)
	}
	l.Jobs = n
	return nil
}
