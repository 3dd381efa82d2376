package filehash

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/engine/graph"
	"github.com/slipway-build/slipway/engine/inroot"
	"github.com/slipway-build/slipway/engine/tree"
)

// Files is what a request selects of a tree.
type Files struct {
	// Matches are the files and directories that the request names, in order.
	// With Parents they are the directories that paths are relative to.
	Matches []*Match

	view    tree.View
	request graph.Request
	ignored *patterns
	exclude *patterns
	include *includes // with Parents
	inodes  map[inode]int
	count   int // of entries
}

// A Match is one file or directory that a request names.
type Match struct {
	Path  string        // what the request calls it: absolute and clean
	Real  string        // where it is; without symbolic links before its last component
	Links []inroot.Link // that led from Path to Real
	Stat  unix.Stat_t   // of Real
}

// Name returns the match's own name, as a copy of it is called in a directory.
func (m *Match) Name() string { return path.Base(m.Path) }

// IsDir says whether the match is a directory.
func (m *Match) IsDir() bool { return m.Stat.Mode&unix.S_IFMT == unix.S_IFDIR }

type inode struct{ dev, ino uint64 }

// Resolve finds what r names in v. It is what both hashing and copying begin
// with, and [Files.Walk] is how both continue, so that what is hashed is what
// is copied (INVARIANTS 5).
//
// Without r.Wildcard the path must exist: else the error wraps fs.ErrNotExist
// and reads `"/x": not found`, as BuildKit's. With it there may be nothing, even
// if the path has no wildcards; what it matches is in the order of its names. As in BuildKit a pattern does not
// lead through symbolic links after its first component that has a wildcard,
// nor does what is below Pivot.
func Resolve(ctx context.Context, v tree.View, r graph.Request) (*Files, error) {
	f := &Files{view: v, request: r, inodes: make(map[inode]int)}
	var err error
	if v.Local {
		if f.ignored, err = compile(v.Ignored); err != nil {
			return nil, fmt.Errorf(".dockerignore: %w", err)
		}
	}
	if f.exclude, err = compile(r.Exclude); err != nil {
		return nil, fmt.Errorf("exclude: %w", err)
	}
	if r.Parents {
		return f, f.parents(ctx)
	}
	return f, f.find(ctx, path.Clean("/"+r.Path), r.Follow)
}

// find adds what name, a path or a pattern, means.
func (f *Files) find(ctx context.Context, name string, follow bool) error {
	if !f.request.Wildcard {
		return f.add(ctx, name, follow, true)
	}
	if !hasWildcard(name) {
		err := f.add(ctx, name, follow, false)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	prefix, pattern := splitPattern(name)
	if err := checkPattern(pattern); err != nil {
		return err
	}
	at, err := f.view.Root.Resolve(prefix, true)
	if errors.Is(err, unix.ENOTDIR) || err == nil && !at.Exists {
		return nil
	}
	if err != nil {
		return err
	}
	return f.expand(ctx, prefix, at.Path, pattern, follow)
}

// expand adds what pattern, a list of components, matches in the directory
// dir, which the request calls name.
func (f *Files) expand(ctx context.Context, name, dir string, pattern []string, follow bool) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	d, err := openDir(f.view.Root, dir)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) || errors.Is(err, fs.ErrNotExist) {
		return nil // a link, or not a directory
	}
	if err != nil {
		return err
	}
	names, err := d.list()
	d.release()
	if err != nil {
		return err
	}
	for _, n := range names {
		if ok, _ := filepath.Match(pattern[0], n.name); !ok { // it was checked
			continue
		}
		at := path.Join(name, n.name)
		if len(pattern) > 1 {
			if err := f.expand(ctx, at, path.Join(dir, n.name), pattern[1:], follow); err != nil {
				return err
			}
			continue
		}
		if err := f.add(ctx, at, follow, false); err != nil {
			return err
		}
	}
	return nil
}

