package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/engine/diag"
)

// stateVersion is the version of the state directory's layout. A directory of
// another version is refused: it may be in use by another slipway.
const stateVersion = "1"

// state is the state directory and the hold that this process has on it.
//
//	version     stateVersion
//	lock        held shared by whoever builds, exclusively by whoever prunes or
//	            removes what killed processes left behind
//	holders/    a file for each process that has it open, locked while it lives
//	used        when and in which boot of the machine it was last used
//	content/    blobs by digest
//	snapshots/  layers as directories, and drafts
//	records/    what is recorded under which key
//	mounts/     RUN cache mounts
//	run/        of running containers
//	tmp/        contexts that came as archives, while they are built from
type state struct {
	root   string
	lock   *os.File
	holder *os.File
}

func (s *state) path(name ...string) string {
	return filepath.Join(append([]string{s.root}, name...)...)
}

// errInUse says that a lock is held by somebody else.
var errInUse = errors.New("in use")

// openState opens the state directory for building, which excludes pruning.
// notice, which may be nil, is told if that takes a while.
func openState(ctx context.Context, root string, notice func(string)) (*state, error) {
	return openStateAs(ctx, root, unix.LOCK_SH, true, notice)
}

func openStateAs(ctx context.Context, root string, how int, wait bool, notice func(string)) (*state, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	s := &state{root: root}
	if err := s.make(); err != nil {
		return nil, diag.Hint(fmt.Errorf("open state directory %s: %w", root, err), "Name another directory with --root.")
	}
	if s.lock, err = os.OpenFile(s.path("lock"), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, fmt.Errorf("open state directory: %w", err)
	}
	// Who comes first is alone for a moment, and cleans up.
	alone := flock(ctx, s.lock, unix.LOCK_EX, false) == nil
	if !alone {
		err = s.await(ctx, how, wait, notice)
	}
	if err != nil {
		holders := s.holders()
		_ = s.lock.Close()
		if errors.Is(err, errInUse) && len(holders) > 0 {
			err = fmt.Errorf("%w by process %s", err, strings.Join(holders, ", "))
		}
		return nil, fmt.Errorf("lock state directory %s: %w", root, err)
	}
	if alone || how == unix.LOCK_EX {
		s.removeOrphans()
	}
	if err := s.hold(ctx, how); err != nil {
		return nil, errors.Join(fmt.Errorf("open state directory: %w", err), s.close())
	}
	return s, nil
}

// await takes the lock that somebody else has.
func (s *state) await(ctx context.Context, how int, wait bool, notice func(string)) error {
	if wait && notice != nil {
		const long = time.Second // after which it is worth saying
		t := time.AfterFunc(long, func() {
			notice(fmt.Sprintf("waiting for the state directory %s, which is in use by process %s", s.root, strings.Join(s.holders(), ", ")))
		})
		defer t.Stop()
	}
	return flock(ctx, s.lock, how, wait)
}

func (s *state) make() error {
	for _, d := range []string{"holders", "mounts", "run", "tmp"} {
		if err := os.MkdirAll(s.path(d), 0o700); err != nil {
			return err
		}
	}
	b, err := os.ReadFile(s.path("version"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return writeFile(s.path("version"), stateVersion+"\n")
	case err != nil:
		return err
	case strings.TrimSpace(string(b)) != stateVersion:
		return fmt.Errorf("its layout has version %q, this slipway knows %q", strings.TrimSpace(string(b)), stateVersion)
	}
	return nil
}

// hold says that this process has the directory open, and drops what a crash of
// the machine may have damaged.
func (s *state) hold(ctx context.Context, how int) (err error) {
	if err := s.dropUnsynced(ctx, how); err != nil {
		return err
	}
	if err := flock(ctx, s.lock, how, true); err != nil {
		return err
	}
	s.holder, err = os.CreateTemp(s.path("holders"), strconv.Itoa(os.Getpid())+"-")
	if err != nil {
		return err
	}
	if err := unix.Flock(int(s.holder.Fd()), unix.LOCK_EX); err != nil {
		return err
	}
	s.sweep("tmp")
	return nil
}

// removeOrphans removes what killed processes have not finished. Nobody else
// may have the directory open. Drafts and containers have locks of their own,
// and go without that.
func (s *state) removeOrphans() {
	for _, pattern := range []string{
		".tmp-*", "holders/*", "tmp/*", "content/ingest/*", "mounts/*/new", "records/new/*", "records/*.tmp",
	} {
		names, err := filepath.Glob(s.path(pattern))
		if err != nil {
			continue
		}
		for _, name := range names {
			_ = os.RemoveAll(name) // the next one tries again
		}
	}
}

// holders returns the processes that have the directory open. Files of those
// that were killed are removed.
func (s *state) holders() []string {
	entries, err := os.ReadDir(s.path("holders"))
	if err != nil {
		return nil
	}
	var pids []string
	for _, e := range entries {
		f, err := os.Open(s.path("holders", e.Name()))
		if err != nil {
			continue
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			_ = os.Remove(f.Name())
		} else {
			pid, _, _ := strings.Cut(e.Name(), "-")
			pids = append(pids, pid)
		}
		_ = f.Close()
	}
	return pids
}

// tempDir makes a directory in tmp/ that is removed by release, or by the next
// process that finds that this one has died.
func (s *state) tempDir() (dir string, release func(), err error) {
	dir, err = os.MkdirTemp(s.path("tmp"), "")
	if err != nil {
		return "", nil, err
	}
	f, err := os.Open(dir)
	if err != nil {
		return "", nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		_ = f.Close()
		return "", nil, err
	}
	return dir, func() {
		_ = os.RemoveAll(dir)
		_ = f.Close()
	}, nil
}

// sweep removes directories below name whose owners have died.
func (s *state) sweep(name string) {
	entries, err := os.ReadDir(s.path(name))
	if err != nil {
		return
	}
	const young = time.Minute // its owner may not have locked it yet
	for _, e := range entries {
		fi, err := e.Info()
		if err != nil || time.Since(fi.ModTime()) < young {
			continue
		}
		f, err := os.Open(s.path(name, e.Name()))
		if err != nil {
			continue
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			_ = os.RemoveAll(f.Name())
		}
		_ = f.Close()
	}
}

func (s *state) close() error {
	var err error
	if s.holder != nil {
		if len(s.holders()) <= 1 { // the last one
			err = s.noteUse(time.Now().UTC().Format(time.RFC3339))
		}
		_ = os.Remove(s.holder.Name())
		_ = s.holder.Close()
	}
	return errors.Join(err, s.lock.Close())
}

// flock takes a lock. If it does not wait, the error wraps errInUse when
// somebody else has the lock; waiting ends with ctx.
func flock(ctx context.Context, f *os.File, how int, wait bool) error {
	const poll = 10 * time.Millisecond
	for {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		if !wait {
			return errInUse
		}
		select {
		case <-time.After(poll):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// writeFile writes a small file so that it is there whole or not at all.
func writeFile(name, data string) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".tmp-")
	if err != nil {
		return err
	}
	_, err = f.WriteString(data)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}
