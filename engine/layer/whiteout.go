package layer

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// Whiteouts and opaque markers say what is gone of the layers below, wherever
// in the tar they are: they never apply to what the same layer has.

// whiteoutByName handles an entry that is a whiteout because of its name.
func (a *applier) whiteoutByName(e entry) (done bool, err error) {
	dir, base := path.Split(e.name)
	for part := range strings.SplitSeq(e.name, "/") {
		if strings.HasPrefix(part, whiteoutMetaPrefix) && part != opaqueMarker {
			return true, nil
		}
	}
	for part := range strings.SplitSeq(strings.TrimSuffix(dir, "/"), "/") {
		if strings.HasPrefix(part, whiteoutPrefix) {
			return true, errors.New("a whiteout is not a directory")
		}
	}
	target, ok := strings.CutPrefix(base, whiteoutPrefix)
	if !ok {
		return false, nil
	}
	a.parent.trim()
	dirfd, err := a.dirOf(e.name)
	if err != nil {
		return true, err
	}
	if base == opaqueMarker {
		return true, a.opaque(dirfd, path.Clean(dir))
	}
	if target == "" || target == "." || target == ".." {
		return true, fmt.Errorf("whiteout of %q is not valid", target)
	}
	return true, a.whiteout(dirfd, path.Join(dir, target))
}

// whiteout hides name, an entry of dirfd, of the layers below.
func (a *applier) whiteout(dirfd int, name string) error {
	base := path.Base(name)
	if a.form == onView && !a.made[name] {
		return a.remove(dirfd, name)
	}
	err := error(unix.EEXIST)
	if a.form == overlayForm {
		err = makeWhiteout(dirfd, base)
	}
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	// A file of this layer hides what is below anyway, a directory does not.
	var st unix.Stat_t
	if err := unix.Fstatat(dirfd, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return nil
	case a.form == onView:
		return a.clearDir(dirfd, base, name)
	}
	return setOpaque(dirfd, base)
}

// makeWhiteout makes what overlayfs takes for a deletion of base. It also marks
// the directory as if it had been copied up. Only in such directories, and where
// several are merged, does the kernel leave whiteouts out when it lists them.
func makeWhiteout(dirfd int, base string) error {
	if err := unix.Mknodat(dirfd, base, unix.S_IFCHR, 0); err != nil {
		return err
	}
	if err := unix.Lsetxattr(at(dirfd, "."), originXattr, nil, 0); err != nil {
		return fmt.Errorf("set xattr %s: %w", originXattr, err)
	}
	return nil
}

// opaque hides what the layers below have in the directory dir, which is dirfd.
func (a *applier) opaque(dirfd int, dir string) error {
	if a.form == onView {
		return a.clearDir(dirfd, ".", dir)
	}
	if dir == "." {
		// overlayfs takes no notice at the root of a layer.
		return fmt.Errorf("root is opaque: %w", ErrNeedsParents)
	}
	return setOpaque(dirfd, ".")
}

// clearDir deletes what is in the directory base of dirfd and is not of this
// layer. In the tar it is called dir.
func (a *applier) clearDir(dirfd int, base, dir string) error {
	return eachName(dirfd, base, func(fd int, name string) error {
		full := path.Join(dir, name)
		if !a.made[full] {
			return a.remove(fd, full)
		}
		var st unix.Stat_t
		if err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			return nil
		}
		return a.clearDir(fd, name, full)
	})
}

func setOpaque(dirfd int, base string) error {
	if err := unix.Lsetxattr(at(dirfd, base), opaqueXattr, []byte("y"), 0); err != nil {
		return fmt.Errorf("set xattr %s: %w", opaqueXattr, err)
	}
	return nil
}
