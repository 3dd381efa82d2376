// Package record is the solver's memory on disk: which layer a key stands for,
// what is known of a layer, and the digests of files selected from trees. It
// holds small files by key, each written aside and renamed, as Go's build cache
// does, so that several processes may share a directory and a kill leaves
// nothing half-written.
//
// Records are advice (INVARIANTS 11): what can't be read is not there. What
// can't be written is reported once, by Options.Warn, and forgotten.
package record

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/slipway-build/slipway/engine/graph"
	"github.com/slipway-build/slipway/engine/snapshot"
	"github.com/slipway-build/slipway/engine/solve"
	"github.com/slipway-build/slipway/engine/tree"
)

// version is part of every file. A file of another version is not there.
const version = 1

// Options configure a Store.
type Options struct {
	Dir string

	// Kept reports whether the content of a layer is still to be had: its
	// directory, or a blob of it.
	Kept func(l tree.Layer) bool

	// Warn is told of the first record that could not be written; may be nil.
	Warn func(err error)
}

// Store is a directory of records. It implements [solve.Records] and
// [tree.Infos]. Its methods are safe for concurrent use, by several processes.
type Store struct {
	opts Options
	warn sync.Once
}

// Open opens the records in opts.Dir, which is made if it does not exist.
func Open(opts Options) (*Store, error) {
	for _, kind := range []string{keys, files, layers, unfinished} {
		if err := os.MkdirAll(filepath.Join(opts.Dir, kind), 0o700); err != nil {
			return nil, fmt.Errorf("open records: %w", err)
		}
	}
	return &Store{opts: opts}, nil
}

// The kinds of record, each in a directory of its own.
const (
	keys   = "keys"
	files  = "files"
	layers = "layers"
)

// unfinished is the directory of records that are being written. Whoever knows
// that nobody is may remove them.
const unfinished = "new"

// A keyRecord says which layer a node put on its base.
type keyRecord struct {
	Version int       `json:"version"`
	Key     string    `json:"key"` // a file under another name is not this record
	Layer   string    `json:"layer"`
	Created time.Time `json:"created"`
}

// A filesRecord is the digest of a selection of files of a tree.
type filesRecord struct {
	Version int           `json:"version"`
	Tree    string        `json:"tree"`
	Select  string        `json:"select"`
	Digest  digest.Digest `json:"digest"`
}

// A layerRecord is what was learnt of a layer when it was packed.
type layerRecord struct {
	Version int        `json:"version"`
	Layer   tree.Layer `json:"info"`
}

// Layer returns the layer recorded for k.
func (s *Store) Layer(_ context.Context, k solve.Key) (tree.Layer, solve.Status) {
	var r keyRecord
	if !s.read(keys, k.Encoded(), &r) || r.Version != version || r.Key != k.String() || !snapshot.ID(r.Layer).Valid() {
		return tree.Layer{}, solve.Unknown
	}
	l := s.Info(tree.Layer{ID: snapshot.ID(r.Layer), Created: r.Created})
	if !s.opts.Kept(l) {
		return l, solve.Dropped
	}
	return l, solve.Kept
}

// SetLayer records that k stands for l.
func (s *Store) SetLayer(_ context.Context, k solve.Key, l tree.Layer) {
	s.write(keys, k.Encoded(), keyRecord{version, k.String(), string(l.ID), l.Created})
}

// Files returns the digest recorded for files of the tree with this identity.
func (s *Store) Files(_ context.Context, identity digest.Digest, sel graph.Select) (digest.Digest, bool) {
	var r filesRecord
	ok := s.read(files, fileName(identity, sel), &r) && r.Version == version &&
		r.Tree == identity.String() && r.Select == sel.Digest().String() && r.Digest.Validate() == nil
	return r.Digest, ok
}

// SetFiles records the digest of files of the tree with this identity.
func (s *Store) SetFiles(_ context.Context, identity digest.Digest, sel graph.Select, d digest.Digest) {
	s.write(files, fileName(identity, sel), filesRecord{version, identity.String(), sel.Digest().String(), d})
}

// Info returns l with what was learnt of the layer of that name: its DiffID
// and its blobs.
func (s *Store) Info(l tree.Layer) tree.Layer {
	var r layerRecord
	if s.read(layers, string(l.ID), &r) && r.Version == version && r.Layer.ID == l.ID {
		l.DiffID, l.Blobs = r.Layer.DiffID, r.Layer.Blobs
	}
	return l
}

// SetInfo records what is known of a layer.
func (s *Store) SetInfo(l tree.Layer) { s.write(layers, string(l.ID), layerRecord{version, l}) }

func fileName(identity digest.Digest, sel graph.Select) string {
	return digest.FromString(identity.String() + " " + sel.Digest().String()).Encoded()
}

// path spreads files over 256 directories, by a hash of their name.
func (s *Store) path(kind, name string) string {
	return filepath.Join(s.opts.Dir, kind, digest.FromString(name).Encoded()[:2], name)
}

func (s *Store) read(kind, name string, into any) bool {
	b, err := os.ReadFile(s.path(kind, name))
	return err == nil && json.Unmarshal(b, into) == nil
}

func (s *Store) write(kind, name string, v any) {
	if err := s.tryWrite(kind, name, v); err != nil && s.opts.Warn != nil {
		s.warn.Do(func() { s.opts.Warn(fmt.Errorf("write record: %w", err)) })
	}
}

func (s *Store) tryWrite(kind, name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	aside := filepath.Join(s.opts.Dir, unfinished)
	f, err := os.CreateTemp(aside, "")
	if errors.Is(err, fs.ErrNotExist) && os.MkdirAll(aside, 0o700) == nil {
		f, err = os.CreateTemp(aside, "")
	}
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = moveTo(s.path(kind, name), f.Name())
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// moveTo renames the file from to path, whose directory may be missing.
func moveTo(path, from string) error {
	err := os.Rename(from, path)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return os.Rename(from, path)
}

// Walk calls fn for each record: its path, size and last use. What others
// remove meanwhile is left out.
func (s *Store) Walk(fn func(path string, size int64, used time.Time) error) error {
	return filepath.WalkDir(s.opts.Dir, func(p string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || d.IsDir() {
			return err
		}
		fi, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		return fn(p, fi.Size(), fi.ModTime())
	})
}
