// Package ci speaks to the CI system that runs the step. Each system is a
// [Dialect], in a subpackage; the step itself never looks at an environment
// variable of a CI system. It is a leaf: what is said through a dialect is
// decided by step.
package ci

import (
	"io"
	"strings"
)

// Dialect is how one CI system passes values in and takes results out.
type Dialect interface {
	// Input returns the value of a step input, and whether it was given.
	// Names are as in action.yml; a dialect maps them to its own convention.
	Input(name string) (value string, ok bool)

	// Console returns a console that writes to w. It is used by one goroutine
	// at a time.
	Console(w io.Writer) Console

	// SetOutputs hands results to later steps, all at once. With none it only
	// reports whether that would be possible.
	SetOutputs(outputs []Output) error
}

// Output is one result of the step. Values may have several lines.
type Output struct{ Name, Value string }

// A Console shows things to the people who read the log. Writing is best
// effort: a log that cannot be written does not fail a build.
type Console interface {
	// Line writes text and a newline. Nothing in text is obeyed as a command of
	// the CI system, wherever it comes from.
	Line(text string)

	// Group starts a section that the log viewer can fold. Sections do not nest.
	Group(title string) (end func())

	// Annotate attaches a message to a line of a file, where people review it.
	Annotate(Annotation)
}

// Annotation is a message about a line.
type Annotation struct {
	Level   Level
	File    string // a path that this process could open; empty: no file
	Line    int    // 0: no line in particular
	Title   string
	Message string
}

// Level is how bad an annotation is.
type Level uint8

// The levels.
const (
	Notice Level = iota
	Warning
	Error
)

// Input reads a step input as GitHub passes it: in the variable INPUT_NAME,
// where hyphens may be underscores, because shells have no variables with
// hyphens. An empty value is as good as none: it is what an input that was
// declared and not given has.
func Input(lookup func(name string) (string, bool), name string) (string, bool) {
	upper := "INPUT_" + strings.ToUpper(strings.ReplaceAll(name, " ", "_"))
	for _, v := range []string{upper, strings.ReplaceAll(upper, "-", "_")} {
		if s, _ := lookup(v); s != "" {
			return s, true
		}
	}
	return "", false
}
