package graph

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"

	"github.com/opencontainers/go-digest"
)

// digestVersion is part of every digest of a definition. Raising it empties
// every cache in the world: do it when the meaning of an op changes and its
// fields do not.
const digestVersion = 1

// OpDigest identifies what an op does, apart from what it is applied to: equal
// digests mean that one result may stand in for the other. It leaves out what
// can't change the result or must not be in a key: names of images, addresses
// of extra hosts, proxy variables, cgroups (INVARIANTS 6).
//
// The encoding is length-framed bytes: no two definitions look alike.
func OpDigest(op Op) digest.Digest {
	switch op := op.(type) {
	case Source:
		return sourceDigest(op)
	case Exec:
		return execDigest(op)
	case Copy:
		return copyDigest(op)
	case Stack:
		return newEncoder("stack").sum()
	}
	panic(fmt.Sprintf("graph: unknown op %T", op)) // the set is closed
}

func sourceDigest(op Source) digest.Digest {
	e := newEncoder("source")
	e.str(string(op.Kind))
	if op.Kind == Local {
		e.str(op.Name)
	}
	e.num(int64(len(op.Layers)))
	for _, l := range op.Layers {
		e.str(string(l.DiffID))
	}
	return e.sum()
}

func execDigest(op Exec) digest.Digest {
	e := newEncoder("exec")
	e.strs(op.Args)
	e.strs(op.Env)
	e.str(op.Dir)
	e.str(op.User)
	e.str(op.Platform.OS)
	e.str(op.Platform.Architecture)
	e.str(op.Platform.Variant)
	e.str(op.Platform.OSVersion)
	e.strs(op.Platform.OSFeatures)
	e.num(int64(len(op.Mounts)))
	for _, m := range op.Mounts {
		e.str(string(m.Type))
		e.str(m.Target)
		e.num(int64(m.Input))
		e.str(m.Source)
		e.bool(m.ReadOnly)
		e.str(m.ID)
		e.str(string(m.Sharing))
		e.num(m.Size)
		e.num(int64(m.Mode))
		e.num(int64(m.UID))
		e.num(int64(m.GID))
		e.str(m.Env)
		e.bool(m.Required)
	}
	e.str(string(op.Network))
	e.str(string(op.Security))
	e.str(op.Hostname)
	e.num(int64(len(op.Hosts)))
	for _, h := range op.Hosts {
		e.str(h.Name)
	}
	e.num(op.ShmSize)
	e.num(int64(len(op.Ulimits)))
	for _, u := range op.Ulimits {
		e.str(u.Name)
		e.num(u.Soft)
		e.num(u.Hard)
	}
	return e.sum()
}

func copyDigest(op Copy) digest.Digest {
	e := newEncoder("copy")
	e.bool(op.Link)
	e.num(int64(len(op.Sources)))
	for _, s := range op.Sources {
		e.bool(s.Inline != nil)
		if s.Inline != nil {
			e.str(s.Inline.Name)
			e.bool(s.Inline.Dir)
			e.num(int64(s.Inline.Mode))
			e.str(string(s.Inline.Data))
			continue
		}
		e.num(int64(s.Input))
		s.Request.encode(e)
	}
	e.str(op.Dest)
	e.bool(op.DestDir)
	e.str(op.Owner.User)
	e.str(op.Owner.Group)
	e.num(int64(op.Owner.Input))
	e.str(op.Mode)
	e.bool(op.Unpack)
	return e.sum()
}

// Digest identifies what is selected, whatever it is selected from.
func (s Select) Digest() digest.Digest {
	e := newEncoder("select")
	e.num(int64(len(s.Requests)))
	for _, r := range s.Requests {
		r.encode(e)
	}
	return e.sum()
}

func (r Request) encode(e *encoder) {
	e.str(r.Path)
	e.bool(r.Wildcard)
	e.bool(r.Follow)
	e.bool(r.Contents)
	e.bool(r.Parents)
	e.str(r.Pivot)
	e.strs(r.Exclude)
}

// encoder hashes a sequence of values so that different sequences never give
// the same bytes: strings are framed by their length, numbers have a fixed size.
type encoder struct{ h hash.Hash }

func newEncoder(kind string) *encoder {
	e := &encoder{sha256.New()}
	e.num(digestVersion)
	e.str(kind)
	return e
}

func (e *encoder) num(n int64) { _ = binary.Write(e.h, binary.LittleEndian, n) } // hashes don't fail

func (e *encoder) str(s string) {
	e.num(int64(len(s)))
	e.h.Write([]byte(s))
}

func (e *encoder) strs(s []string) {
	e.num(int64(len(s)))
	for _, s := range s {
		e.str(s)
	}
}

func (e *encoder) bool(b bool) {
	if b {
		e.num(1)
	} else {
		e.num(0)
	}
}

func (e *encoder) sum() digest.Digest { return digest.NewDigest(digest.SHA256, e.h) }
