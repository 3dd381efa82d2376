package dockerfile

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/shell"

	"github.com/slipway-build/slipway/platforms"
)

// label names a step in the log: "[linux/arm64 build 2/5] RUN make". It counts
// the step.
func (s *stage) label(text string, env *env) string {
	if s.steps == 0 {
		return text
	}
	s.step++
	var b strings.Builder
	b.WriteByte('[')
	if s.t.multi {
		b.WriteString(formatPlatform(*s.platform) + cross(*s.platform, env) + " ")
	}
	if s.title != "" {
		b.WriteString(s.title + " ")
	}
	width := len(strconv.Itoa(s.steps))
	fmt.Fprintf(&b, "%*d/%d] ", width, s.step, s.steps)
	if s.trigger {
		b.WriteString("ONBUILD ")
	}
	b.WriteString(text)
	return b.String()
}

// title returns the text of an instruction with its variables expanded, as far
// as that works.
func title(lex *shell.Lex, code string, env shell.EnvGetter) string {
	if text, _, err := lex.ProcessWord(code, env); err == nil {
		code = text
	}
	name, rest, _ := strings.Cut(code, " ")
	if rest == "" {
		return strings.ToUpper(name)
	}
	return strings.ToUpper(name) + " " + rest
}

// cross returns "->arm64" where a step on one platform works for another, as
// far as its variables tell.
func cross(on platforms.Platform, env *env) string {
	var to platforms.Platform
	known := false
	for _, name := range env.names {
		value := env.values[name]
		switch name {
		case "TARGETPLATFORM":
			p, err := platforms.Parse(value)
			if err != nil {
				continue
			}
			return arrow(on, p)
		case "TARGETOS":
			to.OS, known = value, true
		case "TARGETARCH":
			to.Architecture, known = value, true
		case "TARGETVARIANT":
			to.Variant, known = value, true
		}
	}
	if !known {
		return ""
	}
	return arrow(on, to)
}

func arrow(on, to platforms.Platform) string {
	if to.OS == "" {
		to.OS = on.OS
	}
	if to.Architecture == "" {
		to.Architecture = on.Architecture
	}
	to = platforms.Normalize(to)
	switch {
	case to.OS != on.OS:
		return "->" + formatPlatform(to)
	case to.Architecture == on.Architecture:
		return ""
	case to.Variant != "":
		return "->" + to.Architecture + "/" + to.Variant
	}
	return "->" + to.Architecture
}
