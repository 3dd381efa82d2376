// Package github speaks to GitHub Actions, and to Forgejo and Gitea, which
// follow its conventions.
package github

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"unicode"

	"github.com/slipway-build/slipway/ci"
)

// Dialect reads INPUT_* and writes workflow commands and GITHUB_OUTPUT.
type Dialect struct {
	// Lookup looks variables up; it is os.LookupEnv outside tests.
	Lookup func(name string) (string, bool)

	// LogOnly says that nobody waits for outputs: SetOutputs does nothing.
	LogOnly bool
}

var _ ci.Dialect = Dialect{}

// Input implements [ci.Dialect].
func (d Dialect) Input(name string) (string, bool) { return ci.Input(d.Lookup, name) }

// SetOutputs implements [ci.Dialect]. All outputs are appended to the file by
// one write.
func (d Dialect) SetOutputs(outputs []ci.Output) (err error) {
	if d.LogOnly {
		return nil
	}
	name, ok := d.Lookup("GITHUB_OUTPUT")
	if !ok || name == "" {
		return errors.New("set outputs: GITHUB_OUTPUT is not set")
	}
	var b strings.Builder
	for _, o := range outputs {
		if o.Name == "" || strings.ContainsAny(o.Name, "=<\r\n") {
			return fmt.Errorf("set output %q: not a name", o.Name)
		}
		// A random delimiter: a value cannot end itself and forge an output.
		end := "end-" + rand.Text()
		fmt.Fprintf(&b, "%s<<%s\n%s\n%s\n", o.Name, end, o.Value, end)
	}
	f, err := os.OpenFile(name, os.O_APPEND|os.O_WRONLY, 0) // the runner made it
	if err != nil {
		return fmt.Errorf("set outputs: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.WriteString(b.String()); err != nil {
		return fmt.Errorf("set outputs: %w", err)
	}
	return nil
}

// Console implements [ci.Dialect].
func (d Dialect) Console(w io.Writer) ci.Console {
	workspace, _ := d.Lookup("GITHUB_WORKSPACE")
	return console{w, workspace}
}

type console struct {
	w         io.Writer
	workspace string
}

// Line implements [ci.Console]. The runner obeys commands wherever they come
// from, so text that looks like one is put between a command that stops
// commands and the token, known to nobody else, that starts them again.
func (c console) Line(text string) {
	if !obeyed(text) {
		io.WriteString(c.w, text+"\n")
		return
	}
	token := "text-" + rand.Text()
	fmt.Fprintf(c.w, "::stop-commands::%s\n%s\n::%s::\n", token, text, token)
}

// obeyed reports whether the runner could take a line of text as a command:
// "::name …::" after blanks, or the older "##[name …]" anywhere.
func obeyed(text string) bool {
	if strings.Contains(text, "##[") {
		return true
	}
	for line := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == '\n' || r == '\r' }) {
		line = strings.TrimLeftFunc(line, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) })
		if strings.HasPrefix(line, "::") {
			return true
		}
	}
	return false
}

func (c console) Group(title string) (end func()) {
	c.command("group", "", title)
	return func() { c.command("endgroup", "", "") }
}

// Annotate implements [ci.Console]. GitHub wants paths relative to the
// workspace.
func (c console) Annotate(a ci.Annotation) {
	level := [...]string{ci.Notice: "notice", ci.Warning: "warning", ci.Error: "error"}[a.Level]
	var props []string
	if a.File != "" {
		props = append(props, "file="+property.Replace(c.inWorkspace(a.File)))
	}
	if a.Line > 0 {
		props = append(props, fmt.Sprintf("line=%d", a.Line))
	}
	if a.Title != "" {
		props = append(props, "title="+property.Replace(a.Title))
	}
	c.command(level, strings.Join(props, ","), a.Message)
}

func (c console) inWorkspace(file string) string {
	abs, err := filepath.Abs(file)
	if err != nil || c.workspace == "" {
		return file
	}
	if rel, err := filepath.Rel(c.workspace, abs); err == nil && filepath.IsLocal(rel) {
		return rel
	}
	return file
}

func (c console) command(name, props, message string) {
	if props != "" {
		props = " " + props
	}
	fmt.Fprintf(c.w, "::%s%s::%s\n", name, props, data.Replace(message))
}

// What workflow commands require to be escaped in messages and in properties.
var (
	data     = strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A")
	property = strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A", ":", "%3A", ",", "%2C")
)
