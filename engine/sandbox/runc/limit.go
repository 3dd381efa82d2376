//go:build linux && cgo && (amd64 || arm64)

package runc

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/engine/sandbox"
)

// resources are the limits by their names.
var resources = map[string]int{
	"as": unix.RLIMIT_AS, "core": unix.RLIMIT_CORE, "cpu": unix.RLIMIT_CPU,
	"data": unix.RLIMIT_DATA, "fsize": unix.RLIMIT_FSIZE, "locks": unix.RLIMIT_LOCKS,
	"memlock": unix.RLIMIT_MEMLOCK, "msgqueue": unix.RLIMIT_MSGQUEUE,
	"nice": unix.RLIMIT_NICE, "nofile": unix.RLIMIT_NOFILE, "nproc": unix.RLIMIT_NPROC,
	"rss": unix.RLIMIT_RSS, "rtprio": unix.RLIMIT_RTPRIO, "rttime": unix.RLIMIT_RTTIME,
	"sigpending": unix.RLIMIT_SIGPENDING, "stack": unix.RLIMIT_STACK,
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
		resource, ok := resources[u.Name]
		if !ok {
			return nil, fmt.Errorf("set limit %q: there is no such limit", u.Name)
		}
		l := limit{name: u.Name, resource: resource, soft: limitValue(u.Soft), hard: limitValue(u.Hard)}
		if l.soft > l.hard {
			return nil, fmt.Errorf("set limit %s: the soft limit %d is above the hard limit %d", u.Name, u.Soft, u.Hard)
		}
		if own.permitted&(1<<unix.CAP_SYS_RESOURCE) == 0 {
			var now unix.Rlimit
			if err := unix.Getrlimit(resource, &now); err != nil {
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
