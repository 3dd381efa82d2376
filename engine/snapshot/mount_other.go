//go:build !linux

package snapshot

import (
	"fmt"
	"os"
	"runtime"
)

// Detached mounts m without attaching it anywhere. Only Linux can.
func (m Mount) Detached() (*os.File, error) {
	return nil, fmt.Errorf("mount %s: not supported on %s", m, runtime.GOOS)
}

// Attach mounts m at target. Only Linux can.
func (m Mount) Attach(target string) error {
	return fmt.Errorf("mount %s at %s: not supported on %s", m, target, runtime.GOOS)
}
