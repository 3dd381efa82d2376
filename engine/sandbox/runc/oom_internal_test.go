//go:build linux && cgo && (amd64 || arm64)

package runc

import (
	"os"
	"path/filepath"
	"testing"
)

func TestOOMCounter(t *testing.T) {
	file := filepath.Join(t.TempDir(), "memory.events")
	tests := []struct {
		name    string
		content string // of the run's file; "" if there is none
		before  uint64
		code    int
		want    bool
	}{
		{name: "counted", content: "oom 3\noom_kill 1\noom_group_kill 0\n", code: 1, want: true},
		{name: "none", content: "oom 3\noom_kill 0\n", code: 137},
		{name: "not counted, killed, nothing on the machine", code: 137, before: 1 << 62},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_ = os.Remove(file)
			if tt.content != "" {
				if err := os.WriteFile(file, []byte(tt.content), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if got := (oomCounter{file: file, before: tt.before}).killed(tt.code); got != tt.want {
				t.Errorf("got %v", got)
			}
		})
	}
	// The machine's counter exists, and kills before the run are not the run's.
	c := (&group{}).countOOM("x")
	if _, err := oomKills(machineStat); err != nil {
		t.Error(err)
	}
	if c.killed(1) {
		t.Error("a process that was not killed")
	}
}
