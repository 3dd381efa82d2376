package export

import (
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// What is written appears when it is complete: it is made beside the place
// where it goes, under a hidden name, and renamed. As long as its owner lives it
// is locked; the next export to that place removes those that are not.
const stagePrefix = ".slipway-export-"

// beside returns a hidden name in the directory of path that nothing has.
func beside(path string) string {
	return filepath.Join(filepath.Dir(path), stagePrefix+rand.Text())
}

// createBeside creates a file that is going to be renamed to path before it is
// closed.
func createBeside(path string) (*os.File, error) {
	removeStages(filepath.Dir(path))
	for {
		f, err := os.OpenFile(beside(path), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		if err != nil || lockStage(f) {
			return f, err
		}
		_ = f.Close()
	}
}

// makeBeside makes a directory that only we can enter, which is going to be
// renamed to path, or to be emptied. It is ours until lock is closed.
func makeBeside(path string) (dir string, lock *os.File, err error) {
	removeStages(filepath.Dir(path))
	for {
		dir = beside(path)
		if err := os.Mkdir(dir, 0o700); err != nil {
			return "", nil, err
		}
		lock, err := os.Open(dir)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", nil, errors.Join(err, os.Remove(dir))
		}
		if lockStage(lock) {
			return dir, lock, nil
		}
		_ = lock.Close()
	}
}

// lockStage locks what was just made. It fails if somebody has removed it
// before it was locked. Where there are no locks nobody removes anything.
func lockStage(f *os.File) bool {
	if errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK) {
		return false
	}
	var st unix.Stat_t
	err := unix.Fstat(int(f.Fd()), &st)
	return err != nil || st.Nlink > 0
}

// removeStages removes from dir what exports that were killed left there.
func removeStages(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), stagePrefix) && (e.IsDir() || e.Type().IsRegular()) {
			removeStage(filepath.Join(dir, e.Name()))
		}
	}
}

func removeStage(name string) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return
	}
	defer f.Close()
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
		_ = removeAll(name) // the next one tries again
	}
}
