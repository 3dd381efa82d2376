package main

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// patience is how many milliseconds a stream is waited for before it is asked
// again whether anybody still wants it.
const patience = 100

// An input is a file to read from until a context ends: a read of a pipe whose
// other end does nothing would never return, and a signal could not end it.
type input struct {
	ctx context.Context //nolint:containedctx // the process's own
	f   *os.File
}

// Read implements io.Reader.
func (s input) Read(p []byte) (int, error) {
	if err := ready(s.ctx, s.f, unix.POLLIN); err != nil {
		return 0, err
	}
	return s.f.Read(p)
}

// An output is the same for writing.
type output struct {
	ctx  context.Context //nolint:containedctx // the process's own
	f    *os.File
	step int // bytes that can be written without waiting
}

// newOutput returns f as an output. A pipe that is ready takes a page.
func newOutput(ctx context.Context, f *os.File) output {
	o := output{ctx, f, 1 << 20}
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		o.step = 4096
	}
	return o
}

// Write implements io.Writer.
func (s output) Write(p []byte) (int, error) {
	for done := 0; ; {
		if err := ready(s.ctx, s.f, unix.POLLOUT); err != nil {
			return done, err
		}
		n, err := s.f.Write(p[done:min(len(p), done+s.step)])
		done += n
		if err != nil || done == len(p) {
			return done, err
		}
	}
}

// ready waits until f can be read or written. Where that can't be told it can.
func ready(ctx context.Context, f *os.File, event int16) error {
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(f.Fd()), Events: event}}, patience)
		if n > 0 || err != nil && !errors.Is(err, unix.EINTR) {
			return nil
		}
	}
}
