package run

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/slipway-build/slipway/platforms"
)

func TestCheckRunnable(t *testing.T) {
	host := platforms.Host()
	foreign := "arm64"
	if host.Architecture == foreign {
		foreign = "amd64"
	}
	entry := "qemu-" + qemuNames[foreign]
	tests := []struct {
		name     string
		platform platforms.Platform
		binfmt   string // content of the registration
		ok       bool
	}{
		{"host", host, "", true},
		{"unset architecture", platforms.Platform{OS: "linux"}, "", true},
		{"other OS", platforms.Platform{OS: "windows", Architecture: host.Architecture}, "", false},
		{"no emulator", platforms.Platform{OS: "linux", Architecture: foreign}, "", false},
		{"emulator", platforms.Platform{OS: "linux", Architecture: foreign}, "enabled\ninterpreter /usr/bin/qemu\nflags: OCF\n", true},
		{"emulator by path only", platforms.Platform{OS: "linux", Architecture: foreign}, "enabled\ninterpreter /usr/bin/qemu\nflags: OC\n", false},
		{"disabled", platforms.Platform{OS: "linux", Architecture: foreign}, "disabled\ninterpreter /usr/bin/qemu\nflags: F\n", false},
		{"unknown architecture", platforms.Platform{OS: "linux", Architecture: "../../etc/passwd"}, "", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if tt.binfmt != "" {
				if err := os.WriteFile(filepath.Join(dir, entry), []byte(tt.binfmt), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if err := checkRunnable(tt.platform, dir); (err == nil) != tt.ok {
				t.Errorf("checkRunnable = %v, want ok %v", err, tt.ok)
			}
		})
	}
}
