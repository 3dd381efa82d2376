package filehash

import (
	"fmt"
	"strings"

	"github.com/moby/patternmatcher"
)

// includes decides what a path or pattern below a pivot selects: what it
// matches and all that is in there. A nil *includes selects everything.
type includes struct {
	whole *patternmatcher.PatternMatcher

	// parts[i] matches directories that lie i+1 deep on the way; below the
	// first component with "**" anything may be on the way.
	parts []*patternmatcher.PatternMatcher
	deep  bool
}

func compileInclude(pattern string) (*includes, error) {
	if pattern == "" {
		return nil, nil
	}
	// A "!" at the beginning has no meaning here.
	quoted := pattern
	if strings.HasPrefix(quoted, "!") {
		quoted = `\` + quoted
	}
	whole, err := patternmatcher.New([]string{quoted})
	if err != nil {
		return nil, fmt.Errorf("pattern %q: %w", pattern, err)
	}
	in := &includes{whole: whole}
	parts := strings.Split(quoted, "/")
	for i, part := range parts {
		if strings.Contains(part, "**") {
			in.deep = true
			break
		}
		if i == len(parts)-1 {
			break
		}
		m, err := patternmatcher.New([]string{strings.Join(parts[:i+1], "/")})
		if err != nil {
			return nil, fmt.Errorf("pattern %q: %w", pattern, err)
		}
		in.parts = append(in.parts, m)
	}
	return in, nil
}

// match says whether the pattern matches path, which lies depth deep (1 is at
// the top) in directories that it doesn't match; and, if it doesn't, whether it
// may match something in path.
func (in *includes) match(path string, depth int) (matched, below bool, err error) {
	matched, _, err = in.whole.MatchesUsingParentResults(path, none)
	if matched || err != nil {
		return matched, matched, err
	}
	if depth > len(in.parts) {
		return false, in.deep, nil
	}
	below, _, err = in.parts[depth-1].MatchesUsingParentResults(path, none)
	return false, below, err
}
