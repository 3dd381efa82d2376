package tree

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/slipway-build/slipway/engine/content"
	"github.com/slipway-build/slipway/engine/inroot"
	"github.com/slipway-build/slipway/engine/layer"
	"github.com/slipway-build/slipway/engine/progress"
	"github.com/slipway-build/slipway/engine/snapshot"
)

// unpacked makes the topmost of layers a directory and returns its name. That
// is the layer's own name, or, of a layer that only makes sense on top of what
// is below it, one made of all their names (INVARIANTS 4).
func (k *Keeper) unpacked(ctx context.Context, layers []Layer) (snapshot.ID, error) {
	l, chain := layers[len(layers)-1], chainID(layers)
	id, err := k.unpacking.Do(ctx, string(chain), func() (snapshot.ID, error) {
		defer k.unpacking.Forget(string(chain)) // from now on its directory says it
		for _, id := range []snapshot.ID{l.ID, chain} {
			if _, err := k.opts.Snapshots.Dir(id); err == nil {
				return id, nil
			}
		}
		err := k.unpackAgain(ctx, l, l.ID, nil)
		if !errors.Is(err, layer.ErrNeedsParents) {
			return l.ID, err
		}
		below, err := k.dirs(ctx, Tree{Layers: layers[:len(layers)-1]})
		if err != nil {
			return "", err
		}
		return chain, k.unpackAgain(ctx, l, chain, below)
	})
	if err != nil {
		return "", fmt.Errorf("unpack layer %s: %w", shortName(l), err)
	}
	return id, nil
}

// chainID names a layer together with all that is below it.
func chainID(layers []Layer) snapshot.ID {
	var names strings.Builder
	for _, l := range layers {
		names.WriteString(string(l.ID) + "\n") // IDs have no newline
	}
	return snapshot.ID("chain-" + digest.FromString(names.String()).Encoded())
}

// unpackAgain unpacks a layer. A damaged blob is dropped, and another one, or
// the one in the registry, takes its place.
func (k *Keeper) unpackAgain(ctx context.Context, l Layer, id snapshot.ID, below []snapshot.ID) error {
	for {
		err := k.unpack(ctx, l, id, below)
		if _, ok := errors.AsType[*content.Damaged](err); !ok {
			return err
		}
	}
}

// unpack makes the directory id of l's blob, on top of below if that is set.
func (k *Keeper) unpack(ctx context.Context, l Layer, id snapshot.ID, below []snapshot.ID) error {
	desc, ok := k.source(l)
	if !ok {
		return &Lost{Layer: l.ID}
	}
	if err := k.unpackers.Acquire(ctx, 1); err != nil {
		return context.Cause(ctx)
	}
	defer k.unpackers.Release(1)
	draft, err := k.opts.Snapshots.Prepare(ctx, below...)
	if err != nil {
		return err
	}
	defer draft.Discard() //nolint:errcheck // nothing is left to be done about it
	_, serr := k.opts.Store.Stat(desc.Digest)
	diffID, err := k.unpackDraft(ctx, l, desc, draft, below != nil)
	if err == nil && diffID != l.DiffID {
		err = fmt.Errorf("content has diff ID %s, want %s", diffID, l.DiffID)
	}
	if err == nil {
		return draft.Commit(ctx, id)
	}
	if errors.Is(err, layer.ErrNeedsParents) || ctx.Err() != nil {
		return err
	}
	// Was it the layer, or our copy of its blob?
	if serr == nil && k.opts.Store.Verify(ctx, desc) != nil {
		return &content.Damaged{Digest: desc.Digest}
	}
	return err
}

func (k *Keeper) unpackDraft(ctx context.Context, l Layer, desc content.Descriptor, draft snapshot.Draft, onView bool) (digest.Digest, error) {
	root, err := openDraft(draft, onView)
	if err != nil {
		return "", err
	}
	defer root.Close()
	opts := layer.UnpackOptions{OnView: onView}
	if k.opts.Free != nil {
		if opts.MaxSize, err = k.opts.Free(); err != nil {
			return "", err
		}
	}
	r, err := k.read(ctx, l, desc)
	if err != nil {
		return "", err
	}
	defer r.Close()
	un, err := layer.Unpack(ctx, r, root, opts)
	if err != nil {
		return "", err
	}
	return un.DiffID, r.finish()
}

