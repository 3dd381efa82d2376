package layer

import (
	"context"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/engine/inroot"
)

// ExtractOptions say how to extract an archive. The zero options take owners
// from the archive.
type ExtractOptions struct {
	// UID and GID, if not nil, own everything that the archive has, and the
	// directories that are made for it.
	UID, GID *int

	// MaxSize is as in [UnpackOptions].
	MaxSize int64
}

// Extract extracts the archive that r reads, a tar that may be compressed with
// gzip, bzip2, xz or zstd, into the directory dest of dst. It is for archives
// that are no layers, as ADD takes them: names that mean whiteouts in a layer
// mean nothing. Directories that exist stay; they get the attributes that the
// archive has for them, but for dest itself. Links are followed as if dest were
// the root of the file system, and nothing outside of it is touched.
func Extract(ctx context.Context, r io.Reader, dst *inroot.Root, dest string, opts ExtractOptions) error {
	limit, err := roomFor(dst, opts.MaxSize)
	if err != nil {
		return fmt.Errorf("extract archive: %w", err)
	}
	rc, _, err := decompress(r)
	if err != nil {
		return fmt.Errorf("extract archive: %w", err)
	}
	defer rc.Close()
	err = dst.MkdirAll(dest, 0o755, func(dirfd int, name string) error {
		// whatever the umask is
		if err := unix.Fchmodat(dirfd, name, 0o755, 0); err != nil {
			return err
		}
		return unix.Fchownat(dirfd, name, or0(opts.UID), or0(opts.GID), unix.AT_SYMLINK_NOFOLLOW)
	})
	if err != nil {
		return fmt.Errorf("extract archive: %w", err)
	}
	root, err := dst.Sub(dest)
	if err != nil {
		return fmt.Errorf("extract archive: %w", err)
	}
	defer root.Close()
	s := newStream(ctx, rc, limit)
	defer s.Close()
	a := newApplier(root, archive, limit)
	defer a.close()
	a.uid, a.gid = opts.UID, opts.GID
	if err := a.apply(s); err != nil {
		return fmt.Errorf("extract archive: %w", err)
	}
	return nil
}
