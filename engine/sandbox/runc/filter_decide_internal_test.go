//go:build linux && cgo && (amd64 || arm64)

package runc

import (
	"testing"

	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/sys/unix"
)

// data is struct seccomp_data.
type data struct {
	nr, arch uint32
	args     [6]uint64
}

func (d data) load(off uint32) uint32 {
	switch off {
	case offNr:
		return d.nr
	case offArch:
		return d.arch
	default:
		return uint32(d.args[(off-offArg)/8] >> (8 * (off % 8)))
	}
}

// simulate runs a filter, with the instructions that filters have.
func simulate(t *testing.T, prog []unix.SockFilter, d data) uint32 {
	t.Helper()
	var a uint32
	jump := func(in unix.SockFilter, yes bool) int {
		if yes {
			return int(in.Jt)
		}
		return int(in.Jf)
	}
	for pc := 0; pc < len(prog); pc++ {
		switch in := prog[pc]; in.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			a = d.load(in.K)
		case unix.BPF_ALU | unix.BPF_AND | unix.BPF_K:
			a &= in.K
		case unix.BPF_JMP | unix.BPF_JA:
			pc += int(in.K)
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			pc += jump(in, a == in.K)
		case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			pc += jump(in, a >= in.K)
		case unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K:
			pc += jump(in, a > in.K)
		case unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K:
			pc += jump(in, a&in.K != 0)
		case unix.BPF_RET | unix.BPF_K:
			return in.K
		default:
			t.Fatalf("instruction %d has code %#x", pc, in.Code)
		}
	}
	t.Fatal("the filter has no end")
	return 0
}

func TestFilterDecides(t *testing.T) {
	type decision struct {
		arch *arch.Info
		name string
		arg  uint64
		want uint32
	}
	decisions := map[string][]decision{
		"amd64": {
			{arch.X86_64, "read", 0, retAllow},
			{arch.X86_64, "mount", 0, retEPERM},
			{arch.X86_64, "clone3", 0, retNoSys},
			{arch.X86_64, "socket", unix.AF_INET, retAllow},
			{arch.X86_64, "socket", unix.AF_VSOCK, retEPERM},
			{arch.X86_64, "socket", 1<<32 | unix.AF_INET, retEPERM},
			{arch.X86_64, "clone", unix.CLONE_NEWNS, retEPERM},
			{arch.X86_64, "clone", 1<<40 | uint64(unix.SIGCHLD), retAllow},
			{arch.X86_64, "arch_prctl", 0, retAllow},
			{arch.X86_64, "uretprobe", 0, retAllow},
			{arch.X32, "read", 0, retAllow},
			{arch.X32, "mount", 0, retEPERM},
			{arch.I386, "read", 0, retAllow},
			{arch.I386, "socketcall", 0, retAllow},
			{arch.I386, "mount", 0, retEPERM},
			{arch.ARM, "read", 0, retKill},
		},
		"arm64": {
			{arch.AARCH64, "read", 0, retAllow},
			{arch.AARCH64, "mount", 0, retEPERM},
			{arch.AARCH64, "clone3", 0, retNoSys},
			{arch.AARCH64, "socket", unix.AF_VSOCK, retEPERM},
			{arch.ARM, "read", 0, retAllow},
			{arch.ARM, "cacheflush", 0, retAllow},
			{arch.ARM, "mount", 0, retEPERM},
			{arch.I386, "read", 0, retKill},
		},
	}
	for _, target := range targets {
		t.Run(target.name, func(t *testing.T) {
			prog, err := compile(target)
			if err != nil {
				t.Fatal(err)
			}
			for _, dec := range decisions[target.name] {
				nr := dec.arch.SyscallNames[dec.name] | dec.arch.SeccompMask
				if got := simulate(t, prog, data{nr: uint32(nr), arch: uint32(dec.arch.ID), args: [6]uint64{dec.arg}}); got != dec.want {
					t.Errorf("%s %s(%#x): %#x, want %#x", dec.arch.Name, dec.name, dec.arg, got, dec.want)
				}
			}
			for _, nr := range []uint32{600, 4095, 1 << 29, 1<<32 - 1} {
				want := retNoSys
				if got := simulate(t, prog, data{nr: nr, arch: uint32(target.arches[0].ID)}); got != want {
					t.Errorf("system call %d: %#x, want %#x", nr, got, want)
				}
			}
		})
	}
}
