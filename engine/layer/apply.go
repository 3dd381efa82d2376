package layer

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/engine/inroot"
)

// A form is what a tar is turned into.
type form int

const (
	overlayForm form = iota // a layer's own directory
	onView                  // a layer on top of those below it
	archive                 // no layer: whiteouts mean nothing
)

// An applier makes the entries of one tar in a directory. Every path is
// resolved by the kernel inside root, or starts at the descriptor of a
// directory that was, and its last component is never followed.
type applier struct {
	root   *inroot.Root
	form   form
	limit  int64 // of the bytes in files
	size   int64 // of the files so far
	parent parents
	buf    []byte

	// uid and gid, if not nil, are the owner of everything.
	uid, gid *int

	// dirs are the directories that the tar has, with the times that they get
	// at the end, when nothing is made in them anymore. In overlayForm they are
	// all that there are.
	dirs  map[string]int // index of times
	times []dirTime

	// made are the names that the tar has, in form onView: whiteouts don't
	// apply to them, but to what was there before.
	made map[string]bool
}

type dirTime struct {
	name  string // empty if the directory was replaced by something else
	mtime unix.Timespec
}

// An entry is one of a tar, and where it goes.
type entry struct {
	*tar.Header
	name  string // clean, relative to the root
	dirfd int    // the directory that it is in
	base  string // its name there
	uid   int
	gid   int
	mtime unix.Timespec
}

func newApplier(root *inroot.Root, f form, limit int64) *applier {
	return &applier{
		root:   root,
		form:   f,
		limit:  limit,
		parent: parents{root: root, fds: make(map[string]int)},
		buf:    make([]byte, 128<<10),
		dirs:   map[string]int{},
		made:   map[string]bool{},
	}
}

func (a *applier) close() { a.parent.flush() }

// apply makes everything that the tar r has.
func (a *applier) apply(r io.Reader) error {
	tr := tar.NewReader(r)
	for {
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return a.setTimes()
		}
		if err != nil {
			return fmt.Errorf("read tar: %w", err)
		}
		if err := a.add(hdr, tr); err != nil {
			return fmt.Errorf("tar entry %q: %w", hdr.Name, err)
		}
	}
}

// add makes one entry; r reads its content.
func (a *applier) add(hdr *tar.Header, r io.Reader) error {
	if hdr.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	e, err := a.entry(hdr)
	if err != nil {
		return err
	}
	if e.name == "." {
		return a.addRoot(e)
	}
	if a.form != archive {
		if done, err := a.whiteoutByName(e); done || err != nil {
			return err
		}
	}
	a.parent.trim()
	if e.dirfd, err = a.dirOf(e.name); err != nil {
		return err
	}
	e.base = path.Base(e.name)
	if a.form == onView {
		a.note(e.name)
	}
	return a.create(e, r)
}

// entry checks what can be checked without the file system.
func (a *applier) entry(hdr *tar.Header) (entry, error) {
	e := entry{Header: hdr, uid: hdr.Uid, gid: hdr.Gid, mtime: timespec(hdr.ModTime)}
	var err error
	if e.name, err = cleanName(hdr.Name); err != nil {
		return e, err
	}
	if a.uid != nil {
		e.uid = *a.uid
	}
	if a.gid != nil {
		e.gid = *a.gid
	}
	// -1 would mean to the kernel that the owner is to be left as it is.
	if e.uid < 0 || e.gid < 0 || int64(e.uid) >= 1<<32-1 || int64(e.gid) >= 1<<32-1 {
		return e, fmt.Errorf("owner %d:%d is not valid", e.uid, e.gid)
	}
	return e, nil
}

// addRoot gives the root the attributes that the tar has for it. Those of a
// directory that an archive is extracted into are not the archive's business.
func (a *applier) addRoot(e entry) error {
	if a.form == archive {
		return nil
	}
	if e.Typeflag != tar.TypeDir {
		return errors.New("the root is not a directory")
	}
	e.dirfd, e.base = a.root.Fd(), "."
	if err := e.setAttributes(); err != nil {
		return err
	}
	a.noteDir(e)
	return nil
}

