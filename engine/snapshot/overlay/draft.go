package overlay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/engine/snapshot"
)

// Prepare implements [snapshot.Snapshotter]. The new layer's root directory has
// the mode and owner of the topmost lower one's: overlayfs shows the topmost.
func (s *Snapshotter) Prepare(ctx context.Context, lower ...snapshot.ID) (snapshot.Draft, error) {
	stack, err := s.stack(ctx, lower)
	if err != nil {
		return nil, fmt.Errorf("prepare layer: %w", err)
	}
	d, err := s.draft()
	if err != nil {
		return nil, fmt.Errorf("prepare layer: %w", err)
	}
	if len(lower) > 0 {
		err = d.inherit(lower[len(lower)-1])
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("prepare layer: %w", err), d.Discard())
	}
	// Also a first layer is written through overlayfs, which refuses what would
	// be taken for a whiteout or an opaque directory.
	if len(stack) == 0 {
		stack = []string{s.empty()}
	}
	d.mount = snapshot.Mount{
		Type:  "overlay",
		Lower: stack,
		Upper: d.Dir(),
		Work:  filepath.Join(d.dir, "work"),
		// Nothing is written to the disk for the sake of a draft.
		Options: []string{"volatile"},
	}
	return d, nil
}

// draft is a directory in drafts. It implements [snapshot.Draft].
type draft struct {
	s     *Snapshotter
	dir   string
	lock  *os.File // nil once committed or discarded
	mount snapshot.Mount
}

// draft makes an empty draft.
func (s *Snapshotter) draft() (*draft, error) {
	d, err := s.scratch()
	if err != nil {
		return nil, err
	}
	if err := d.fill(); err != nil {
		return nil, errors.Join(err, d.Discard())
	}
	return d, nil
}

// scratch makes a locked directory in drafts, with nothing in it.
func (s *Snapshotter) scratch() (*draft, error) {
	drafts, err := os.Open(filepath.Join(s.dir, "drafts"))
	if err != nil {
		return nil, err
	}
	defer drafts.Close()
	if err := flock(drafts, unix.LOCK_SH); err != nil { // see Clean
		return nil, err
	}
	dir, err := os.MkdirTemp(drafts.Name(), "")
	if err != nil {
		return nil, err
	}
	lock, err := os.Open(dir)
	if err != nil {
		return nil, errors.Join(err, os.Remove(dir))
	}
	d := &draft{s: s, dir: dir, lock: lock}
	if err := flock(lock, unix.LOCK_EX); err != nil {
		return nil, errors.Join(err, d.Discard())
	}
	return d, nil
}

func (d *draft) fill() error {
	if err := os.Mkdir(d.Dir(), 0o755); err != nil {
		return err
	}
	if err := os.Chmod(d.Dir(), 0o755); err != nil { // whatever the umask is
		return err
	}
	return os.Mkdir(filepath.Join(d.dir, "work"), 0o700)
}

// inherit gives the draft's root the attributes of layer id's.
func (d *draft) inherit(id snapshot.ID) error {
	from, err := d.s.Dir(id)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Lstat(from, &st); err != nil {
		return fmt.Errorf("layer %s: %w", id, err)
	}
	if err := unix.Lchown(d.Dir(), int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := unix.Chmod(d.Dir(), st.Mode&0o7777); err != nil {
		return err
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, d.Dir(), []unix.Timespec{st.Mtim, st.Mtim}, 0)
}

// Mount implements [snapshot.Draft].
func (d *draft) Mount() snapshot.Mount { return d.mount }

// Dir implements [snapshot.Draft].
func (d *draft) Dir() string { return filepath.Join(d.dir, "fs") }

// Commit implements [snapshot.Draft].
func (d *draft) Commit(_ context.Context, id snapshot.ID) error {
	if d.lock == nil {
		return fmt.Errorf("commit layer %s: the draft has ended", id)
	}
	layer, err := d.s.layer(id)
	if err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join(d.dir, "work")); err != nil {
		return fmt.Errorf("commit layer %s: %w", id, err)
	}
	now := time.Now()
	if err := os.Chtimes(d.dir, now, now); err != nil {
		return fmt.Errorf("commit layer %s: %w", id, err)
	}
	err = os.Rename(d.dir, layer)
	if errors.Is(err, fs.ErrExist) {
		_ = use(layer)
		return d.Discard()
	}
	if err != nil {
		return fmt.Errorf("commit layer %s: %w", id, err)
	}
	lock := d.lock
	d.lock = nil
	return lock.Close()
}

// Discard implements [snapshot.Draft].
func (d *draft) Discard() error {
	if d.lock == nil {
		return nil
	}
	lock := d.lock
	d.lock = nil
	if err := errors.Join(os.RemoveAll(d.dir), lock.Close()); err != nil {
		return fmt.Errorf("discard draft: %w", err)
	}
	return nil
}

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
