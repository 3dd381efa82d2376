package dockerfile

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"

	"github.com/slipway-build/slipway/engine/graph"
)

// metadata plans the instructions that change the config and can't fail.
func (s *stage) metadata(cmd instructions.Command) error {
	config := &s.config.Config
	switch c := cmd.(type) {
	case *instructions.CmdCommand:
		s.checkOnce(c, &s.cmd)
		config.Cmd = s.commandLine(c, c.ShellDependantCmdLine)
		config.ArgsEscaped = true //nolint:staticcheck // deprecated, but part of what BuildKit writes
		s.commit(fmt.Sprintf("CMD %q", config.Cmd), false)
	case *instructions.EntrypointCommand:
		s.checkOnce(c, &s.entrypoint)
		config.Entrypoint = s.commandLine(c, c.ShellDependantCmdLine)
		if !s.cmd.used {
			config.Cmd = nil // it was meant for another entrypoint
		}
		s.commit(fmt.Sprintf("ENTRYPOINT %q", config.Entrypoint), false)
	case *instructions.HealthCheckCommand:
		s.checkOnce(c, &s.healthcheck)
		health := *c.Health
		config.Healthcheck = &health
		s.commit(fmt.Sprintf("HEALTHCHECK %+v", health), false)
	case *instructions.LabelCommand:
		s.setLabels(c)
	case *instructions.UserCommand:
		config.User = c.User
		s.commit("USER "+c.User, false)
	case *instructions.ShellCommand:
		config.Shell = c.Shell
		s.commit(fmt.Sprintf("SHELL %v", c.Shell), false)
	case *instructions.OnbuildCommand:
		config.OnBuild = append(config.OnBuild, c.Expression)
	case *instructions.MaintainerCommand:
		s.config.Author = c.Maintainer
		s.commit("MAINTAINER "+c.Maintainer, false)
	default:
		return notSupported(strings.ToUpper(cmd.Name()))
	}
	return nil
}

// commandLine is the command of CMD or ENTRYPOINT.
func (s *stage) commandLine(c instructions.Command, line instructions.ShellDependantCmdLine) []string {
	if !line.PrependShell {
		return line.CmdLine
	}
	if len(s.config.Config.Shell) == 0 {
		s.say(&linter.RuleJSONArgsRecommended, c.Location(), linter.RuleJSONArgsRecommended.Format(c.Name()))
	}
	return s.withShell(line.CmdLine)
}

// setEnv plans an ENV.
func (s *stage) setEnv(c *instructions.EnvCommand) error {
	words := []string{"ENV"}
	for _, kv := range c.Env {
		s.checkDelimiter(c, kv)
		s.checkSecretName("ENV", kv.Key, c.Location())
		s.env.set(kv.Key, kv.Value)
		s.config.Config.Env = replaceEnv(s.config.Config.Env, kv.Key, kv.Value)
		words = append(words, kv.String())
	}
	s.commit(strings.Join(words, " "), false)
	return nil
}

// replaceEnv sets a variable in the config, where order is that of the first
// time.
func replaceEnv(list []string, name, value string) []string {
	for i, kv := range list {
		if have, _, _ := strings.Cut(kv, "="); have == name {
			list[i] = name + "=" + value
			return list
		}
	}
	return append(list, name+"="+value)
}

func (s *stage) setLabels(c *instructions.LabelCommand) {
	if s.config.Config.Labels == nil {
		s.config.Config.Labels = make(map[string]string, len(c.Labels))
	}
	words := []string{"LABEL"}
	for _, kv := range c.Labels {
		s.checkDelimiter(c, kv)
		s.config.Config.Labels[kv.Key] = kv.Value
		words = append(words, kv.String())
	}
	s.commit(strings.Join(words, " "), false)
}

func (s *stage) volume(c *instructions.VolumeCommand) error {
	if s.config.Config.Volumes == nil {
		s.config.Config.Volumes = make(map[string]struct{})
	}
	for _, v := range c.Volumes {
		if v == "" {
			return errors.New("VOLUME can't be empty")
		}
		s.config.Config.Volumes[v] = struct{}{}
	}
	s.commit(fmt.Sprintf("VOLUME %v", c.Volumes), false)
	return nil
}

// chdir changes the working directory. A path that is absolute stays as it is
// written, in the config.
func (s *stage) chdir(dir string) error {
	if err := unixPath(dir, s.platform.OS); err != nil {
		return err
	}
	config := &s.config.Config
	switch {
	case dir == "":
		dir = path.Join("/", config.WorkingDir)
	case !path.IsAbs(dir):
		dir = path.Join("/", config.WorkingDir, dir)
	}
	config.WorkingDir = dir
	s.dir = path.Clean(dir)
	return nil
}

// workdir plans a WORKDIR: a directory that is made if it isn't there.
func (s *stage) workdir(c *instructions.WorkdirCommand) error {
	if !s.workdirSet && !path.IsAbs(c.Path) {
		s.say(&linter.RuleWorkdirRelativePath, c.Location(), linter.RuleWorkdirRelativePath.Format(c.Path))
	}
	s.workdirSet = true
	if err := s.chdir(c.Path); err != nil {
		return err
	}
	dir := s.config.Config.WorkingDir
	layer := dir != "/"
	if layer {
		owner, err := parseOwner(s.config.Config.User)
		if err != nil {
			return fmt.Errorf("USER %s: %w", s.config.Config.User, err)
		}
		op := graph.Copy{
			Sources: []graph.CopySource{{Inline: &graph.Inline{Dir: true, Mode: 0o755}}},
			Dest:    s.dir,
			Owner:   owner,
		}
		s.add(op, []graph.Input{{From: s.node}}, s.label(title(s.t.lex, c.String(), s.env), s.env), false)
	}
	s.commit("WORKDIR "+dir, layer)
	return nil
}

// signals are the names that STOPSIGNAL takes, with or without SIG. It takes
// numbers too, and offsets from RTMIN and RTMAX.
var signals = strings.Fields(`ABRT ALRM BUS CHLD CLD CONT FPE HUP ILL INT IO IOT KILL PIPE POLL PROF PWR QUIT
	SEGV STKFLT STOP SYS TERM TRAP TSTP TTIN TTOU URG USR1 USR2 VTALRM WINCH XCPU XFSZ RTMIN RTMAX`)

func (s *stage) stopSignal(c *instructions.StopSignalCommand) error {
	if !validSignal(c.Signal) {
		return fmt.Errorf("invalid signal: %s", c.Signal)
	}
	s.config.Config.StopSignal = c.Signal
	s.commit("STOPSIGNAL "+c.Signal, false)
	return nil
}

func validSignal(s string) bool {
	if n, err := strconv.Atoi(s); err == nil {
		return n != 0
	}
	name := strings.TrimPrefix(strings.ToUpper(s), "SIG")
	if slices.Contains(signals, name) {
		return true
	}
	if n, ok := strings.CutPrefix(name, "RTMIN+"); ok {
		return offset(n, 15)
	}
	n, ok := strings.CutPrefix(name, "RTMAX-")
	return ok && offset(n, 14)
}

func offset(s string, last int) bool {
	n, err := strconv.Atoi(s)
	return err == nil && n >= 1 && n <= last && s == strconv.Itoa(n)
}
