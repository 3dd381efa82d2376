//go:build linux && cgo && (amd64 || arm64)

package runc

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// defaultCaps are BuildKit's capabilities for a RUN.
const defaultCaps = 1<<unix.CAP_CHOWN | 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_FSETID |
	1<<unix.CAP_FOWNER | 1<<unix.CAP_MKNOD | 1<<unix.CAP_NET_RAW | 1<<unix.CAP_SETGID |
	1<<unix.CAP_SETUID | 1<<unix.CAP_SETFCAP | 1<<unix.CAP_SETPCAP |
	1<<unix.CAP_NET_BIND_SERVICE | 1<<unix.CAP_SYS_CHROOT | 1<<unix.CAP_KILL |
	1<<unix.CAP_AUDIT_WRITE

// capabilities are those of this process.
type capabilities struct {
	permitted uint64
	last      int // the highest that the kernel has
}

func ownCapabilities() (capabilities, error) {
	status, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		return capabilities{}, err
	}
	permitted, err := statusMask(status, "CapPrm")
	if err != nil {
		return capabilities{}, err
	}
	b, err := os.ReadFile("/proc/sys/kernel/cap_last_cap")
	if err != nil {
		return capabilities{}, err
	}
	last, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err == nil && (last < 0 || last > 63) {
		err = fmt.Errorf("cap_last_cap is %d", last)
	}
	return capabilities{permitted: permitted, last: last}, err
}

// statusMask returns the bits of a field of /proc/PID/status.
func statusMask(status []byte, field string) (uint64, error) {
	for line := range strings.Lines(string(status)) {
		if mask, ok := strings.CutPrefix(line, field+":"); ok {
			return strconv.ParseUint(strings.TrimSpace(mask), 16, 64)
		}
	}
	return 0, fmt.Errorf("no %s in the status of a process", field)
}

// started is the operation that the shim reports when it is about to start the
// process.
const started = 1 << 32

// A start is the program that becomes the run's process, and what its
// operations are for.
type start struct {
	program
	what  map[int]string
	execs []int // those that may be the last
	name  string
}

// newStart makes the program. It begins with all capabilities, as user 0, in
// the container, and does what libcontainer would do in its place: the filter
// while that is allowed, the working directory while it can be entered, then
// capabilities and ids.
func (r *run) newStart(limits []limit) (*start, error) {
	s := &start{what: map[int]string{}, name: r.spec.Args[0]}
	for _, l := range limits {
		s.do("set limit "+l.name, unix.SYS_PRLIMIT64, 0, l.resource, s.words(l.soft, l.hard), 0)
	}
	if !r.spec.Insecure {
		filter := s.words(len(seccompFilter)/8, s.bytes([]byte(seccompFilter)))
		s.do("load seccomp filter", unix.SYS_SECCOMP,
			unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW, filter)
	}
	s.enter(r.spec.Dir)
	s.switchUser(r.user, r.executor.caps, r.spec.Insecure)
	s.tieToParent()
	if err := s.exec(r.spec.Args, r.env); err != nil {
		return nil, err
	}
	return s, nil
}

// do adds a system call that has a name.
func (s *start) do(what string, nr int, args ...any) { s.what[s.call(nr, args...)] = what }

// enter changes to the working directory. Magic links, as those to descriptors
// in /proc, are not followed (CVE-2024-21626). The descriptor is the lowest that
// is free.
func (s *start) enter(dir string) {
	what := "change to working directory " + strconv.Quote(dir)
	how := s.words(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0, unix.RESOLVE_NO_MAGICLINKS)
	at := unix.AT_FDCWD
	s.do(what, unix.SYS_OPENAT2, at, s.text(dir), how, unix.SizeofOpenHow)
	s.do(what, unix.SYS_FCHDIR, reportFD+1)
	s.do(what, unix.SYS_CLOSE, reportFD+1)
}

