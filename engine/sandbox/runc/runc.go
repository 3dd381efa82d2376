// Package runc runs processes in containers as root, with libcontainer inside
// this process: no runc binary, no daemon. It is the one importer of
// libcontainer, which needs cgo; without it New returns an error.
//
// Every run has an OS thread of its own, with the namespaces that the container
// is to have but for the PID namespace. There the root filesystem and all that is
// seen in it are put together, by descriptors of detached mounts and paths
// resolved inside the root. Then libcontainer starts the container as a child of
// that thread, mounts /proc and hides what is to be hidden. What it executes is
// a shim (see program), which loads the seccomp filter, gives up capabilities,
// becomes the user and then the process. So the mounts of a run are nobody
// else's and end with it; and whatever ends this process also ends the container
// (see Init and guard).
//
// A run of true takes 11 ms, and 12 ms of CPU time, on two CPUs that others use
// too (BenchmarkRun_True with real-time priority): the thread's part is 2 ms,
// libcontainer's 7, that of the shim, true and its end 2. With a filter that
// libcontainer makes itself it would be 30 ms more. What else made a difference:
// mounts made here with a few system calls each, one GOMAXPROCS in the child, two
// cgroups instead of ten. What did not: paths that libcontainer masks and makes
// read-only (0.3 ms), its state file, sealing the binary. Package-level work of
// the whole binary is done again for every run, before Init.
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
