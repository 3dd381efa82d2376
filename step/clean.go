package step

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// clean makes text that a step printed safe to show in one line: what a
// terminal would show of it in the end, without colours or cursor movement. A
// progress bar that redraws itself comes down to its last state. What is not
// UTF-8 shows as U+FFFD.
func clean(s string) string {
	s = strings.TrimRight(s, "\r\n")
	if plainText(s) {
		return s
	}
	for {
		i := strings.LastIndexByte(s, '\r')
		if state := strip(s[i+1:]); i < 0 || strings.TrimSpace(state) != "" {
			return state
		}
		s = s[:i]
	}
}

// strip takes out control characters and escape sequences.
func strip(s string) string {
	out := make([]rune, 0, len(s))
	for s != "" {
		r, size := utf8.DecodeRuneInString(s)
		if r == '\x1b' {
			s = s[escape(s):]
			continue
		}
		s = s[size:]
		switch {
		case r == '\b' && len(out) > 0:
			out = out[:len(out)-1]
		case r == '\t':
			out = append(out, r)
		case r == '\n', r == '\u2028', r == '\u2029':
			out = append(out, ' ')
		case unicode.IsControl(r):
		default:
			out = append(out, r)
		}
	}
	return string(out)
}

// plainText reports whether nothing in s needs care; nearly all lines are so.
func plainText(s string) bool {
	for i := range len(s) {
		if c := s[i]; c >= 0x7f || c < ' ' && c != '\t' {
			return false
		}
	}
	return true
}

// escape returns the length of the escape sequence that s begins with. One
// that does not end is only its first characters, so that no text gets lost.
func escape(s string) int {
	if len(s) < 2 {
		return len(s)
	}
	switch c := s[1]; {
	case c == '[': // parameters and intermediates, then a final byte
		return sequence(s, 0x40)
	case strings.IndexByte("]PX^_", c) >= 0: // up to BEL or ESC \
		return stringSequence(s)
	case c >= 0x20 && c <= 0x2f: // intermediates, then a final byte
		return sequence(s, 0x30)
	case c >= 0x30 && c <= 0x7e:
		return 2
	}
	return 1
}

// sequence returns the length up to the first byte that is final or above.
func sequence(s string, final byte) int {
	for i := 2; i < len(s); i++ {
		switch c := s[i]; {
		case c < 0x20 || c > 0x7e:
			return 2
		case c >= final:
			return i + 1
		}
	}
	return 2
}

// stringSequence returns the length up to the terminator. It looks no further
// than the next escape: else a line of them would take quadratic time.
func stringSequence(s string) int {
	for i := 2; i < len(s); i++ {
		switch {
		case s[i] == '\a':
			return i + 1
		case s[i] == '\x1b' && strings.HasPrefix(s[i+1:], "\\"):
			return i + 2
		case s[i] == '\x1b':
			return 2
		}
	}
	return 2
}

// maxPiece is how many bytes of a line are shown at once. Log viewers cut or
// refuse longer lines.
const maxPiece = 4000

// pieces cuts a long line between characters.
func pieces(s string) []string {
	var all []string
	for len(s) > maxPiece {
		n := maxPiece
		for n > maxPiece-utf8.UTFMax && !utf8.RuneStart(s[n]) {
			n--
		}
		all = append(all, s[:n])
		s = s[n:]
	}
	return append(all, s)
}

// shorten returns s in at most n characters.
func shorten(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	if n < 1 {
		return ""
	}
	return string([]rune(s)[:n-1]) + "…"
}

// title makes one short line of a step's name, which may be a whole heredoc.
func title(name string) string {
	return shorten(strings.Join(strings.Fields(clean(strings.ReplaceAll(name, "\r", " "))), " "), 200)
}
