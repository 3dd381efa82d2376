package step

import (
	"io"
	"sync"
	"time"

	"github.com/slipway-build/slipway/ci"
	"github.com/slipway-build/slipway/engine/progress"
)

// A view shows events. One goroutine calls it.
type view interface {
	// show shows an event that has been added to the history. Only a Warning
	// may have no step; st is nil then.
	show(ev progress.Event, st *stepState)

	// tick is called now and then while nothing happens.
	tick(now time.Time)

	// close shows what was held back.
	close()
}

// report receives the events of a build and shows them, as far as they come
// out of other goroutines, in its own: the build does not wait for a slow
// terminal. Only when very much is waiting to be shown, it does.
type report struct {
	history *history
	view    view
	done    chan struct{}

	mu     sync.Mutex
	queue  []progress.Event
	bytes  int // of the lines in queue
	space  *sync.Cond
	wake   chan struct{}
	closed bool
}

// What may wait to be shown before the build has to wait too.
const (
	maxQueue      = 1 << 16
	maxQueueBytes = 16 << 20
)

// tickEvery is how often a view may redraw itself.
const tickEvery = 100 * time.Millisecond

// openReport starts to show events. The caller closes the report.
func openReport(h *history, v view) *report {
	r := &report{history: h, view: v, done: make(chan struct{}), wake: make(chan struct{}, 1)}
	r.space = sync.NewCond(&r.mu)
	go r.run()
	return r
}

// sink is a [progress.Sink].
func (r *report) sink(ev progress.Event) {
	r.mu.Lock()
	for !r.closed && (len(r.queue) >= maxQueue || r.bytes >= maxQueueBytes) {
		r.space.Wait()
	}
	if !r.closed {
		r.queue = append(r.queue, ev)
		r.bytes += len(ev.Line)
	}
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// close shows what is left. Events that come later are dropped. Calling it
// again does nothing.
func (r *report) close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.space.Broadcast()
	select {
	case r.wake <- struct{}{}:
	default:
	}
	<-r.done
}

func (r *report) run() {
	defer close(r.done)
	ticker := time.NewTicker(tickEvery)
	defer ticker.Stop()
	for {
		r.mu.Lock()
		events, closed := r.queue, r.closed
		r.queue, r.bytes = nil, 0
		r.mu.Unlock()
		r.space.Broadcast()
		for _, ev := range events {
			if ev.Kind == progress.Cached && internal(ev.Name) {
				continue // nobody wrote it, and nothing was done
			}
			if st := r.history.add(ev); st != nil || ev.Kind == progress.Warning {
				r.view.show(ev, st)
			}
		}
		if closed {
			r.view.close()
			return
		}
		select {
		case <-r.wake:
		case now := <-ticker.C:
			r.view.tick(now)
		}
	}
}

// What is kept of a failed step's output: plain logs have it all already.
const (
	keepPlain  = 20
	keepHidden = 1000
)

// newView returns the view for a mode of --progress, and what its history is
// to keep. size is nil unless w is a terminal.
func newView(mode string, w io.Writer, console ci.Console, size func() (width, height int), color bool) (view, *history) {
	if mode == "auto" || mode == "tty" {
		mode = "plain"
		if size != nil {
			mode = "tty"
		}
	}
	switch mode {
	case "tty":
		h := newHistory(keepHidden)
		return &liveView{w: w, size: size, history: h, color: color}, h
	case "rawjson":
		return newJSONView(w), newHistory(keepHidden)
	case "quiet":
		return quietView{}, newHistory(keepHidden)
	default:
		h := newHistory(keepPlain)
		return &plainView{console: console, history: h}, h
	}
}

// quietView shows nothing.
type quietView struct{}

func (quietView) show(progress.Event, *stepState) {}
func (quietView) tick(time.Time)                  {}
func (quietView) close()                          {}
