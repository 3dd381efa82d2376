package tree

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/slipway-build/slipway/engine/content"
	"github.com/slipway-build/slipway/engine/flight"
	"github.com/slipway-build/slipway/engine/inroot"
	"github.com/slipway-build/slipway/engine/progress"
	"github.com/slipway-build/slipway/engine/snapshot"
)

// Options are what a Keeper needs. Store, Snapshots and Infos must be set.
type Options struct {
	Store     *content.Store
	Snapshots snapshot.Snapshotter
	Infos     Infos
	Progress  progress.Sink // may be nil

	// Free returns how many bytes an unpacked layer may take; nil is no limit.
	Free func() (int64, error)

	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Infos remembers what is learnt of layers: their DiffIDs and blobs.
type Infos interface {
	Info(l Layer) Layer
	SetInfo(l Layer)
}

// How many layers are fetched and unpacked, and how many packed, at once. Both
// keep more than one CPU busy by themselves.
const (
	unpackers = 4
	packers   = 2
)

// Keeper makes trees real: it fetches and unpacks layers, stacks them for
// reading and writing, and packs them into blobs. Its methods are safe for
// concurrent use.
type Keeper struct {
	opts      Options
	unpackers *semaphore.Weighted
	packers   *semaphore.Weighted
	unpacking flight.Group[string, snapshot.ID]
	packing   flight.Group[string, Layer]

	mu     sync.Mutex
	locals map[string]Local
	lost   map[snapshot.ID]bool
	kept   map[snapshot.ID]bool
}

// Local is a directory of the host that a build reads.
type Local struct {
	Dir     string
	Ignored []string // patterns of .dockerignore
}

// NewKeeper returns a Keeper.
func NewKeeper(opts Options) *Keeper {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	return &Keeper{
		opts:      opts,
		unpackers: semaphore.NewWeighted(unpackers),
		packers:   semaphore.NewWeighted(packers),
		locals:    make(map[string]Local),
		lost:      make(map[snapshot.ID]bool),
		kept:      make(map[snapshot.ID]bool),
	}
}

// Lost says that a layer that was recorded is not to be had: neither its
// directory nor a blob of it. Whoever made it can make it again.
type Lost struct {
	Layer snapshot.ID
	Err   error // why, if reading it was tried
}

func (e *Lost) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("layer %s is lost: %v", e.Layer, e.Err)
	}
	return fmt.Sprintf("layer %s is lost", e.Layer)
}

func (e *Lost) Unwrap() error { return e.Err }

// AddLocal makes trees that are Local under this name show l.
func (k *Keeper) AddLocal(name string, l Local) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.locals[name] = l
}

// Lose makes a layer count as not kept for the rest of this Keeper's life.
func (k *Keeper) Lose(id snapshot.ID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.lost[id] = true
}

// Kept reports whether the content of a layer is to be had, as far as can be
// told without asking anybody: a directory, a blob, or a registry to fetch from.
func (k *Keeper) Kept(l Layer) bool {
	k.mu.Lock()
	lost, kept := k.lost[l.ID], k.kept[l.ID]
	k.mu.Unlock()
	if lost || kept {
		return kept && !lost
	}
	_, err := k.opts.Snapshots.Dir(l.ID)
	_, ok := k.source(l)
	if err != nil && !ok {
		return false
	}
	k.mu.Lock()
	k.kept[l.ID] = true
	k.mu.Unlock()
	return true
}

// source returns the blob to unpack a layer from: one that the store has, else
// one that says where it is.
func (k *Keeper) source(l Layer) (content.Descriptor, bool) {
	for _, b := range l.Blobs {
		if _, err := k.opts.Store.Stat(b.Digest); err == nil {
			return b, true
		}
	}
	for _, b := range l.Blobs {
		if b.Annotations[content.SourceAnnotation] != "" {
			return b, true
		}
	}
	return content.Descriptor{}, false
}

// Prepare makes sure that each layer of t is a directory. Layers are fetched
// and unpacked side by side. The error is a [*Lost] if one is not to be had.
func (k *Keeper) Prepare(ctx context.Context, t Tree) error {
	_, err := k.dirs(ctx, t)
	return err
}

// dirs makes the layers of t real and returns the names of their directories.
func (k *Keeper) dirs(ctx context.Context, t Tree) ([]snapshot.ID, error) {
	ids := make([]snapshot.ID, len(t.Layers))
	g, gctx := errgroup.WithContext(ctx)
	for i, l := range t.Layers {
		if _, err := k.opts.Snapshots.Dir(l.ID); err == nil {
			ids[i] = l.ID
			continue
		}
		g.Go(func() (err error) {
			ids[i], err = k.unpacked(gctx, t.Layers[:i+1])
			return err
		})
	}
	return ids, g.Wait()
}

// Draft starts a layer on top of base.
func (k *Keeper) Draft(ctx context.Context, base Tree) (snapshot.Draft, error) {
	ids, err := k.dirs(ctx, base)
	if err != nil {
		return nil, err
	}
	return k.opts.Snapshots.Prepare(ctx, ids...)
}

// Commit makes a layer of a draft, under a fresh name.
func (k *Keeper) Commit(ctx context.Context, d snapshot.Draft) (Layer, error) {
	l := Layer{ID: freshID(), Created: k.opts.Now().UTC()}
	if err := d.Commit(ctx, l.ID); err != nil {
		return Layer{}, fmt.Errorf("commit layer: %w", err)
	}
	return l, nil
}

func freshID() snapshot.ID {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails, says its documentation
	return snapshot.ID("run-" + hex.EncodeToString(b[:]))
}

// Mount returns the mount that shows t, read-only.
func (k *Keeper) Mount(ctx context.Context, t Tree) (snapshot.Mount, error) {
	ids, err := k.dirs(ctx, t)
	if err != nil {
		return snapshot.Mount{}, err
	}
	return k.opts.Snapshots.View(ctx, ids...)
}

// View returns the files of t.
func (k *Keeper) View(ctx context.Context, t Tree) (View, error) {
	if t.Local != "" {
		k.mu.Lock()
		l, ok := k.locals[t.Local]
		k.mu.Unlock()
		if !ok {
			return View{}, fmt.Errorf("open %s: %w", t.Local, fs.ErrNotExist)
		}
		root, err := inroot.Open(l.Dir)
		return View{Root: root, Local: true, Ignored: l.Ignored}, err
	}
	m, err := k.Mount(ctx, t)
	if err != nil {
		return View{}, err
	}
	f, err := m.Detached()
	if err != nil {
		return View{}, err
	}
	return View{Root: inroot.FromFile(f)}, nil
}

// lostUnless makes an error that says that something does not exist a [*Lost].
func lostUnless(err error, l Layer) error {
	if errors.Is(err, fs.ErrNotExist) {
		return &Lost{Layer: l.ID, Err: err}
	}
	return err
}

var _ Viewer = (*Keeper)(nil)
