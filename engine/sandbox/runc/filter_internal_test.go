//go:build linux && cgo && (amd64 || arm64)

package runc

import (
	"encoding/binary"
	"flag"
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/elastic/go-seccomp-bpf/arch"
	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// The compiler for the seccomp filter. It takes moby's default profile, as
// BuildKit does, with the capabilities that a RUN has, and writes filters that
// decide as those that runc makes with libseccomp: for each architecture of the
// profile, what the profile says; ENOSYS for system calls that are newer than
// all that it names (libcontainer/seccomp/patchbpf); for other architectures,
// death.

var update = flag.Bool("update", false, "write the compiled seccomp filters")

// target is what a filter is made for: the names that the profile has for the
// processor, and its architectures, the native one first.
type target struct {
	file   string
	name   string // in Includes.Arches and Excludes.Arches
	arches []*arch.Info
}

var targets = []target{
	{file: "filter_amd64.bpf", name: "amd64", arches: []*arch.Info{arch.X86_64, arch.X32, arch.I386}},
	{file: "filter_arm64.bpf", name: "arm64", arches: []*arch.Info{arch.AARCH64, arch.ARM}},
}

// BuildKit's capabilities by name, as the profile has them.
var defaultCapNames = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD",
	"CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP",
	"CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

func TestFilterIsCurrent(t *testing.T) {
	for _, target := range targets {
		prog, err := compile(target)
		if err != nil {
			t.Fatal(err)
		}
		want := encode(prog)
		if *update {
			if err := os.WriteFile(target.file, want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(target.file)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s is not what the profile compiles to; run go test -run TestFilterIsCurrent -update", target.file)
		}
	}
}

func encode(prog []unix.SockFilter) []byte {
	var b []byte
	for _, in := range prog {
		b = binary.LittleEndian.AppendUint16(b, in.Code)
		b = append(b, in.Jt, in.Jf)
		b = binary.LittleEndian.AppendUint32(b, in.K)
	}
	return b
}

// Offsets in struct seccomp_data, in little endian.
const (
	offNr   = 0
	offArch = 4
	offArg  = 16 // of argument 0; its upper half is 4 further
)

const (
	x32Bit   = 1 << 30
	retAllow = unix.SECCOMP_RET_ALLOW
	retKill  = unix.SECCOMP_RET_KILL_THREAD
	retEPERM = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	retNoSys = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
)

func stmt(code uint16, k uint32) unix.SockFilter { return unix.SockFilter{Code: code, K: k} }

func ret(k uint32) []unix.SockFilter { return []unix.SockFilter{stmt(unix.BPF_RET|unix.BPF_K, k)} }

func load(off uint32) unix.SockFilter {
	return stmt(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, off)
}

// either is "if A op k then yes else no". Neither falls through.
func either(op uint16, k uint32, yes, no []unix.SockFilter) []unix.SockFilter {
	jump := unix.SockFilter{Code: unix.BPF_JMP | op | unix.BPF_K, K: k}
	var out []unix.SockFilter
	if len(no) <= 255 {
		jump.Jt = uint8(len(no))
		out = append(out, jump)
	} else {
		jump.Jf = 1
		out = append(out, jump, stmt(unix.BPF_JMP|unix.BPF_JA, uint32(len(no))))
	}
	return slices.Concat(out, no, yes)
}

// compile makes the whole filter.
func compile(t target) ([]unix.SockFilter, error) {
	rules, err := rulesFor(t.name)
	if err != nil {
		return nil, err
	}
	prog := ret(retKill)
	for _, info := range slices.Backward(t.arches) {
		if info == arch.X32 {
			continue // with X86_64, which it shares its number with
		}
		body, err := section(info, rules)
		if err != nil {
			return nil, err
		}
		if info == arch.X86_64 {
			x32, err := section(arch.X32, rules)
			if err != nil {
				return nil, err
			}
			body = either(unix.BPF_JSET, x32Bit, x32, body)
		}
		body = append([]unix.SockFilter{load(offNr)}, body...)
		prog = either(unix.BPF_JEQ, uint32(info.ID), body, prog)
	}
	return append([]unix.SockFilter{load(offArch)}, prog...), nil
}

// rulesFor returns the rules of the profile that hold on a processor for
// BuildKit's capabilities.
func rulesFor(name string) ([]specs.LinuxSyscall, error) {
	profile := seccomp.DefaultProfile()
	if profile.DefaultAction != specs.ActErrno || profile.DefaultErrnoRet == nil || *profile.DefaultErrnoRet != uint(unix.EPERM) {
		return nil, fmt.Errorf("the profile's default is %s", profile.DefaultAction)
	}
	var rules []specs.LinuxSyscall
	for _, call := range profile.Syscalls {
		if in := call.Includes; in != nil {
			missing := func(c string) bool { return !slices.Contains(defaultCapNames, c) }
			if len(in.Arches) > 0 && !slices.Contains(in.Arches, name) || slices.ContainsFunc(in.Caps, missing) {
				continue
			}
			// in.MinKernel is 4.8, older than all that we run on.
		}
		if ex := call.Excludes; ex != nil {
			has := func(c string) bool { return slices.Contains(defaultCapNames, c) }
			if slices.Contains(ex.Arches, name) || slices.ContainsFunc(ex.Caps, has) {
				continue
			}
		}
		rules = append(rules, call.LinuxSyscall)
	}
	return rules, nil
}

// span is a range of system calls, up to the next one, that are decided alike.
type span struct {
	from uint32
	body []unix.SockFilter
}

// section decides by the number in A, for one architecture.
func section(info *arch.Info, rules []specs.LinuxSyscall) ([]unix.SockFilter, error) {
	byNr := map[int][]specs.LinuxSyscall{}
	last := 0
	named := profileNames()
	for nr, name := range info.SyscallNumbers {
		if named[name] {
			last = max(last, nr)
		}
		for _, rule := range rules {
			if slices.Contains(rule.Names, name) {
				byNr[nr] = append(byNr[nr], rule)
			}
		}
	}
	wide := info == arch.X86_64 || info == arch.AARCH64 // libseccomp takes x32 for one of 32 bits
	var spans []span
	add := func(nr int, body []unix.SockFilter) {
		if len(spans) == 0 || !slices.Equal(spans[len(spans)-1].body, body) {
			spans = append(spans, span{uint32(nr | info.SeccompMask), body})
		}
	}
	for nr := 0; nr <= last; nr++ {
		body, err := decide(byNr[nr], wide)
		if err != nil {
			return nil, fmt.Errorf("%s, %s: %w", info.Name, info.SyscallNumbers[nr], err)
		}
		add(nr, body)
	}
	add(last+1, ret(retNoSys))
	return tree(spans), nil
}

// profileNames are all names in the profile, whether they hold here or not.
func profileNames() map[string]bool {
	names := map[string]bool{}
	for _, call := range seccomp.DefaultProfile().Syscalls {
		for _, name := range call.Names {
			names[name] = true
		}
	}
	return names
}

// tree is a binary search for the span that A is in.
func tree(spans []span) []unix.SockFilter {
	if len(spans) == 1 {
		return spans[0].body
	}
	mid := len(spans) / 2
	return either(unix.BPF_JGE, spans[mid].from, tree(spans[mid:]), tree(spans[:mid]))
}

// decide is what the rules say about one system call: the first that allows it
// without looking at its arguments, else those that look at one.
func decide(rules []specs.LinuxSyscall, wide bool) ([]unix.SockFilter, error) {
	body, upper := ret(retEPERM), -1 // the argument whose upper half must be zero
	for _, rule := range slices.Backward(rules) {
		action, err := act(rule)
		if err != nil {
			return nil, err
		}
		switch {
		case len(rule.Args) == 0:
			return action, nil
		case len(rule.Args) > 1:
			return nil, fmt.Errorf("%d arguments", len(rule.Args))
		}
		arg := rule.Args[0]
		if body, err = condition(arg, action, body); err != nil {
			return nil, err
		}
		if arg.Op == specs.OpMaskedEqual {
			continue
		}
		if upper >= 0 && upper != int(arg.Index) || rule.Action != specs.ActAllow {
			return nil, fmt.Errorf("rules about arguments %d and %d", upper, arg.Index)
		}
		upper = int(arg.Index)
	}
	if !wide || upper < 0 {
		return body, nil
	}
	zero := either(unix.BPF_JEQ, 0, body, ret(retEPERM))
	return append([]unix.SockFilter{load(uint32(offArg + 8*upper + 4))}, zero...), nil
}

func act(rule specs.LinuxSyscall) ([]unix.SockFilter, error) {
	switch rule.Action {
	case specs.ActAllow:
		return ret(retAllow), nil
	case specs.ActErrno:
		return ret(unix.SECCOMP_RET_ERRNO | uint32(*rule.ErrnoRet)), nil
	default:
		return nil, fmt.Errorf("action %s", rule.Action)
	}
}

// condition compares the lower half of an argument, which is all that the
// profile's values use.
func condition(arg specs.LinuxSeccompArg, yes, no []unix.SockFilter) ([]unix.SockFilter, error) {
	if arg.Value > 1<<32-1 || arg.ValueTwo > 1<<32-1 {
		return nil, fmt.Errorf("argument value %#x", arg.Value)
	}
	body := []unix.SockFilter{load(uint32(offArg + 8*arg.Index))}
	switch k := uint32(arg.Value); arg.Op {
	case specs.OpMaskedEqual:
		body = append(body, stmt(unix.BPF_ALU|unix.BPF_AND|unix.BPF_K, k))
		return append(body, either(unix.BPF_JEQ, uint32(arg.ValueTwo), yes, no)...), nil
	case specs.OpEqualTo:
		return append(body, either(unix.BPF_JEQ, k, yes, no)...), nil
	case specs.OpLessThan:
		return append(body, either(unix.BPF_JGE, k, no, yes)...), nil
	default:
		return nil, fmt.Errorf("comparison %s", arg.Op)
	}
}
