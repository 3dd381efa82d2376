package layer

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/engine/inroot"
)

// WriteOptions say how to write a layer's tar.
type WriteOptions struct {
	// Epoch, if not nil, is the latest time that a file has in the tar: later
	// ones are replaced by it (SOURCE_DATE_EPOCH).
	Epoch *time.Time
}

// Write writes the layer whose directory, in overlayfs form, is dir as a tar.
// The same directory always gives the same bytes: entries are sorted, there are
// no names of users and no other times than that of modification. As in the
// tars of BuildKit there is no entry for the root, every entry comes after the
// directories that lead to it, and sockets are left out. Other than there, times
// are not cut to seconds, and all xattrs that belong to the files are kept.
//
// A file whose name would be taken for a whiteout is an error. Nothing may
// change the directory meanwhile.
func Write(ctx context.Context, w io.Writer, dir string, opts WriteOptions) error {
	bw := bufio.NewWriterSize(w, 64<<10)
	lw := &layerWriter{
		ctx:   ctx,
		tw:    tar.NewWriter(bw),
		epoch: opts.Epoch,
		links: make(map[inode]string),
		buf:   make([]byte, 128<<10),
	}
	err := lw.dir(unix.AT_FDCWD, dir, "")
	if err == nil {
		err = lw.tw.Close()
	}
	if err == nil {
		err = bw.Flush()
	}
	if err != nil {
		return fmt.Errorf("write layer: %w", err)
	}
	return nil
}

type inode struct{ dev, ino uint64 }

type layerWriter struct {
	ctx   context.Context //nolint:containedctx // lives as long as one Write
	tw    *tar.Writer
	epoch *time.Time
	links map[inode]string // first names of files that have several
	buf   []byte
}

// dir writes what is in the directory base of dirfd. Its name in the tar is
// prefix, which ends with a slash unless it is the root.
func (w *layerWriter) dir(dirfd int, base, prefix string) error {
	return eachName(dirfd, base, func(fd int, name string) error {
		if w.ctx.Err() != nil {
			return context.Cause(w.ctx)
		}
		if strings.HasPrefix(name, whiteoutPrefix) {
			return fmt.Errorf("%s: the name would delete a file of the layers below", prefix+name)
		}
		if err := w.entry(fd, name, prefix); err != nil {
			return err
		}
		return nil
	})
}

func (w *layerWriter) entry(dirfd int, base, prefix string) error {
	name := prefix + base
	var st unix.Stat_t
	if err := unix.Fstatat(dirfd, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("stat %s: %w", name, err)
	}
	if isWhiteout(&st) {
		return w.marker(prefix + whiteoutPrefix + base)
	}
	hdr, err := w.header(dirfd, base, name, &st)
	if err != nil || hdr == nil {
		return err
	}
	if err := w.tw.WriteHeader(hdr); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	switch hdr.Typeflag {
	case tar.TypeReg:
		return w.content(dirfd, base, name, hdr.Size)
	case tar.TypeDir:
		opaque, err := opaqueAt(dirfd, base)
		if err == nil && opaque {
			err = w.marker(hdr.Name + opaqueMarker)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return w.dir(dirfd, base, hdr.Name)
	}
	return nil
}

// marker writes an empty file that stands for a deletion. When that happened
// is not known.
func (w *layerWriter) marker(name string) error {
	hdr := &tar.Header{Format: tar.FormatPAX, Typeflag: tar.TypeReg, Name: name, ModTime: time.Unix(0, 0)}
	if err := w.tw.WriteHeader(hdr); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// header returns the header of a file, nil if the file is left out.
func (w *layerWriter) header(dirfd int, base, name string, st *unix.Stat_t) (*tar.Header, error) {
	hdr := &tar.Header{
		Format:  tar.FormatPAX, // makes records only of what ustar has no room for
		Name:    name,
		Mode:    int64(st.Mode & 0o7777),
		Uid:     int(st.Uid),
		Gid:     int(st.Gid),
		ModTime: time.Unix(st.Mtim.Sec, st.Mtim.Nsec),
	}
	if w.epoch != nil && hdr.ModTime.After(*w.epoch) {
		hdr.ModTime = *w.epoch
	}
	var err error
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		hdr.Typeflag, hdr.Size = tar.TypeReg, st.Size
	case unix.S_IFDIR:
		hdr.Typeflag, hdr.Name = tar.TypeDir, name+"/"
	case unix.S_IFLNK:
		hdr.Typeflag = tar.TypeSymlink
		hdr.Linkname, err = inroot.ReadlinkAt(dirfd, base)
	case unix.S_IFCHR:
		hdr.Typeflag = tar.TypeChar
	case unix.S_IFBLK:
		hdr.Typeflag = tar.TypeBlock
	case unix.S_IFIFO:
		hdr.Typeflag = tar.TypeFifo
	case unix.S_IFSOCK:
		return nil, nil
	default:
		err = fmt.Errorf("file type %o is not supported", st.Mode&unix.S_IFMT)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if hdr.Typeflag == tar.TypeChar || hdr.Typeflag == tar.TypeBlock {
		hdr.Devmajor, hdr.Devminor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	}
	if st.Nlink > 1 && hdr.Typeflag != tar.TypeDir {
		i := inode{st.Dev, st.Ino}
		if first, ok := w.links[i]; ok {
			hdr.Typeflag, hdr.Linkname, hdr.Size = tar.TypeLink, first, 0
			hdr.Devmajor, hdr.Devminor = 0, 0
			return hdr, nil
		}
		w.links[i] = name
	}
	attrs, err := xattrsAt(dirfd, base)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	for attr, value := range attrs {
		if hdr.PAXRecords == nil {
			hdr.PAXRecords = make(map[string]string)
		}
		hdr.PAXRecords[paxXattr+attr] = value
	}
	return hdr, nil
}

// content writes the size bytes of a regular file.
func (w *layerWriter) content(dirfd int, base, name string, size int64) error {
	if size == 0 {
		return nil
	}
	fd, err := openFile(dirfd, base)
	if err != nil {
		return fmt.Errorf("open %s: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	for size > 0 {
		if w.ctx.Err() != nil {
			return context.Cause(w.ctx)
		}
		n, err := f.Read(w.buf[:min(size, int64(len(w.buf)))])
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		if _, err := w.tw.Write(w.buf[:n]); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		size -= int64(n)
	}
	return nil
}
