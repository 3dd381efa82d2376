//go:build linux && cgo && seccomp && (amd64 || arm64)

package runc

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"testing"

	"github.com/elastic/go-seccomp-bpf/arch"
	"github.com/opencontainers/runtime-spec/specs-go"
	libseccomp "github.com/seccomp/libseccomp-golang"
	"golang.org/x/sys/unix"
)

// The filters decide as those that libseccomp makes of the same profile, as far
// as this libseccomp knows the system calls. It takes libseccomp and its headers,
// so it only runs with -tags seccomp.
func TestFilterEqualsLibseccomp(t *testing.T) {
	for _, target := range targets {
		t.Run(target.name, func(t *testing.T) {
			ours, err := compile(target)
			if err != nil {
				t.Fatal(err)
			}
			theirs, err := oracle(t, target)
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for _, info := range target.arches {
				for nr := range 600 {
					name, err := libseccomp.ScmpSyscall(nr | info.SeccompMask).GetNameByArch(scmpArch(info))
					if err != nil || name == "" || info.SyscallNumbers[nr] != name {
						continue
					}
					for _, arg := range interesting {
						d := data{nr: uint32(nr | info.SeccompMask), arch: uint32(info.ID), args: [6]uint64{arg, arg}}
						n++
						if got, want := simulate(t, ours, d), simulate(t, theirs, d); got != want {
							t.Errorf("%s %s(%#x): %#x, libseccomp says %#x", info.Name, name, arg, got, want)
						}
					}
				}
			}
			t.Logf("%d decisions compared; ours has %d instructions, libseccomp's %d", n, len(ours), len(theirs))
		})
	}
}

// interesting are arguments on both sides of what the profile asks for.
var interesting = []uint64{
	0, 1, 2, 8, 16, 17, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 0x20000, 0x20008, 0x20009, 1<<32 - 1, 1 << 32, 1<<32 | 2,
	unix.CLONE_NEWUSER, unix.CLONE_NEWNS, unix.CLONE_THREAD, unix.CLONE_VM | 17, 1<<64 - 1,
}

func scmpArch(info *arch.Info) libseccomp.ScmpArch {
	switch info {
	case arch.X86_64:
		return libseccomp.ArchAMD64
	case arch.X32:
		return libseccomp.ArchX32
	case arch.I386:
		return libseccomp.ArchX86
	case arch.AARCH64:
		return libseccomp.ArchARM64
	default:
		return libseccomp.ArchARM
	}
}

// oracle makes the filter with libseccomp, as libcontainer/seccomp does.
func oracle(t *testing.T, target target) ([]unix.SockFilter, error) {
	rules, err := rulesFor(target.name)
	if err != nil {
		return nil, err
	}
	filter, err := libseccomp.NewFilter(libseccomp.ActErrno.SetReturnCode(int16(unix.EPERM)))
	if err != nil {
		return nil, err
	}
	defer filter.Release()
	if native, err := libseccomp.GetNativeArch(); err != nil || native != scmpArch(target.arches[0]) {
		if err := filter.AddArch(scmpArch(target.arches[0])); err != nil {
			return nil, err
		}
		if err := filter.RemoveArch(native); err != nil {
			return nil, err
		}
	}
	for _, info := range target.arches[1:] {
		if err := filter.AddArch(scmpArch(info)); err != nil {
			return nil, err
		}
	}
	for _, rule := range rules {
		if err := addRule(filter, rule); err != nil {
			return nil, err
		}
	}
	pr, pw, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer pr.Close()
	go func() {
		if err := filter.ExportBPF(pw); err != nil {
			t.Error(err)
		}
		_ = pw.Close()
	}()
	b, err := io.ReadAll(pr)
	if err != nil {
		return nil, err
	}
	var prog []unix.SockFilter
	for ; len(b) >= 8; b = b[8:] {
		prog = append(prog, unix.SockFilter{Code: binary.LittleEndian.Uint16(b), Jt: b[2], Jf: b[3], K: binary.LittleEndian.Uint32(b[4:])})
	}
	return prog, nil
}

func addRule(filter *libseccomp.ScmpFilter, rule specs.LinuxSyscall) error {
	action := libseccomp.ActAllow
	if rule.Action == specs.ActErrno {
		action = libseccomp.ActErrno.SetReturnCode(int16(*rule.ErrnoRet))
	}
	for _, name := range rule.Names {
		nr, err := libseccomp.GetSyscallFromName(name)
		if err != nil {
			continue // newer than this libseccomp
		}
		var conditions []libseccomp.ScmpCondition
		for _, arg := range rule.Args {
			ops := map[specs.LinuxSeccompOperator]libseccomp.ScmpCompareOp{
				specs.OpEqualTo: libseccomp.CompareEqual, specs.OpLessThan: libseccomp.CompareLess,
				specs.OpMaskedEqual: libseccomp.CompareMaskedEqual,
			}
			c, err := libseccomp.MakeCondition(arg.Index, ops[arg.Op], arg.Value, arg.ValueTwo)
			if err != nil {
				return err
			}
			conditions = append(conditions, c)
		}
		if err := filter.AddRuleConditional(nr, action, conditions); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}
