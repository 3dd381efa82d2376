package export

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/engine/content"
	"github.com/slipway-build/slipway/engine/inroot"
)

// plainTar writes the files of the image as a tar archive.
type plainTar struct {
	trees
	out output
}

// Export writes the archive: owners, modes, links, devices, times and extended
// attributes as in the image, names of users left out.
func (t *plainTar) Export(ctx context.Context, a Artifact) (content.Descriptor, error) {
	if t.split != nil && !*t.split && len(a.Images) > 1 {
		return content.Descriptor{}, fmt.Errorf("platform-split=false is not supported by type=tar with %d platforms", len(a.Images))
	}
	err := t.out.write(func(w io.Writer) error {
		tw := tar.NewWriter(w)
		err := t.each(ctx, a, func(root *inroot.Root, dir string) error {
			r := &tarReceiver{trees: t.trees, w: tw, seen: map[inode]string{}}
			if dir != "" {
				r.prefix = dir + "/"
				h := &tar.Header{Typeflag: tar.TypeDir, Name: r.prefix, Mode: 0o755, ModTime: time.Unix(0, 0)}
				if t.epoch != nil {
					h.ModTime = *t.epoch
				}
				if err := tw.WriteHeader(h); err != nil {
					return err
				}
			}
			return walk(ctx, root.Fd(), "", 0, r)
		})
		if err != nil {
			return err
		}
		return tw.Close()
	})
	if err != nil {
		return content.Descriptor{}, fmt.Errorf("write %s: %w", t.out.name(), err)
	}
	return a.Root, nil
}

type tarReceiver struct {
	trees
	w      *tar.Writer
	prefix string
	seen   map[inode]string
}

func (r *tarReceiver) enter(e entry) error {
	h := &tar.Header{
		Name:    r.prefix + e.path,
		Mode:    int64(e.st.Mode & 0o7777),
		Uid:     int(e.st.Uid),
		Gid:     int(e.st.Gid),
		ModTime: r.modTime(e),
		Format:  tar.FormatPAX, // times have nanoseconds
	}
	if first, ok := r.seen[e.inode()]; ok && e.linked() {
		h.Typeflag, h.Linkname = tar.TypeLink, first
		return r.w.WriteHeader(h)
	}
	switch e.st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		h.Typeflag, h.Size = tar.TypeReg, e.st.Size
	case unix.S_IFDIR:
		h.Typeflag, h.Name = tar.TypeDir, h.Name+"/"
	case unix.S_IFLNK:
		link, err := inroot.ReadlinkAt(e.dirfd, e.name)
		if err != nil {
			return err
		}
		h.Typeflag, h.Linkname = tar.TypeSymlink, link
	case unix.S_IFCHR, unix.S_IFBLK:
		h.Typeflag = tar.TypeChar
		if e.st.Mode&unix.S_IFMT == unix.S_IFBLK {
			h.Typeflag = tar.TypeBlock
		}
		h.Devmajor, h.Devminor = int64(unix.Major(e.st.Rdev)), int64(unix.Minor(e.st.Rdev))
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	default: // sockets: they mean nothing in an archive
		return nil
	}
	attrs, err := xattrs(e)
	if err != nil {
		return err
	}
	for k, v := range attrs {
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords["SCHILY.xattr."+k] = v
	}
	if e.linked() {
		r.seen[e.inode()] = h.Name
	}
	if err := r.w.WriteHeader(h); err != nil {
		return err
	}
	if h.Typeflag != tar.TypeReg {
		return nil
	}
	f, err := openRegular(e)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.CopyN(r.w, f, h.Size); err != nil {
		return fmt.Errorf("read it: %w", err)
	}
	return nil
}

func (*tarReceiver) leave(entry) error { return nil }
