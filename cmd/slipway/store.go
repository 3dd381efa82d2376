package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/pflag"

	"github.com/slipway-build/slipway/step"
)

const rootHelp = "Use `DIR` as the state directory; default: slipway in the user's cache directory [$SLIPWAY_ROOT]."

func usageFlags() (*pflag.FlagSet, []section) {
	fs := newFlags("du")
	fs.String("root", "", rootHelp)
	fs.Bool("verbose", false, "Show every entry, not only sums.")
	fs.String("format", "table", "Show it as `FORMAT`: table, or json for a JSON object a line.")
	return fs, []section{{"Flags", []string{"root", "verbose", "format"}}}
}

func pruneFlags() (*pflag.FlagSet, []section) {
	fs := newFlags("prune")
	fs.BoolP("all", "a", false, "Remove everything; this is so unless one of the next three says what may stay.")
	fs.String("keep-storage", "", "Let the most recently used stay, up to `SIZE`, such as 10gb.")
	fs.Duration("older-than", 0, "Remove only what was not used for `TIME`, such as 24h.")
	fs.StringArray("filter", nil, "Take `until=TIME` as another spelling of --older-than.")
	fs.Bool("wait", false, "Wait for builds that use the directory, instead of saying who does.")
	fs.String("root", "", rootHelp)
	fs.Bool("verbose", false, "Show every entry that was removed, not only sums.")
	fs.BoolP("force", "f", false, "Has no effect: there is no question to answer.")
	fs.Lookup("force").Hidden = true
	return fs, []section{{"Flags", []string{"all", "keep-storage", "older-than", "filter", "wait", "root", "verbose"}}}
}

func runUsage(ctx context.Context, env environment, fs *pflag.FlagSet, args []string) error {
	if len(args) > 0 {
		return usageError("du", "du takes no argument %q", args[0])
	}
	format := text(fs, "format")
	if format != "table" && format != "json" {
		return usageError("du", "--format: %q is neither table nor json", format)
	}
	root, err := stateDir(env, fs)
	if err != nil {
		return err
	}
	return step.ShowUsage(ctx, env.stdout, root, step.UsageOptions{Verbose: on(fs, "verbose"), JSON: format == "json"})
}

func runPrune(ctx context.Context, env environment, fs *pflag.FlagSet, args []string) error {
	if len(args) > 0 {
		return usageError("prune", "prune takes no argument %q", args[0])
	}
	opts := step.PruneOptions{Wait: on(fs, "wait"), Notice: func(line string) { fmt.Fprintln(env.stderr, line) }}
	var err error
	if opts.OlderThan, err = olderThan(fs); err != nil {
		return err
	}
	if keep := text(fs, "keep-storage"); keep != "" {
		if opts.Keep, err = units.FromHumanSize(keep); err != nil || opts.Keep < 0 {
			return usageError("prune", "--keep-storage: %q is not a size such as 10gb", keep)
		}
	}
	if on(fs, "all") && (opts.Keep > 0 || opts.OlderThan > 0) {
		return usageError("prune", "--all leaves nothing for --keep-storage, --older-than or --filter")
	}
	root, err := stateDir(env, fs)
	if err != nil {
		return err
	}
	return step.Prune(ctx, env.stdout, root, opts, step.UsageOptions{Verbose: on(fs, "verbose")})
}

// olderThan reads --older-than and --filter until=.
func olderThan(fs *pflag.FlagSet) (time.Duration, error) {
	d, err := fs.GetDuration("older-than")
	if err != nil {
		return 0, err
	}
	filters, err := fs.GetStringArray("filter")
	if err != nil {
		return 0, err
	}
	for _, f := range filters {
		name, value, _ := strings.Cut(f, "=")
		if name != "until" {
			return 0, usageError("prune", "--filter: %q is not supported in this version, only until=TIME", f)
		}
		if d, err = time.ParseDuration(value); err != nil {
			return 0, usageError("prune", "--filter: %q is not a time such as 24h", value)
		}
	}
	if d < 0 {
		return 0, usageError("prune", "--older-than: %v is negative", d)
	}
	return d, nil
}

// stateDir returns the state directory that a command is about.
func stateDir(env environment, fs *pflag.FlagSet) (string, error) {
	if root := text(fs, "root"); root != "" {
		return root, nil
	}
	root, err := step.StateDir(env.lookup)
	if err != nil {
		return "", usageError(fs.Name(), "--root: %w", err)
	}
	return root, nil
}

// text and on return the value of a flag that is in the set.
func text(fs *pflag.FlagSet, name string) string { return fs.Lookup(name).Value.String() }

func on(fs *pflag.FlagSet, name string) bool { return text(fs, name) == "true" }
