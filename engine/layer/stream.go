package layer

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"

	"github.com/opencontainers/go-digest"
)

// A stream reads ahead: one goroutine fills chunks (decompressing them), the
// caller reads them, another one hashes them. So unpacking takes as long as the
// slowest of the three. Close must be called; nothing runs when it returns.
type stream struct {
	stop   chan struct{} // closed by Close
	full   chan chunk    // read, to be consumed
	used   chan []byte   // consumed, to be hashed
	free   chan []byte   // hashed, to be filled
	wg     sync.WaitGroup
	cur    []byte // what of buf is still to be consumed
	buf    []byte
	err    error // after cur
	sum    hash.Hash
	size   int64
	closed bool
}

type chunk struct {
	data []byte
	err  error // after data
}

const (
	chunkSize  = 256 << 10
	chunkCount = 8
)

// newStream reads r until it ends, but no more than limit bytes.
func newStream(ctx context.Context, r io.Reader, limit int64) *stream {
	s := &stream{
		stop: make(chan struct{}),
		full: make(chan chunk, chunkCount),
		used: make(chan []byte, chunkCount),
		free: make(chan []byte, chunkCount),
		sum:  sha256.New(),
	}
	for range chunkCount {
		s.free <- nil // made when needed: most layers are small
	}
	s.wg.Add(2)
	go s.fill(ctx, r, limit)
	go s.hash()
	return s
}

func (s *stream) fill(ctx context.Context, r io.Reader, limit int64) {
	defer s.wg.Done()
	defer close(s.full)
	var total int64
	for {
		var buf []byte
		select {
		case <-s.stop:
			return
		case buf = <-s.free:
		}
		if buf == nil {
			buf = make([]byte, chunkSize)
		}
		n, err := readFull(r, buf[:chunkSize])
		total += int64(n)
		if total > limit {
			err = tooLarge(limit)
		}
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		s.full <- chunk{buf[:n], err} // has room for all that there are
		if err != nil {
			return
		}
	}
}

// readFull is io.ReadFull without its own errors: io.EOF stays io.EOF, so that
// io.ErrUnexpectedEOF is a decompressor's complaint.
func readFull(r io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var m int
		m, err = r.Read(p[n:])
		n += m
	}
	return n, err
}

func tooLarge(limit int64) error {
	return fmt.Errorf("content is larger than the %d bytes that there is room for", limit)
}

func (s *stream) hash() {
	defer s.wg.Done()
	for buf := range s.used {
		s.sum.Write(buf)
		s.size += int64(len(buf))
		s.free <- buf // has room for all that there are
	}
}

// Read implements io.Reader.
func (s *stream) Read(p []byte) (int, error) {
	for len(s.cur) == 0 {
		if s.buf != nil {
			s.used <- s.buf
			s.buf = nil
		}
		if s.err != nil {
			return 0, s.err
		}
		c := <-s.full
		s.buf, s.cur, s.err = c.data, c.data, c.err
	}
	n := copy(p, s.cur)
	s.cur = s.cur[n:]
	return n, nil
}

// finish reads what is left, and returns the digest and size of everything.
func (s *stream) finish() (digest.Digest, int64, error) {
	for s.err == nil || s.buf != nil {
		s.cur = nil
		if _, err := s.Read(nil); err != nil && !errors.Is(err, io.EOF) {
			return "", 0, err
		}
	}
	if !errors.Is(s.err, io.EOF) {
		return "", 0, s.err
	}
	s.Close()
	return digest.NewDigest(digest.SHA256, s.sum), s.size, nil
}

// Close stops reading.
func (s *stream) Close() {
	if s.closed {
		return
	}
	s.closed = true
	close(s.stop)
	close(s.used)
	s.wg.Wait()
}
