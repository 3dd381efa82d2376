package filehash

import (
	"path"
	"strings"
	"testing"
	"time"

	"github.com/moby/patternmatcher"
)

// What is computed from directory to directory is what the library says of each
// path by itself.
func FuzzPatterns(f *testing.F) {
	f.Add("a\n!a/b\na/b/c", "a/b/c/d")
	f.Add("x*\n!xy/c\nxy", "xy/c")
	f.Add("**/*.go\n!**/keep.go\n", "a/b/keep.go")
	f.Add("docs\n!docs/**/*.md", "docs/api/x.md")
	f.Add("*\n!src", "src/a")
	f.Add("[a-c]?\\*", "ab*")
	f.Add("a/**", "a")
	f.Fuzz(func(t *testing.T, list, name string) {
		name = strings.TrimPrefix(path.Clean("/"+name), "/")
		if name == "" || strings.Count(name, "/") > 20 || len(list) > 200 || strings.ContainsAny(name, "\n\x00") {
			return
		}
		lines := strings.Split(list, "\n")
		p, err := compile(lines)
		if err != nil {
			return
		}
		// The library takes neither "/" at the beginning nor blanks after "!".
		for i, l := range lines {
			l, not := strings.CutPrefix(strings.TrimSpace(l), "!")
			lines[i] = strings.TrimLeft(strings.TrimSpace(l), "/")
			if not {
				lines[i] = "!" + lines[i]
			}
		}
		slow, err := patternmatcher.New(lines)
		if err != nil {
			return
		}
		want, err := slow.MatchesOrParentMatches(name)
		if err != nil {
			return
		}
		got, st, err := p.matchAll(name)
		if err != nil {
			t.Fatalf("%q on %q: %v", lines, name, err)
		}
		if got != want {
			t.Fatalf("%q on %q: %v, want %v", lines, name, got, want)
		}
		quick, _, err := p.match(name, nil, false)
		if full, _, _ := p.match(name, nil, true); err != nil || quick != full {
			t.Fatalf("%q on %q: %v or %v", lines, name, quick, full)
		}
		if p == nil {
			return
		}
		// What is not walked has nothing in it that is to be seen.
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			hidden, _, _ := p.matchAll(dir)
			if hidden && !p.within(dir) && !want {
				t.Fatalf("%q: %q is visible, but %q would not be walked", lines, name, dir)
			}
		}
		_ = st
	})
}

func FuzzStatCache(f *testing.F) {
	c := newStatCache("", nil)
	f.Add([]byte(statMagic))
	c.m[inode{1, 2}] = remembered{size: 3}
	c.now = fixedNow
	f.Add(c.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		c := newStatCache("", fixedNow)
		if err := c.decode(b); err != nil {
			return
		}
		if len(c.m)*recordSize > len(b) {
			t.Errorf("%d records from %d bytes", len(c.m), len(b))
		}
	})
}

func FuzzDirents(f *testing.F) {
	f.Add([]byte("\x01\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x18\x00\x08a\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, n := range parseDirents(nil, b) {
			if n.name == "" || n.name == "." || n.name == ".." || strings.Contains(n.name, "\x00") {
				t.Errorf("name %q", n.name)
			}
		}
	})
}

func fixedNow() time.Time { return time.Unix(1_800_000_000, 0) }
