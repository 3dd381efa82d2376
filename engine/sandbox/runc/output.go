//go:build linux && cgo && (amd64 || arm64)

package runc

import (
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
)

// output carries what a process writes to the writers that want it.
type output struct {
	stdout, stderr *os.File   // the process's ends
	pending        int        // pipes not yet read to the end
	done           chan error // one for each of them
}

// newOutput makes pipes to the writers; one pipe if both are the same, so that
// the order is kept. Nil discards.
func newOutput(stdout, stderr io.Writer) (*output, error) {
	o := &output{done: make(chan error, 2)}
	var err error
	if o.stdout, err = o.pipe("stdout", stdout); err != nil {
		return nil, err
	}
	if same(stdout, stderr) {
		o.stderr = o.stdout
	} else if o.stderr, err = o.pipe("stderr", stderr); err != nil {
		return nil, errors.Join(err, o.stdout.Close())
	}
	return o, nil
}

func same(a, b io.Writer) bool {
	return a != nil && reflect.ValueOf(a).Comparable() && a == b
}

// pipe returns the end to write to of a pipe whose other end goes to w.
func (o *output) pipe(name string, w io.Writer) (*os.File, error) {
	if w == nil {
		w = io.Discard
	}
	pr, pw, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	go func() { o.done <- forward(name, w, pr) }()
	o.pending++
	return pw, nil
}

// forward copies r to w until all ends to write to r are closed. If w fails it
// reads on, so that the process does not hang or get SIGPIPE for it.
func forward(name string, w io.Writer, r *os.File) error {
	defer r.Close()
	_, err := io.Copy(w, r)
	if err == nil {
		return nil
	}
	_, _ = io.Copy(io.Discard, r)
	return fmt.Errorf("write %s: %w", name, err)
}

// closeOurs closes this process's copies of what the container's process
// writes to, so that the end is seen.
func (o *output) closeOurs() {
	_ = o.stdout.Close()
	if o.stderr != o.stdout {
		_ = o.stderr.Close()
	}
}

// drain waits for the last byte, after closeOurs. All of the container's
// processes must have ended.
func (o *output) drain() error {
	var errs []error
	for range o.pending {
		errs = append(errs, <-o.done)
	}
	o.pending = 0
	return errors.Join(errs...)
}
