package run

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/engine/filehash"
	"github.com/slipway-build/slipway/engine/graph"
	"github.com/slipway-build/slipway/engine/inroot"
	"github.com/slipway-build/slipway/engine/solve"
	"github.com/slipway-build/slipway/engine/tree"
)

// copyFiles writes the files of op into dst, which shows the base, or is an
// empty directory with Link. in and reads are the node's inputs; the view of an
// input that nothing is read from by name may be zero. Names of op.Owner are
// those of dst if they are the base's and there is no view of it.
//
// Where files end up, with which owner, mode and time, is as with BuildKit's
// COPY and ADD: what is copied from a stage keeps its owner unless op.Owner
// says otherwise, what comes from a local context belongs to 0:0; a directory
// that is there already stays as it is if contents are copied into it, while
// directories further down get the metadata of those that are merged into them.
// Directories that have to be made get op.Owner, an octal op.Mode and the time
// now.
//
// What is written of a local context is digested on the way. If the digest is
// not that of reads, the error wraps solve.ErrChanged (INVARIANTS 7).
func copyFiles(ctx context.Context, op graph.Copy, dst *inroot.Root, in []tree.View, reads []solve.Read, now func() time.Time) error {
	mode, err := parseChmod(op.Mode)
	if err != nil {
		return err
	}
	owner, err := copyOwner(op, dst, in)
	if err != nil {
		return fmt.Errorf("chown: %w", err)
	}
	c := &copier{dst: dst, owner: owner, mode: mode, now: now(), times: make(map[string]unix.Timespec), sums: make(map[int]*inputSums)}
	for _, src := range op.Sources {
		if src.Inline != nil {
			err = c.inline(op, *src.Inline)
		} else {
			err = c.source(ctx, op, src, in[src.Input], reads[src.Input])
		}
		if err != nil {
			return err
		}
	}
	if err := c.finish(); err != nil {
		return err
	}
	for i, s := range c.sums {
		if err := s.verify(reads[i]); err != nil {
			return err
		}
	}
	return nil
}

// copyOwner resolves the owner of op.
func copyOwner(op graph.Copy, dst *inroot.Root, in []tree.View) (*ids, error) {
	names := dst
	switch i := op.Owner.Input; {
	case i < len(in) && in[i].Root != nil && (i > 0 || !op.Link):
		names = in[i].Root
	case op.Link:
		names = nil // dst is empty
	}
	owner, err := resolveOwner(op.Owner, names)
	if errors.Is(err, errNoUser) && onlyDirs(op) {
		// USER may name somebody who is added later or never; WORKDIR belongs
		// to root then, as in BuildKit.
		return &ids{}, nil
	}
	return owner, err
}

// onlyDirs says whether op does no more than make directories.
func onlyDirs(op graph.Copy) bool {
	for _, s := range op.Sources {
		if s.Inline == nil || !s.Inline.Dir {
			return false
		}
	}
	return true
}

// A copier writes files into dst.
type copier struct {
	dst   *inroot.Root
	owner *ids // nil: keep
	mode  chmod
	now   time.Time // zero: as it comes

	// times are the modification times of directories that were made because
	// something is in them, or whose contents were copied. They are set last.
	times map[string]unix.Timespec
	sums  map[int]*inputSums // of local inputs, by index
}

// inputSums are the digests of what was copied of one input.
type inputSums struct {
	filehash.Sums
	newest newest
	differ bool // one request, copied twice, was not the same
}

// newest remembers the file that was changed last. If a file changed while a
// context was copied it was probably that one.
type newest struct {
	path  string
	ctime unix.Timespec
}

func (n *newest) see(e *filehash.Entry) {
	t := e.Stat.Ctim
	if t.Sec < n.ctime.Sec || t.Sec == n.ctime.Sec && t.Nsec < n.ctime.Nsec {
		return
	}
	// A file that was made changed its directory too: then it is the file.
	if t != n.ctime || path.Dir(e.Path()) == n.path {
		n.path, n.ctime = e.Path(), t
	}
}

// A changedError says that a file of a local context changed.
type changedError struct{ path string }

func (e *changedError) Error() string {
	if e.path == "" {
		return solve.ErrChanged.Error()
	}
	return e.path + " changed during the build"
}

func (*changedError) Unwrap() error { return solve.ErrChanged }

func (s *inputSums) verify(read solve.Read) error {
	if read.Digest == "" || !s.differ && s.Digest() == read.Digest {
		return nil
	}
	return &changedError{s.newest.path}
}

// source copies what one source names.
func (c *copier) source(ctx context.Context, op graph.Copy, src graph.CopySource, v tree.View, read solve.Read) error {
	var sums *inputSums
	if v.Local {
		if sums = c.sums[src.Input]; sums == nil {
			sums = &inputSums{}
			c.sums[src.Input] = sums
		}
	}
	files, err := filehash.Resolve(ctx, v, src.Request)
	if err != nil {
		return vanished(err, src.Request.Path, v, read)
	}
	p := newPool(ctx, c, v, files, sums)
	err = c.matches(p, op, src.Request, files)
	if sum, waitErr := p.wait(err); waitErr != nil {
		return vanished(waitErr, "", v, read)
	} else if sums != nil && !sums.Set(src.Request, sum) {
		sums.differ = true
	}
	return nil
}

