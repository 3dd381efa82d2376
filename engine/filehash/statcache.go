package filehash

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A statCache remembers what local files contain by what stat(2) says of them.
// A file that is written to has a new ctime, which nothing but the clock sets;
// so a file whose device, inode, size and times are the same was not. That
// isn't true of one that was written to twice within a tick of the clock by
// which the kernel stamps, once before and once after it was read: therefore
// only files are remembered whose ctime is older than when the reading began by
// more than a tick.
//
// Several processes may use one file. Each writes what it knows and what the
// file had when it looked last, aside, and renames it; the last one wins. A file
// that is damaged, or of another version, is as good as none.
type statCache struct {
	path string
	now  func() time.Time

	mu    sync.Mutex
	read  bool
	dirty bool
	m     map[inode]remembered
}

// remembered is what is known of one inode.
type remembered struct {
	size         int64
	mtime, ctime unix.Timespec
	content      Content
	used         uint32 // day, since 1970, on which it was used last
}

const (
	// tick is longer than a tick of the kernel's clock (at most 10 ms).
	tick = 50 * time.Millisecond

	// coarseTick is for file systems that keep seconds only (2 on FAT).
	coarseTick = 3 * time.Second

	keepDays    = 30      // for which what isn't used is kept
	maxRecords  = 1 << 20 // in the file, 128 MiB
	recordSize  = 3*8 + 2*12 + 2*sha256.Size + 4
	statMagic   = "slipway stat cache 1\n"
	headerBytes = len(statMagic) + 4
)

func newStatCache(path string, now func() time.Time) *statCache {
	return &statCache{path: path, now: now, m: make(map[inode]remembered)}
}

func (c *statCache) today() uint32 { return uint32(c.now().Unix() / (24 * 60 * 60)) }

// find returns what the file that st is of contains.
func (c *statCache) find(st *unix.Stat_t) (Content, bool) {
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return Content{}, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.load()
	id := inode{st.Dev, st.Ino}
	r, ok := c.m[id]
	if !ok || r.size != st.Size || r.mtime != st.Mtim || r.ctime != st.Ctim {
		return Content{}, false
	}
	if today := c.today(); r.used < today {
		r.used = today
		c.m[id] = r
		c.dirty = true
	}
	return r.content, true
}

// set remembers what e contains, which began to be read at since.
func (c *statCache) set(e *Entry, content Content, since time.Time) {
	wait := tick
	if e.Stat.Ctim.Nsec == 0 {
		wait = coarseTick
	}
	ctime := time.Unix(e.Stat.Ctim.Unix())
	if content.Size != e.Stat.Size || !ctime.Before(since.Add(-wait)) {
		return
	}
	if e.Changed() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	st := &e.Stat
	c.m[inode{st.Dev, st.Ino}] = remembered{st.Size, st.Mtim, st.Ctim, content, c.today()}
	c.dirty = true
}

// load reads the file on first use. c.mu is held.
func (c *statCache) load() {
	if c.read || c.path == "" {
		return
	}
	c.read = true
	b, err := readLimited(c.path, int64(headerBytes+maxRecords*recordSize+sha256.Size))
	if err != nil {
		return
	}
	_ = c.decode(b) // what can't be used is not there
}

func readLimited(path string, limit int64) ([]byte, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() || fi.Size() > limit {
		return nil, fmt.Errorf("%s: not a stat cache", path)
	}
	return os.ReadFile(path)
}

// save writes the file if there is something new to write.
func (c *statCache) save() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.path == "" || !c.dirty {
		return nil
	}
	mine := c.m
	c.m, c.read = make(map[inode]remembered), false
	c.load() // what others wrote meanwhile
	maps.Copy(c.m, mine)
	if err := writeAside(c.path, c.encode()); err != nil {
		return fmt.Errorf("write stat cache: %w", err)
	}
	c.dirty = false
	return nil
}

// encode returns the file: a header, records, and the SHA-256 of both.
func (c *statCache) encode() []byte {
	oldest := c.today() - keepDays
	b := make([]byte, headerBytes, headerBytes+len(c.m)*recordSize+sha256.Size)
	copy(b, statMagic)
	le := binary.LittleEndian
	n := uint32(0)
	for id, r := range c.m {
		if r.used < oldest || n == maxRecords {
			continue
		}
		n++
		b = le.AppendUint64(b, id.dev)
		b = le.AppendUint64(b, id.ino)
		b = le.AppendUint64(b, uint64(r.size))
		for _, t := range []unix.Timespec{r.mtime, r.ctime} {
			b = le.AppendUint64(b, uint64(t.Sec))
			b = le.AppendUint32(b, uint32(t.Nsec))
		}
		b = append(b, r.content.Data[:]...)
		b = append(b, r.content.Xattrs[:]...)
		b = le.AppendUint32(b, r.used)
	}
	le.PutUint32(b[len(statMagic):], n)
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

var errStatCache = errors.New("not a stat cache")

// decode adds the records of b.
func (c *statCache) decode(b []byte) error {
	if len(b) < headerBytes+sha256.Size || string(b[:len(statMagic)]) != statMagic {
		return errStatCache
	}
	b, sum := b[:len(b)-sha256.Size], b[len(b)-sha256.Size:]
	le := binary.LittleEndian
	n := int(le.Uint32(b[len(statMagic):]))
	if Sum(sum) != sha256.Sum256(b) || n > maxRecords || len(b) != headerBytes+n*recordSize {
		return errStatCache
	}
	for b = b[headerBytes:]; len(b) > 0; b = b[recordSize:] {
		id := inode{le.Uint64(b), le.Uint64(b[8:])}
		r := remembered{size: int64(le.Uint64(b[16:]))}
		r.mtime = unix.Timespec{Sec: int64(le.Uint64(b[24:])), Nsec: int64(le.Uint32(b[32:]))}
		r.ctime = unix.Timespec{Sec: int64(le.Uint64(b[36:])), Nsec: int64(le.Uint32(b[44:]))}
		r.content.Size = r.size
		copy(r.content.Data[:], b[48:])
		copy(r.content.Xattrs[:], b[80:])
		r.used = le.Uint32(b[112:])
		if _, ok := c.m[id]; !ok { // what this process found is newer
			c.m[id] = r
		}
	}
	return nil
}

// writeAside writes a file under another name and renames it, so that nobody
// sees half of it.
func writeAside(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	tmp := path + "." + strconv.Itoa(os.Getpid()) + ".tmp"
	_ = os.Remove(tmp) // of a process of that number that was killed
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return os.Rename(tmp, path)
}
