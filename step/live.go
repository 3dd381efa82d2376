package step

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/slipway-build/slipway/engine/progress"
)

// liveView shows on a terminal what is running now, below the lines of what has
// ended. It moves the cursor only within the lines that it drew last, and
// leaves the terminal as it was after every write: there is nothing to restore
// when the process is killed.
type liveView struct {
	w       io.Writer
	size    func() (width, height int)
	history *history
	color   bool

	began   time.Time
	drawn   time.Time
	rows    int          // how many lines are drawn below the lasting ones
	lasting []string     // to be written at the next drawing
	running []*stepState // in the order in which they started
	ended   int
}

// liveOutput is how many lines of a running step's output are shown.
const liveOutput = 6

func (v *liveView) show(ev progress.Event, st *stepState) {
	if v.began.IsZero() {
		v.began = ev.Time
	}
	width, _ := v.dimensions()
	switch ev.Kind {
	case progress.Started:
		if !slices.Contains(v.running, st) {
			v.running = append(v.running, st)
		}
	case progress.Cached, progress.Finished, progress.Failed:
		v.running = slices.DeleteFunc(v.running, func(s *stepState) bool { return s == st })
		v.ended++
		v.lasting = append(v.lasting, v.endLine(st, width))
	case progress.Warning:
		v.lasting = append(v.lasting, v.paint(yellow, "WARN: "+clean(ev.Line)))
	case progress.Output, progress.Transfer:
	}
	if ev.Time.Sub(v.drawn) >= tickEvery {
		v.draw(ev.Time)
	}
}

func (v *liveView) tick(now time.Time) {
	if !v.began.IsZero() && now.Sub(v.drawn) >= tickEvery/2 {
		v.draw(now)
	}
}

func (v *liveView) close() {
	width, _ := v.dimensions()
	for _, st := range v.running {
		v.lasting = append(v.lasting, aligned(" => CANCELED "+st.name, "", width))
	}
	v.running = nil
	v.draw(v.drawn)
}

// endLine is the lasting line about a step that ended.
func (v *liveView) endLine(st *stepState, width int) string {
	took := duration(st.took, st.began, st.ended)
	switch {
	case st.outcome == progress.Cached:
		return aligned(" => CACHED "+st.name, "", width)
	case v.history.canceled(st):
		return aligned(" => CANCELED "+st.name, took, width)
	case st.outcome == progress.Failed:
		return v.paint(red, aligned(" => ERROR "+st.name, took, width))
	default:
		return aligned(" => "+st.name, took, width)
	}
}

// draw replaces what was drawn last.
func (v *liveView) draw(now time.Time) {
	v.drawn = now
	var b strings.Builder
	if v.rows > 0 {
		fmt.Fprintf(&b, "\x1b[%dA\r\x1b[J", v.rows)
	}
	for _, l := range v.lasting {
		b.WriteString(l + "\n")
	}
	lines := v.lines(now)
	if len(lines) > 0 {
		b.WriteString("\x1b[?7l") // what is too wide is cut by the terminal, if not by us
		for _, l := range lines {
			b.WriteString(l + "\n")
		}
		b.WriteString("\x1b[?7h")
	}
	v.rows, v.lasting = len(lines), nil
	if b.Len() > 0 {
		io.WriteString(v.w, b.String())
	}
}

// lines returns what shows of the running steps, in at most the terminal's
// height less one.
func (v *liveView) lines(now time.Time) []string {
	if len(v.running) == 0 {
		return nil
	}
	width, height := v.dimensions()
	lines := []string{shorten(fmt.Sprintf("[+] Building %s (%d done, %d running)", duration(0, v.began, now), v.ended, len(v.running)), width)}
	room := max(height-2, 1)
	steps := v.running
	if len(steps) > room {
		room-- // for the line that says how many more there are
		steps = steps[:room]
	}
	output := min(liveOutput, (room-len(steps))/max(len(steps), 1))
	for _, st := range steps {
		name := st.name
		if st.done > 0 {
			name += " " + transferred(st.done, st.total)
		}
		lines = append(lines, aligned(" => "+name, duration(0, st.began, now), width))
		for _, l := range st.lines[max(0, len(st.lines)-output):] {
			lines = append(lines, v.paint(dim, shorten(" => => "+strings.ReplaceAll(l, "\t", " "), width)))
		}
	}
	if n := len(v.running) - len(steps); n > 0 {
		lines = append(lines, fmt.Sprintf(" => and %d more", n))
	}
	return lines
}

func (v *liveView) dimensions() (width, height int) {
	width, height = v.size()
	if width <= 0 || height <= 0 {
		return 80, 24
	}
	return width, height
}

// aligned puts right at the end of a line of the given width, and cuts left to
// what room there is.
func aligned(left, right string, width int) string {
	room := width - len(right) - 1
	left = shorten(left, max(room, 1))
	if right == "" {
		return left
	}
	return left + strings.Repeat(" ", max(room-utf8.RuneCountInString(left), 0)+1) + right
}

// The colours of the log, as parameters of SGR.
const (
	red    = "31"
	yellow = "33"
	dim    = "2"
	bold   = "1"
)

func (v *liveView) paint(color, s string) string { return paint(v.color, color, s) }

func paint(on bool, color, s string) string {
	if !on {
		return s
	}
	return "\x1b[" + color + "m" + s + "\x1b[0m"
}
