package filehash

import (
	"strings"

	"github.com/moby/patternmatcher"
)

// patterns decides which paths a list of patterns as in .dockerignore matches.
// A path is matched by a pattern that matches it or a directory that it is in;
// the last pattern to do so decides, "!" negates it. The result is that of
// patternmatcher.MatchesOrParentMatches, but what is known of a directory is
// not computed again for everything in it. A nil *patterns matches nothing.
//
// It is not safe for concurrent use.
type patterns struct {
	list   []pattern
	negate bool // some pattern begins with "!"

	// literal says that no "!" pattern has a wildcard, but for one at its end.
	literal bool
}

type pattern struct {
	not     bool
	exact   string // if it has no special characters
	matcher *patternmatcher.PatternMatcher
	prefix  string // of a "!" pattern: what it begins with
}

// state says which patterns match a directory or one that it is in.
type state []bool

// special are the characters that have a meaning in patterns.
const special = `*?[]^\`

func compile(list []string) (*patterns, error) {
	p := &patterns{literal: true}
	for _, s := range list {
		s = strings.TrimSpace(s)
		s, not := strings.CutPrefix(s, "!")
		s = strings.TrimLeft(strings.TrimSpace(s), "/")
		if s == "" && !not {
			continue
		}
		if rest, ok := strings.CutPrefix(s, "!"); ok && not {
			s = `\!` + rest // a name that begins so
		} else if ok {
			s, not = rest, true // "/!x", which BuildKit takes for "!x"
		}
		m, err := patternmatcher.New([]string{s})
		if err != nil || len(m.Patterns()) != 1 {
			return nil, &patternError{s, err}
		}
		s = m.Patterns()[0].String() // clean
		one := pattern{not: not, matcher: m, prefix: s}
		if !strings.ContainsAny(s, special) {
			one.exact = s
		}
		if not {
			p.negate = true
			one.prefix = strings.TrimRight(s, "*/")
			// What a wildcard in the last component matches is not hidden itself;
			// of one before that it can't be told which directories lead there.
			last := strings.TrimPrefix(s[len(one.prefix):], "/")
			p.literal = p.literal && !strings.ContainsAny(one.prefix, special) && !strings.Contains(last, "/")
		}
		if _, err := one.match("x"); err != nil { // now rather than in the middle
			return nil, &patternError{s, err}
		}
		p.list = append(p.list, one)
	}
	if len(p.list) == 0 {
		return nil, nil
	}
	return p, nil
}

type patternError struct {
	pattern string
	err     error
}

func (e *patternError) Error() string {
	if e.err == nil {
		return "pattern \"" + e.pattern + "\": it is empty"
	}
	return "pattern \"" + e.pattern + "\": " + e.err.Error()
}

func (e *patternError) Unwrap() error { return e.err }

// match says whether p matches path, which is relative. parent is the state of
// the directory that path is in, nil at the top. With full set, what path is
// the parent of is given as state.
func (p *patterns) match(path string, parent state, full bool) (bool, state, error) {
	if p == nil {
		return false, nil, nil
	}
	var st state
	if full {
		st = make(state, len(p.list))
	}
	decided, matched := false, false
	for i := len(p.list) - 1; i >= 0; i-- {
		hit := parent != nil && parent[i]
		if !hit {
			var err error
			if hit, err = p.list[i].match(path); err != nil {
				return false, nil, err
			}
		}
		if hit && !decided {
			decided, matched = true, !p.list[i].not
			if !full {
				return matched, nil, nil
			}
		}
		if full {
			st[i] = hit
		}
	}
	return matched, st, nil
}

// matchAll is match for a path of which nothing is known.
func (p *patterns) matchAll(path string) (bool, state, error) {
	if p == nil || path == "" || path == "." {
		return false, nil, nil
	}
	var st state
	var matched bool
	for i := range len(path) + 1 {
		if i < len(path) && path[i] != '/' {
			continue
		}
		var err error
		if matched, st, err = p.match(path[:i], st, true); err != nil {
			return false, nil, err
		}
	}
	return matched, st, nil
}

func (p pattern) match(path string) (bool, error) {
	if p.exact != "" {
		return p.exact == path, nil
	}
	// Of the parents of path nothing is wanted here. Handing in what was found
	// for something else says that none of them matches.
	hit, _, err := p.matcher.MatchesUsingParentResults(path, none)
	return hit, err
}

// none is what MatchesUsingParentResults needs to look at no parents: that a
// parent was looked at, and that the only pattern there is didn't match it.
var none = func() patternmatcher.MatchInfo {
	m, err := patternmatcher.New([]string{"x"})
	if err != nil {
		panic(err) // the pattern is right above
	}
	_, info, err := m.MatchesUsingParentResults("y", patternmatcher.MatchInfo{})
	if err != nil {
		panic(err)
	}
	return info
}()

// within says whether something in the matched directory dir could be not
// matched.
func (p *patterns) within(dir string) bool {
	if p == nil || !p.negate {
		return false
	}
	if !p.literal {
		return true
	}
	for _, one := range p.list {
		if one.not && strings.HasPrefix(one.prefix+"/", dir+"/") {
			return true
		}
	}
	return false
}
