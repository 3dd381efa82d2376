package engine

import (
	"context"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// What a build writes is not synced to the disk file by file: a kill does no
// harm to what the kernel has, and waiting for the disk would cost more than
// most steps. Only a crash of the machine could leave names of files without
// their bytes. The kernel writes everything back within half a minute
// (vm.dirty_expire_centisecs), so it is enough to notice that the machine went
// down sooner than that after the last use, and to start with an empty state
// then: it is a cache.
const writtenBack = 2 * time.Minute

// dropUnsynced empties the state if the machine may have crashed before what
// is in it had been written to the disk. It leaves the lock as how says.
func (s *state) dropUnsynced(ctx context.Context, how int) error {
	if !s.unsynced() {
		return s.noteUse(stillOpen)
	}
	if err := flock(ctx, s.lock, unix.LOCK_EX, true); err != nil {
		return err
	}
	if s.unsynced() { // nobody else has done it meanwhile
		for _, d := range []string{"content", "snapshots", "records", "mounts"} {
			if err := os.RemoveAll(s.path(d)); err != nil {
				return err
			}
		}
		if err := s.make(); err != nil {
			return err
		}
	}
	if err := s.noteUse(stillOpen); err != nil {
		return err
	}
	return flock(ctx, s.lock, how, true)
}

// stillOpen stands in for the time of the last use while there is none.
const stillOpen = "open"

// unsynced reports whether the last use was in another boot of the machine, and
// did not end, or ended too shortly before this one.
func (s *state) unsynced() bool {
	b, err := os.ReadFile(s.path("used"))
	if err != nil {
		return false // new
	}
	boot, last, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
	if boot == bootID() {
		return false
	}
	used, err := time.Parse(time.RFC3339, last)
	return err != nil || bootTime().Sub(used) < writtenBack
}

// noteUse remembers when the state was last used: at, or stillOpen.
func (s *state) noteUse(at string) error {
	return writeFile(s.path("used"), bootID()+" "+at+"\n")
}

// bootID names this boot of the machine; empty if the kernel does not say.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func bootTime() time.Time {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return time.Time{}
	}
	return time.Now().Add(-time.Duration(ts.Nano()))
}
