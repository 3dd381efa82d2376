package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/slipway-build/slipway/engine/diag"
	"github.com/slipway-build/slipway/step"
)

// section is a heading of a command's help and the flags under it.
type section struct {
	title string
	flags []string
}

func newFlags(name string) *pflag.FlagSet {
	fs := pflag.NewFlagSet(name, pflag.ContinueOnError)
	fs.SortFlags = false
	return fs
}

func noFlags() (*pflag.FlagSet, []section) { return newFlags("slipway"), nil }

// given is the value of a flag of the build command: all that was written for
// it, in order. What it means is decided in step.
type given struct {
	in     step.Input
	values []string
}

// String implements [pflag.Value].
func (*given) String() string { return "" }

// Set implements [pflag.Value].
func (g *given) Set(s string) error { g.values = append(g.values, s); return nil }

// Type implements [pflag.Value].
func (*given) Type() string { return "string" }

// buildFlags makes flags of the table of inputs. Those that are refused or have
// no effect are flags too, but not in the help.
func buildFlags() (*pflag.FlagSet, []section) {
	fs := newFlags("build")
	sections := make(map[step.Group]*section)
	var all []section
	for _, in := range step.Inputs() {
		if in.Flag == "" {
			continue
		}
		help := in.Help
		if in.Env != "" {
			help = strings.TrimSuffix(help, ".") + " [$" + in.Env + "]."
		}
		f := fs.VarPF(&given{in: in}, in.Flag, in.Short, help)
		if in.Kind == step.Bool {
			f.NoOptDefVal = "true"
		}
		f.Hidden = in.Group == ""
	}
	for _, g := range step.Groups() {
		sections[g] = &section{title: string(g)}
		for _, in := range step.Inputs() {
			if in.Group == g && in.Flag != "" {
				sections[g].flags = append(sections[g].flags, in.Flag)
			}
		}
		all = append(all, *sections[g])
	}
	return fs, all
}

// values returns what was given for each flag of the build command.
func values(fs *pflag.FlagSet) map[string][]string {
	all := make(map[string][]string)
	fs.Visit(func(f *pflag.Flag) {
		if g, ok := f.Value.(*given); ok {
			all[f.Name] = g.values
		}
	})
	return all
}

// flagError explains why a command's flags could not be parsed.
func flagError(c command, fs *pflag.FlagSet, err error) error {
	if unknown, ok := errors.AsType[*pflag.NotExistError](err); ok {
		name := unknown.GetSpecifiedName()
		if len(name) == 1 && unknown.GetSpecifiedShortnames() != "" {
			return usageError(c.name, "no flag -%s", name)
		}
		var flags []string
		fs.VisitAll(func(f *pflag.Flag) { flags = append(flags, "--"+f.Name) })
		return usageError(c.name, "no flag --%s%s", name, suggest("--"+name, flags))
	}
	return usageError(c.name, "%w", err)
}

// suggest returns what may be meant by a name that is none of known, to be put
// behind a message; empty if nothing comes close.
func suggest(name string, known []string) string {
	best, least := "", max(len(strings.Trim(name, "-"))/3, 1)+1
	for _, k := range known {
		if d := diag.Distance(name, k); d < least {
			best, least = k, d
		}
	}
	if best == "" {
		if i := slices.IndexFunc(known, func(k string) bool { return strings.HasPrefix(k, name) }); i >= 0 {
			best = known[i]
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(": did you mean %s?", best)
}
