package main

import "github.com/slipway-build/slipway/engine/sandbox/runc"

// libcontainer sets up a container by starting this binary again. That has to
// be caught before main, on the main thread.
func init() { runc.Init() }
