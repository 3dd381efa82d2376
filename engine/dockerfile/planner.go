package dockerfile

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/patternmatcher"

	"github.com/slipway-build/slipway/engine/diag"
	"github.com/slipway-build/slipway/engine/graph"
	"github.com/slipway-build/slipway/platforms"
)

// planner is what the plans for all platforms have in common.
type planner struct {
	opts      Options
	file      *parser.Result
	lines     int
	host      platforms.Platform
	platforms []platforms.Platform
	implicit  bool // no platform was asked for
	multi     bool // the result is an index
	hostname  string
	ignored   *patternmatcher.PatternMatcher // nil: nothing to check against
	images    images
	graph     graph.Builder

	rules    *linter.Config
	lint     *linter.Linter // the one that speaks, of the first platform
	lintAt   []parser.Range // where it spoke first
	warnings []Warning
}

// newPlanner checks the options and parses the file.
func newPlanner(opts Options) (*planner, error) {
	if opts.Name == "" {
		opts.Name = "Dockerfile"
	}
	p := &planner{
		opts:     opts,
		lines:    max(1, bytes.Count(opts.File, []byte("\n"))),
		host:     opts.Host,
		hostname: opts.Hostname,
		images:   images{resolver: opts.Resolver},
	}
	if p.host.OS == "" {
		p.host = platforms.Host()
	}
	if h := opts.Args["BUILDKIT_SANDBOX_HOSTNAME"]; h != "" {
		p.hostname = h
	}
	if err := p.setPlatforms(); err != nil {
		return nil, err
	}
	if len(opts.Ignored) > 0 {
		m, err := patternmatcher.New(opts.Ignored)
		if err != nil {
			return nil, fmt.Errorf("read .dockerignore: %w", err)
		}
		// With patterns that re-include, what is ignored can't be told without
		// looking at the files.
		if !m.Exclusions() {
			p.ignored = m
		}
	}
	if err := p.parse(); err != nil {
		return nil, err
	}
	if v, ok := opts.Args["BUILDKIT_INLINE_CACHE"]; ok {
		if on, err := strconv.ParseBool(v); err != nil || on {
			p.warn("UnsupportedBuildArg", "", "BUILDKIT_INLINE_CACHE is not supported in this version: the image carries no cache", nil)
		}
	}
	return p, nil
}

// setPlatforms finds out what to build for.
func (p *planner) setPlatforms() error {
	for _, want := range p.opts.Platforms {
		want = platforms.Normalize(want)
		same := func(have platforms.Platform) bool { return formatPlatform(have) == formatPlatform(want) }
		if !slices.ContainsFunc(p.platforms, same) {
			p.platforms = append(p.platforms, want)
		}
	}
	if len(p.platforms) == 0 {
		p.platforms, p.implicit = []platforms.Platform{p.host}, true
	}
	p.multi = len(p.platforms) > 1
	v := p.opts.Args["BUILDKIT_MULTI_PLATFORM"]
	if v == "" {
		return nil
	}
	multi, err := strconv.ParseBool(v)
	if err != nil {
		return fmt.Errorf("build arg BUILDKIT_MULTI_PLATFORM=%s: want true or false", v)
	}
	if p.multi && !multi {
		return diag.Hint(errors.New("build arg BUILDKIT_MULTI_PLATFORM=false contradicts several platforms"),
			"Remove it, or build for one platform.")
	}
	p.multi = multi
	return nil
}

// formatPlatform names a platform including the version of its OS.
func formatPlatform(p platforms.Platform) string {
	if p.OSVersion == "" {
		return platforms.Format(p)
	}
	os := fmt.Sprintf("%s(%s)", p.OS, p.OSVersion)
	return os + strings.TrimPrefix(platforms.Format(p), p.OS)
}

// warn records what a lint rule says. It is a linter.LintWarnFunc but for the
// rule's description.
func (p *planner) warn(rule, url, message string, loc []parser.Range) {
	p.warnings = append(p.warnings, Warning{Rule: rule, Message: message, URL: url, Line: p.origin(loc).Line})
}

// origin turns the parser's idea of a place into ours. It is the zero Origin if
// the parser has none.
func (p *planner) origin(loc []parser.Range) diag.Origin {
	if len(loc) == 0 {
		return diag.Origin{}
	}
	o := diag.Origin{File: p.opts.Name, Line: loc[0].Start.Line, Last: loc[0].End.Line}
	for _, r := range loc[1:] {
		o.Line, o.Last = min(o.Line, r.Start.Line), max(o.Last, r.End.Line)
	}
	o.Line = max(1, o.Line) // the parser counts some of its errors from 0
	o.Last = max(o.Line, o.Last)
	return o
}

// at says where err comes from: the parser's own idea of it, else loc.
func (p *planner) at(err error, loc []parser.Range) error {
	if err == nil {
		return nil
	}
	if le, ok := errors.AsType[*parser.LocationError](err); ok && len(le.Locations) > 0 {
		// What is around it says the line in words.
		return diag.At(le.Unwrap(), p.origin(le.Locations[0]))
	}
	return diag.At(err, p.origin(loc))
}