// openDraft opens what a layer is unpacked into: the draft's own directory, or
// with onView the draft as it shows on top of the layers below.
func openDraft(draft snapshot.Draft, onView bool) (*inroot.Root, error) {
	if !onView {
		return inroot.Open(draft.Dir())
	}
	f, err := draft.Mount().Detached()
	if err != nil {
		return nil, err
	}
	return inroot.FromFile(f), nil
}

// read opens a layer's blob. One that comes from afar is kept while it is read.
func (k *Keeper) read(ctx context.Context, l Layer, desc content.Descriptor) (*blobReader, error) {
	_, err := k.opts.Store.Stat(desc.Digest)
	local := err == nil
	rc, err := k.opts.Store.Fetch(ctx, desc)
	if err != nil {
		return nil, lostUnless(err, l)
	}
	r := &blobReader{src: rc, desc: desc}
	if local {
		return r, nil
	}
	r.step = progress.Event{
		Step: "fetch " + desc.Digest.String(), Total: desc.Size,
		Name: "fetch " + desc.Annotations[content.SourceAnnotation] + " " + shortName(l),
	}
	r.sink = k.opts.Progress
	r.emit(progress.Started, nil)
	if r.keep, err = k.opts.Store.Create(desc.Digest.Algorithm()); err != nil {
		_ = rc.Close()
		return nil, err
	}
	return r, nil
}

// shortName is how people know a layer: twelve digits of its digest.
func shortName(l Layer) string {
	if l.DiffID == "" {
		return string(l.ID)
	}
	if len(l.Blobs) > 0 {
		return l.Blobs[0].Digest.Encoded()[:12]
	}
	return l.DiffID.Encoded()[:12]
}

// A blobReader reads a blob, and writes it into the store on the way if keep
// is set.
type blobReader struct {
	src  io.ReadCloser
	keep *content.Writer
	desc content.Descriptor

	sink progress.Sink
	step progress.Event
	tick int64 // bytes at which the next event is due
}

// transferTick is how many bytes of a transfer pass between two events of it.
const transferTick = 4 << 20

func (r *blobReader) Read(p []byte) (int, error) {
	n, err := r.src.Read(p)
	if r.keep == nil {
		return n, err
	}
	if _, werr := r.keep.Write(p[:n]); werr != nil {
		return n, werr
	}
	if done := r.keep.Size(); done >= r.tick {
		r.tick = done + transferTick
		r.emit(progress.Transfer, nil)
	}
	if r.keep.Size() > r.desc.Size {
		return n, fmt.Errorf("blob %s is longer than its %d bytes", r.desc.Digest, r.desc.Size)
	}
	return n, err
}

func (r *blobReader) emit(kind progress.Kind, err error) {
	ev := r.step
	ev.Kind, ev.Err = kind, err
	if r.keep != nil {
		ev.Done = r.keep.Size()
	}
	r.sink.Emit(ev)
}

// finish reads what is left and verifies the blob that was fetched.
func (r *blobReader) finish() error {
	if r.keep == nil {
		return nil
	}
	if _, err := io.Copy(io.Discard, r); err != nil {
		return err
	}
	if got := r.keep.Digest(); got != r.desc.Digest || r.keep.Size() != r.desc.Size {
		return fmt.Errorf("blob %s: fetched %d bytes with digest %s", r.desc.Digest, r.keep.Size(), got)
	}
	if err := r.keep.Commit(); err != nil {
		return err
	}
	r.emit(progress.Finished, nil)
	r.keep = nil
	return nil
}

// Close drops what was not finished.
func (r *blobReader) Close() error {
	if r.keep != nil {
		r.keep.Discard()
		r.emit(progress.Failed, errors.New("not completed"))
	}
	return r.src.Close()
}
