package overlay

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/engine/snapshot"
)

// The kernel stacks 500 directories at most, and each costs time at every
// look-up. Above maxStack layers the lowest are merged by mergeSize, always the
// same ones of a growing stack, so that a merge is made once.
const (
	maxStack  = 400
	mergeSize = 200
)

// limit returns dirs, the directories of the layers ids, bottom first, with so
// many of the lowest replaced by merged ones that there are maxStack at most.
func (s *Snapshotter) limit(ctx context.Context, ids []snapshot.ID, dirs []string) ([]string, error) {
	var merged []string
	for len(merged)+len(dirs) > maxStack {
		dir, err := s.merged(ctx, ids[:mergeSize], dirs[:mergeSize])
		if err != nil {
			return nil, err
		}
		merged = append(merged, dir)
		ids, dirs = ids[mergeSize:], dirs[mergeSize:]
	}
	return append(merged, dirs...), nil
}

// merged returns the directory of a layer that has the content of the layers
// ids, whose directories are dirs, bottom first.
func (s *Snapshotter) merged(ctx context.Context, ids []snapshot.ID, dirs []string) (string, error) {
	h := sha256.New()
	for _, id := range ids {
		fmt.Fprintln(h, id) // IDs have no newline
	}
	id := snapshot.ID("merged-" + hex.EncodeToString(h.Sum(nil)))
	dir, err := s.Dir(id)
	if !errors.Is(err, fs.ErrNotExist) {
		return dir, err
	}
	d, err := s.draft()
	if err != nil {
		return "", fmt.Errorf("merge layers: %w", err)
	}
	for _, from := range dirs {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
			break
		}
		if err = mergeDir(from, d.Dir()); err != nil {
			break
		}
	}
	if err == nil {
		err = d.Commit(ctx, id)
	}
	if err != nil {
		return "", errors.Join(fmt.Errorf("merge layers: %w", err), d.Discard())
	}
	return s.Dir(id)
}

// mergeDir puts what is in the directory from on top of what is in the
// directory to. Both are in overlay form; whiteouts are kept, because there may
// be something below the result. Files are linked, not copied. Directories of
// our own are not changed by others, and links in them are not followed.
func mergeDir(from, to string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		src, dst := filepath.Join(from, e.Name()), filepath.Join(to, e.Name())
		if e.IsDir() {
			err = mergeSubdir(src, dst)
		} else {
			err = replace(src, dst)
		}
		if err != nil {
			return err
		}
	}
	return copyAttributes(from, to)
}

func replace(src, dst string) error {
	if err := os.RemoveAll(dst); err != nil {
		return err
	}
	return os.Link(src, dst)
}

func mergeSubdir(src, dst string) error {
	opaque, err := isOpaque(src)
	if err != nil {
		return err
	}
	fi, err := os.Lstat(dst)
	exists := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// What hides what was below a layer in the stack (a file or whiteout, an
	// opaque directory) has to hide what is below the merged one.
	if exists && fi.IsDir() {
		was, err := isOpaque(dst)
		if err != nil {
			return err
		}
		exists, opaque = !opaque, opaque || was
	} else if exists {
		exists, opaque = false, true
	}
	if !exists {
		if err := os.RemoveAll(dst); err != nil {
			return err
		}
		if err := os.Mkdir(dst, 0o700); err != nil {
			return err
		}
	}
	if err := mergeDir(src, dst); err != nil {
		return err
	}
	if !opaque {
		return nil
	}
	return unix.Lsetxattr(dst, opaqueXattr, []byte("y"), 0)
}

const (
	opaqueXattr = "trusted.overlay.opaque"
	originXattr = "trusted.overlay.origin"
)

func isOpaque(dir string) (bool, error) {
	var b [1]byte
	n, err := unix.Lgetxattr(dir, opaqueXattr, b[:])
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) {
		return false, nil
	}
	return n == 1 && b[0] == 'y', err
}

// copyAttributes gives the directory to the attributes of the directory from.
func copyAttributes(from, to string) error {
	var st unix.Stat_t
	if err := unix.Lstat(from, &st); err != nil {
		return &fs.PathError{Op: "stat", Path: from, Err: err}
	}
	if err := copyXattrs(from, to); err != nil {
		return fmt.Errorf("copy xattrs of %s: %w", from, err)
	}
	if err := os.Lchown(to, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := unix.Chmod(to, st.Mode&0o7777); err != nil {
		return &fs.PathError{Op: "chmod", Path: to, Err: err}
	}
	err := unix.UtimesNanoAt(unix.AT_FDCWD, to, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return &fs.PathError{Op: "utimes", Path: to, Err: err}
	}
	return nil
}

// copyXattrs makes the xattrs of to those of from. Those of overlayfs stay:
// mergeSubdir decides whether a directory is opaque. Only that there may be
// whiteouts is passed on (see layer.Unpack): it stays true.
func copyXattrs(from, to string) error {
	old, err := xattrs(to)
	if err != nil {
		return err
	}
	next, err := xattrs(from)
	if err != nil {
		return err
	}
	for name := range old {
		if _, ok := next[name]; !ok && !strings.HasPrefix(name, "trusted.overlay.") {
			if err := unix.Lremovexattr(to, name); err != nil {
				return err
			}
		}
	}
	for name, value := range next {
		switch {
		case name == originXattr:
			value = nil
		case strings.HasPrefix(name, "trusted.overlay."):
			continue
		}
		if err := unix.Lsetxattr(to, name, value, 0); err != nil {
			return err
		}
	}
	return nil
}