// dirOf returns a descriptor of the directory that name is in. It is open until
// the next call of trim.
func (a *applier) dirOf(name string) (int, error) {
	dir := path.Dir(name)
	if _, known := a.dirs[dir]; a.form == overlayForm && !known && dir != "." {
		return -1, fmt.Errorf("%s is not in the tar before it: %w", dir, ErrNeedsParents)
	}
	fd, err := a.parent.open(dir)
	if !errors.Is(err, unix.ENOENT) || a.form == overlayForm {
		return fd, err
	}
	err = a.root.MkdirAll(dir, 0o755, func(dirfd int, name string) error {
		// whatever the umask is
		if err := unix.Fchmodat(dirfd, name, 0o755, 0); err != nil || a.uid == nil && a.gid == nil {
			return err
		}
		return unix.Fchownat(dirfd, name, or0(a.uid), or0(a.gid), unix.AT_SYMLINK_NOFOLLOW)
	})
	if err != nil {
		return -1, err
	}
	return a.parent.open(dir)
}

func or0(p *int) int {
	if p == nil {
		return 0
	}
	return *p
}

// note remembers that the tar has name.
func (a *applier) note(name string) {
	for ; name != "." && !a.made[name]; name = path.Dir(name) {
		a.made[name] = true
	}
}

// noteDir remembers a directory and its time.
func (a *applier) noteDir(e entry) {
	if i, ok := a.dirs[e.name]; ok {
		a.times[i].mtime = e.mtime
		return
	}
	a.dirs[e.name] = len(a.times)
	a.times = append(a.times, dirTime{e.name, e.mtime})
}

// forget drops what was remembered of the directory name and those in it.
func (a *applier) forget(name string) {
	for dir, i := range a.dirs {
		if dir == name || strings.HasPrefix(dir, name+"/") {
			a.times[i].name = ""
			delete(a.dirs, dir)
		}
	}
}

// setTimes sets the times of directories.
func (a *applier) setTimes() error {
	for _, d := range a.times {
		if d.name == "" {
			continue
		}
		a.parent.trim()
		fd, base := a.root.Fd(), "."
		if d.name != "." {
			var err error
			if fd, err = a.parent.open(path.Dir(d.name)); err != nil {
				return fmt.Errorf("set time of %s: %w", d.name, err)
			}
			base = path.Base(d.name)
		}
		if err := setTime(fd, base, d.mtime); err != nil {
			return fmt.Errorf("set time of %s: %w", d.name, err)
		}
	}
	return nil
}

// parents keeps directories open that entries are likely to be in.
type parents struct {
	root  *inroot.Root
	fds   map[string]int
	old   []int // no longer in fds, but perhaps in use
	stale bool  // a path may lead elsewhere by now
}

const maxParents = 64

// open returns a descriptor of the directory dir that trim or flush closes.
func (p *parents) open(dir string) (int, error) {
	if dir == "." {
		return p.root.Fd(), nil
	}
	old, ok := p.fds[dir]
	if ok && !p.stale {
		return old, nil
	}
	fd, _, err := p.root.OpenDir(dir + "/x") // the directory that has x
	if err != nil {
		return -1, err
	}
	if ok {
		p.old = append(p.old, old)
	}
	p.fds[dir] = fd
	return fd, nil
}

// trim closes what is not worth keeping. No descriptor may be in use.
func (p *parents) trim() {
	if p.stale || len(p.fds) >= maxParents {
		p.flush()
	}
}

func (p *parents) flush() {
	for _, fd := range p.fds {
		_ = unix.Close(fd)
	}
	for _, fd := range p.old {
		_ = unix.Close(fd)
	}
	clear(p.fds)
	p.old, p.stale = nil, false
}
