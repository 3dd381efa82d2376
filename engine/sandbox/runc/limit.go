//go:build linux && cgo && (amd64 || arm64)

package runc

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/engine/sandbox"
)

// resource returns the number of a limit.
func resource(name string) (int, bool) {
	switch name {
	case "as":
		return unix.RLIMIT_AS, true
	case "core":
		return unix.RLIMIT_CORE, true
	case "cpu":
		return unix.RLIMIT_CPU, true
	case "data":
		return unix.RLIMIT_DATA, true
	case "fsize":
		return unix.RLIMIT_FSIZE, true
	case "locks":
		return unix.RLIMIT_LOCKS, true
	case "memlock":
		return unix.RLIMIT_MEMLOCK, true
	case "msgqueue":
		return unix.RLIMIT_MSGQUEUE, true
	case "nice":
		return unix.RLIMIT_NICE, true
	case "nofile":
		return unix.RLIMIT_NOFILE, true
	case "nproc":
		return unix.RLIMIT_NPROC, true
	case "rss":
		return unix.RLIMIT_RSS, true
	case "rtprio":
		return unix.RLIMIT_RTPRIO, true
	case "rttime":
		return unix.RLIMIT_RTTIME, true
	case "sigpending":
		return unix.RLIMIT_SIGPENDING, true
	case "stack":
		return unix.RLIMIT_STACK, true
	default:
		return 0, false
	}
}

// limit is a resource limit that can be set.
type limit struct {
	name       string
	resource   int
	soft, hard uint64
}

// limits returns the ulimits as they can be set: without CAP_SYS_RESOURCE a
// hard limit can only be lowered, so what is above ours becomes ours.
func limits(ulimits []sandbox.Ulimit, own capabilities) ([]limit, error) {
	var list []limit
	for _, u := range ulimits {
		number, ok := resource(u.Name)
		if !ok {
			return nil, fmt.Errorf("set limit %q: there is no such limit", u.Name)
		}
		l := limit{name: u.Name, resource: number, soft: limitValue(u.Soft), hard: limitValue(u.Hard)}
		if l.soft > l.hard {
			return nil, fmt.Errorf("set limit %s: the soft limit %d is above the hard limit %d", u.Name, u.Soft, u.Hard)
		}
		if own.permitted&(1<<unix.CAP_SYS_RESOURCE) == 0 {
			var now unix.Rlimit
			if err := unix.Getrlimit(number, &now); err != nil {
				return nil, fmt.Errorf("get limit %s: %w", u.Name, err)
			}
			l.soft, l.hard = min(l.soft, now.Max), min(l.hard, now.Max)
		}
		list = append(list, l)
	}
	return list, nil
}

// limitValue returns n as the kernel takes it: all bits set is unlimited.
func limitValue(n int64) uint64 { return uint64(max(n, -1)) }
