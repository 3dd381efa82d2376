package step

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/slipway-build/slipway/ci"
	"github.com/slipway-build/slipway/engine"
	"github.com/slipway-build/slipway/engine/progress"
)

// log is everything that people see of one build.
type log struct {
	cfg     Config
	env     Env
	console ci.Console
	report  *report
	mode    string
}

func newLog(ctx context.Context, cfg Config, env Env) *log {
	l := &log{cfg: cfg, env: env, console: env.Dialect.Console(env.Log), mode: cfg.Progress}
	v, h := newView(cfg.Progress, env.Log, l.console, env.Size, env.Color)
	h.cause = func() error { return context.Cause(ctx) }
	l.report = openReport(h, v)
	return l
}

// talks reports whether anything but errors is to be said in words.
func (l *log) talks() bool { return l.mode != "quiet" && l.mode != "rawjson" }

func (l *log) notices(notices []string) {
	for _, n := range notices {
		if l.mode == "rawjson" {
			l.report.sink(progress.Event{Time: time.Now(), Kind: progress.Warning, Line: n})
			continue
		}
		l.console.Line("NOTE: " + clean(n))
	}
}

// warnings shows what lint rules found and what was given for nothing.
func (l *log) warnings(res engine.Result) {
	file := l.cfg.dockerfile()
	if !l.talks() {
		return
	}
	for _, w := range res.Warnings {
		l.console.Annotate(ci.Annotation{Level: ci.Warning, File: file, Line: w.Line, Title: w.Rule, Message: w.Message})
		text := w.Rule + ": " + clean(w.Message)
		if w.Line > 0 {
			text += fmt.Sprintf(" (line %d)", w.Line)
		}
		l.console.Line(paint(l.env.Color, yellow, "WARN: "+text))
	}
	unused := slices.DeleteFunc(slices.Clone(res.Unused), func(name string) bool { return name == "SOURCE_DATE_EPOCH" })
	if len(unused) > 0 {
		text := fmt.Sprintf("[Warning] One or more build-args [%s] were not consumed", clean(strings.Join(unused, " ")))
		l.console.Line(paint(l.env.Color, yellow, text))
	}
}

// summary says in a few lines what was built and where it is.
func (l *log) summary(res engine.Result, took time.Duration) {
	if !l.talks() {
		return
	}
	steps, cached := l.report.history.count()
	for _, line := range summary(l.cfg, res, steps, cached, took) {
		l.console.Line(line)
	}
}

func summary(cfg Config, res engine.Result, steps, cached int, took time.Duration) []string {
	what := fmt.Sprintf("%d steps", steps)
	if steps == 1 {
		what = "1 step"
	}
	if cached > 0 && cached == steps {
		what += ", all cached"
	} else if cached > 0 {
		what += fmt.Sprintf(", %d cached", cached)
	}
	lines := []string{"", fmt.Sprintf("Built in %s: %s", duration(took, time.Time{}, time.Time{}), what)}
	add := func(name, value string) {
		if value != "" {
			lines = append(lines, fmt.Sprintf("  %-10s%s", name, value))
		}
	}
	add("digest", res.Digest.String())
	if id := cfg.imageID(res); id != res.Digest.String() {
		add("image ID", id)
	}
	pushed := false
	for _, o := range cfg.Request.Outputs {
		if pushes(o) && !pushed {
			pushed = true
			for _, name := range res.Names {
				add("pushed", clean(name))
			}
		}
		switch dest := o.Attrs["dest"]; dest {
		case "":
		case "-":
			add("written", fmt.Sprintf("to standard output (%s)", o.Type))
		default:
			add("written", fmt.Sprintf("%s (%s)", clean(dest), o.Type))
		}
	}
	if len(cfg.Request.Outputs) == 0 {
		add("kept", "in the state directory only: no output was asked for (--push, --output)")
	}
	return lines
}

// failure explains why there is no result.
func (l *log) failure(ctx context.Context, req engine.Request, err error) {
	f := l.explain(ctx, req, err)
	for _, line := range f.lines(l.env.Color) {
		l.console.Line(line)
	}
	if f.canceled || l.mode == "rawjson" {
		return
	}
	a := ci.Annotation{Level: ci.Error, Message: f.message}
	if f.at.Line > 0 {
		a.File, a.Line = l.cfg.dockerfile(), f.at.Line
	}
	l.console.Annotate(a)
}

// explain gathers what is known about an error.
func (l *log) explain(ctx context.Context, req engine.Request, err error) failure {
	if cause := context.Cause(ctx); cause != nil {
		return failure{canceled: true, message: fmt.Sprint(cause)}
	}
	f := failure{message: err.Error()}
	f.at, f.hint = explain(err, l.cfg.Root, l.env.Root)
	if f.at.Line > 0 {
		f.source = l.cfg.source(req)
	}
	h := l.report.history
	if st := h.failed; st != nil && l.mode != "rawjson" {
		f.step = st.name
		f.output, f.dropped = h.tail(st)
	}
	return f
}
