//go:build linux && cgo && (amd64 || arm64)

package runc

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// A program is the shim: what libcontainer starts in the container instead of
// the process, and which then becomes it. libcontainer would compile the
// seccomp filter anew for every run, which takes longer than all the rest, and
// would look at files of the image in ways that we want to have in our hands.
//
// It is an ELF file of some kilobytes in a sealed memfd, made for one run: an
// interpreter of 130 bytes, and a list of system calls with all that they need
// to point at. The interpreter makes one call after the other. When one fails it
// reports which, and why, and stops; unless the call says that this error may
// be passed over.
//
//	0      ELF header, one program header: all of the file, readable and executable
//	code   interpreter
//	table  operations: number of the call, six arguments, errors to pass over
//	data   strings and arrays
type program struct {
	ops  []op
	data []byte
	refs []func(base uint64) // each makes one pointer absolute
}

// op is one system call.
type op struct {
	nr     uint64
	args   [6]uint64
	ignore uint64 // bit n: go on after error n
}

// A pointer into the program's data.
type pointer uint64

// The shim's descriptors: the program itself, and where reports go.
const (
	shimFD   = 3
	reportFD = 4
)

const (
	loadAddr = 0x400000
	codeOff  = 64 + 56 // after the ELF header and one program header
)

// call adds a system call and returns its number in reports. Arguments are
// numbers of type int or uint64, and pointers.
func (p *program) call(nr int, args ...any) int { return p.try(nr, 0, args...) }

// try is call, but goes on after an error in ignore, a mask by number.
func (p *program) try(nr int, ignore uint64, args ...any) int {
	n := len(p.ops)
	p.ops = append(p.ops, op{nr: uint64(nr), ignore: ignore})
	for i, arg := range args {
		p.ops[n].args[i] = number(arg)
		if _, ok := arg.(pointer); ok {
			p.refs = append(p.refs, func(base uint64) { p.ops[n].args[i] += base })
		}
	}
	return n
}

func number(arg any) uint64 {
	switch arg := arg.(type) {
	case int:
		return uint64(arg)
	case pointer:
		return uint64(arg)
	default:
		return arg.(uint64)
	}
}

// bytes adds b to the data.
func (p *program) bytes(b []byte) pointer {
	at := len(p.data)
	p.data = append(p.data, b...)
	p.data = append(p.data, make([]byte, -len(p.data)&7)...)
	return pointer(at)
}

// text adds s to the data, as C has it.
func (p *program) text(s string) pointer { return p.bytes(append([]byte(s), 0)) }

// words adds an array of numbers and pointers of 64 bits.
func (p *program) words(list ...any) pointer {
	var b []byte
	for _, w := range list {
		b = binary.LittleEndian.AppendUint64(b, number(w))
	}
	start := p.bytes(b)
	for i, w := range list {
		if _, ok := w.(pointer); ok {
			at := int(start) + 8*i
			p.refs = append(p.refs, func(base uint64) {
				binary.LittleEndian.PutUint64(p.data[at:], binary.LittleEndian.Uint64(p.data[at:])+base)
			})
		}
	}
	return start
}

// texts adds an array of pointers to the strings in list, ended by a zero.
func (p *program) texts(list []string) pointer {
	var pointers []any
	for _, s := range list {
		pointers = append(pointers, p.text(s))
	}
	return p.words(append(pointers, 0)...)
}

// ints adds an array of numbers of 32 bits.
func (p *program) ints(list ...uint32) pointer {
	var b []byte
	for _, n := range list {
		b = binary.LittleEndian.AppendUint32(b, n)
	}
	return p.bytes(b)
}

// file lays the program out, which can be done once, and returns it as an
// executable that can't be changed any more.
func (p *program) file() (*os.File, error) {
	dataOff := codeOff + len(interpreter) + binary.Size(p.ops)
	for _, ref := range p.refs {
		ref(loadAddr + uint64(dataOff))
	}
	size := uint64(dataOff + len(p.data))
	header := elf.Header64{
		Ident:   [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:    uint16(elf.ET_EXEC),
		Machine: uint16(shimMachine),
		Version: uint32(elf.EV_CURRENT),
		Entry:   loadAddr + codeOff,
		Phoff:   64, Ehsize: 64, Phentsize: 56, Phnum: 1,
	}
	load := elf.Prog64{
		Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X),
		Vaddr: loadAddr, Paddr: loadAddr, Filesz: size, Memsz: size, Align: 0x10000,
	}
	var b bytes.Buffer
	for _, part := range []any{header, load, []byte(interpreter), p.ops, p.data} {
		if err := binary.Write(&b, binary.LittleEndian, part); err != nil {
			return nil, fmt.Errorf("make shim: %w", err)
		}
	}
	return sealed("slipway-shim", b.Bytes())
}

// sealed returns an executable memfd with the given content, which nobody can
// change.
func sealed(name string, content []byte) (*os.File, error) {
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate(name, flags|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		fd, err = unix.MemfdCreate(name, flags)
	}
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err := f.Write(content); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		return nil, errors.Join(os.NewSyscallError("fcntl", err), f.Close())
	}
	return f, nil
}

// A report says that an operation failed, or with the number of one that
// writes it, that the program came so far.
type report struct {
	op    uint64
	errno unix.Errno
}

// readReports reads what the shim had to say. Nobody may hold the other end.
func readReports(r io.Reader) ([]report, error) {
	const size = 16
	b, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	var reports []report
	for ; len(b) >= size; b = b[size:] {
		reports = append(reports, report{
			op:    binary.LittleEndian.Uint64(b),
			errno: unix.Errno(binary.LittleEndian.Uint64(b[8:])),
		})
	}
	return reports, nil
}
