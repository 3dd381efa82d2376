package step

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/slipway-build/slipway/ci"
	"github.com/slipway-build/slipway/engine"
)

// ErrUsage marks what the user has to write differently: nothing was done.
var ErrUsage = errors.New("usage")

// Config is what the user asked for, checked.
type Config struct {
	// Request is the build, but for its context and Dockerfile: those are
	// opened by Run.
	Request engine.Request

	Context string // a directory, or - for standard input
	File    string // as given: a path, - for standard input, or empty

	Root     string // the state directory
	Jobs     int
	Insecure []string
	Mirrors  map[string][]string

	Progress     string // auto, plain, tty, rawjson, quiet
	Quiet        bool   // print the image ID and nothing else
	MetadataFile string
	ImageIDFile  string

	// Notices are to be shown: what was asked for and has no effect.
	Notices []string
}

// A Source knows what the user gave for each input.
type Source struct {
	items func(in Input) (items []string, given bool, err error)
	spell func(in Input) string // what the user calls it
}

// FromDialect returns the inputs that a pipeline set.
func FromDialect(d ci.Dialect) Source {
	return Source{
		items: func(in Input) ([]string, bool, error) {
			if in.Name == "" {
				return nil, false, nil
			}
			v, ok := d.Input(in.Name)
			if !ok {
				return nil, false, nil
			}
			items, err := split(in.Kind, v)
			return items, true, err
		},
		spell: func(in Input) string { return "input " + in.Name },
	}
}

// FromFlags returns the inputs that a command line set: given has the values
// of each flag in their order, by the flag's name, and the build context under
// the empty name.
func FromFlags(given map[string][]string) Source {
	return Source{
		items: func(in Input) ([]string, bool, error) {
			values, ok := given[in.Flag]
			if in.Flag == "" && in.Name != "context" {
				return nil, false, nil
			}
			var items []string
			switch in.Kind {
			case Text: // the last one counts, and an empty one is as good as none
				values = slices.DeleteFunc(slices.Clone(values), func(v string) bool { return v == "" })
				return values, len(values) > 0, nil
			case Bool, Lines, Raw:
				return values, ok, nil
			case List:
			}
			for _, v := range values {
				items = append(items, fields(v)...)
			}
			return items, ok, nil
		},
		spell: func(in Input) string {
			if in.Flag == "" {
				return in.Name
			}
			return "--" + in.Flag
		},
	}
}

// A loader is a Config in the making.
type loader struct {
	Config
	lookup  func(string) (string, bool)
	input   string // the one that is being set, as the user calls it
	push    bool
	outputs []engine.Output
}

// Load makes a Config of what the user gave. It reports all that is wrong, not
// just the first; the error wraps [ErrUsage]. lookup reads the environment.
func Load(src Source, lookup func(name string) (string, bool)) (Config, error) {
	l := &loader{lookup: lookup}
	var errs []error
	for _, in := range Inputs() {
		l.input = src.spell(in)
		values, given, err := src.items(in)
		if err == nil && !given && in.Env != "" {
			if v, _ := lookup(in.Env); v != "" {
				l.input, given = "$"+in.Env, true
				values, err = split(in.Kind, v)
			}
		}
		if !given && in.Default != "" {
			values = []string{in.Default}
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", l.input, err))
		}
		for _, v := range values {
			if err := in.set(l, v); errors.Is(err, errUnsupported) {
				errs = append(errs, fmt.Errorf("%s %w", l.input, err))
				break
			} else if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", l.input, err))
			}
		}
	}
	errs = append(errs, l.finish(src)...)
	if len(errs) > 0 {
		return Config{}, fmt.Errorf("%w: %w", ErrUsage, errors.Join(errs...))
	}
	return l.Config, nil
}

// finish checks what only shows when all inputs are known.
func (l *loader) finish(src Source) []error {
	var errs []error
	spell := func(name string) string {
		for _, in := range inputs {
			if in.Name == name {
				return src.spell(in)
			}
		}
		return name
	}
	if l.Context == "-" && l.File == "-" {
		errs = append(errs, fmt.Errorf("%s: context and Dockerfile cannot both be on standard input", spell("file")))
	}
	outputs, err := finishOutputs(l.outputs, l.push)
	if err != nil {
		errs = append(errs, fmt.Errorf("%s: %w", spell("outputs"), err))
	}
	l.Request.Outputs = outputs
	l.Request.Image = len(outputs) == 0 // then it stays in the state directory, but has a digest
	for _, o := range outputs {
		if pushes(o) && len(l.Request.Tags) == 0 && o.Attrs["name"] == "" {
			errs = append(errs, fmt.Errorf("%s: set %s too: there is no name to push to", spell("push"), spell("tags")))
		}
	}
	if err := l.finishEpoch(); err != nil {
		errs = append(errs, err)
	}
	if l.Root == "" {
		if l.Root, err = cacheDir(l.lookup); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", spell("root"), err))
		}
	}
	if abs, err := filepath.Abs(l.Root); err == nil && l.Root != "" {
		l.Root = abs
	}
	if l.Quiet || l.Progress == "none" {
		l.Progress = "quiet"
	}
	return errs
}

// finishEpoch reads SOURCE_DATE_EPOCH, the build arg first; from the
// environment it becomes one, as in docker buildx build.
func (l *loader) finishEpoch() error {
	const name = "SOURCE_DATE_EPOCH"
	v, ok := l.Request.Args[name]
	if !ok {
		if v, _ = l.lookup(name); v == "" {
			return nil
		}
	}
	if v == "" {
		return nil
	}
	sec, err := strconv.ParseInt(v, 10, 64)
	if err != nil || sec < 0 {
		return fmt.Errorf("%s: %q is not a number of seconds since 1970", name, v)
	}
	t := time.Unix(sec, 0).UTC()
	l.Request.Epoch = &t
	if !ok {
		l.setArg(name, v)
	}
	return nil
}

func (l *loader) setArg(name, value string) {
	if l.Request.Args == nil {
		l.Request.Args = make(map[string]string)
	}
	l.Request.Args[name] = value
}

// StateDir returns the state directory that commands use without --root.
func StateDir(lookup func(name string) (string, bool)) (string, error) {
	if v, _ := lookup("SLIPWAY_ROOT"); v != "" {
		return v, nil
	}
	return cacheDir(lookup)
}

func cacheDir(lookup func(name string) (string, bool)) (string, error) {
	if v, _ := lookup("XDG_CACHE_HOME"); filepath.IsAbs(v) {
		return filepath.Join(v, "slipway"), nil
	}
	if v, _ := lookup("HOME"); v != "" {
		return filepath.Join(v, ".cache", "slipway"), nil
	}
	return "", errors.New("name a directory: neither HOME nor XDG_CACHE_HOME is set")
}

// fields splits s at commas and trims what is between them.
func fields(s string) []string {
	var items []string
	for f := range strings.SplitSeq(s, ",") {
		if f = strings.TrimSpace(f); f != "" {
			items = append(items, f)
		}
	}
	return items
}
