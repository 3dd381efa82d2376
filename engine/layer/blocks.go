package layer

import (
	"fmt"
	"io"
	"runtime"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// workers is how many blocks are compressed at a time. Each takes a few MiB,
// and no machine writes faster than sixteen compress.
func workers() int { return min(runtime.GOMAXPROCS(0), 16) }

// newZstdWriter returns a writer of frames of zstdBlock bytes each, which
// zstd's own streams don't have: those are made by one thread.
func newZstdWriter(w io.Writer, level int) (io.WriteCloser, error) {
	if level == 0 {
		level = 3
	}
	if level < 1 || level > 22 {
		return nil, fmt.Errorf("zstd level %d is not between 1 and 22", level)
	}
	enc, err := zstd.NewWriter(nil,
		zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(level)),
		zstd.WithEncoderConcurrency(workers()),
		zstd.WithWindowSize(zstdBlock),
		zstd.WithZeroFrames(true),
		zstd.WithEncoderCRC(true),
	)
	if err != nil {
		return nil, err
	}
	return newBlockWriter(w, zstdBlock, workers(), enc.EncodeAll), nil
}

// A blockWriter cuts what is written into blocks of the same size, calls
// encode for several of them at a time, and writes the results in order. What
// comes out does not depend on how many at a time.
type blockWriter struct {
	sink   *sink
	encode func(src, dst []byte) []byte
	size   int
	block  []byte           // being filled
	queue  chan chan []byte // results, in order
	pool   sync.Pool        // of *[]byte: blocks and results
	done   chan struct{}    // closed when all results are written
	begun  bool
}

func newBlockWriter(w io.Writer, size, workers int, encode func(src, dst []byte) []byte) *blockWriter {
	b := &blockWriter{
		sink:   &sink{w: w},
		encode: encode,
		size:   size,
		queue:  make(chan chan []byte, workers),
		done:   make(chan struct{}),
	}
	go b.writeResults()
	return b
}

func (b *blockWriter) writeResults() {
	defer close(b.done)
	for result := range b.queue {
		p := <-result
		_, _ = b.sink.Write(p) // which remembers its error
		b.pool.Put(&p)
	}
}

// Write implements io.Writer. Its error may be that of an earlier block.
func (b *blockWriter) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 {
		if err := b.sink.failed(); err != nil {
			return written, err
		}
		if b.block == nil {
			b.block = b.buffer()
		}
		n := min(len(p), b.size-len(b.block))
		b.block = append(b.block, p[:n]...)
		p, written = p[n:], written+n
		if len(b.block) == b.size {
			b.flush()
		}
	}
	return written, nil
}

func (b *blockWriter) buffer() []byte {
	if p, ok := b.pool.Get().(*[]byte); ok {
		return (*p)[:0]
	}
	return make([]byte, 0, b.size+b.size>>8) // what does not compress gets a little longer
}

// flush starts a block's encoding once there is room in the queue.
func (b *blockWriter) flush() {
	b.begun = true
	block, result := b.block, make(chan []byte, 1)
	b.block = nil
	b.queue <- result
	go func() {
		result <- b.encode(block, b.buffer())
		b.pool.Put(&block)
	}()
}

// Close writes what is left, at least one block. Nothing runs afterwards.
func (b *blockWriter) Close() error {
	if len(b.block) > 0 || !b.begun {
		b.flush()
	}
	close(b.queue)
	<-b.done
	return b.sink.failed()
}
