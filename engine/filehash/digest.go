package filehash

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"maps"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/engine/graph"
)

// version is part of every digest: raising it makes all recorded ones useless.
const version = 1

// A Sum is a SHA-256 digest.
type Sum = [sha256.Size]byte

// A Digester makes the digest of what one request selects. [Files.Walk] gives
// the entries, somebody reads what is in the files; both need not happen in
// the same order or goroutine. The digest covers all that a copy keeps, except
// times (DESIGN.md, Solving), and who shows up under which name.
type Digester struct {
	mu      sync.Mutex
	h       hash.Hash
	pending []*Pending // in the order of the walk; the first one is not done
}

// NewDigester returns a Digester for what files selects.
func NewDigester(files *Files) *Digester {
	d := &Digester{h: sha256.New()}
	e := encoder{}
	e.num(version)
	e.num(uint64(len(files.Matches)))
	d.h.Write(e)
	return d
}

// Begin says that the entries of m follow.
func (d *Digester) Begin(m *Match) {
	e := encoder{'m'}
	e.str(m.Name())
	e.num(uint64(len(m.Links)))
	for _, l := range m.Links {
		e.str(l.Path)
		e.str(l.Target)
	}
	if len(m.Links) > 0 { // where they lead to
		e.str(m.Real)
	}
	d.add(&Pending{d: d, meta: e, done: true})
}

// Add adds an entry. It is complete when Done was called on the result.
func (d *Digester) Add(e *Entry) *Pending {
	b := encoder{'e'}
	b.str(e.Rel)
	b.num(uint64(e.Stat.Mode & unix.S_IFMT))
	switch {
	case e.Top:
		b = append(b, 't') // no more than that it is there
	case e.Stat.Mode&unix.S_IFMT == unix.S_IFLNK:
		b.str(e.Target)
		b.num(uint64(e.Stat.Uid), uint64(e.Stat.Gid))
	default:
		b.num(uint64(e.Stat.Mode&^unix.S_IFMT), uint64(e.Stat.Uid), uint64(e.Stat.Gid))
		if e.device() {
			b.num(uint64(unix.Major(e.Stat.Rdev)), uint64(unix.Minor(e.Stat.Rdev)))
		}
	}
	if e.Implied {
		b = append(b, 'i')
	}
	b.num(uint64(e.Same))
	p := &Pending{d: d, meta: b, top: e.Top}
	d.add(p)
	return p
}

func (d *Digester) add(p *Pending) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if p.done && len(d.pending) == 0 {
		d.h.Write(p.meta)
		return
	}
	d.pending = append(d.pending, p)
}

// Sum returns the digest. All entries must be done.
func (d *Digester) Sum() Sum {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.pending) > 0 {
		panic("filehash: Sum before all entries are done")
	}
	return Sum(d.h.Sum(nil))
}

// A Pending is an entry whose content is not known yet.
type Pending struct {
	d    *Digester
	meta encoder
	top  bool
	done bool
}

// Done completes the entry with what its file contains. It is called once.
func (p *Pending) Done(c Content) {
	if !p.top { // what a directory itself has is not copied with its contents
		p.meta.num(uint64(c.Size))
		p.meta = append(p.meta, c.Data[:]...)
		p.meta = append(p.meta, c.Xattrs[:]...)
	}
	d := p.d
	d.mu.Lock()
	defer d.mu.Unlock()
	p.done = true
	n := 0
	for n < len(d.pending) && d.pending[n].done {
		d.h.Write(d.pending[n].meta)
		d.pending[n] = nil
		n++
	}
	d.pending = d.pending[n:]
}

// Content is what a file contains, as far as it enters a digest. That of
// anything but a regular file has Xattrs only.
type Content struct {
	Size   int64 // of Data
	Data   Sum
	Xattrs Sum // zero if there are none
}

// Sums collects the digests of the requests that a selection is made of. The
// zero Sums is empty.
type Sums struct{ m map[digest.Digest]Sum }

// Set sets the digest of what r selects. It reports whether it is what was set
// for an equal request before, if there was one.
func (s *Sums) Set(r graph.Request, sum Sum) bool {
	id := requestID(r)
	old, again := s.m[id]
	if s.m == nil {
		s.m = make(map[digest.Digest]Sum)
	}
	s.m[id] = sum
	return !again || old == sum
}

// Digest returns the digest of the selection. The order of its requests makes
// no difference, nor does one that is in it twice.
func (s *Sums) Digest() digest.Digest {
	e := encoder{}
	e.num(version, uint64(len(s.m)))
	for _, id := range slices.Sorted(maps.Keys(s.m)) {
		sum := s.m[id]
		e.str(string(id))
		e = append(e, sum[:]...)
	}
	return digest.FromBytes(e)
}

func requestID(r graph.Request) digest.Digest {
	return graph.Select{Requests: []graph.Request{r}}.Digest()
}

// An encoder collects values so that different values never give the same
// bytes: strings are framed by their length, numbers have a fixed size.
type encoder []byte

func (e *encoder) num(n ...uint64) {
	for _, n := range n {
		*e = binary.LittleEndian.AppendUint64(*e, n)
	}
}

func (e *encoder) str(s string) {
	e.num(uint64(len(s)))
	*e = append(*e, s...)
}
