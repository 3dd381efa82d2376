package overlay

import (
	"os"

	"golang.org/x/sys/unix"
)

// spread asks the file system to put the directories that are made in dir far
// from one another (chattr +T). ext4 otherwise makes all of them in the block
// group of dir, where it has to search among the inodes of layers that were
// removed a moment ago: making 20 000 files took 14 s instead of 2 s. It is
// advice: what does not know the flag does without.
func spread(dir string) {
	f, err := os.Open(dir)
	if err != nil {
		return
	}
	defer f.Close()
	flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err != nil {
		return
	}
	_ = unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags|topdir)
}

// topdir is FS_TOPDIR_FL of linux/fs.h.
const topdir = 0x00020000
