// Package snapshot keeps directory trees as layers that can be stacked, mounted
// and written to. A layer does not know what it is stacked on, so layers of an
// image can be made side by side, and one layer can serve under many parents.
// Implementations are in subpackages; snapshottest holds the suite that every
// one of them passes.
package snapshot

import (
	"context"
	"fmt"
)

// ID names a committed layer. The caller chooses it: the proved DiffID of a
// layer that was unpacked from a blob, a fresh unique name for one that a run
// made, a chain ID for one that had to be applied onto what is below it.
// IDs are made of [a-zA-Z0-9_.:-] and are at most 128 bytes long.
type ID string

// Mount says how to mount something: one file system, described as for
// mount(2). Overlay mounts list their lower directories in Lower, top first,
// because there may be more of them than fit into an option string.
type Mount struct {
	Type    string   // "overlay" or "bind"
	Source  string   // bind: the directory
	Lower   []string // overlay: lower directories, topmost first
	Upper   string   // overlay: upper directory; empty makes it read-only
	Work    string   // overlay: work directory, with Upper
	Options []string // further options, such as "ro" or "volatile"
}

// String names the mount in messages.
func (m Mount) String() string {
	switch {
	case m.Type == "bind":
		return m.Type + " of " + m.Source
	case m.Upper != "":
		return fmt.Sprintf("%s of %d directories below %s", m.Type, len(m.Lower), m.Upper)
	}
	return fmt.Sprintf("%s of %d directories", m.Type, len(m.Lower))
}

// Snapshotter stores layers. Its methods are safe for concurrent use, also by
// several processes on one directory.
type Snapshotter interface {
	// Prepare starts a new layer on top of lower, bottom first. With no lower
	// layers the new one starts empty. The error wraps fs.ErrNotExist if one of
	// them does not exist.
	Prepare(ctx context.Context, lower ...ID) (Draft, error)

	// View returns the mount that shows layers stacked, read-only. With no
	// layers it shows an empty directory.
	View(ctx context.Context, layers ...ID) (Mount, error)

	// Dir returns the directory of a committed layer, in overlayfs form
	// (whiteouts are character devices 0/0, opaque directories have the xattr).
	// It must not be written to. The error wraps fs.ErrNotExist.
	Dir(id ID) (string, error)

	// Stat reports the disk use of a committed layer. The error wraps
	// fs.ErrNotExist if there is no such layer.
	Stat(ctx context.Context, id ID) (Usage, error)

	// Remove deletes a layer. Removing one that does not exist is not an error.
	Remove(ctx context.Context, id ID) error
}

// A Draft is a layer being written. It ends with Commit or with Discard;
// Discard after Commit does nothing, so that it can be deferred. Nothing of a
// draft can be seen by others before Commit.
type Draft interface {
	// Mount returns the mount at which the draft is written, on top of the
	// layers below it.
	Mount() Mount

	// Dir returns the directory that becomes the layer, in overlayfs form. It
	// may be written to directly while Mount is not mounted.
	Dir() string

	// Commit makes the draft a layer called id. If a layer of that name exists
	// the draft is discarded: equal names mean equal content. The mount must
	// have been unmounted.
	Commit(ctx context.Context, id ID) error

	Discard() error
}

// Usage is what a layer takes on disk, not counting the layers below it.
type Usage struct{ Bytes, Inodes int64 }