// switchUser gives up capabilities, and becomes the user.
func (s *start) switchUser(user identity, own capabilities, insecure bool) {
	keep, inherit := own.permitted&defaultCaps, uint64(0)
	if insecure {
		keep, inherit = own.permitted, own.permitted // as BuildKit does
	}
	for c := range own.last + 1 {
		if keep&(1<<c) == 0 {
			s.do("drop capabilities", unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, c)
		}
	}
	what := fmt.Sprintf("become user %d:%d", user.uid, user.gid)
	if user.uid != 0 {
		// So that it can open /dev/stdout.
		s.do(what, unix.SYS_FCHOWN, 1, user.uid, -1)
		s.do(what, unix.SYS_FCHOWN, 2, user.uid, -1)
	}
	var groups []uint32
	for _, gid := range user.groups {
		groups = append(groups, uint32(gid))
	}
	s.do(what, unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 1)
	s.do(what, unix.SYS_SETGROUPS, len(groups), s.ints(groups...))
	s.do(what, unix.SYS_SETRESGID, user.gid, user.gid, user.gid)
	s.do(what, unix.SYS_SETRESUID, user.uid, user.uid, user.uid)
	s.do(what, unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 0)

	header := s.ints(unix.LINUX_CAPABILITY_VERSION_3, 0)
	lo, hi := uint32(keep), uint32(keep>>32)
	ilo, ihi := uint32(inherit), uint32(inherit>>32)
	s.do("set capabilities", unix.SYS_CAPSET, header, s.ints(lo, lo, ilo, hi, hi, ihi))
	s.do("set capabilities", unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL)
	for c := range own.last + 1 {
		if inherit&(1<<c) != 0 {
			s.do("set capabilities", unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, c)
		}
	}
}

// tieToParent asks again for SIGKILL when the parent goes, since changing the
// user forgets it. If it went in between, the other end of the report's pipe
// is closed, and the write fails.
func (s *start) tieToParent() {
	s.do("watch parent", unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, int(unix.SIGKILL))
	s.do("watch parent", unix.SYS_WRITE, reportFD, s.words(started, 0), 16)
	s.do("close descriptors", unix.SYS_FCNTL, reportFD, unix.F_SETFD, unix.FD_CLOEXEC)
	s.do("close descriptors", unix.SYS_CLOSE, shimFD)
}

// maxPath is how many directories in PATH are searched. The reports of all fit
// into a pipe.
const maxPath = 1000

// Errors with which the search in PATH goes on, as in execvp(3).
const notHere = 1<<unix.ENOENT | 1<<unix.ENOTDIR | 1<<unix.EACCES

// exec adds the start of the process: one attempt for each directory in PATH,
// unless its name has a slash. Relative directories are not searched, as in
// runc.
func (s *start) exec(args, env []string) error {
	argv, envp := s.texts(args), s.texts(env)
	var names []string
	if strings.Contains(args[0], "/") {
		names = []string{args[0]}
	} else {
		for dir := range strings.SplitSeq(variable(env, "PATH"), ":") {
			if path.IsAbs(dir) {
				names = append(names, path.Join(dir, args[0]))
			}
		}
	}
	if len(names) > maxPath {
		return fmt.Errorf("PATH names %d directories", len(names))
	}
	for _, name := range names {
		s.execs = append(s.execs, s.try(unix.SYS_EXECVE, notHere, s.text(name), argv, envp))
	}
	s.call(unix.SYS_EXIT_GROUP, 255)
	return nil
}

// variable returns the value of a variable in env.
func variable(env []string, name string) string {
	for _, kv := range env {
		if value, ok := strings.CutPrefix(kv, name+"="); ok {
			return value
		}
	}
	return ""
}

// errNotFound is exec.ErrNotFound, in the words of runc.
var errNotFound = errors.New("executable file not found in $PATH")

// outcome returns the error that kept the process from starting, if one did.
// The words are those of runc.
func (s *start) outcome(reports []report) error {
	var attempts []unix.Errno
	for _, rep := range reports {
		switch n := int(rep.op); {
		case rep.op == started:
		case slices.Contains(s.execs, n):
			attempts = append(attempts, rep.errno)
		default:
			return fmt.Errorf("%s: %w", s.what[n], rep.errno)
		}
	}
	return s.execError(attempts)
}

func (s *start) execError(attempts []unix.Errno) error {
	err := errNotFound
	fatal := false
	for _, errno := range attempts {
		if errno >= 64 || notHere&(1<<errno) == 0 {
			fatal = true
		}
		if fatal || errno == unix.EACCES || strings.Contains(s.name, "/") {
			err = errno
		}
	}
	if !fatal && len(attempts) < len(s.execs) {
		return nil
	}
	return fmt.Errorf("exec: %q: %w", s.name, err)
}
