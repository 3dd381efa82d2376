package step

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/slipway-build/slipway/engine/progress"
)

// history remembers of a build's events what the log needs: the number of each
// step, when it began, and the last lines that it printed.
type history struct {
	keep   int // how many of the last lines of a step are kept
	steps  map[string]*stepState
	failed *stepState // the first that failed

	// cause returns why the build was cancelled from outside; nil if it was not.
	cause func() error
}

// stepState is what is known of a step.
type stepState struct {
	number  int
	name    string
	began   time.Time
	ended   time.Time
	outcome progress.Kind // Cached, Finished, Failed; 0 while it runs
	took    time.Duration
	err     error

	done, total int64     // of a transfer
	shown       time.Time // when a view last showed it

	lines   []string // the last of its output, ready to be shown
	dropped int      // how many lines are not in lines any more
}

func newHistory(keep int) *history {
	return &history{keep: keep, steps: make(map[string]*stepState), cause: func() error { return nil }}
}

// add notes ev and returns the state of its step, nil if it has none.
func (h *history) add(ev progress.Event) *stepState {
	if ev.Step == "" {
		return nil
	}
	st := h.steps[ev.Step]
	if st == nil {
		st = &stepState{number: len(h.steps) + 1, began: ev.Time, shown: ev.Time}
		h.steps[ev.Step] = st
	}
	if name := title(ev.Name); name != "" {
		st.name = name
	}
	switch ev.Kind {
	case progress.Started:
		*st = stepState{number: st.number, name: st.name, began: ev.Time, shown: ev.Time} // again, if a layer got lost
	case progress.Output:
		h.addLine(st, ev)
	case progress.Transfer:
		st.done, st.total = ev.Done, ev.Total
	case progress.Cached, progress.Finished, progress.Failed:
		st.outcome, st.took, st.err, st.ended = ev.Kind, ev.Took, ev.Err, ev.Time
		if ev.Kind == progress.Failed && h.failed == nil && !h.stopped(ev.Err) {
			h.failed = st
		}
		if h.failed != st {
			st.lines = nil
		}
	case progress.Warning:
	}
	return st
}

func (h *history) addLine(st *stepState, ev progress.Event) {
	if st.outcome != 0 {
		return
	}
	if len(st.lines) >= 2*h.keep { // seldom enough to cost nothing
		st.dropped += len(st.lines) - h.keep
		st.lines = slices.Delete(st.lines, 0, len(st.lines)-h.keep)
	}
	st.lines = append(st.lines, since(st.began, ev.Time)+" "+clean(ev.Line))
}

// tail returns the last lines of a step's output, and how many came before.
func (h *history) tail(st *stepState) (lines []string, dropped int) {
	n := max(len(st.lines)-h.keep, 0)
	return st.lines[n:], st.dropped + n
}

// canceled reports whether a step failed only because another one did, or
// because the build was cancelled.
func (h *history) canceled(st *stepState) bool {
	return st.outcome == progress.Failed && st != h.failed &&
		(h.stopped(st.err) || h.failed == nil || errors.Is(st.err, h.failed.err))
}

// stopped reports whether err only says that the build was cancelled.
func (h *history) stopped(err error) bool {
	cause := h.cause()
	return errors.Is(err, context.Canceled) || cause != nil && errors.Is(err, cause)
}

// count returns how many steps of the Dockerfile there were, and how many of
// them were found in the cache.
func (h *history) count() (steps, cached int) {
	for _, st := range h.steps {
		if !strings.HasPrefix(st.name, "[") || internal(st.name) {
			continue
		}
		steps++
		if st.outcome == progress.Cached {
			cached++
		}
	}
	return steps, cached
}

// internal reports whether a step is none of the Dockerfile's.
func internal(name string) bool { return strings.HasPrefix(name, "[internal]") }

// end says how a step ended.
func (h *history) end(st *stepState) string {
	switch {
	case st.outcome == progress.Cached:
		return "CACHED"
	case h.canceled(st):
		return "CANCELED"
	case st.outcome == progress.Failed:
		return "ERROR: " + title(fmt.Sprint(st.err))
	case st.total > 0:
		return fmt.Sprintf("DONE %s, %s", duration(st.took, st.began, st.ended), size(max(st.done, st.total)))
	default:
		return "DONE " + duration(st.took, st.began, st.ended)
	}
}

// since shows the time that passed between two events in seconds, with four
// digits as long as there are no more.
func since(from, to time.Time) string {
	s := max(to.Sub(from).Seconds(), 0)
	switch {
	case s < 10:
		return fmt.Sprintf("%.3f", s)
	case s < 100:
		return fmt.Sprintf("%.2f", s)
	default:
		return fmt.Sprintf("%.1f", s)
	}
}

// duration shows how long something took; if that was not said, by when it
// began and ended.
func duration(took time.Duration, began, ended time.Time) string {
	if took == 0 {
		took = max(ended.Sub(began), 0)
	}
	if took >= time.Minute {
		return fmt.Sprintf("%dm%02ds", int(took.Minutes()), int(took.Seconds())%60)
	}
	return fmt.Sprintf("%.1fs", took.Seconds())
}

// size shows a number of bytes as people read it.
func size(n int64) string {
	const units = "kMGTP"
	if n < 1000 {
		return fmt.Sprintf("%dB", n)
	}
	f, i := float64(n)/1000, 0
	for f >= 999.95 && i < len(units)-1 {
		f, i = f/1000, i+1
	}
	return fmt.Sprintf("%.1f%cB", f, units[i])
}
