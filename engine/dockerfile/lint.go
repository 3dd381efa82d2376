package dockerfile

import (
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"

	"github.com/slipway-build/slipway/platforms"
)

// The rules that the grammar's library does not check itself. Which of them
// speak is the linter's business.

// startLinter makes the linter of a target. Only that of the first speaks.
func (t *target) startLinter(speaks bool) {
	rules := *t.rules
	if speaks {
		rules.Warn = func(rule, _, url, message string, loc []parser.Range) {
			if len(t.lintAt) == 0 {
				t.planner.lintAt = loc
			}
			t.warn(rule, url, message, loc)
		}
	}
	t.linter = linter.New(&rules)
	if speaks {
		t.planner.lint = t.linter
	}
	rule := &linter.RuleNoEmptyContinuation
	for _, w := range t.file.Warnings {
		if w.URL == rule.URL && w.Location != nil {
			t.linter.Run(rule, []parser.Range{*w.Location}, rule.Format())
		}
	}
}

// lintError is the error of a file that wants its warnings to be errors.
func (p *planner) lintError() error {
	if !p.lint.ReturnAsError || len(*p.lint.CalledRules) == 0 {
		return nil
	}
	rules := slices.Sorted(slices.Values(*p.lint.CalledRules))
	return p.at(fmt.Errorf("lint violation found for rules: %s", strings.Join(slices.Compact(rules), ", ")), p.lintAt)
}

// say runs a rule of the instruction that is being planned.
func (s *stage) say(rule linter.LinterRuleI, loc []parser.Range, message string) {
	s.lint.Run(rule, loc, message)
}

func (t *target) checkStageNames(stages []instructions.Stage) {
	seen := make(map[string]bool)
	for _, s := range stages {
		if s.Name == scratch || s.Name == Context {
			t.linter.Run(&linter.RuleReservedStageName, s.Location, linter.RuleReservedStageName.Format(s.Name))
		}
		if s.Name != "" && seen[s.Name] {
			t.linter.Run(&linter.RuleDuplicateStageName, s.Location, linter.RuleDuplicateStageName.Format(s.Name))
		}
		seen[s.Name] = true
	}
}

// checkCasing wants instructions to be written in one case: that of most.
func (t *target) checkCasing(stages []instructions.Stage) {
	lower, upper := 0, 0
	each(stages, func(name string, _ []parser.Range) {
		switch name {
		case strings.ToLower(name):
			lower++
		case strings.ToUpper(name):
			upper++
		}
	})
	each(stages, func(name string, loc []parser.Range) {
		rule := &linter.RuleConsistentInstructionCasing
		if lower > upper && name != strings.ToLower(name) {
			t.linter.Run(rule, loc, rule.Format(name, "lowercase"))
		}
		if lower <= upper && name != strings.ToUpper(name) {
			t.linter.Run(rule, loc, rule.Format(name, "uppercase"))
		}
	})
}

// each calls f with the name of every instruction of the stages.
func each(stages []instructions.Stage, f func(name string, loc []parser.Range)) {
	for _, s := range stages {
		f(s.OrigCmd, s.Location)
		for _, cmd := range s.Commands {
			f(cmd.Name(), cmd.Location())
		}
	}
}

// checkDefaultBases wants base images to have valid names without build args.
func (t *target) checkDefaultBases(stages []instructions.Stage, automatic *env) {
	args, err := t.globalArgs(automatic, t.globalCmds, nil)
	if err != nil {
		return // it is an error with build args too
	}
	rule := &linter.RuleInvalidDefaultArgInFrom
	named := make(map[string]bool)
	for _, s := range stages {
		word, err := t.lex.ProcessWordWithMatches(s.BaseName, args)
		if err != nil {
			return
		}
		if !named[strings.ToLower(word.Result)] && !validReference(word.Result) {
			t.linter.Run(rule, s.Location, rule.Format(s.BaseName))
		}
		named[s.Name] = true
	}
}

// checkFromArgs wants the variables of a FROM to be global ARGs.
func (t *target) checkFromArgs(unmatched map[string]struct{}, loc []parser.Range, lint *linter.Linter) {
	known := make(map[string]bool)
	for _, name := range t.global.Keys() {
		known[name] = true
	}
	for _, cmd := range t.globalCmds {
		for _, arg := range cmd.Args {
			known[arg.Key] = true
		}
	}
	names := slices.Sorted(maps.Keys(known))
	for _, name := range slices.Sorted(maps.Keys(unmatched)) {
		if !known[name] {
			lint.Run(&linter.RuleUndefinedArgInFrom, loc, linter.RuleUndefinedArgInFrom.Format(name, suggest(name, names)))
		}
	}
}

