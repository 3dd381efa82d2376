package dockerfile

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"github.com/slipway-build/slipway/engine/diag"
	"github.com/slipway-build/slipway/platforms"
)

const epochArg = "SOURCE_DATE_EPOCH"

// settings are build args that steer the build whether they are declared or
// not. So they never count as unused.
var settings = map[string]bool{
	epochArg:                        true,
	"BUILDKIT_BUILD_NAME":           true,
	"BUILDKIT_CACHE_MOUNT_NS":       true,
	"BUILDKIT_CONTEXT_KEEP_GIT_DIR": true,
	"BUILDKIT_DOCKERFILE_CHECK":     true,
	"BUILDKIT_INLINE_CACHE":         true,
	"BUILDKIT_MULTI_PLATFORM":       true,
	"BUILDKIT_SANDBOX_HOSTNAME":     true,
	"BUILDKIT_SBOM_SCAN_CONTEXT":    true,
	"BUILDKIT_SBOM_SCAN_STAGE":      true,
	"BUILDKIT_SYNTAX":               true,
}

// notEnv are ARGs that commands don't see.
var notEnv = map[string]bool{
	"BUILDKIT_SBOM_SCAN_CONTEXT": true,
	"BUILDKIT_SBOM_SCAN_STAGE":   true,
}

// proxies are the predefined args for proxies, in the order in which they reach
// a command. Their lower-case forms count too.
var proxies = []string{"HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"}

// predefined reports whether a build arg has a meaning without being declared.
func predefined(name string) bool {
	if settings[name] {
		return true
	}
	automatic := automatic(platforms.Platform{}, platforms.Platform{}, "")
	return slices.ContainsFunc(automatic, func(kv [2]string) bool { return kv[0] == name }) ||
		slices.Contains(proxies, strings.ToUpper(name))
}

// automatic returns the global args that are there without being declared, in
// the order in which they are suggested.
func automatic(build, target platforms.Platform, stage string) [][2]string {
	return [][2]string{
		{"BUILDPLATFORM", platforms.Format(build)},
		{"BUILDOS", build.OS},
		{"BUILDOSVERSION", build.OSVersion},
		{"BUILDARCH", build.Architecture},
		{"BUILDVARIANT", build.Variant},
		{"TARGETPLATFORM", formatPlatform(target)},
		{"TARGETOS", target.OS},
		{"TARGETOSVERSION", target.OSVersion},
		{"TARGETARCH", target.Architecture},
		{"TARGETVARIANT", target.Variant},
		{"TARGETSTAGE", stage},
	}
}

// automaticArgs returns the automatic args, as build args may override them.
func (t *target) automaticArgs(stages []instructions.Stage) *env {
	name := t.opts.Target
	if name == "" {
		name = stages[len(stages)-1].Name
	}
	if name == "" {
		name = "default"
	}
	args := new(env)
	for _, kv := range automatic(t.host, t.platform, name) {
		value := kv[1]
		if v, ok := t.args[kv[0]]; ok {
			value = v
		}
		args.set(kv[0], value)
	}
	return args
}

// globalArgs returns args and the ARGs before the first FROM, with given build
// args in place of their defaults.
func (t *target) globalArgs(args *env, cmds []instructions.ArgCommand, given map[string]string) (*env, error) {
	args = args.clone()
	for i := range cmds {
		for _, arg := range cmds[i].Args {
			value, ok := given[arg.Key]
			if !ok {
				if arg.Value == nil {
					continue
				}
				var err error
				if value, _, err = expandWord(t.lex, *arg.Value, args); err != nil {
					return nil, t.at(err, cmds[i].Location())
				}
			}
			args.set(arg.Key, value)
		}
	}
	return args, nil
}

// setEpoch reads SOURCE_DATE_EPOCH, and puts it into its canonical form for
// those stages that declare it.
func (t *target) setEpoch() error {
	value, given := t.args[epochArg]
	if !given {
		value, _ = t.global.Get(epochArg)
	}
	if value == "" {
		delete(t.args, epochArg)
		t.global.unset(epochArg)
		return nil
	}
	seconds, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		err := fmt.Errorf("%s=%s is not supported in this version: want a number of seconds", epochArg, value)
		for _, cmd := range t.globalCmds {
			for _, arg := range cmd.Args {
				if arg.Key == epochArg && !given {
					err = t.at(err, cmd.Location())
				}
			}
		}
		return diag.Hint(err, "Give the time of the commit: %s=$(git log -1 --format=%%ct)", epochArg)
	}
	at := time.Unix(seconds, 0).UTC()
	t.epoch = &at
	value = strconv.FormatInt(seconds, 10)
	if given {
		t.args[epochArg] = value
	}
	if _, ok := t.global.Get(epochArg); ok {
		t.global.set(epochArg, value)
	}
	return nil
}

// arg plans an ARG of a stage. A build arg wins over the default, and that over
// the global ARG of the same name.
func (s *stage) arg(c *instructions.ArgCommand) error {
	said := make([]string, 0, len(c.Args))
	for _, arg := range c.Args {
		s.checkSecretName("ARG", arg.Key, c.Location())
		given, isGiven := s.t.args[arg.Key]
		switch {
		case isGiven:
			arg.Value = &given
		case arg.Value != nil:
			value, unmatched, err := expandWord(s.t.lex, *arg.Value, s.env)
			s.checkUnmatched(c.Location(), unmatched)
			if err != nil {
				return err
			}
			arg.Value = &value
		default:
			if value, ok := s.t.global.Get(arg.Key); ok {
				arg.Value = &value
			}
		}
		word := arg.Key
		if arg.Value != nil {
			if !notEnv[arg.Key] {
				s.env.set(arg.Key, *arg.Value)
			}
			word += "=" + *arg.Value
		}
		s.args = append(s.args, arg)
		said = append(said, word)
	}
	s.commit("ARG "+strings.Join(said, " "), false)
	return nil
}

// proxyEnv returns the proxy variables that every command sees. They are in no
// key and no history, unless a stage declares them.
func (t *target) proxyEnv() []string {
	given := make(map[string]string)
	for _, name := range slices.Sorted(maps.Keys(t.args)) {
		given[strings.ToUpper(name)] = t.args[name] // lower case sorts last and wins
	}
	var list []string
	for _, name := range proxies {
		if v := given[name]; v != "" {
			list = append(list, name+"="+v, strings.ToLower(name)+"="+v)
		}
	}
	return list
}

// declaredArgs adds the names of all ARGs of the file to declared.
func (t *target) declaredArgs(declared map[string]bool) {
	for _, cmd := range t.globalCmds {
		for _, arg := range cmd.Args {
			declared[arg.Key] = true
		}
	}
	for _, s := range t.stages {
		for _, cmd := range s.commands {
			if c, ok := cmd.Command.(*instructions.ArgCommand); ok {
				for _, arg := range c.Args {
					declared[arg.Key] = true
				}
			}
		}
	}
}
