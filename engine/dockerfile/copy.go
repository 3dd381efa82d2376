package dockerfile

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"github.com/slipway-build/slipway/engine/diag"
	"github.com/slipway-build/slipway/engine/graph"
)

// copying is a COPY or ADD.
type copying struct {
	instructions.SourcesAndDest
	name    string // COPY or ADD
	code    string
	loc     []parser.Range
	from    *graph.Node
	local   bool // from the build context
	chown   string
	chmod   string
	link    bool
	parents bool
	unpack  bool
	exclude []string
}

// copyFiles plans a COPY.
func (s *stage) copyFiles(c *instructions.CopyCommand, from []*stage) error {
	for _, src := range c.SourcePaths {
		if isGit(src) {
			return errors.New("source can't be a git ref for COPY")
		}
		if isURL(src) {
			return diag.Hint(errors.New("source can't be a URL for COPY"), "Use ADD.")
		}
	}
	spec := copying{
		SourcesAndDest: c.SourcesAndDest,
		name:           "COPY",
		code:           c.String(),
		loc:            c.Location(),
		chown:          c.Chown,
		chmod:          c.Chmod,
		link:           c.Link,
		parents:        c.Parents,
		exclude:        c.ExcludePatterns,
	}
	if len(from) == 0 {
		spec.from, spec.local = s.t.contextNode(), true
		return s.copyAll(spec)
	}
	node, err := s.tree(from[0], c.From)
	if err != nil {
		return err
	}
	spec.from = node
	return s.copyAll(spec)
}

// addFiles plans an ADD of local files.
func (s *stage) addFiles(c *instructions.AddCommand) error {
	for _, src := range c.SourcePaths {
		if isGit(src) {
			return notSupported("ADD of a git repository")
		}
		if isURL(src) {
			return notSupported("ADD of a URL")
		}
	}
	if c.Checksum != "" {
		return errors.New("--checksum requires HTTP(S) or Git sources")
	}
	return s.copyAll(copying{
		SourcesAndDest: c.SourcesAndDest,
		name:           "ADD",
		code:           c.String(),
		loc:            c.Location(),
		from:           s.t.contextNode(),
		local:          true,
		chown:          c.Chown,
		chmod:          c.Chmod,
		link:           c.Link,
		unpack:         c.Unpack == nil || *c.Unpack,
		exclude:        c.ExcludePatterns,
	})
}

// copyAll plans what COPY and ADD have in common.
func (s *stage) copyAll(c copying) error {
	dest, err := s.absolute(c.DestPath)
	if err != nil {
		return err
	}
	op := graph.Copy{
		// As in BuildKit, --chmod makes an ordinary copy of a linked one.
		Link:    c.link && c.chmod == "",
		Dest:    dest,
		DestDir: asDirectory(c.DestPath),
		Unpack:  c.unpack,
	}
	if op.Mode, err = parseMode(c.chmod); err != nil {
		return err
	}
	if op.Owner, err = parseOwner(c.chown); err != nil {
		return fmt.Errorf("--chown=%s: %w", c.chown, err)
	}
	if op.Owner.Named() && len(c.SourcePaths) == 0 {
		op.Link = false // the names would be all that it reads: nothing to gain
	}
	var inputs []graph.Input
	if !op.Link {
		inputs = append(inputs, graph.Input{From: s.node})
	}
	var selected graph.Select
	for _, src := range c.SourcePaths {
		if c.local {
			s.checkIgnored(c.name, src)
		}
		r := request(src, c)
		if err := unixPath(src, s.platform.OS); err != nil {
			return err
		}
		op.Sources = append(op.Sources, graph.CopySource{Input: len(inputs), Request: r})
		selected.Requests = append(selected.Requests, r)
	}
	if len(selected.Requests) > 0 {
		inputs = append(inputs, graph.Input{From: c.from, Select: &selected})
	}
	for _, src := range c.SourceContents {
		name, err := inlineName(src.Path)
		if err != nil {
			return err
		}
		op.Sources = append(op.Sources, graph.CopySource{
			Inline: &graph.Inline{Name: name, Mode: 0o644, Data: []byte(src.Data)},
		})
	}
	if op.Link && op.Owner.Named() {
		// Only these two files of what is below count.
		op.Owner.Input = len(inputs)
		inputs = append(inputs, graph.Input{From: s.node, Select: accounts()})
	}
	base, text := s.node, title(s.t.lex, c.code, s.env)
	s.add(op, inputs, s.label(text, s.env), true)
	if op.Link {
		s.step--
		s.add(graph.Stack{}, []graph.Input{{From: base}, {From: s.node}}, s.label("LINK "+text, s.env), false)
	}
	s.commit(c.history()+" # buildkit", true)
	return nil
}

// history returns the instruction as history shows it.
func (c copying) history() string {
	words := []string{c.name}
	if c.parents {
		words = append(words, "--parents")
	}
	if c.chown != "" {
		words = append(words, "--chown="+c.chown)
	}
	if c.chmod != "" {
		words = append(words, "--chmod="+c.chmod)
	}
	words = append(words, c.SourcePaths...)
	for _, src := range c.SourceContents {
		words = append(words, "<<"+src.Path)
	}
	return strings.Join(append(words, c.DestPath), " ")
}

// request says which files a source means.
func request(src string, c copying) graph.Request {
	if !c.parents {
		p := path.Join("/", src)
		return graph.Request{Path: p, Wildcard: wildcard(p), Follow: true, Contents: true, Exclude: c.exclude}
	}
	pivot, rest, ok := strings.Cut(src, "/./")
	if !ok {
		pivot, rest = "/", src
	}
	pivot = path.Join("/", pivot)
	p := path.Join(pivot, path.Join("/", rest))
	return graph.Request{Path: p, Wildcard: wildcard(p), Parents: true, Pivot: pivot, Exclude: c.exclude}
}

// wildcard reports whether p is a pattern, with the escapes of filepath.Match.
func wildcard(p string) bool {
	for i := 0; i < len(p); i++ {
		switch p[i] {
		case '*', '?', '[':
			return true
		case '\\':
			i++
		}
	}
	return false
}

// accounts selects the files that names of users and groups are looked up in.
// That one is missing is not an error before a name is looked up in it.
func accounts() *graph.Select {
	return &graph.Select{Requests: []graph.Request{
		{Path: "/etc/passwd", Wildcard: true, Follow: true},
		{Path: "/etc/group", Wildcard: true, Follow: true},
	}}
}

// absolute returns a destination as seen from the working directory.
func (s *stage) absolute(dest string) (string, error) {
	if err := unixPath(dest, s.platform.OS); err != nil {
		return "", err
	}
	if path.IsAbs(dest) {
		return path.Clean(dest), nil
	}
	return path.Join("/", s.dir, dest), nil
}

// asDirectory reports whether a destination is written as a directory.
func asDirectory(dest string) bool {
	return dest == "" || dest == "." || strings.HasSuffix(dest, "/") || strings.HasSuffix(dest, "/.")
}

// unixPath refuses the paths of images for Windows that mean another thing
// there.
func unixPath(p, os string) error {
	if os == "windows" && (strings.Contains(p, `\`) || len(p) > 1 && p[1] == ':') {
		return diag.Hint(fmt.Errorf("path %q is not supported in this version", p), "Write the path with slashes and without a drive.")
	}
	return nil
}