// checkFromPlatform warns of a --platform that is needless or constant.
func (t *target) checkFromPlatform(def instructions.Stage, word shell.ProcessWordResult, lint *linter.Linter) {
	if _, ok := word.Matched["TARGETPLATFORM"]; ok && len(word.Matched) == 1 && len(word.Unmatched) == 0 {
		if v, _ := t.global.Get("TARGETPLATFORM"); v == word.Result {
			rule := &linter.RuleRedundantTargetPlatform
			lint.Run(rule, def.Location, rule.Format(def.Platform))
		}
	}
	if len(word.Matched)+len(word.Unmatched) > 0 {
		return
	}
	p, err := platforms.Parse(word.Result)
	if err != nil || strings.Contains(def.Name, p.OS) || strings.Contains(def.Name, p.Architecture) {
		return
	}
	rule := &linter.RuleFromPlatformFlagConstDisallowed
	lint.Run(rule, def.Location, rule.Format(word.Result))
}

// checkBasePlatform warns of an image of only one platform, which is another.
func (t *target) checkBasePlatform(s *stage) {
	want, have := *s.platform, s.pinned.Config.Platform
	if want.OS == have.OS && want.Architecture == have.Architecture {
		return
	}
	format := func(p platforms.Platform) string { return formatPlatform(platforms.Normalize(p)) }
	rule := &linter.RuleInvalidBaseImagePlatform
	t.linter.Run(rule, s.def.Location, rule.Format(s.def.BaseName, format(want), format(have)))
}

// checkUnmatched wants variables to be defined.
func (s *stage) checkUnmatched(loc []parser.Range, unmatched map[string]struct{}) {
	for _, name := range slices.Sorted(maps.Keys(unmatched)) {
		declared := func(arg instructions.KeyValuePairOptional) bool { return arg.Key == name }
		if notEnv[name] || slices.ContainsFunc(s.args, declared) {
			continue
		}
		s.say(&linter.RuleUndefinedVar, loc, linter.RuleUndefinedVar.Format(name, suggest(name, s.env.Keys())))
	}
}

// checkDelimiter wants key=value, not key value.
func (s *stage) checkDelimiter(c instructions.Command, kv instructions.KeyValuePair) {
	if kv.NoDelim {
		s.say(&linter.RuleLegacyKeyValueFormat, c.Location(), linter.RuleLegacyKeyValueFormat.Format(c.Name()))
	}
}

// Names that look like those of secrets, and words that say that they aren't.
var (
	secretName = regexp.MustCompile(`(?i)(?:^|_)(?:apikey|auth|credentials?|key|password|pword|passwd|secret|token)(?:_|$)`)
	publicName = regexp.MustCompile(`(?i)(?:^|_)(?:public|file|version)(?:_|$)`)
)

// checkSecretName warns of secrets that would end up in the image.
func (s *stage) checkSecretName(instruction, name string, loc []parser.Range) {
	if secretName.MatchString(name) && !publicName.MatchString(name) {
		s.say(&linter.RuleSecretsUsedInArgOrEnv, loc, linter.RuleSecretsUsedInArgOrEnv.Format(instruction, name))
	}
}

// usage remembers where a stage used an instruction that counts only once.
type usage struct {
	used bool
	loc  []parser.Range
}

// checkOnce warns of an instruction that a later one makes void.
func (s *stage) checkOnce(c instructions.Command, u *usage) {
	if u.used {
		rule := &linter.RuleMultipleInstructionsDisallowed
		s.say(rule, u.loc, rule.Format(c.Name()))
	}
	*u = usage{true, c.Location()}
}

// checkIgnored warns of a source that .dockerignore hides.
func (s *stage) checkIgnored(instruction, src string) {
	m := s.t.ignored
	if m == nil {
		return
	}
	src = path.Clean(src)
	if src == "." || src == "/" {
		all := false
		for _, p := range m.Patterns() {
			all = all || p.String() == "*" || p.String() == "**" || p.String() == "**/*"
		}
		if !all {
			return
		}
	}
	if ignored, err := m.MatchesOrParentMatches(src); err != nil || !ignored {
		return
	}
	name := "Copy"
	if instruction == "ADD" {
		name = "Add"
	}
	s.say(&linter.RuleCopyIgnoredFile, s.loc, linter.RuleCopyIgnoredFile.Format(name, src))
}
