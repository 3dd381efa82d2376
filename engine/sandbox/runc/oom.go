//go:build linux && cgo && (amd64 || arm64)

package runc

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// An oomCounter tells whether processes of a run were killed because memory ran
// out. The run's memory cgroup knows exactly. Where it has none, such as with
// cgroup v2 in a group that has processes of its own, the machine's counter must
// do, for processes that were killed indeed.
type oomCounter struct {
	file   string // of the run's cgroup; "" if it has none
	before uint64 // by the machine's counter
}

const machineStat = "/proc/vmstat"

// countOOM begins to count for the run id, before it starts.
func (g *group) countOOM(id string) oomCounter {
	for _, m := range g.members {
		if m.memory {
			return oomCounter{file: filepath.Join(m.dir.Name(), id, "memory.oom_control")}
		}
	}
	c := oomCounter{}
	if g.unified != "" {
		c.file = filepath.Join(cgroupRoot, g.unified, id, "memory.events")
	}
	c.before, _ = oomKills(machineStat)
	return c
}

// killed says whether memory ran out, when the run has ended with code and its
// cgroup is still there.
func (c oomCounter) killed(code int) bool {
	if c.file != "" {
		if n, err := oomKills(c.file); err == nil {
			return n > 0
		}
	}
	now, err := oomKills(machineStat)
	return err == nil && code == 128+9 && now > c.before
}

// oomKills returns the line oom_kill of a file.
func oomKills(name string) (uint64, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if count, ok := strings.CutPrefix(line, "oom_kill "); ok {
			var n uint64
			_, err := fmt.Sscan(count, &n)
			return n, err
		}
	}
	return 0, fmt.Errorf("%s: no oom_kill: %w", name, fs.ErrNotExist)
}
