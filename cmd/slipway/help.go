package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/spf13/pflag"

	"github.com/slipway-build/slipway/step"
)

// helpWidth is how wide the help is: it is read in logs as well as in terminals.
const helpWidth = 100

// writeUsage writes what slipway can do.
func writeUsage(w io.Writer) {
	fmt.Fprint(w, "slipway builds container images from Dockerfiles, in one process, without a daemon.\n\n"+
		"Usage: slipway COMMAND\n\nCommands:\n")
	for _, c := range commands() {
		writeEntry(w, c.name, c.help, 10)
	}
	fmt.Fprint(w, "\nslipway COMMAND --help explains a command.\n")
}

// writeHelp writes what a command does and takes.
func writeHelp(w io.Writer, c command, fs *pflag.FlagSet, sections []section) {
	fmt.Fprintln(w, strings.TrimSpace("Usage: slipway "+c.name+" "+c.args))
	fmt.Fprintf(w, "\n%s\n", c.help)
	for _, s := range sections {
		fmt.Fprintf(w, "\n%s:\n", s.title)
		for _, name := range s.flags {
			f := fs.Lookup(name)
			writeEntry(w, spelling(f), f.Usage, 31)
		}
	}
	if c.name == "build" {
		fmt.Fprintf(w, "\n%s\n", strings.Join(wrap("CONTEXT is a directory, or - for a tar archive or a Dockerfile on standard input. "+
			"Every other flag of docker buildx build says that it has no effect here, or that it is not supported in this version. "+
			"Also read: SOURCE_DATE_EPOCH, NO_COLOR, DOCKER_CONFIG.", helpWidth), "\n"))
	}
	if c.name == "step" {
		writeInputs(w)
	}
}

func writeInputs(w io.Writer) {
	fmt.Fprint(w, "\nInputs, each in a variable such as INPUT_BUILD_ARGS; lists are one item a line:\n")
	for _, in := range step.Inputs() {
		if in.Group != "" && in.Name != "" {
			writeEntry(w, in.Name, in.Help, 21)
		}
	}
	fmt.Fprint(w, "\nOutputs, in the file that GITHUB_OUTPUT names: digest, imageid, metadata.\n")
}

// spelling returns how a flag is written.
func spelling(f *pflag.Flag) string {
	s := "    --" + f.Name
	if f.Shorthand != "" {
		s = "-" + f.Shorthand + ", --" + f.Name
	}
	if g, ok := f.Value.(*given); ok {
		if g.in.Arg != "" {
			s += " " + g.in.Arg
		}
		return s
	}
	if arg, _ := pflag.UnquoteUsage(f); arg != "" {
		s += " " + arg
	}
	return s
}

// writeEntry writes a name and, from a column on, its explanation.
func writeEntry(w io.Writer, name, help string, column int) {
	name = "  " + name
	help = strings.ReplaceAll(help, "`", "")
	for i, line := range wrap(help, helpWidth-column-2) {
		switch {
		case i == 0 && utf8.RuneCountInString(name) <= column:
			fmt.Fprintf(w, "%-*s  %s\n", column, name, line)
		case i == 0:
			fmt.Fprintf(w, "%s\n%*s  %s\n", name, column, "", line)
		default:
			fmt.Fprintf(w, "%*s  %s\n", column, "", line)
		}
	}
}

// wrap breaks s into lines of at most width characters, where there are spaces.
func wrap(s string, width int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(s) {
		if line != "" && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width {
			lines = append(lines, line)
			line = ""
		}
		line = strings.TrimPrefix(line+" "+word, " ")
	}
	return append(lines, line)
}

func runHelp(_ context.Context, env environment, _ *pflag.FlagSet, args []string) error {
	if len(args) == 0 {
		writeUsage(env.stdout)
		return nil
	}
	c, ok := find(args[0])
	if !ok {
		return usageError("", "no command %q%s", args[0], suggest(args[0], names()))
	}
	fs, sections := c.flags()
	writeHelp(env.stdout, c, fs, sections)
	return nil
}
