package run

import (
	"errors"
	"io"
	"math"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/engine/filehash"
)

// inKernel is from which size on it pays to let the kernel copy.
const inKernel = 256 << 10

// dataCopy copies the bytes of one open file to another that is empty.
type dataCopy struct {
	in, out int
	size    int64 // expected
	sparse  bool  // look for holes
	hashed  bool

	buf     *filehash.Buffer
	content filehash.Content
}

func (d *dataCopy) copy() (filehash.Content, error) {
	d.buf = filehash.NewBuffer()
	defer d.buf.Free()
	var err error
	if d.sparse {
		err = d.segments()
	} else {
		err = d.stretch(math.MaxInt64)
	}
	if d.hashed && err == nil {
		d.content.Data = d.buf.Sum()
	}
	return d.content, err
}

// segments copies what is not a hole.
func (d *dataCopy) segments() error {
	for {
		data, err := unix.Seek(d.in, d.content.Size, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) { // nothing but a hole
			return d.tail()
		}
		if err != nil { // the file system has no idea of holes
			return d.rest()
		}
		end, err := unix.Seek(d.in, data, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		d.hole(data - d.content.Size)
		if _, err := unix.Seek(d.in, data, io.SeekStart); err != nil {
			return err
		}
		if _, err := unix.Seek(d.out, data, io.SeekStart); err != nil {
			return err
		}
		before := d.content.Size
		if err := d.stretch(end - data); err != nil {
			return err
		}
		if d.content.Size == before { // cut off meanwhile
			return d.tail()
		}
	}
}

// tail ends a file with a hole.
func (d *dataCopy) tail() error {
	end, err := unix.Seek(d.in, 0, io.SeekEnd)
	if err != nil {
		return err
	}
	d.hole(end - d.content.Size)
	return unix.Ftruncate(d.out, d.content.Size)
}

// rest copies all that is left.
func (d *dataCopy) rest() error {
	for _, fd := range []int{d.in, d.out} {
		if _, err := unix.Seek(fd, d.content.Size, io.SeekStart); err != nil {
			return err
		}
	}
	return d.stretch(math.MaxInt64)
}

// hole counts n zeros that are not written.
func (d *dataCopy) hole(n int64) {
	if n <= 0 {
		return
	}
	d.content.Size += n
	if !d.hashed {
		return
	}
	zeros := d.buf.Bytes
	clear(zeros)
	for ; n > 0; n -= int64(len(zeros)) {
		d.buf.Hash.Write(zeros[:min(n, int64(len(zeros)))])
	}
}

// stretch copies up to n bytes from where both files are.
func (d *dataCopy) stretch(n int64) error {
	if !d.hashed && d.size >= inKernel {
		done, err := d.kernel(&n)
		if done || err != nil {
			return err
		}
	}
	for n > 0 {
		got, err := unix.Read(d.in, d.buf.Bytes[:min(n, int64(len(d.buf.Bytes)))])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if got <= 0 || err != nil {
			return err
		}
		b := d.buf.Bytes[:got]
		if d.hashed {
			d.buf.Hash.Write(b)
		}
		if err := writeAll(d.out, b); err != nil {
			return err
		}
		d.content.Size += int64(got)
		n -= int64(got)
		if got < len(d.buf.Bytes) && d.content.Size == d.size {
			return nil // that it ends here needs no asking
		}
	}
	return nil
}

// kernel has the kernel copy up to n bytes. It reports false if it can't, and
// takes what it did off n.
func (d *dataCopy) kernel(n *int64) (bool, error) {
	for *n > 0 {
		got, err := unix.CopyFileRange(d.in, nil, d.out, nil, int(min(*n, 1<<30)), 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT), errors.Is(err, unix.EFBIG):
			return false, err
		case err != nil:
			return false, nil //nolint:nilerr // between these file systems: the other way then
		case got == 0:
			// Some file systems say so of files that are not empty.
			return false, nil
		}
		d.content.Size += int64(got)
		*n -= int64(got)
	}
	return true, nil
}

func writeAll(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := unix.Write(fd, b)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}
