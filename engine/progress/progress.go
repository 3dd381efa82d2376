// Package progress defines what the engine reports while it builds. The engine
// only emits events; turning them into log lines, groups, annotations or a
// terminal display is the caller's business.
package progress

import "time"

// An Event is one thing that happened to one step of a build. It is a plain
// value, safe to keep after Emit returns.
type Event struct {
	Time time.Time
	Step string // stable and unique within a build, such as a node's number
	Name string // what the user wrote: "[build 3/7] RUN go build ./..."
	Kind Kind

	Line        string        // Output, Warning: one line, without its newline
	Done, Total int64         // Transfer: bytes; Total is 0 when unknown
	Took        time.Duration // Finished, Failed
	Err         error         // Failed
}

// Kind says which of an Event's fields matter.
type Kind uint8

// The life of a step is Started, any number of Output, Transfer and Warning,
// then Finished or Failed. A step found in the cache has one Cached event.
// Warning events may also come without a step.
const (
	Started Kind = iota + 1
	Output
	Transfer
	Warning
	Cached
	Finished
	Failed
)

// String returns the kind's name in lower case.
func (k Kind) String() string {
	switch k {
	case Started:
		return "started"
	case Output:
		return "output"
	case Transfer:
		return "transfer"
	case Warning:
		return "warning"
	case Cached:
		return "cached"
	case Finished:
		return "finished"
	case Failed:
		return "failed"
	}
	return "unknown"
}

// A Sink receives events, from any goroutine, those of one step in the order
// in which they happened. It must not block: a slow sink would slow the build.
// The nil Sink discards.
type Sink func(Event)

// Emit stamps ev with the current time and passes it on.
func (s Sink) Emit(ev Event) {
	if s == nil {
		return
	}
	ev.Time = time.Now()
	s(ev)
}
