// Package runc runs processes in containers as root, with libcontainer inside
// this process: no runc binary, no daemon. It is the one importer of
// libcontainer, which needs cgo; without it New returns an error.
//
// Every run has an OS thread of its own, with a mount namespace of its own, in
// which the root filesystem and its mounts are put together before libcontainer
// starts. The container is a child of that thread. So whatever ends the process
// also ends the container, and takes its mounts along (see [Init]).
package runc

import "time"

// Options configures an Executor.
type Options struct {
	// Root is a directory of the executor's own, on a local filesystem. Several
	// processes may share it. Nothing in it outlives its process, but what a
	// kill left there is removed by the next New.
	Root string

	// CgroupParent is the cgroup in which runs get theirs, unless their Spec
	// names another; empty means the one that this process is in.
	CgroupParent string

	// Grace is how long a process may take to end after SIGTERM; 0 means ten
	// seconds.
	Grace time.Duration
}
