//go:build !linux || !cgo || (!amd64 && !arm64)

package runc

import (
	"context"
	"errors"

	"github.com/slipway-build/slipway/engine/diag"
	"github.com/slipway-build/slipway/engine/sandbox"
)

// Executor runs processes in containers; not in this build.
type Executor struct{}

var errUnsupported = diag.Hint(
	errors.New("run containers: this binary was built without libcontainer"),
	"Build it for Linux with CGO_ENABLED=1, or use a release binary.")

// New returns an error: this build can't run containers.
func New(Options) (*Executor, error) { return nil, errUnsupported }

// Run returns an error.
func (*Executor) Run(context.Context, sandbox.Spec) error { return errUnsupported }

// Close does nothing.
func (*Executor) Close() error { return nil }

// Init does nothing.
func Init() {}
