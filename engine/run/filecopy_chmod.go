package run

import (
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// chmod is a parsed --chmod: what to make of a file's permission bits. The zero
// chmod leaves them as they are.
type chmod struct {
	octal   bool
	mode    uint32 // if octal
	actions []chmodAction
}

// chmodAction is one "+x" or "=u" of a symbolic mode.
type chmodAction struct {
	who  uint32 // bits that it may change
	op   byte   // '+', '-', '=', or 'X' for those of "+X" and "=X"
	bits uint32
	from byte // 'u', 'g', 'o': bits are copied from there
}

const (
	permBits  = 0o777
	setBits   = unix.S_ISUID | unix.S_ISGID
	stickyBit = unix.S_ISVTX
	modeBits  = permBits | setBits | stickyBit
)

// parseChmod parses octal digits up to 7777, or clauses as of chmod(1) with
// commas between them. As in BuildKit the umask counts as 0, and the details
// are those of BSD's setmode(3): a clause may have several actions ("u+r-x"),
// "X" looks at the mode that the file had at first, "t" belongs to everybody.
func parseChmod(s string) (chmod, error) {
	if s == "" {
		return chmod{}, nil
	}
	if s[0] >= '0' && s[0] <= '9' {
		n, err := strconv.ParseUint(s, 8, 32)
		if err != nil || n > modeBits {
			return chmod{}, fmt.Errorf("chmod %q: not an octal number between 0 and 7777", s)
		}
		return chmod{octal: true, mode: uint32(n)}, nil
	}
	p := chmodParser{rest: s}
	for {
		if !p.clause() {
			return chmod{}, fmt.Errorf("chmod %q: neither octal nor of the form u=rwX,go=rX", s)
		}
		if p.rest == "" {
			return chmod{actions: p.actions}, nil
		}
		p.rest = p.rest[1:] // the comma
	}
}

type chmodParser struct {
	rest    string
	actions []chmodAction
}

// clause parses up to a comma or the end: whom, then one or more actions.
func (p *chmodParser) clause() bool {
	var who uint32
	for ; p.rest != ""; p.rest = p.rest[1:] {
		switch p.rest[0] {
		case 'a':
			who |= setBits | permBits
		case 'u':
			who |= unix.S_ISUID | 0o700
		case 'g':
			who |= unix.S_ISGID | 0o070
		case 'o':
			who |= 0o007
		default:
			return p.ops(who)
		}
	}
	return false
}

// ops parses the actions of a clause. There is something to parse.
func (p *chmodParser) ops(who uint32) bool {
	cleared := false // by an '=' of this clause
	for {
		op := p.rest[0]
		p.rest = p.rest[1:]
		switch op {
		case '=':
			cleared = false
		case '+', '-':
		default:
			return false
		}
		a := actions{p: p, who: who &^ stickyBit, op: op, cleared: cleared}
		for p.rest != "" && a.letter(p.rest[0]) {
			p.rest = p.rest[1:]
		}
		a.end()
		who, cleared = a.who, a.cleared
		if p.rest == "" || p.rest[0] == ',' {
			return true
		}
	}
}

// actions is what follows one operator.
type actions struct {
	p           *chmodParser
	who         uint32
	op          byte
	perm, permX uint32 // not added yet
	cleared     bool
}

// letter takes one letter, or reports false.
func (a *actions) letter(c byte) bool {
	special := a.who == 0 || a.who&^0o007 != 0 // those for others have no such bits
	switch {
	case c == 'r':
		a.perm |= 0o444
	case c == 'w':
		a.perm |= 0o222
	case c == 'x', c == 'X' && a.op == '-':
		a.perm |= 0o111
	case c == 'X':
		a.permX = 0o111
	case c == 's' && special:
		a.perm |= setBits
	case c == 't' && special:
		a.who |= stickyBit
		a.perm |= stickyBit
	case c == 's', c == 't':
	case c == 'u', c == 'g', c == 'o':
		a.flush()
		a.cleared = a.cleared || a.op == '='
		a.flushX()
		a.p.actions = append(a.p.actions, chmodAction{who: a.who, op: a.op, from: c})
	default:
		return false
	}
	return true
}

// end adds what is left.
func (a *actions) end() {
	if a.perm == 0 && a.op == '=' && !a.cleared {
		a.p.add(a.who, a.op, 0)
	}
	a.cleared = a.cleared || a.op == '='
	a.flush()
	a.flushX()
}

func (a *actions) flush() {
	if a.perm != 0 {
		a.p.add(a.who, a.op, a.perm)
		a.perm = 0
	}
}

func (a *actions) flushX() {
	if a.permX != 0 {
		a.p.add(a.who, 'X', a.permX)
		a.permX = 0
	}
}

func (p *chmodParser) add(who uint32, op byte, bits uint32) {
	p.actions = append(p.actions, chmodAction{who: who, op: op, bits: bits})
}

// apply returns what becomes of the permission bits of a file.
func (c chmod) apply(old uint32, dir bool) uint32 {
	old &= modeBits
	if c.octal {
		return c.mode
	}
	mode := old
	for _, a := range c.actions {
		mode = a.apply(mode, dir || old&0o111 != 0)
	}
	return mode
}

// apply returns what becomes of mode; executable says what X means.
func (a chmodAction) apply(mode uint32, executable bool) uint32 {
	if a.from != 0 {
		return a.copy(mode)
	}
	bits, all := a.bits, uint32(setBits|permBits)
	if a.who != 0 {
		bits, all = a.bits&a.who, a.who
	}
	switch a.op {
	case '-':
		return mode &^ bits
	case '=':
		return mode&^all | bits
	case 'X':
		if !executable {
			return mode
		}
	}
	return mode | bits
}

// copy sets the permissions of some from those of others: "g=u".
func (a chmodAction) copy(mode uint32) uint32 {
	from := mode & 0o007
	switch a.from {
	case 'u':
		from = mode >> 6 & 0o007
	case 'g':
		from = mode >> 3 & 0o007
	}
	for _, shift := range []uint32{6, 3, 0} {
		if a.who != 0 && a.who&(0o004<<shift) == 0 {
			continue
		}
		switch a.op {
		case '+':
			mode |= from << shift
		case '-':
			mode &^= from << shift
		case '=':
			mode = mode&^(0o007<<shift) | from<<shift
		}
	}
	return mode
}

// directory returns the permissions of a directory that is made because
// something is copied into it. As in BuildKit a symbolic mode has no say there.
func (c chmod) directory() uint32 {
	if c.octal {
		return c.mode & permBits
	}
	return 0o755
}
