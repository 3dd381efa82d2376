package dockerfile

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"github.com/slipway-build/slipway/engine/graph"
)

// mounts collects what a RUN mounts.
type mounts struct {
	s         *stage
	list      []graph.Mount
	inputs    []graph.Input
	secretEnv map[string]bool // variables that come from secrets
	socket    string          // of the first SSH agent
	agents    int
}

// sorted returns the mounts in the order in which they are to be made: what is
// mounted within another comes after it.
func (m *mounts) sorted() []graph.Mount {
	slices.SortStableFunc(m.list, func(a, b graph.Mount) int { return strings.Compare(a.Target, b.Target) })
	return m.list
}

// addScript mounts a file to run, and returns its path.
func (m *mounts) addScript(name, data string) (string, error) {
	base, err := inlineName(name)
	if err != nil {
		return "", err
	}
	dir := m.s.t.graph.Add(&graph.Node{
		Op: graph.Copy{
			Link:    true,
			Sources: []graph.CopySource{{Inline: &graph.Inline{Name: base, Mode: 0o755, Data: []byte(data)}}},
			Dest:    "/",
			DestDir: true,
		},
		Label:  "[internal] preparing inline document",
		Origin: m.s.t.origin(m.s.loc),
	})
	m.inputs = append(m.inputs, graph.Input{From: dir})
	m.list = append(m.list, graph.Mount{
		Type: graph.MountBind, Target: pipes, Input: len(m.inputs) - 1, Source: "/", ReadOnly: true,
	})
	return path.Join(pipes, base), nil
}

// addAll adds the --mount flags of a RUN; from has what each of them reads.
func (m *mounts) addAll(c *instructions.RunCommand, from []*stage) error {
	for i, mount := range instructions.GetMounts(c) {
		var err error
		switch mount.Type {
		case instructions.MountTypeSecret:
			err = m.addSecret(mount)
		case instructions.MountTypeSSH:
			err = m.addSSH(mount)
		default:
			err = m.addFiles(mount, from[i])
		}
		if err != nil {
			return fmt.Errorf("--mount=type=%s: %w", mount.Type, err)
		}
	}
	return nil
}

// addFiles adds a bind, cache or tmpfs mount.
func (m *mounts) addFiles(mount *instructions.Mount, from *stage) error {
	target := m.absolute(mount.Target)
	if target == "/" {
		return fmt.Errorf("invalid mount target %q", mount.Target)
	}
	out := graph.Mount{Target: target, ReadOnly: mount.ReadOnly}
	switch mount.Type {
	case instructions.MountTypeTmpfs:
		if mount.SizeLimit < 0 {
			return errors.New("size can't be negative")
		}
		out.Type, out.Size = graph.MountTmpfs, mount.SizeLimit
		m.list = append(m.list, out)
		return nil
	case instructions.MountTypeCache:
		out.Type = graph.MountCache
		if err := m.setCache(&out, mount); err != nil {
			return err
		}
		if from == nil {
			m.list = append(m.list, out)
			return nil
		}
		if mount.Mode == nil && mount.UID == nil && mount.GID == nil {
			out.Mode = 0 // what is copied brings its own
		}
	case instructions.MountTypeBind:
		out.Type = graph.MountBind
	default:
		return errors.New("unknown type")
	}
	node := m.s.t.contextNode()
	if from != nil {
		var err error
		if node, err = m.s.tree(from, mount.From); err != nil {
			return err
		}
	}
	out.Source = path.Join("/", mount.Source)
	m.inputs = append(m.inputs, graph.Input{
		From:   node,
		Select: &graph.Select{Requests: []graph.Request{{Path: out.Source, Follow: true}}},
	})
	out.Input = len(m.inputs) - 1
	m.list = append(m.list, out)
	return nil
}

// setCache sets what only cache mounts have.
func (m *mounts) setCache(out *graph.Mount, mount *instructions.Mount) error {
	out.ID = mount.CacheID
	if out.ID == "" {
		out.ID = path.Clean(mount.Target)
	}
	if ns := m.s.t.args["BUILDKIT_CACHE_MOUNT_NS"]; ns != "" {
		out.ID = ns + "/" + out.ID
	}
	switch mount.CacheSharing {
	case instructions.MountSharingPrivate:
		out.Sharing = graph.SharingPrivate
	case instructions.MountSharingLocked:
		out.Sharing = graph.SharingLocked
	case instructions.MountSharingShared, "":
		out.Sharing = graph.SharingShared
	}
	return setOwner(out, mount, 0o755)
}

// addSecret adds a secret: a file, a variable or both.
func (m *mounts) addSecret(mount *instructions.Mount) error {
	id := mount.CacheID
	if mount.Source != "" {
		id = mount.Source
	}
	if id == "" {
		if mount.Target == "" {
			return errors.New("one of source, target required")
		}
		id = path.Base(mount.Target)
	}
	out := graph.Mount{Type: graph.MountSecret, ID: id, Required: mount.Required}
	if mount.Env != nil {
		out.Env = *mount.Env
		if out.Env == "" {
			out.Env = id
		}
		if m.secretEnv == nil {
			m.secretEnv = make(map[string]bool)
		}
		m.secretEnv[out.Env] = true
	}
	switch {
	case mount.Target != "":
		out.Target = m.absolute(mount.Target)
	case mount.Env == nil:
		out.Target = "/run/secrets/" + path.Base(id)
	}
	if out.Target == "/" {
		return fmt.Errorf("invalid mount target %q", mount.Target)
	}
	if err := setOwner(&out, mount, 0o400); err != nil {
		return err
	}
	m.list = append(m.list, out)
	return nil
}

// addSSH adds the socket of an SSH agent.
func (m *mounts) addSSH(mount *instructions.Mount) error {
	if mount.Source != "" {
		return errors.New("ssh does not support source")
	}
	out := graph.Mount{Type: graph.MountSSH, ID: mount.CacheID, Required: mount.Required}
	if out.ID == "" {
		out.ID = "default"
	}
	out.Target = fmt.Sprintf("/run/buildkit/ssh_agent.%d", m.agents)
	if mount.Target != "" {
		out.Target = m.absolute(mount.Target)
	}
	if out.Target == "/" {
		return fmt.Errorf("invalid mount target %q", mount.Target)
	}
	if m.agents == 0 {
		m.socket = out.Target
	}
	m.agents++
	if err := setOwner(&out, mount, 0o600); err != nil {
		return err
	}
	m.list = append(m.list, out)
	return nil
}

// absolute returns where a target is, seen from the working directory.
func (m *mounts) absolute(target string) string {
	if path.IsAbs(target) {
		return path.Clean(target)
	}
	return path.Join("/", m.s.dir, target)
}

func setOwner(out *graph.Mount, mount *instructions.Mount, mode uint32) error {
	out.Mode = mode
	if mount.Mode != nil {
		if *mount.Mode > 0o7777 {
			return fmt.Errorf("invalid mode %o: want at most 7777", *mount.Mode)
		}
		out.Mode = uint32(*mount.Mode)
	}
	if mount.UID != nil {
		out.UID = uint32(*mount.UID) // parsed with 32 bits
	}
	if mount.GID != nil {
		out.GID = uint32(*mount.GID)
	}
	return nil
}
