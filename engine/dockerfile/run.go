package dockerfile

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"github.com/slipway-build/slipway/engine/diag"
	"github.com/slipway-build/slipway/engine/graph"
)

// pipes is the directory in which a heredoc that is a script is found.
const pipes = "/dev/pipes"

// run plans a RUN.
func (s *stage) run(c *instructions.RunCommand, from []*stage) error {
	if instructions.GetSecurity(c) != instructions.SecuritySandbox {
		return notSupported("RUN --security=insecure")
	}
	if len(instructions.GetDevices(c)) > 0 {
		return notSupported("RUN --device")
	}
	m := mounts{s: s, inputs: []graph.Input{{From: s.node}}}
	args, summary, err := s.runArgs(c, &m)
	if err != nil {
		return err
	}
	if err := m.addAll(c, from); err != nil {
		return err
	}
	env := s.env.list()
	if _, ok := s.env.Get("SSH_AUTH_SOCK"); m.socket != "" && !ok {
		env = append(env, "SSH_AUTH_SOCK="+m.socket)
	}
	op := graph.Exec{
		Args:         args,
		Env:          env,
		Dir:          s.dir,
		User:         s.config.Config.User,
		Platform:     *s.platform,
		Mounts:       m.sorted(),
		Network:      s.network(c),
		Security:     graph.SecuritySandbox,
		Hostname:     s.t.hostname,
		Hosts:        s.t.opts.Hosts,
		ShmSize:      s.t.opts.ShmSize,
		Ulimits:      s.t.opts.Ulimits,
		Proxy:        s.t.proxy,
		CgroupParent: s.t.opts.CgroupParent,
	}
	text := title(s.t.rawLex, c.String()+summary, masked{s.env, m.secretEnv})
	s.add(op, m.inputs, s.label(text, s.env), true)
	s.commit("RUN "+s.historyOf(args)+" # buildkit", true)
	return nil
}

// runArgs returns the command of a RUN, and what to say of its heredoc in the
// log. A heredoc that begins with #! is mounted and run as a script.
func (s *stage) runArgs(c *instructions.RunCommand, m *mounts) (args []string, summary string, err error) {
	args = c.CmdLine
	if len(args) == 0 {
		return nil, "", errors.New("RUN requires a command")
	}
	if len(c.Files) > 0 {
		if len(args) != 1 || !c.PrependShell {
			return nil, "", fmt.Errorf("heredoc in an exec form command: %q", args)
		}
		if parser.MustParseHeredoc(args[0]) == nil {
			args = []string{withHeredocs(args[0], c.Files)}
		} else {
			data := c.Files[0].Data
			if c.Files[0].Chomp {
				data = parser.ChompHeredocContent(data)
			}
			summary = " (" + summarize(c.Files[0].Data) + ")"
			args = []string{data}
			if strings.HasPrefix(data, "#!") && s.config.OS != "windows" {
				script, err := m.addScript(c.Files[0].Name, data)
				if err != nil {
					return nil, "", err
				}
				args = []string{script}
			}
		}
	}
	if c.PrependShell {
		args = s.withShell(args)
	}
	return args, summary, nil
}

// withHeredocs puts a command together again for a shell to take apart.
func withHeredocs(line string, files []instructions.ShellInlineFile) string {
	var b strings.Builder
	b.WriteString(line)
	for _, f := range files {
		b.WriteString("\n" + f.Data + f.Name)
	}
	return b.String()
}

// summarize returns the first line of a heredoc.
func summarize(doc string) string {
	line, _, more := strings.Cut(strings.TrimSpace(doc), "\n")
	line = strings.TrimSuffix(line, "\r")
	if more {
		line += "..."
	}
	return line
}

// withShell puts the shell before a command in shell form.
func (s *stage) withShell(args []string) []string {
	shell := []string{"/bin/sh", "-c"}
	switch {
	case len(s.config.Config.Shell) > 0:
		shell = slices.Clone(s.config.Config.Shell)
	case s.config.OS == "windows":
		shell = []string{"cmd", "/S", "/C"}
	}
	return append(shell, strings.Join(args, " "))
}

// network is the network of a RUN: its own, else that of the build.
func (s *stage) network(c *instructions.RunCommand) graph.NetworkMode {
	switch n := instructions.GetNetwork(c); {
	case n != instructions.NetworkDefault:
		return graph.NetworkMode(n)
	case s.t.opts.Network != "":
		return s.t.opts.Network
	}
	return graph.NetworkDefault
}

// historyOf returns a command as history shows it: with the ARGs that were
// declared before it.
func (s *stage) historyOf(args []string) string {
	var names []string
	values := make(map[string]string)
	for _, arg := range s.args {
		value, ok := s.env.Get(arg.Key)
		if !ok {
			value = arg.ValueString()
		}
		if _, ok := values[arg.Key]; !ok {
			names = append(names, arg.Key)
		}
		values[arg.Key] = value
	}
	if len(names) == 0 {
		return strings.Join(args, " ")
	}
	words := []string{fmt.Sprintf("|%d", len(names))}
	for _, name := range names {
		words = append(words, name+"="+values[name])
	}
	return strings.Join(append(words, args...), " ")
}

// notSupported is the error of what other versions may be able to do.
func notSupported(what string) error {
	return diag.Hint(fmt.Errorf("%s is not supported in this version", what), "Leave it out, or build this Dockerfile with BuildKit.")
}

// inlineName checks that a heredoc can be a file of its name.
func inlineName(name string) (string, error) {
	clean := path.Clean("/" + name)
	if dir, base := path.Split(clean); dir == "/" && base != "" {
		return base, nil
	}
	return "", fmt.Errorf("heredoc %q can't be a file: its name is a path", name)
}
