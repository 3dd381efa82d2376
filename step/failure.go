package step

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/slipway-build/slipway/engine/diag"
)

// failure is what is shown of an error.
type failure struct {
	message  string
	canceled bool

	at     diag.Origin
	source []byte // the Dockerfile; nil if it cannot be had
	hint   string

	step    string   // name of the step that failed, if it was one
	output  []string // its last lines
	dropped int      // how many lines came before them
}

// lines returns the log's lines about f: the step's last output, the Dockerfile's
// lines, what went wrong and what can be done.
func (f failure) lines(color bool) []string {
	if f.canceled {
		return []string{"", paint(color, red, "CANCELED: "+clean(f.message))}
	}
	lines := []string{""}
	if len(f.output) > 0 {
		lines = append(lines, "------", " > "+f.step+":")
		if f.dropped > 0 {
			lines = append(lines, fmt.Sprintf("(%d lines before)", f.dropped))
		}
		for _, l := range f.output {
			lines = append(lines, pieces(l)...)
		}
		lines = append(lines, "------")
	}
	if f.source != nil {
		lines = append(lines, excerpt(f.at, f.source, color)...)
	} else if f.at.Line > 0 {
		lines = append(lines, f.at.String())
	}
	for i, l := range strings.Split(strings.TrimRight(f.message, "\n"), "\n") {
		if i == 0 {
			l = "ERROR: " + l
		}
		lines = append(lines, paint(color, red, clean(l)))
	}
	for i, l := range strings.Split(f.hint, "\n") {
		switch {
		case f.hint == "":
		case i == 0:
			lines = append(lines, paint(color, bold, "hint:")+" "+clean(l))
		default:
			lines = append(lines, "      "+clean(l))
		}
	}
	return lines
}

// excerpt shows the lines of the Dockerfile that at names, marked, and some
// around them.
func excerpt(at diag.Origin, source []byte, color bool) []string {
	const around, longest = 2, 16
	text := bytes.Split(bytes.TrimSuffix(source, []byte("\n")), []byte("\n"))
	if at.Line < 1 || at.Line > len(text) {
		return nil
	}
	last := min(max(at.Last, at.Line), len(text))
	lines := []string{at.String(), "--------------------"}
	for n := max(at.Line-around, 1); n <= min(last+around, len(text)); n++ {
		if skip := last - longest/4; n == at.Line+longest*3/4 && n < skip {
			lines = append(lines, fmt.Sprintf("  … | >>> (%d lines)", skip-n))
			n = skip
		}
		l := shorten(clean(string(text[n-1])), 400)
		if n < at.Line || n > last {
			lines = append(lines, strings.TrimRight(fmt.Sprintf("%4d |     %s", n, l), " "))
			continue
		}
		lines = append(lines, paint(color, bold, fmt.Sprintf("%4d | >>> %s", n, l)))
	}
	return append(lines, "--------------------")
}
