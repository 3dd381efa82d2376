package step

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-build/slipway/engine/progress"
)

// screen is a terminal of which everything that was ever shown can be seen. It
// knows the few sequences that the live view writes; any other fails the test.
type screen struct {
	t     *testing.T
	width int
	wrap  bool
	lines [][]rune
	row   int
	col   int
}

func newScreen(t *testing.T, width int) *screen {
	return &screen{t: t, width: width, wrap: true, lines: make([][]rune, 1)}
}

func (s *screen) Write(p []byte) (int, error) {
	text := []rune(string(p))
	for i := 0; i < len(text); i++ {
		switch r := text[i]; r {
		case '\n': // the terminal driver adds the carriage return
			s.newline()
		case '\r':
			s.col = 0
		case '\x1b':
			end := i + 1 + strings.IndexAny(string(text[i+1:min(i+12, len(text))]), "AJhlm")
			s.sequence(string(text[i+1 : end+1]))
			i = end
		default:
			s.put(r)
		}
	}
	return len(p), nil
}

func (s *screen) newline() {
	s.row, s.col = s.row+1, 0
	if s.row == len(s.lines) {
		s.lines = append(s.lines, nil)
	}
}

func (s *screen) put(r rune) {
	if s.col >= s.width {
		if !s.wrap {
			return
		}
		s.newline()
	}
	line := s.lines[s.row]
	for len(line) <= s.col {
		line = append(line, ' ')
	}
	line[s.col] = r
	s.lines[s.row], s.col = line, s.col+1
}

func (s *screen) sequence(seq string) {
	var n int
	switch {
	case seq == "[J":
		s.lines = s.lines[:s.row+1]
		s.lines[s.row] = s.lines[s.row][:s.col]
	case seq == "[?7l", seq == "[?7h":
		s.wrap = seq == "[?7h"
	case strings.HasSuffix(seq, "m"):
	default:
		if _, err := fmt.Sscanf(seq, "[%dA", &n); err != nil || n > s.row {
			s.t.Fatalf("sequence %q in row %d", seq, s.row)
		}
		s.row -= n
	}
}

func (s *screen) String() string {
	var b strings.Builder
	for _, l := range s.lines {
		b.WriteString(strings.TrimRight(string(l), " ") + "\n")
	}
	return strings.TrimRight(b.String(), "\n") + "\n"
}

func liveScreen(t *testing.T, width, height int, color bool) (*screen, view, *history) {
	s := newScreen(t, width)
	v, h := newView("auto", s, nil, func() (int, int) { return width, height }, color)
	return s, v, h
}

func TestLiveView(t *testing.T) {
	s, v, h := liveScreen(t, 50, 24, true)
	check := func(what, want string) {
		t.Helper()
		if diff := cmp.Diff(strings.TrimPrefix(want, "\n"), s.String()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	show := func(script string) {
		t.Helper()
		for _, ev := range parse(t, script) {
			v.show(ev, h.add(ev))
		}
	}
	show(`
0 1 cached [a 1/2] FROM debian
0 2 start [a 2/2] RUN a command that is too long for the width
0 3 start fetch layer`)
	v.tick(zero.Add(time.Second))
	check("two are running", `
 => CACHED [a 1/2] FROM debian
[+] Building 1.0s (1 done, 2 running)
 => [a 2/2] RUN a command that is too long f… 1.0s
 => fetch layer                               1.0s
`)
	for i := range 8 {
		show(fmt.Sprintf("1 2 out line\t%d", i))
	}
	show("1 3 transfer 1500000 3000000\n1.2 - warn careful\n1.3 3 transfer 2000000 3000000")
	check("output and transfer", `
 => CACHED [a 1/2] FROM debian
WARN: careful
[+] Building 1.3s (1 done, 2 running)
 => [a 2/2] RUN a command that is too long f… 1.3s
 => => 1.000 line 2
 => => 1.000 line 3
 => => 1.000 line 4
 => => 1.000 line 5
 => => 1.000 line 6
 => => 1.000 line 7
 => fetch layer 2.0MB / 3.0MB                 1.3s
`)
	for _, ev := range parse(t, "2 2 fail exit code: 1") {
		ev.Took, ev.Name = 2*time.Second, "[a 2/2] RUN x"
		v.show(ev, h.add(ev))
	}
	check("one failed", `
 => CACHED [a 1/2] FROM debian
WARN: careful
 => ERROR [a 2/2] RUN x                       2.0s
[+] Building 2.0s (2 done, 1 running)
 => fetch layer 2.0MB / 3.0MB                 2.0s
`)
	v.close()
	check("at the end only what lasts is left", `
 => CACHED [a 1/2] FROM debian
WARN: careful
 => ERROR [a 2/2] RUN x                       2.0s
 => CANCELED fetch layer
`)
}

func TestLiveView_NeverHigherThanTheTerminal(t *testing.T) {
	for height := 1; height < 12; height++ {
		s, v, h := liveScreen(t, 20, height, false)
		for i := range 8 {
			ev := progress.Event{Time: zero, Step: fmt.Sprint(i), Name: "äöü " + strings.Repeat("日", 30), Kind: progress.Started}
			v.show(ev, h.add(ev))
			ev.Kind, ev.Line = progress.Output, strings.Repeat("wide ", 20)
			v.show(ev, h.add(ev))
		}
		v.tick(zero.Add(time.Second))
		if n := strings.Count(s.String(), "\n"); n > max(height-1, 3) {
			t.Errorf("%d lines on a terminal of %d:\n%s", n, height, s)
		}
		v.close()
	}
}

func TestLiveView_DrawsAtMostTenTimesASecond(t *testing.T) {
	s := &counter{}
	v, h := newView("auto", s, nil, func() (int, int) { return 0, 0 }, false)
	for i := range 100_000 { // ten seconds
		kind := progress.Output
		if i == 0 {
			kind = progress.Started
		}
		ev := progress.Event{Time: zero.Add(time.Duration(i) * 100 * time.Microsecond), Step: "1", Name: "x", Kind: kind}
		v.show(ev, h.add(ev))
	}
	v.close()
	if s.n > 102 {
		t.Errorf("drawn %d times in ten seconds", s.n)
	}
}

type counter struct{ n int }

func (c *counter) Write(p []byte) (int, error) { c.n++; return len(p), nil }
