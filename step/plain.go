package step

import (
	"fmt"
	"slices"
	"time"

	"github.com/slipway-build/slipway/ci"
	"github.com/slipway-build/slipway/engine/progress"
)

// plainView writes lines that are never taken back. Each begins with the number
// of its step. Lines of one step are kept together: while one step is written,
// the lines of others are held back for a moment, and when the step changes,
// its name is written again.
type plainView struct {
	console ci.Console
	history *history

	active  *stepState
	endOf   func()    // ends active's group
	written time.Time // when active last had something to say
	held    []*block
}

// block is what is held back of one step.
type block struct {
	st    *stepState
	since time.Time
	lines []string
	end   string // how the step ended, if it did
}

const (
	quietAfter    = 300 * time.Millisecond // after that, another step may be written
	holdAtMost    = 3 * time.Second
	holdLines     = 1000
	transferEvery = 5 * time.Second
)

func (v *plainView) show(ev progress.Event, st *stepState) {
	if st == nil {
		v.pause()
		v.console.Line("WARN: " + clean(ev.Line))
		return
	}
	lines, end, ok := v.render(ev, st)
	if !ok {
		return
	}
	if v.active == nil && len(v.held) == 0 && end == "" {
		v.begin(st, ev.Time)
	}
	if v.active == st {
		v.write(lines, ev.Time)
		if end != "" {
			v.finish(st, end)
			v.release(ev.Time)
		}
		return
	}
	b := v.hold(st, ev.Time)
	b.lines = append(b.lines, lines...)
	b.end = end
	if v.active == nil || len(b.lines) > holdLines || ev.Kind == progress.Failed {
		v.pause()
		v.release(ev.Time)
	}
}

// render returns what there is to write about ev.
func (v *plainView) render(ev progress.Event, st *stepState) (lines []string, end string, ok bool) {
	switch ev.Kind {
	case progress.Started:
		return nil, "", true
	case progress.Output:
		for i, p := range pieces(clean(ev.Line)) {
			prefix := fmt.Sprintf("#%d %s ", st.number, since(st.began, ev.Time))
			if i > 0 {
				prefix += "… "
			}
			lines = append(lines, prefix+p)
		}
		return lines, "", true
	case progress.Warning:
		return []string{fmt.Sprintf("#%d WARN: %s", st.number, clean(ev.Line))}, "", true
	case progress.Transfer:
		if ev.Time.Sub(st.shown) < transferEvery {
			return nil, "", false
		}
		st.shown = ev.Time
		return []string{fmt.Sprintf("#%d %s", st.number, transferred(ev.Done, ev.Total))}, "", true
	case progress.Cached, progress.Finished, progress.Failed:
		return nil, v.history.end(st), true
	}
	return nil, "", false
}

func transferred(done, total int64) string {
	if total > 0 {
		return size(done) + " / " + size(total)
	}
	return size(done)
}

// hold returns the block of a step that is not active.
func (v *plainView) hold(st *stepState, now time.Time) *block {
	for _, b := range v.held {
		if b.st == st && b.end == "" {
			return b
		}
	}
	b := &block{st: st, since: now}
	v.held = append(v.held, b)
	return b
}

// release writes the blocks of steps that have ended, and makes the oldest of
// the others active. There is no active step when it is called.
func (v *plainView) release(now time.Time) {
	v.held = slices.DeleteFunc(v.held, func(b *block) bool {
		if b.end == "" {
			return false
		}
		if len(b.lines) > 0 || b.st.outcome == progress.Failed {
			v.begin(b.st, now)
			v.write(b.lines, now)
		}
		v.finish(b.st, b.end)
		return true
	})
	if len(v.held) == 0 {
		return
	}
	b := v.held[0]
	v.held = v.held[1:]
	v.begin(b.st, now)
	v.write(b.lines, now)
}

func (v *plainView) begin(st *stepState, now time.Time) {
	v.active, v.written = st, now
	v.endOf = v.console.Group(fmt.Sprintf("#%d %s", st.number, st.name))
}

func (v *plainView) write(lines []string, now time.Time) {
	for _, l := range lines {
		v.console.Line(l)
		v.written = now
	}
}

// finish writes how a step ended, with its name unless that stands above.
func (v *plainView) finish(st *stepState, end string) {
	if v.active == st {
		v.pause()
		v.console.Line(fmt.Sprintf("#%d %s", st.number, end))
		return
	}
	v.console.Line(fmt.Sprintf("#%d %s %s", st.number, end, st.name))
}

// pause stops to write the active step.
func (v *plainView) pause() {
	if v.active != nil {
		v.endOf()
		v.active = nil
	}
}

func (v *plainView) tick(now time.Time) {
	if v.active == nil || len(v.held) == 0 {
		return
	}
	if now.Sub(v.written) >= quietAfter || now.Sub(v.held[0].since) >= holdAtMost {
		v.pause()
		v.release(now)
	}
}

func (v *plainView) close() {
	v.pause()
	for len(v.held) > 0 {
		v.release(time.Time{})
		v.pause()
	}
}
