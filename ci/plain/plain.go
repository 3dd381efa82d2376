// Package plain is the dialect of no CI system in particular: inputs come from
// INPUT_* variables, the log is text, results are what the log says of them.
// Command line builds use it for their log only.
package plain

import (
	"io"

	"github.com/slipway-build/slipway/ci"
)

// Dialect reads INPUT_* variables. The zero Dialect has no inputs.
type Dialect struct {
	// Lookup looks variables up; it is os.LookupEnv outside tests.
	Lookup func(name string) (string, bool)
}

var _ ci.Dialect = Dialect{}

// Input implements [ci.Dialect].
func (d Dialect) Input(name string) (string, bool) {
	if d.Lookup == nil {
		return "", false
	}
	return ci.Input(d.Lookup, name)
}

// Console implements [ci.Dialect]. Groups are set off by an empty line.
func (Dialect) Console(w io.Writer) ci.Console { return &console{w: w} }

// SetOutputs implements [ci.Dialect]: there is nobody to hand anything to.
func (Dialect) SetOutputs([]ci.Output) error { return nil }

type console struct {
	w       io.Writer
	written bool
}

func (c *console) Line(text string) {
	c.written = true
	io.WriteString(c.w, text+"\n")
}

func (c *console) Group(title string) (end func()) {
	if c.written {
		c.Line("")
	}
	c.Line(title)
	return func() {}
}

// Annotate does nothing: what it would say is in the log already.
func (*console) Annotate(ci.Annotation) {}