// vanished turns the error for a file that isn't there into one that says that
// it was there when it was hashed.
func vanished(err error, name string, v tree.View, read solve.Read) error {
	if !v.Local || read.Digest == "" || !errors.Is(err, fs.ErrNotExist) || errors.Is(err, solve.ErrChanged) {
		return err
	}
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		name = pe.Path
	}
	return &changedError{name}
}

// matches copies what a request matches, one match after the other where they
// could be in each other's way.
func (c *copier) matches(p *pool, op graph.Copy, r graph.Request, files *filehash.Files) error {
	if len(files.Matches) == 0 {
		return nil
	}
	if err := c.mkdirs(parentOf(op.Dest, op.DestDir), c.mode.directory()); err != nil {
		return err
	}
	names := make(map[string]bool)
	for _, m := range files.Matches {
		if m.IsDir() || names[m.Name()] {
			if err := p.barrier(); err != nil {
				return err
			}
			clear(names)
		}
		names[m.Name()] = !m.IsDir()
		if err := c.match(p, op, r, m); err != nil {
			return err
		}
		if m.IsDir() {
			if err := p.barrier(); err != nil {
				return err
			}
		}
	}
	return nil
}

// match begins to copy one match.
func (c *copier) match(p *pool, op graph.Copy, r graph.Request, m *filehash.Match) error {
	if op.Unpack && m.Stat.Mode&unix.S_IFMT == unix.S_IFREG {
		if done, err := c.unpack(p, op.Dest, m); done || err != nil {
			return err
		}
	}
	to, err := c.target(op.Dest, m.Name(), m.IsDir(), r.Contents || r.Parents)
	if err != nil {
		return err
	}
	if err := p.match(m, to); err != nil {
		return err
	}
	c.touched(path.Dir(to))
	return nil
}

// parentOf returns the directory that must be there for something to be copied
// to dest.
func parentOf(dest string, isDir bool) string {
	if isDir {
		return dest
	}
	return path.Dir(path.Clean("/" + dest))
}

// target says where in dst a source goes that is called name: to dest itself or,
// if that is a directory, into it; and makes the directories for it. Symbolic
// links that dest leads through are followed inside dst.
func (c *copier) target(dest, name string, isDir, contents bool) (string, error) {
	at, err := c.dst.Resolve(dest, true)
	if err != nil {
		return "", fmt.Errorf("copy to %s: %w", dest, err)
	}
	to := at.Path
	atDir := at.Exists && at.Stat.Mode&unix.S_IFMT == unix.S_IFDIR
	if isDir && !contents && at.Exists || !isDir && atDir {
		to = path.Join(to, name)
	}
	needed := path.Dir(to)
	if isDir && contents && !at.Exists {
		needed = to
	}
	return to, c.mkdirs(needed, c.mode.directory())
}

// mkdirs makes the directory name and those that it is in, as far as they are
// not there. Links in name are followed, to what isn't there yet too.
func (c *copier) mkdirs(name string, perm uint32) error {
	at, err := c.dst.Resolve(name, true)
	if err != nil {
		return fmt.Errorf("make directory %s: %w", name, err)
	}
	if at.Exists && at.Stat.Mode&unix.S_IFMT == unix.S_IFDIR {
		return nil
	}
	made := 0
	err = c.dst.MkdirAll(at.Path, perm, func(dirfd int, base string) error {
		made++
		return c.chmodDir(dirfd, base, perm)
	})
	if err != nil {
		return err
	}
	for dir := at.Path; made > 0 && !c.now.IsZero(); dir, made = path.Dir(dir), made-1 {
		c.times[dir] = timespec(c.now)
	}
	return nil
}

// chmodDir sets owner and mode of a directory that was just made.
func (c *copier) chmodDir(dirfd int, base string, perm uint32) error {
	var st unix.Stat_t
	if err := unix.Fstatat(dirfd, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if c.owner != nil {
		if err := unix.Fchownat(dirfd, base, c.owner.uid, c.owner.gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
	}
	// The set-group-ID bit was inherited together with the group; the rest is
	// perm, whatever the umask.
	return unix.Fchmodat(dirfd, base, perm|st.Mode&unix.S_ISGID, 0)
}

// touched notes that something was put into the directory dir.
func (c *copier) touched(dir string) {
	if _, ok := c.times[dir]; ok {
		c.times[dir] = timespec(c.now)
	}
}

// finish sets the times of directories.
func (c *copier) finish() error {
	for name, t := range c.times {
		dirfd, base, err := c.dst.OpenDir(name)
		if err != nil {
			return err
		}
		err = unix.UtimesNanoAt(dirfd, base, []unix.Timespec{t, t}, unix.AT_SYMLINK_NOFOLLOW)
		_ = unix.Close(dirfd) // it was only looked up
		if err != nil {
			return &fs.PathError{Op: "set times", Path: name, Err: err}
		}
	}
	return nil
}

func timespec(t time.Time) unix.Timespec { return unix.NsecToTimespec(t.UnixNano()) }
