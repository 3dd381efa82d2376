// Command slipway builds container images: as a step of a CI pipeline, or for
// a person at a terminal. This package is argv to command to exit code, and
// the only one that reads the environment; what commands do is in step.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/slipway-build/slipway/engine/diag"
	"github.com/slipway-build/slipway/step"
)

// A command is one thing that slipway can be told to do.
type command struct {
	name, args, help string
	flags            func() (*pflag.FlagSet, []section)
	run              func(ctx context.Context, env environment, fs *pflag.FlagSet, args []string) error
}

func commands() []command {
	return []command{
		{"build", "[FLAGS] CONTEXT|-", "Build an image from a Dockerfile, as docker buildx build does.", buildFlags, runBuild},
		{"step", "", "Do the build step of a pipeline: as build, but what to do is in INPUT_* variables.", noFlags, runStep},
		{"prune", "[FLAGS]", "Remove from the state directory what no build needs.", pruneFlags, runPrune},
		{"du", "[FLAGS]", "Show what the state directory holds.", usageFlags, runUsage},
		{"version", "", "Print the version.", noFlags, printVersion},
		{"help", "[COMMAND]", "Explain a command.", noFlags, runHelp},
	}
}

// environment is all of the outside world that a command may touch.
type environment struct {
	lookup         func(string) (string, bool)
	stdin          io.Reader
	stdout, stderr io.Writer

	piped bool                       // stdout is no terminal
	size  func() (width, height int) // of the terminal that stderr is; nil if it is none
	root  bool
}

func main() {
	ctx, stop := withSignals(context.Background())
	env := environment{
		lookup: takeInputs(), stdin: input{ctx, os.Stdin}, stdout: newOutput(ctx, os.Stdout), stderr: os.Stderr,
		piped: !term.IsTerminal(int(os.Stdout.Fd())), size: terminalSize(os.Stderr), root: os.Geteuid() == 0,
	}
	code := exit(ctx, env, dispatch(ctx, env, os.Args[1:]))
	stop()
	os.Exit(code)
}

// takeInputs takes the variables INPUT_* out of the environment that other
// processes inherit, such as credential helpers: there may be secrets in them
// (INVARIANTS 25). What it returns looks up variables, those included.
func takeInputs() func(name string) (string, bool) {
	taken := make(map[string]string)
	for _, kv := range os.Environ() {
		name, value, _ := strings.Cut(kv, "=")
		if strings.HasPrefix(name, "INPUT_") {
			taken[name] = value
			_ = os.Unsetenv(name) // it is set, so it has a name that can be
		}
	}
	return func(name string) (string, bool) {
		if value, ok := taken[name]; ok {
			return value, true
		}
		return os.LookupEnv(name)
	}
}

// terminalSize returns a function that returns the size of the terminal that f
// is, or nil if it is none that could show a live view.
func terminalSize(f *os.File) func() (width, height int) {
	if t := os.Getenv("TERM"); t == "" || t == "dumb" || !term.IsTerminal(int(f.Fd())) {
		return nil
	}
	return func() (int, int) {
		width, height, err := term.GetSize(int(f.Fd()))
		if err != nil {
			return 0, 0
		}
		return width, height
	}
}

// signalError is why a context was cancelled: a signal came.
type signalError struct{ syscall.Signal }

func (e signalError) Error() string { return e.String() }

// withSignals returns a context that the first SIGINT or SIGTERM cancels, so
// that everything can be cleaned up. The second ends the process at once.
func withSignals(ctx context.Context) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	done := make(chan struct{})
	go func() {
		for n := 0; ; n++ {
			select {
			case s := <-signals:
				sig, _ := s.(syscall.Signal)
				if n > 0 {
					os.Exit(128 + int(sig))
				}
				cancel(signalError{sig})
			case <-done:
				return
			}
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(done)
		cancel(nil)
	}
}

func dispatch(ctx context.Context, env environment, args []string) error {
	if len(args) == 0 {
		writeUsage(env.stderr)
		return usageError("", "name a command")
	}
	name := args[0]
	switch name {
	case "-h", "--help":
		name = "help"
	case "-v", "--version":
		name = "version"
	}
	c, ok := find(name)
	if !ok {
		return usageError("", "no command %q%s", args[0], suggest(name, names()))
	}
	fs, sections := c.flags()
	fs.Usage = func() {}
	err := fs.Parse(args[1:])
	switch {
	case errors.Is(err, pflag.ErrHelp):
		writeHelp(env.stdout, c, fs, sections)
		return nil
	case err != nil:
		return flagError(c, fs, err)
	case c.args == "" && fs.NArg() > 0:
		return usageError(c.name, "%s takes no argument %q", c.name, fs.Arg(0))
	}
	return c.run(ctx, env, fs, fs.Args())
}

func find(name string) (command, bool) {
	all := commands()
	i := slices.IndexFunc(all, func(c command) bool { return c.name == name })
	if i < 0 {
		return command{}, false
	}
	return all[i], true
}

func names() []string {
	var all []string
	for _, c := range commands() {
		all = append(all, c.name)
	}
	return all
}

// usageError says what to write differently; about is the command whose help
// explains it, if any.
func usageError(about, format string, args ...any) error {
	see := "slipway help"
	if about != "" {
		see = "slipway " + about + " --help"
	}
	err := fmt.Errorf("%w: %w", step.ErrUsage, fmt.Errorf(format, args...))
	return diag.Hint(err, "%s explains everything.", see)
}

// exit shows err, unless the log has, and returns the exit code for it.
func exit(ctx context.Context, env environment, err error) int {
	if s, ok := errors.AsType[signalError](context.Cause(ctx)); ok && err != nil {
		return 128 + int(s.Signal)
	}
	switch {
	case err == nil:
		return 0
	case errors.Is(err, step.ErrShown):
		return 1
	}
	text := strings.TrimPrefix(err.Error(), step.ErrUsage.Error()+": ")
	for line := range strings.Lines(text) {
		fmt.Fprintln(env.stderr, "error:", strings.TrimSuffix(line, "\n"))
	}
	if _, hint := diag.Explain(err); hint != "" {
		fmt.Fprintln(env.stderr, "hint:", hint)
	}
	if errors.Is(err, step.ErrUsage) {
		return 2
	}
	return 1
}

// explainUsage adds where to read on to what is wrong with a command's inputs.
func explainUsage(name string, err error) error {
	if !errors.Is(err, step.ErrUsage) {
		return err
	}
	return diag.Hint(err, "slipway %s --help explains everything.", name)
}
