package dockerfile

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"github.com/slipway-build/slipway/engine/diag"
)

// parse reads the file as far as that does not depend on a platform.
func (p *planner) parse() error {
	top := []parser.Range{{Start: parser.Position{Line: 1}, End: parser.Position{Line: 1}}}
	if len(bytes.TrimSpace(p.opts.File)) == 0 {
		return diag.Hint(p.at(errors.New("the Dockerfile cannot be empty"), top), "Begin with FROM and the name of a base image.")
	}
	if err := p.checkSyntax(); err != nil {
		return err
	}
	if err := p.checkDirectives(); err != nil {
		return err
	}
	check, _, loc, _ := parser.ParseDirective("check", p.opts.File)
	if v, ok := p.opts.Args["BUILDKIT_DOCKERFILE_CHECK"]; ok {
		check, loc = v, nil
	}
	rules, err := linter.ParseLintOptions(check)
	if err != nil {
		return p.at(fmt.Errorf("parse check options: %w", err), loc)
	}
	p.rules = rules
	p.file, err = parser.Parse(bytes.NewReader(p.opts.File))
	if le, ok := errors.AsType[*parser.LocationError](err); ok && strings.Contains(le.Error(), "max allowed size") {
		// The parser names the line before.
		return diag.Hint(p.at(le.Unwrap(), p.longLine()), "Break the line with \\ at its end.")
	}
	if err != nil {
		return p.parseError(err, top)
	}
	return nil
}

// longLine returns where the first line is that the parser can't read.
func (p *planner) longLine() []parser.Range {
	line := 0
	for text := range bytes.Lines(p.opts.File) {
		line++
		if len(text) > bufio.MaxScanTokenSize {
			break
		}
	}
	return []parser.Range{{Start: parser.Position{Line: line}, End: parser.Position{Line: line}}}
}

// parseStages reads the instructions. They are read anew for each platform:
// expanding variables changes them.
func (p *planner) parseStages(lint *linter.Linter) ([]instructions.Stage, []instructions.ArgCommand, error) {
	stages, args, err := instructions.Parse(p.file.AST, lint)
	if err != nil {
		return nil, nil, p.parseError(err, nil)
	}
	if len(stages) == 0 {
		last := parser.Range{Start: parser.Position{Line: p.lines}, End: parser.Position{Line: p.lines}}
		err := p.at(errors.New("the Dockerfile has no stage to build"), []parser.Range{last})
		return nil, nil, diag.Hint(err, "Add FROM and the name of a base image.")
	}
	return stages, args, nil
}

// parseError gives an error of the grammar its place, and a remedy to those
// that people meet often.
func (p *planner) parseError(err error, loc []parser.Range) error {
	message := err.Error()
	err = p.at(err, loc)
	if unknown, ok := errors.AsType[*instructions.UnknownInstructionError](err); ok {
		origin, _ := diag.Explain(err)
		return diag.At(didYouMean(unknown, unknown.Instruction, instructionNames(unknown.Instruction)), origin)
	}
	switch {
	case strings.Contains(message, "no build stage in current context"):
		return diag.Hint(err, "Begin with FROM: only ARG may come before it.")
	case strings.Contains(message, "unterminated heredoc"):
		return diag.Hint(err, "End the heredoc with its word alone on a line.")
	}
	return err
}

// instructionNames returns the names of instructions, to choose the one that
// was meant by word. (The grammar's own suggestion differs from time to time.)
func instructionNames(word string) []string {
	const names = "ADD ARG CMD COPY ENTRYPOINT ENV EXPOSE FROM HEALTHCHECK LABEL MAINTAINER ONBUILD RUN SHELL STOPSIGNAL USER VOLUME WORKDIR"
	if word == strings.ToLower(word) {
		return strings.Fields(strings.ToLower(names))
	}
	return strings.Fields(names)
}

// checkDirectives finds the errors in parser directives that the parser would
// report at the line before.
func (p *planner) checkDirectives() error {
	var d parser.DirectiveParser
	lines := bufio.NewScanner(bytes.NewReader(bytes.TrimPrefix(p.opts.File, []byte("\xef\xbb\xbf"))))
	lines.Buffer(nil, len(p.opts.File)+1)
	for line := 1; lines.Scan(); line++ {
		loc := []parser.Range{{Start: parser.Position{Line: line}, End: parser.Position{Line: line}}}
		directive, err := d.ParseLine(bytes.TrimSpace(lines.Bytes()))
		if err != nil {
			return p.at(err, loc)
		}
		if directive == nil {
			break
		}
		if v := directive.Value; directive.Name == "escape" && v != "`" && v != `\` {
			return p.at(fmt.Errorf("invalid escape token %q: want ` or \\", v), loc)
		}
	}
	return nil
}

// checkSyntax refuses front ends other than the one that this package is.
func (p *planner) checkSyntax() error {
	const cure = "If it is a copy of docker/dockerfile, set the build arg BUILDKIT_SYNTAX=dockerfile.v0; else this Dockerfile needs BuildKit."
	if v, ok := p.opts.Args["BUILDKIT_SYNTAX"]; ok {
		ref, _, _ := strings.Cut(strings.TrimSpace(v), " ")
		if !builtin(ref) {
			return diag.Hint(fmt.Errorf("build arg BUILDKIT_SYNTAX: front end %q is not supported", ref), cure)
		}
		return nil
	}
	ref, _, loc, ok := parser.DetectSyntax(p.opts.File)
	if ok && !builtin(ref) {
		return diag.Hint(p.at(fmt.Errorf("front end %q is not supported", ref), loc), cure)
	}
	return nil
}

// builtin reports whether ref names the front end that this package is, in
// whatever version, and from whatever registry: mirrors keep the name.
func builtin(ref string) bool {
	ref, _, _ = strings.Cut(ref, "@")
	dir, name := path.Split(ref)
	name, _, _ = strings.Cut(name, ":")
	if dir == "" {
		return name == "dockerfile.v0"
	}
	return strings.HasSuffix("/"+dir, "/docker/") &&
		(name == "dockerfile" || name == "dockerfile-upstream")
}
