package runc_test

import "github.com/slipway-build/slipway/engine/sandbox/runc"

// libcontainer starts the test binary again to set up a container.
func init() { runc.Init() }
