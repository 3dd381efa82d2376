package engine_test

import "github.com/slipway-build/slipway/engine/sandbox/runc"

// libcontainer starts this binary again; that must be caught before the tests.
func init() { runc.Init() }
