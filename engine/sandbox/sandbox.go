// Package sandbox runs one process in a container. It knows nothing of images,
// caches or Dockerfiles: a root filesystem to mount, a command, and what the
// command may see. Package runc is the implementation; sandboxtest holds the
// suite for it and a fake.
package sandbox

import (
	"context"
	"fmt"
	"io"

	"github.com/slipway-build/slipway/engine/snapshot"
)

// Executor runs processes. Run may be called concurrently.
type Executor interface {
	// Run starts spec's process in a new container, waits for it to exit and
	// removes the container. A process that ran and failed is an [*ExitError];
	// any other error means that it could not be run.
	//
	// When ctx is cancelled the process gets SIGTERM, after a grace period every
	// process in the container SIGKILL, and Run returns context.Cause(ctx).
	// When Run returns, nothing of the container is running or mounted.
	Run(ctx context.Context, spec Spec) error
}

// Spec is everything about one run.
type Spec struct {
	// ID is unique among running containers of the machine: [a-z0-9-]{1,64}.
	ID string

	// Args is the command. Args[0] without a slash is looked up in PATH of Env,
	// inside the container.
	Args []string
	Env  []string

	// Dir is the working directory. It exists, or Run fails.
	Dir string

	// User is "name|uid[:name|gid]", looked up in the root's passwd and group;
	// empty is root.
	User string

	// Root is mounted as the root filesystem, read-write. It is for this run
	// alone: two runs at a time in one root get into each other's way.
	Root snapshot.Mount

	// Mounts are made in order. Targets that do not exist are made, and removed
	// again after the run: nothing of them stays in Root.
	Mounts []Mount

	Network  Network
	Insecure bool   // all capabilities, no seccomp filter, nothing masked
	Hostname string // empty means "buildkitsandbox"

	// Hosts are additional lines of /etc/hosts, and may be empty.
	Hosts []Host

	ShmSize      int64 // bytes of /dev/shm; 0 means 64 MiB
	Ulimits      []Ulimit
	CgroupParent string

	// Stdout and Stderr receive the output as it comes; nil discards it. Stdin
	// is empty.
	Stdout, Stderr io.Writer
}

// Mount makes something visible at Target. Exactly one of Tree, Dir and Tmpfs
// is set.
type Mount struct {
	Target   string // absolute, in the container
	ReadOnly bool

	// Tree is a filesystem to mount, for this container only. Path is the file
	// or directory in it to show, resolved inside it; empty means its root.
	Tree *snapshot.Mount
	Path string

	// Dir is a directory or file of the host.
	Dir string

	// Tmpfs is a new tmpfs.
	Tmpfs *Tmpfs
}

// Tmpfs describes a tmpfs mount.
type Tmpfs struct {
	Size int64 // bytes; 0 means no limit of its own
	Mode uint32
}

// Host is a name in /etc/hosts.
type Host struct{ Name, IP string }

// Ulimit is a resource limit, by its name in setrlimit(2) without RLIMIT_, in
// lower case. A hard limit above our own is clamped to it.
type Ulimit struct {
	Name       string
	Soft, Hard int64 // -1 is unlimited
}

// Network says what a process can reach.
type Network uint8

// Networks. HostNetwork is the network of this process.
const (
	HostNetwork Network = iota
	NoNetwork           // a loopback interface only, which is up
)

// ExitError reports a process that ran and did not succeed.
type ExitError struct {
	Code      int    // 128+n for signal n, as a shell says it
	Signal    string // set if a signal ended the process, such as "killed"
	OOMKilled bool   // the container's memory limit, or the machine's, was reached
}

func (e *ExitError) Error() string {
	switch {
	case e.OOMKilled:
		return fmt.Sprintf("exit code: %d: the process was killed because memory ran out", e.Code)
	case e.Signal != "":
		return fmt.Sprintf("exit code: %d (signal: %s)", e.Code, e.Signal)
	default:
		return fmt.Sprintf("exit code: %d", e.Code)
	}
}
