package dockerfile

import (
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"

	"github.com/slipway-build/slipway/engine/diag"
	"github.com/slipway-build/slipway/platforms"
)

// scratch is the name of the empty base image.
const scratch = "scratch"

// target is the plan for one platform, while it is made.
type target struct {
	*planner
	platform   platforms.Platform
	args       map[string]string // the build args; the epoch in canonical form
	linter     *linter.Linter
	lex        *shell.Lex // expands
	rawLex     *shell.Lex // expands what is known, leaves quotes and escapes
	heredocLex *shell.Lex // expands, leaves quotes
	global     *env       // automatic args and global ARGs
	globalCmds []instructions.ArgCommand
	epoch      *time.Time
	proxy      []string

	// stages are those of the file, and after them the images that COPY --from
	// and mounts name, once per mention.
	stages []*stage
	count  int // of stages of the file
	byName map[string]*stage
	goal   *stage
}

// newTarget reads the file for one platform, up to where images are resolved.
func (p *planner) newTarget(platform platforms.Platform, speaks bool) (*target, error) {
	t := &target{
		planner:  p,
		platform: platform,
		args:     maps.Clone(p.opts.Args),
		lex:      shell.NewLex(p.file.EscapeToken),
		rawLex:   shell.NewLex(p.file.EscapeToken),
		// In a heredoc the escape character is always the shell's.
		heredocLex: shell.NewLex(parser.DefaultEscapeToken),
		byName:     make(map[string]*stage),
	}
	t.rawLex.RawQuotes, t.rawLex.RawEscapes, t.rawLex.SkipUnsetEnv = true, true, true
	t.heredocLex.SkipProcessQuotes = true
	t.startLinter(speaks)

	stages, cmds, err := p.parseStages(t.linter)
	if err != nil {
		return nil, err
	}
	t.globalCmds, t.count = cmds, len(stages)
	t.checkStageNames(stages)
	t.checkCasing(stages)
	automatic := t.automaticArgs(stages)
	t.checkDefaultBases(stages, automatic)
	if t.global, err = t.globalArgs(automatic, cmds, t.args); err != nil {
		return nil, err
	}
	if err := t.setEpoch(); err != nil {
		return nil, err
	}
	t.proxy = t.proxyEnv()

	for i, st := range stages {
		if err := t.addStage(i, st); err != nil {
			return nil, err
		}
	}
	if t.count == 1 {
		t.stages[0].title = ""
	}
	if err := t.setGoal(); err != nil {
		return nil, err
	}
	for _, s := range t.stages[:t.count] {
		s.commands, err = t.link(s, s.def.Commands, false)
		if err != nil {
			return nil, err
		}
	}
	return t, t.checkCycles()
}

// addStage adds a stage of the file, with its FROM expanded.
func (t *target) addStage(i int, def instructions.Stage) error {
	lint := t.linter.WithMergedConfigFromComments(def.Comments)
	word, err := t.lex.ProcessWordWithMatches(def.BaseName, t.global)
	t.checkFromArgs(word.Unmatched, def.Location, lint)
	if err != nil {
		return t.at(err, def.Location)
	}
	if word.Result == "" {
		err := t.at(fmt.Errorf("the name of the base image is empty: %s", def.BaseName), def.Location)
		return diag.Hint(err, "Give the ARG a default before the first FROM, or set it with --build-arg.")
	}
	def.BaseName = word.Result
	s := &stage{t: t, def: def, title: def.Name, readBy: make(map[*stage]instructions.Command)}
	if def.Name == "" {
		s.title = "stage-" + strconv.Itoa(i)
	}
	if def.Platform != "" {
		if s.platform, err = t.fromPlatform(def, lint); err != nil {
			return err
		}
	}
	s.base = t.byName[strings.ToLower(def.BaseName)]
	t.stages = append(t.stages, s)
	if def.Name != "" {
		t.byName[strings.ToLower(def.Name)] = s
	}
	if s.base == nil && def.BaseName != scratch {
		s.steps = 1
	}
	for _, cmd := range def.Commands {
		if makesLayer(cmd) {
			s.steps++
		}
	}
	return nil
}

// makesLayer reports whether an instruction is a numbered step of its stage.
func makesLayer(cmd instructions.Command) bool {
	switch cmd.(type) {
	case *instructions.AddCommand, *instructions.CopyCommand, *instructions.RunCommand, *instructions.WorkdirCommand:
		return true
	}
	return false
}

// fromPlatform is the platform of FROM --platform.
func (t *target) fromPlatform(def instructions.Stage, lint *linter.Linter) (*platforms.Platform, error) {
	word, err := t.lex.ProcessWordWithMatches(def.Platform, t.global)
	t.checkFromArgs(word.Unmatched, def.Location, lint)
	if err != nil {
		return nil, t.at(err, def.Location)
	}
	t.checkFromPlatform(def, word, lint)
	if word.Result == "" {
		err = fmt.Errorf("the platform is empty: --platform=%s", def.Platform)
	} else if p, perr := platforms.Parse(word.Result); perr != nil {
		err = perr
	} else {
		return &p, nil
	}
	for name := range word.Unmatched {
		err = didYouMean(err, name, t.global.Keys())
	}
	return nil, t.at(err, def.Location)
}

// setGoal finds the stage that is asked for: by name, else by index.
func (t *target) setGoal() error {
	name := t.opts.Target
	if name == "" {
		t.goal = t.stages[t.count-1]
		return nil
	}
	if s, ok := t.byName[strings.ToLower(name)]; ok {
		t.goal = s
		return nil
	}
	if i, err := strconv.Atoi(name); err == nil && i >= 0 && i < t.count {
		t.goal = t.stages[i]
		return nil
	}
	names := t.stageNames()
	err := didYouMean(fmt.Errorf("target stage %q could not be found", name), name, names)
	if len(names) == 0 {
		return diag.Hint(err, "The stages have no names; give the target by its index, from 0 to %d.", t.count-1)
	}
	return diag.Hint(err, "The stages are: %s.", strings.Join(names, ", "))
}

// stageNames returns the names of the stages that have one.
func (t *target) stageNames() []string {
	var names []string
	for _, s := range t.stages[:t.count] {
		if s.def.Name != "" {
			names = append(names, s.def.Name)
		}
	}
	return names
}
