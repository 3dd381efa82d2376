//go:build linux && cgo

package runc

import _ "embed"

// seccompFilter is BuildKit's default seccomp profile, compiled for this
// processor. TestFilterIsCurrent makes it, and says how.
//
//go:embed filter_arm64.bpf
var seccompFilter string