// add adds what name leads to. It must exist if it is required, or if it is a
// link to follow, as in BuildKit.
func (f *Files) add(ctx context.Context, name string, follow, required bool) error {
	at, err := f.view.Root.Resolve(name, follow)
	if errors.Is(err, unix.ENOTDIR) || err == nil && !at.Exists {
		if f.request.Parents && !required {
			return nil
		}
		return &notFoundError{path: name}
	}
	if err != nil {
		return err
	}
	m := &Match{Path: name, Real: at.Path, Links: at.Links, Stat: at.Stat}
	hidden, err := f.hidden(ctx, m)
	if err != nil {
		return err
	}
	if !hidden && f.request.Exclude != nil && !m.IsDir() && !f.request.Parents {
		// The documentation of --exclude says that it applies to these too.
		excluded, _, err := f.exclude.matchAll(m.Name())
		if excluded || err != nil {
			return err
		}
	}
	switch {
	case !hidden && (m.IsDir() || !f.request.Parents): // what paths are relative to is a directory
		f.Matches = append(f.Matches, m)
	case !hidden:
	case required:
		return &notFoundError{path: name, ignored: true}
	}
	return nil
}

// hidden says whether m can't be seen because of .dockerignore.
func (f *Files) hidden(ctx context.Context, m *Match) (bool, error) {
	if f.ignored == nil {
		return false, nil
	}
	for _, l := range m.Links {
		hidden, _, err := f.ignored.matchAll(strings.TrimPrefix(l.Path, "/"))
		if hidden || err != nil {
			return hidden, err
		}
	}
	rel := strings.TrimPrefix(m.Real, "/")
	hidden, _, err := f.ignored.matchAll(rel)
	if !hidden || err != nil || !m.IsDir() || !f.ignored.within(rel) {
		return hidden, err
	}
	// It is there if something in it is.
	errSeen := errors.New("seen")
	only := &Files{view: f.view, ignored: f.ignored, inodes: make(map[inode]int)}
	err = only.Walk(ctx, m, func(*Entry) error { return errSeen })
	if errors.Is(err, errSeen) {
		return false, nil
	}
	return true, err
}

// parents resolves a request with Parents.
func (f *Files) parents(ctx context.Context) error {
	r := f.request
	pivot := path.Clean("/" + r.Pivot)
	rel, ok := strings.CutPrefix(strings.TrimSuffix(path.Clean("/"+r.Path), "/")+"/", strings.TrimSuffix(pivot, "/")+"/")
	if !ok {
		return fmt.Errorf("%q is not below %q", r.Path, r.Pivot)
	}
	rel = strings.TrimSuffix(rel, "/")
	var err error
	if f.include, err = compileInclude(rel); err != nil {
		return err
	}
	if err := f.find(ctx, pivot, true); err != nil {
		return err
	}
	if r.Wildcard || rel == "" {
		return nil
	}
	// A literal: it must be there, found without following links.
	name := path.Clean("/" + r.Path)
	errSeen := errors.New("seen")
	only := &Files{view: f.view, request: graph.Request{Parents: true}, ignored: f.ignored, include: f.include, inodes: make(map[inode]int)}
	for _, m := range f.Matches {
		err := only.Walk(ctx, m, func(e *Entry) error {
			if e.Top || e.Implied {
				return nil
			}
			return errSeen
		})
		if errors.Is(err, errSeen) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	at, err := f.view.Root.Resolve(name, false)
	return &notFoundError{path: name, ignored: err == nil && at.Exists && f.ignored != nil}
}

// notFoundError is the error for a path that must exist.
type notFoundError struct {
	path    string
	ignored bool
}

func (e *notFoundError) Error() string {
	if e.ignored {
		return fmt.Sprintf("%q: not found: it is excluded by .dockerignore", e.path)
	}
	return fmt.Sprintf("%q: not found", e.path)
}

func (*notFoundError) Unwrap() error { return fs.ErrNotExist }

// hasWildcard says whether s has a wildcard; a backslash takes the meaning of
// what follows it.
func hasWildcard(s string) bool {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '*', '?', '[':
			return true
		}
	}
	return false
}

// splitPattern cuts name before its first component with a wildcard.
func splitPattern(name string) (prefix string, pattern []string) {
	parts := strings.Split(strings.TrimPrefix(name, "/"), "/")
	for i, part := range parts {
		if hasWildcard(part) {
			return "/" + path.Join(parts[:i]...), parts[i:]
		}
	}
	return name, nil
}

func checkPattern(parts []string) error {
	for _, p := range parts {
		if _, err := filepath.Match(p, ""); err != nil {
			return fmt.Errorf("pattern %q: %w", p, err)
		}
	}
	return nil
}
