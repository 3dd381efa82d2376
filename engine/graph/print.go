package graph

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/slipway-build/slipway/platforms"
)

// Print writes what the roots are made of as text: each node once, after those
// that it reads, with everything that belongs to its definition, its label, and
// the first digits of its [OpDigest]. Equal graphs give equal texts. It is for
// people and for golden files; nothing reads it back.
func Print(w io.Writer, roots ...*Node) error {
	p := &printer{w: bufio.NewWriter(w), numbers: make(map[*Node]int)}
	for _, root := range roots {
		p.node(root)
	}
	for _, root := range roots {
		fmt.Fprintf(p.w, "root %d\n", p.numbers[root])
	}
	return p.w.Flush()
}

// printer writes to a bufio.Writer, which keeps the first error for Flush.
type printer struct {
	w       *bufio.Writer
	numbers map[*Node]int
}

func (p *printer) node(n *Node) {
	if p.numbers[n] != 0 {
		return
	}
	for _, in := range n.Inputs {
		p.node(in.From)
	}
	p.numbers[n] = len(p.numbers) + 1
	fmt.Fprintf(p.w, "%d %s %s\n", p.numbers[n], kind(n.Op), short(OpDigest(n.Op)))
	p.text("label", n.Label)
	if n.Origin.Line > 0 {
		fmt.Fprintf(p.w, "\tat %s:%d-%d\n", n.Origin.File, n.Origin.Line, n.Origin.Last)
	}
	if n.NoCache {
		fmt.Fprintln(p.w, "\tno cache")
	}
	for i, in := range n.Inputs {
		fmt.Fprintf(p.w, "\tinput %d: node %d", i, p.numbers[in.From])
		if in.Select == nil {
			fmt.Fprintln(p.w, ", whole")
			continue
		}
		fmt.Fprintln(p.w)
		for _, r := range in.Select.Requests {
			fmt.Fprintf(p.w, "\t\t%s\n", r)
		}
	}
	switch op := n.Op.(type) {
	case Source:
		p.source(op)
	case Exec:
		p.exec(op)
	case Copy:
		p.copy(op)
	case Stack:
	}
}

func kind(op Op) string {
	switch op := op.(type) {
	case Source:
		return "source " + string(op.Kind)
	case Exec:
		return "exec"
	case Copy:
		if op.Link {
			return "copy link"
		}
		return "copy"
	case Stack:
		return "stack"
	}
	panic(fmt.Sprintf("graph: unknown op %T", op)) // the set is closed
}

func (p *printer) source(op Source) {
	p.text("name", op.Name)
	for _, l := range op.Layers {
		fmt.Fprintf(p.w, "\tlayer %s\n", short(l.DiffID))
	}
}

func (p *printer) exec(op Exec) {
	p.list("arg", op.Args)
	p.list("env", op.Env)
	p.list("proxy", op.Proxy)
	p.text("dir", op.Dir)
	p.text("user", op.User)
	fmt.Fprintf(p.w, "\tplatform %s, network %s, security %s\n", platforms.Format(op.Platform), op.Network, op.Security)
	p.text("hostname", op.Hostname)
	for _, h := range op.Hosts {
		fmt.Fprintf(p.w, "\thost %s %s\n", h.Name, h.IP)
	}
	if op.ShmSize != 0 {
		fmt.Fprintf(p.w, "\tshm %d\n", op.ShmSize)
	}
	for _, u := range op.Ulimits {
		fmt.Fprintf(p.w, "\tulimit %s=%d:%d\n", u.Name, u.Soft, u.Hard)
	}
	p.text("cgroup parent", op.CgroupParent)
	for _, m := range op.Mounts {
		fmt.Fprintf(p.w, "\tmount %s\n", m)
	}
}

func (p *printer) copy(op Copy) {
	for _, s := range op.Sources {
		switch {
		case s.Inline == nil:
			fmt.Fprintf(p.w, "\tfrom input %d: %s\n", s.Input, s.Request)
		case s.Inline.Dir:
			fmt.Fprintf(p.w, "\tdirectory %q mode %04o\n", s.Inline.Name, s.Inline.Mode)
		default:
			fmt.Fprintf(p.w, "\tfile %q mode %04o: %q\n", s.Inline.Name, s.Inline.Mode, s.Inline.Data)
		}
	}
	to := "to"
	if op.DestDir {
		to = "into"
	}
	p.text(to, op.Dest)
	if op.Owner != (Owner{}) {
		fmt.Fprintf(p.w, "\towner %s:%s, names from input %d\n", op.Owner.User, op.Owner.Group, op.Owner.Input)
	}
	p.text("mode", op.Mode)
	if op.Unpack {
		fmt.Fprintln(p.w, "\tunpack")
	}
}

func (p *printer) text(key, value string) {
	if value != "" {
		fmt.Fprintf(p.w, "\t%s %s\n", key, quote(value))
	}
}

func (p *printer) list(key string, values []string) {
	for _, v := range values {
		fmt.Fprintf(p.w, "\t%s %s\n", key, quote(v))
	}
}

// quote quotes what would not be a line of its own, or would look quoted.
func quote(s string) string {
	q := fmt.Sprintf("%q", s)
	if q[1:len(q)-1] == s && strings.TrimSpace(s) == s && s != "" {
		return s
	}
	return q
}

func short(d digest.Digest) string {
	_, hex, _ := strings.Cut(string(d), ":") // Encoded panics if there is none
	return hex[:min(12, len(hex))]
}

// String describes the request in one line.
func (r Request) String() string {
	words := []string{quote(r.Path)}
	flag := func(set bool, word string) {
		if set {
			words = append(words, word)
		}
	}
	flag(r.Wildcard, "wildcard")
	flag(r.Follow, "follow")
	flag(r.Contents, "contents")
	flag(r.Parents, "parents below "+quote(r.Pivot))
	if len(r.Exclude) > 0 {
		words = append(words, fmt.Sprintf("exclude %q", r.Exclude))
	}
	return strings.Join(words, " ")
}

// String describes the mount in one line.
func (m Mount) String() string {
	words := []string{string(m.Type), quote(m.Target)}
	flag := func(set bool, format string, args ...any) {
		if set {
			words = append(words, fmt.Sprintf(format, args...))
		}
	}
	flag(m.Input != 0, "from input %d: %s", m.Input, quote(m.Source))
	flag(m.ReadOnly, "read-only")
	flag(m.ID != "", "id %s", quote(m.ID))
	flag(m.Sharing != "", "%s", m.Sharing)
	flag(m.Size != 0, "size %d", m.Size)
	flag(m.Mode != 0, "mode %04o", m.Mode)
	flag(m.UID != 0 || m.GID != 0, "owner %d:%d", m.UID, m.GID)
	flag(m.Env != "", "env %s", quote(m.Env))
	flag(m.Required, "required")
	return strings.Join(words, " ")
}
