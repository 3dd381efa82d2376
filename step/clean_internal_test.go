package step

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestClean(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"text", "go: downloading x v1.2", "go: downloading x v1.2"},
		{"tab and umlaut", "\täöü → 日本", "\täöü → 日本"},
		{"carriage return at the end", "text\r", "text"},
		{"progress bar", " 10%\r 50%\r100%", "100%"},
		{"progress bar that ends at its beginning", "10%\r100%\r", "100%"},
		{"progress bar that erases itself", "10%\r\x1b[K", "10%"},
		{"only carriage returns", "\r\r", ""},
		{"colour", "\x1b[1;31mred\x1b[0m text", "red text"},
		{"cursor movement", "\x1b[2J\x1b[Hhome\x1b[3Aup", "homeup"},
		{"title", "\x1b]0;evil\aafter", "after"},
		{"link", "\x1b]8;;http://x\x1b\\text\x1b]8;;\x1b\\", "text"},
		{"string that does not end", "a\x1b]0;text", "a0;text"},
		{"sequence that does not end", "a\x1b[31", "a31"},
		{"charset", "\x1b(Btext", "text"},
		{"lone escape", "a\x1b", "a"},
		{"reset", "\x1bctext", "text"},
		{"backspace", "abc\b\bX", "aX"},
		{"backspace at the beginning", "\bX", "X"},
		{"bell and null", "a\a\x00b", "ab"},
		{"8-bit control", "a\u009b31mb", "a31mb"},
		{"invalid bytes", "a\xff\xfeb", "a\ufffd\ufffdb"},
		{"line separator", "a\u2028b", "a b"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := clean(tt.in); got != tt.want {
				t.Errorf("clean(%q) = %q, want %q", tt.in, got, tt.want)
			}
		})
	}
}

// Whatever a step prints, what is shown is valid text without control
// characters, cleaning it again changes nothing, and cutting it loses nothing.
func FuzzClean(f *testing.F) {
	f.Add("10%\r\x1b[K\x1b]0;x\a100%")
	f.Add("\x1b[\x1b]\x1b\\\b\xff")
	f.Add(strings.Repeat("ä", maxPiece))
	f.Fuzz(func(t *testing.T, s string) {
		got := clean(s)
		if !utf8.ValidString(got) || strings.ContainsFunc(got, func(r rune) bool { return unicode.IsControl(r) && r != '\t' }) {
			t.Errorf("clean(%q) = %q", s, got)
		}
		if again := clean(got); again != got {
			t.Errorf("clean(%q) = %q", got, again)
		}
		parts := pieces(got)
		if strings.Join(parts, "") != got {
			t.Errorf("pieces of %q are %q", got, parts)
		}
		for _, p := range parts {
			if len(p) > maxPiece || !utf8.ValidString(p) {
				t.Errorf("piece %q", p)
			}
		}
		if n := utf8.RuneCountInString(title(s)); n > 200 {
			t.Errorf("title of %q has %d characters", s, n)
		}
	})
}

func TestShorten(t *testing.T) {
	for _, tt := range []struct {
		in   string
		n    int
		want string
	}{{"abc", 3, "abc"}, {"abcd", 3, "ab…"}, {"äöüß", 3, "äö…"}, {"abc", 0, ""}} {
		if got := shorten(tt.in, tt.n); got != tt.want {
			t.Errorf("shorten(%q, %d) = %q, want %q", tt.in, tt.n, got, tt.want)
		}
	}
}

func TestClean_TakesLinearTime(t *testing.T) {
	for _, s := range []string{"\x1b]", "\x1b[", "\x1b[1", "\x1b(", "a\r", "\x1bP\r"} {
		clean(strings.Repeat(s, 1<<20)) // minutes if quadratic
	}
}

func BenchmarkClean(b *testing.B) {
	for name, line := range map[string]string{
		"plain":   strings.Repeat("go: downloading example.com/module v1.2.3 ", 3),
		"colours": strings.Repeat("\x1b[32mok\x1b[0m  example.com/module\t0.012s ", 3),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(line)))
			for b.Loop() {
				clean(line)
			}
		})
	}
}
