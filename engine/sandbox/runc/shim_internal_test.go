//go:build linux && cgo && (amd64 || arm64)

package runc

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The bytes of the interpreter are what its source assembles to.
func TestInterpreterIsCurrent(t *testing.T) {
	for arch, prefixes := range map[string][]string{
		"amd64": {"x86_64-linux-gnu-", ""},
		"arm64": {"aarch64-linux-gnu-"},
	} {
		t.Run(arch, func(t *testing.T) {
			prefix := toolchain(t, prefixes)
			dir := t.TempDir()
			object, binary := filepath.Join(dir, "shim.o"), filepath.Join(dir, "shim.bin")
			mustRun(t, prefix+"as", "-o", object, "testdata/shim_"+arch+".s")
			mustRun(t, prefix+"objcopy", "-O", "binary", "-j", ".text", object, binary)
			want, err := os.ReadFile(binary)
			if err != nil {
				t.Fatal(err)
			}
			if got := committed(t, "shim_"+arch+".go"); got != string(want) {
				t.Errorf("shim_%s.go has %x,\nits source makes %x", arch, got, want)
			}
		})
	}
}

func toolchain(t *testing.T, prefixes []string) string {
	t.Helper()
	for _, prefix := range prefixes {
		if _, err := exec.LookPath(prefix + "as"); err == nil {
			return prefix
		}
	}
	t.Skipf("no assembler %sas", prefixes[0])
	return ""
}

func mustRun(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
}

// committed returns the interpreter in a Go file, which may be for another
// processor.
func committed(t *testing.T, file string) string {
	t.Helper()
	src, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, lit := range regexp.MustCompile(`"\\x[^"]*"`).FindAllString(string(src), -1) {
		s, err := strconv.Unquote(lit)
		if err != nil {
			t.Fatal(err)
		}
		b.WriteString(s)
	}
	return b.String()
}

// The program runs outside of a container just as well.
func TestProgram(t *testing.T) {
	var p program
	p.try(unix.SYS_CLOSE, 1<<unix.EBADF, 77)
	message := "hello\n"
	p.call(unix.SYS_WRITE, 1, p.text(message), len(message))
	failing := p.call(unix.SYS_FCHDIR, 78)
	p.call(unix.SYS_WRITE, 1, p.text(message), len(message))
	f, err := p.file()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte{0}, 0); err == nil {
		t.Error("the program can be changed")
	}
	pr, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pr.Close()
	cmd := exec.CommandContext(t.Context(), "/proc/self/fd/"+strconv.Itoa(shimFD))
	cmd.ExtraFiles = []*os.File{f, pw}
	out, err := cmd.Output()
	_ = pw.Close()
	if cmd.ProcessState.ExitCode() != 255 || string(out) != message {
		t.Errorf("output %q, %v", out, err)
	}
	reports, err := readReports(pr)
	if err != nil {
		t.Fatal(err)
	}
	want := []report{{0, unix.EBADF}, {uint64(failing), unix.EBADF}}
	if len(reports) != 2 || reports[0] != want[0] || reports[1] != want[1] {
		t.Errorf("reports are %v, want %v", reports, want)
	}
}
