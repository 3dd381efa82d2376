package step

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-build/slipway/engine/diag"
	"github.com/slipway-build/slipway/engine/registry"
	"github.com/slipway-build/slipway/engine/sandbox"
)

func TestFailure_Lines(t *testing.T) {
	const dockerfile = "FROM debian\n\nCOPY . .\nRUN go build \\\n  -v \\\n  ./...\n\x1b[31mCMD x\n"
	tests := []struct {
		name string
		f    failure
		want string
	}{
		{
			"a step", failure{
				message: "[2/2] RUN go build -v ./...: exit code: 1",
				at:      diag.Origin{File: "Dockerfile", Line: 4, Last: 6}, source: []byte(dockerfile),
				hint: "Do this.\nOr that.",
				step: "[2/2] RUN go build -v ./...", output: []string{"0.100 compiling", "0.200 boom"}, dropped: 7,
			}, `
------
 > [2/2] RUN go build -v ./...:
(7 lines before)
0.100 compiling
0.200 boom
------
Dockerfile:4
--------------------
   2 |
   3 |     COPY . .
   4 | >>> RUN go build \
   5 | >>>   -v \
   6 | >>>   ./...
   7 |     CMD x
--------------------
ERROR: [2/2] RUN go build -v ./...: exit code: 1
hint: Do this.
      Or that.
`,
		},
		{"no more than a message", failure{message: "open state: \x1b[2Jno\nsecond line\n"}, `
ERROR: open state: no
second line
`},
		{"a Dockerfile that cannot be had", failure{message: "boom", at: diag.Origin{File: "Dockerfile", Line: 3, Last: 3}}, `
Dockerfile:3
ERROR: boom
`},
		{"a line that is not there", failure{message: "boom", at: diag.Origin{File: "Dockerfile", Line: 30, Last: 3}, source: []byte(dockerfile)}, `
ERROR: boom
`},
		{"cancelled", failure{canceled: true, message: "interrupt"}, `
CANCELED: interrupt
`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, strings.Join(tt.f.lines(false), "\n")+"\n"); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestExcerpt_OfALongInstruction(t *testing.T) {
	var b strings.Builder
	for i := range 100 {
		fmt.Fprintf(&b, "line %d\n", i+1)
	}
	got := excerpt(diag.Origin{File: "f", Line: 10, Last: 90}, []byte(b.String()), false)
	want := []string{"f:10", "--------------------", "   8 |     line 8", "   9 |     line 9"}
	for i := 10; i < 22; i++ {
		want = append(want, fmt.Sprintf("%4d | >>> line %d", i, i))
	}
	want = append(want, "  … | >>> (64 lines)")
	for i := 86; i <= 90; i++ {
		want = append(want, fmt.Sprintf("%4d | >>> line %d", i, i))
	}
	want = append(want, "  91 |     line 91", "  92 |     line 92", "--------------------")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Whatever the Dockerfile is and wherever the error, an excerpt is short and
// has no control characters.
func FuzzExcerpt(f *testing.F) {
	f.Add("FROM x\nRUN y", 2, 2)
	f.Add("\x1b[2J\r\n\n\n", -1, 900)
	f.Fuzz(func(t *testing.T, source string, line, last int) {
		lines := excerpt(diag.Origin{File: "f", Line: line, Last: last}, []byte(source), false)
		if len(lines) > 30 {
			t.Errorf("%d lines", len(lines))
		}
		for _, l := range lines {
			if clean(l) != l {
				t.Errorf("line %q", l)
			}
		}
	})
}

func TestExplain(t *testing.T) {
	at := diag.Origin{File: "Dockerfile", Line: 1, Last: 1}
	pathError := func(path string, err error) error { return &fs.PathError{Op: "open", Path: path, Err: err} }
	tests := []struct {
		name string
		err  error
		root bool
		want string // a part of the hint
	}{
		{"what the engine says", diag.Hint(syscall.ENOSPC, "Engine's hint."), true, "Engine's hint."},
		{"no credentials", &registry.AuthError{Host: "r.example", Status: 401, Anonymous: true}, true, "docker login r.example, or set DOCKER_CONFIG"},
		{"wrong credentials", &registry.AuthError{Host: "r.example", Repository: "a/b", Status: 403}, true, "do not suffice for a/b"},
		{"no such image", &registry.NotFoundError{Ref: "x"}, true, "Check the image's name"},
		{"no such repository", &registry.Error{Status: 404}, true, "Check the image's name"},
		{"too many requests", &registry.Error{Host: "r.example", Status: 429}, true, "--registry-mirror"},
		{"their fault", &registry.Error{Host: "r.example", Status: 502}, true, "try again later"},
		{"bad request", &registry.Error{Status: 400}, true, ""},
		{"full disk", pathError("/state/x", syscall.ENOSPC), true, "/state with slipway prune"},
		{"state directory", pathError("/state/x", fs.ErrPermission), true, "SLIPWAY_ROOT"},
		{"state directory on a read-only disk", pathError("/state/x", syscall.EROFS), true, "SLIPWAY_ROOT"},
		{"a read-only disk", pathError("/x", syscall.EROFS), true, ""},
		{"not root", fmt.Errorf("mount: %w", syscall.EPERM), false, "Run slipway as root"},
		{"root, and still not allowed", fmt.Errorf("mount: %w", syscall.EPERM), true, ""},
		{"out of memory", &sandbox.ExitError{Code: 137, OOMKilled: true}, true, "more memory"},
		{"exit code", &sandbox.ExitError{Code: 1}, true, ""},
		{"certificate", x509.UnknownAuthorityError{}, true, "SSL_CERT_FILE"},
		{"anything", errors.New("x"), true, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			gotAt, hint := explain(diag.At(fmt.Errorf("step: %w", tt.err), at), "/state", tt.root)
			if gotAt != at {
				t.Errorf("at %v", gotAt)
			}
			if !strings.Contains(hint, tt.want) || (hint == "") != (tt.want == "") {
				t.Errorf("hint = %q, want %q", hint, tt.want)
			}
		})
	}
}
