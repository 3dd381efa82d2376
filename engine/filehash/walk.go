package filehash

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/engine/inroot"
)

// An Entry is one file of a match. It is valid until the callback that it was
// given to returns, or, if that called Hold, until Release.
type Entry struct {
	Rel  string      // path relative to the match; empty for the match itself
	Stat unix.Stat_t // of a local context with the owner 0:0

	Target string // of a symbolic link

	// Same, if not 0, says that the file is a hard link to the one that was
	// the Same'th entry of the Files; Index is which one this is.
	Index, Same int

	// Top says that the entry is a directory of which the contents are
	// selected, not the directory itself.
	Top bool

	// Implied says that the entry is a directory that is not selected, but
	// something in it is.
	Implied bool

	dir  *dir // that it is in
	base string
}

// Path returns where in the tree the entry is.
func (e *Entry) Path() string { return path.Join(e.dir.path, e.base) }

// Hold keeps the entry valid after the callback returned.
func (e *Entry) Hold() { e.dir.hold() }

// Release ends what Hold began.
func (e *Entry) Release() { e.dir.release() }

// Type returns the S_IF constant of the entry's type.
func (e *Entry) Type() uint32 { return e.Stat.Mode & unix.S_IFMT }

// Changed says whether the file was written to, or is gone, since the walk.
func (e *Entry) Changed() bool {
	var st unix.Stat_t
	err := unix.Fstatat(e.dir.fd, e.base, &st, unix.AT_SYMLINK_NOFOLLOW)
	return err != nil || st.Dev != e.Stat.Dev || st.Ino != e.Stat.Ino || st.Size != e.Stat.Size ||
		st.Mtim != e.Stat.Mtim || st.Ctim != e.Stat.Ctim
}

func (e *Entry) device() bool { return e.Type() == unix.S_IFCHR || e.Type() == unix.S_IFBLK }

// Open opens a regular file for reading. It fails if the file isn't one by now.
func (e *Entry) Open() (fd int, err error) {
	// O_NONBLOCK: if it became a FIFO, opening it must not block.
	fd, err = openat(e.dir.fd, e.base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK)
	if err != nil {
		return -1, &fs.PathError{Op: "open", Path: e.Path(), Err: err}
	}
	return fd, nil
}

// frame is a directory being walked.
type frame struct {
	up      *frame
	entry   *Entry
	emitted bool   // entry was handed out
	dir     *dir   // open
	real    string // path in the tree without the leading slash: for ignored
	rel     string // path in the match
	depth   int

	ignored, exclude state
	all              bool // include matched it, or one above it
	selected         bool // itself
}

type walker struct {
	*Files
	ctx context.Context //nolint:containedctx // lives as long as one call of Walk
	fn  func(*Entry) error
}

// Walk calls fn for all that m comprises: a directory before what is in it,
// siblings in the order of their names. Sockets are left out.
//
// Matches must be walked in their order, each once, for Same to be right.
func (f *Files) Walk(ctx context.Context, m *Match, fn func(*Entry) error) error {
	w := &walker{f, ctx, fn}
	parent, base := inroot.Split(m.Real)
	d, err := openDir(f.view.Root, parent)
	if err != nil {
		return err
	}
	defer d.release()
	e := &Entry{dir: d, base: base, Top: m.IsDir() && (f.request.Contents || f.request.Parents)}
	if ok, err := f.stat(e); !ok || err != nil {
		return err
	}
	if e.Type() != unix.S_IFDIR {
		return w.emit(e)
	}
	sub, err := d.sub(base)
	if err != nil {
		return err
	}
	defer sub.release()
	top := &frame{entry: e, dir: sub, real: strings.TrimPrefix(m.Real, "/"), all: f.include == nil, selected: true}
	sub.path = m.Real
	var hidden bool
	if hidden, top.ignored, err = f.ignored.matchAll(top.real); err != nil {
		return err
	}
	if !hidden {
		if err := w.require(top); err != nil {
			return err
		}
	}
	return w.dir(top)
}

// dir walks what is in f.
func (w *walker) dir(f *frame) error {
	if err := context.Cause(w.ctx); err != nil {
		return err
	}
	names, err := f.dir.list()
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := w.visit(f, n); err != nil {
			return err
		}
	}
	return nil
}

