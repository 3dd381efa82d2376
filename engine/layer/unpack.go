package layer

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/engine/inroot"
)

// UnpackOptions say how to unpack a layer.
type UnpackOptions struct {
	// OnView says that the destination shows the layers below, as a draft does
	// where it is mounted: what the layer deletes is deleted there, and what it
	// refers to is found there. Otherwise the destination is an empty directory
	// that becomes the layer, in overlayfs form.
	OnView bool

	// MaxSize limits the uncompressed tar, and the files in it, in bytes. Zero
	// means the free space of the destination less 1 GiB.
	MaxSize int64
}

// Unpacked describes a layer that was unpacked.
type Unpacked struct {
	DiffID digest.Digest // of the uncompressed tar
	Size   int64         // of the uncompressed tar, in bytes
}

// Unpack unpacks the layer that r reads, a tar that may be compressed with gzip
// or zstd, into dst. It reads r to the end, because the DiffID covers what
// follows the tar too. When it fails dst is left with a part of the layer. The
// error wraps [ErrNeedsParents] if it takes UnpackOptions.OnView, on a new dst.
func Unpack(ctx context.Context, r io.Reader, dst *inroot.Root, opts UnpackOptions) (Unpacked, error) {
	limit, err := roomFor(dst, opts.MaxSize)
	if err != nil {
		return Unpacked{}, fmt.Errorf("unpack layer: %w", err)
	}
	rc, kind, err := decompress(r)
	if err != nil {
		return Unpacked{}, fmt.Errorf("unpack layer: %w", err)
	}
	defer rc.Close()
	if kind == Bzip2 || kind == Xz {
		return Unpacked{}, fmt.Errorf("unpack layer: compression %s is not for layers", kind)
	}
	s := newStream(ctx, rc, limit)
	defer s.Close()
	form := overlayForm
	if opts.OnView {
		form = onView
	}
	a := newApplier(dst, form, limit)
	defer a.close()
	if err := a.apply(s); err != nil {
		return Unpacked{}, fmt.Errorf("unpack layer: %w", err)
	}
	diffID, size, err := s.finish()
	if err != nil {
		return Unpacked{}, fmt.Errorf("unpack layer: %w", err)
	}
	return Unpacked{diffID, size}, nil
}

// roomFor returns maxSize, or what may be written to dst if it is 0.
func roomFor(dst *inroot.Root, maxSize int64) (int64, error) {
	if maxSize > 0 {
		return maxSize, nil
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(dst.Fd(), &st); err != nil {
		return 0, fmt.Errorf("find the free space: %w", err)
	}
	const spare = 1 << 30
	free := int64(st.Bavail) * st.Bsize
	if free <= spare {
		return 0, errors.New("less than 1 GiB of disk space is free")
	}
	return free - spare, nil
}
