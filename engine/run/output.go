package run

import (
	"bytes"
	"sync"

	"github.com/slipway-build/slipway/engine/progress"
)

// maxLine is how many bytes without a newline are held back at most.
const maxLine = 64 << 10

// output turns what a step prints into events, a line each. Its writers, one
// for each stream, may be used concurrently.
type output struct {
	sink progress.Sink
	step string
	name string
	mu   sync.Mutex // keeps lines of the streams apart
}

// stream returns a writer for one of the step's streams. Its flush emits an
// unfinished last line.
func (o *output) stream() *lineWriter { return &lineWriter{out: o} }

func (o *output) emit(line []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sink.Emit(progress.Event{Step: o.step, Name: o.name, Kind: progress.Output, Line: string(line)})
}

type lineWriter struct {
	out  *output
	rest []byte
}

func (w *lineWriter) Write(p []byte) (int, error) {
	n := len(p)
	for {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			break
		}
		w.out.emit(append(w.rest, p[:i]...))
		w.rest, p = w.rest[:0], p[i+1:]
	}
	w.rest = append(w.rest, p...)
	for len(w.rest) >= maxLine {
		w.out.emit(w.rest[:maxLine])
		w.rest = append(w.rest[:0], w.rest[maxLine:]...)
	}
	return n, nil
}

func (w *lineWriter) flush() {
	if len(w.rest) > 0 {
		w.out.emit(w.rest)
		w.rest = nil
	}
}
