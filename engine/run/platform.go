package run

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/slipway-build/slipway/engine/diag"
	"github.com/slipway-build/slipway/platforms"
)

// qemuNames are the names of QEMU's user-mode emulators, which distributions
// also use for their registrations, by architecture as OCI names it.
var qemuNames = map[string]string{
	"amd64": "x86_64", "386": "i386", "arm64": "aarch64", "arm": "arm", "riscv64": "riscv64",
	"ppc64le": "ppc64le", "s390x": "s390x", "mips64le": "mips64el", "loong64": "loongarch64",
}

// native says which other architectures a CPU runs by itself.
var native = map[string][]string{"amd64": {"386"}, "arm64": {"arm"}}

// checkRunnable says why processes of p can't run here, if they can't. An
// emulator that the machine has registered for all containers (binfmt_misc with
// the flag F) will do.
func checkRunnable(p platforms.Platform, binfmt string) error {
	host := platforms.Host()
	if p.OS != host.OS {
		return fmt.Errorf("a RUN for %s can't run on %s", platforms.Format(p), platforms.Format(host))
	}
	if p.Architecture == "" || p.Architecture == host.Architecture {
		return nil
	}
	if slices.Contains(native[host.Architecture], p.Architecture) {
		return nil
	}
	b, err := os.ReadFile(filepath.Join(binfmt, "qemu-"+qemuNames[p.Architecture]))
	if err == nil && strings.HasPrefix(string(b), "enabled") && hasFlag(string(b), "F") {
		return nil
	}
	return diag.Hint(
		fmt.Errorf("a RUN for %s can't run on %s: no emulator is registered for it", platforms.Format(p), platforms.Format(host)),
		"Install qemu-user-static with binfmt support on the machine, build on a machine of that platform, or run the step in a stage that is FROM --platform=$BUILDPLATFORM.")
}

// hasFlag reads the "flags:" line of a binfmt_misc entry.
func hasFlag(entry, flag string) bool {
	for line := range strings.Lines(entry) {
		if flags, ok := strings.CutPrefix(strings.TrimSpace(line), "flags:"); ok {
			return strings.Contains(flags, flag)
		}
	}
	return false
}
