package plain_test

import (
	"strings"
	"testing"

	"github.com/slipway-build/slipway/ci"
	"github.com/slipway-build/slipway/ci/plain"
)

func TestDialect(t *testing.T) {
	vars := map[string]string{"INPUT_BUILD_ARGS": "A=1"}
	d := plain.Dialect{Lookup: func(name string) (string, bool) { v, ok := vars[name]; return v, ok }}
	if v, ok := d.Input("build-args"); v != "A=1" || !ok {
		t.Errorf("Input = %q, %v", v, ok)
	}
	if v, ok := (plain.Dialect{}).Input("build-args"); v != "" || ok {
		t.Errorf("the zero dialect has input %q", v)
	}
	var out strings.Builder
	c := d.Console(&out)
	end := c.Group("RUN x")
	c.Line("::error::is text here")
	c.Annotate(ci.Annotation{Level: ci.Error, Message: "said before"})
	end()
	c.Group("RUN y")
	if want := "RUN x\n::error::is text here\n\nRUN y\n"; out.String() != want {
		t.Errorf("console wrote %q, want %q", out.String(), want)
	}
	if err := d.SetOutputs([]ci.Output{{Name: "digest"}}); err != nil {
		t.Error(err)
	}
}