// visit hands out n, which is in f, and what is in it, if they are selected.
func (w *walker) visit(f *frame, n name) error {
	if n.kind == unix.DT_SOCK {
		return nil
	}
	e := &Entry{dir: f.dir, base: n.name, Rel: join(f.rel, n.name)}
	known := n.kind == unix.DT_UNKNOWN
	if known {
		if ok, err := w.stat(e); !ok || err != nil {
			return err
		}
	}
	isDir := n.kind == unix.DT_DIR || known && e.Type() == unix.S_IFDIR
	sub, hidden, err := w.decide(f, n.name, isDir)
	if sub == nil || err != nil {
		return err
	}
	if !known { // what isn't selected need not be looked at
		if ok, err := w.stat(e); !ok || err != nil {
			return err
		}
	}
	sub.entry = e
	return w.enter(sub, hidden)
}

// decide says what becomes of name, which is in f. It returns nil if neither it
// nor anything in it is selected. hidden says that it is ignored, but maybe not
// everything in it.
func (w *walker) decide(f *frame, name string, isDir bool) (sub *frame, hidden bool, err error) {
	sub = &frame{up: f, real: join(f.real, name), rel: join(f.rel, name), depth: f.depth + 1, all: f.all}
	hidden, sub.ignored, err = w.ignored.match(sub.real, f.ignored, isDir)
	if err != nil || hidden && (!isDir || !w.ignored.within(sub.real)) {
		return nil, hidden, err
	}
	excluded, exclude, err := w.exclude.match(sub.rel, f.exclude, isDir)
	if err != nil {
		return nil, hidden, err
	}
	below := true
	if !sub.all {
		if sub.all, below, err = w.include.match(sub.rel, sub.depth); err != nil {
			return nil, hidden, err
		}
	}
	sub.exclude, sub.selected = exclude, sub.all && !excluded
	if !hidden {
		if err := w.reveal(f); err != nil {
			return nil, hidden, err
		}
	}
	if !isDir && !sub.selected || !below || excluded && !w.exclude.within(sub.rel) {
		return nil, hidden, nil
	}
	return sub, hidden, nil
}

// enter hands out the entry of f, and what is in it if it is a directory.
func (w *walker) enter(f *frame, hidden bool) error {
	if f.selected && !hidden {
		if err := w.require(f); err != nil {
			return err
		}
	}
	if f.entry.Type() != unix.S_IFDIR {
		return nil
	}
	var err error
	if f.dir, err = f.up.dir.sub(f.entry.base); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed in the meantime
		}
		return err
	}
	defer f.dir.release()
	return w.dir(f)
}

// reveal hands out the entry of f because there is something in f to be seen,
// even if it isn't selected.
func (w *walker) reveal(f *frame) error {
	for ; f != nil && !f.emitted; f = f.up {
		if f.selected {
			return w.require(f)
		}
	}
	return nil
}

// require hands out the entry of f, those that it is in first.
func (w *walker) require(f *frame) error {
	if f == nil || f.emitted {
		return nil
	}
	if err := w.require(f.up); err != nil {
		return err
	}
	f.emitted = true
	f.entry.Implied = !f.selected
	return w.emit(f.entry)
}

func (w *walker) emit(e *Entry) error {
	w.count++
	e.Index = w.count
	if e.Type() == unix.S_IFREG && e.Stat.Nlink > 1 {
		id := inode{e.Stat.Dev, e.Stat.Ino}
		if e.Same = w.inodes[id]; e.Same == 0 {
			w.inodes[id] = e.Index
		}
	}
	return w.fn(e)
}

// stat fills in what e is. It reports false if that is nothing to select: a
// socket, or something that was removed meanwhile.
func (f *Files) stat(e *Entry) (bool, error) {
	err := unix.Fstatat(e.dir.fd, e.base, &e.Stat, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, &fs.PathError{Op: "stat", Path: e.Path(), Err: err}
	}
	if f.view.Local {
		e.Stat.Uid, e.Stat.Gid = 0, 0
	}
	switch e.Type() {
	case unix.S_IFSOCK:
		return false, nil
	case unix.S_IFLNK:
		e.Target, err = inroot.ReadlinkAt(e.dir.fd, e.base)
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
	}
	return true, err
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}
