package github_test

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/ci"
	"github.com/slipway-build/slipway/ci/github"
)

func dialect(vars map[string]string) github.Dialect {
	return github.Dialect{Lookup: func(name string) (string, bool) { v, ok := vars[name]; return v, ok }}
}

// Whatever a value contains, the runner must read back that value and no other
// output: image labels and commit messages are not ours to trust.
func FuzzSetOutputs(f *testing.F) {
	f.Add("sha256:0123", "")
	f.Add("two\nlines\n", "\r")
	f.Add("EOF\ndigest<<EOF\nforged\nEOF", "\n")
	f.Add("digest=forged", "x<<y")
	f.Fuzz(func(t *testing.T, one, two string) {
		file := filepath.Join(t.TempDir(), "output")
		const before = "earlier=step\n"
		if err := os.WriteFile(file, []byte(before), 0o600); err != nil {
			t.Fatal(err)
		}
		d := dialect(map[string]string{"GITHUB_OUTPUT": file})
		if err := d.SetOutputs([]ci.Output{{Name: "metadata", Value: one}, {Name: "digest", Value: two}}); err != nil {
			t.Fatal(err)
		}
		want := map[string]string{"earlier": "step", "metadata": one, "digest": two}
		if got := readOutputs(t, file); !maps.Equal(got, want) {
			t.Errorf("runner reads %q, want %q", got, want)
		}
	})
}

// readOutputs reads a file as the runner does: NAME<<END, lines, END.
func readOutputs(t *testing.T, file string) map[string]string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	outputs := map[string]string{}
	for rest := string(data); rest != ""; {
		var head, value string
		head, rest, _ = strings.Cut(rest, "\n")
		name, end, ok := strings.Cut(head, "<<")
		if ok {
			value, rest, ok = strings.Cut(rest, "\n"+end+"\n")
		} else {
			name, value, ok = strings.Cut(head, "=")
		}
		if !ok {
			t.Fatalf("malformed output file:\n%s", data)
		}
		outputs[name] = value
	}
	return outputs
}

func TestSetOutputs_Errors(t *testing.T) {
	tests := []struct {
		name    string
		vars    map[string]string
		outputs []ci.Output
		want    string
	}{
		{"no variable", nil, nil, "GITHUB_OUTPUT is not set"},
		{"no file", map[string]string{"GITHUB_OUTPUT": filepath.Join(t.TempDir(), "none")}, nil, "no such file"},
		{"no name", map[string]string{"GITHUB_OUTPUT": "unused"}, []ci.Output{{Name: "a<<b"}}, "not a name"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := dialect(tt.vars).SetOutputs(tt.outputs)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("err = %v, want %q", err, tt.want)
			}
		})
	}
}

func TestSetOutputs_LogOnly(t *testing.T) {
	d := dialect(nil)
	d.LogOnly = true
	if err := d.SetOutputs([]ci.Output{{Name: "digest"}}); err != nil {
		t.Error(err)
	}
}

func TestInput(t *testing.T) {
	d := dialect(map[string]string{"INPUT_BUILD-ARGS": "A=1", "INPUT_CACHE_FROM": "x", "INPUT_PUSH": ""})
	tests := []struct {
		name, want string
		ok         bool
	}{
		{"build-args", "A=1", true},
		{"cache-from", "x", true}, // a shell has no variable with a hyphen
		{"push", "", false},       // declared and not given
		{"tags", "", false},
	}
	for _, tt := range tests {
		if got, ok := d.Input(tt.name); got != tt.want || ok != tt.ok {
			t.Errorf("Input(%q) = %q, %v; want %q, %v", tt.name, got, ok, tt.want, tt.ok)
		}
	}
}

func TestConsole(t *testing.T) {
	var out strings.Builder
	c := dialect(map[string]string{"GITHUB_WORKSPACE": "/home/runner/work"}).Console(&out)
	end := c.Group("RUN echo 100%")
	c.Line("std::string is text")
	c.Annotate(ci.Annotation{Level: ci.Error, File: "/home/runner/work/a,b:c", Line: 3, Message: "one\ntwo"})
	c.Annotate(ci.Annotation{Level: ci.Warning, File: "/elsewhere/f", Title: "a:b", Message: "m"})
	c.Annotate(ci.Annotation{Message: "nowhere"})
	end()
	const want = "::group::RUN echo 100%25\n" +
		"std::string is text\n" +
		"::error file=a%2Cb%3Ac,line=3::one%0Atwo\n" +
		"::warning file=/elsewhere/f,title=a%3Ab::m\n" +
		"::notice::nowhere\n" +
		"::endgroup::\n"
	if out.String() != want {
		t.Errorf("console wrote\n%s\nwant\n%s", out.String(), want)
	}
}

// Whatever a RUN step prints, the runner obeys nothing of it and shows all.
func FuzzLine(f *testing.F) {
	f.Add("::error::forged")
	f.Add(" \t::add-mask::e")
	f.Add("text ##[set-env name=X]y")
	f.Add("a\r::stop-commands::x")
	f.Add("::stop-commands::x\n::x::\n::error::y")
	f.Add("\u200b::error::y")
	f.Fuzz(func(t *testing.T, text string) {
		var out strings.Builder
		dialect(nil).Console(&out).Line(text)
		shown, token := "", ""
		for line := range strings.Lines(out.String()) {
			trimmed := strings.TrimSpace(line)
			switch {
			case token != "" && trimmed == "::"+token+"::":
				token = ""
			case token != "":
				shown += line
			case strings.HasPrefix(trimmed, "::stop-commands::text-"):
				token = strings.TrimPrefix(trimmed, "::stop-commands::")
			case strings.HasPrefix(trimmed, "::"), strings.Contains(line, "##["):
				t.Fatalf("the runner obeys %q", line)
			default:
				shown += line
			}
		}
		if shown != text+"\n" || token != "" {
			t.Errorf("the runner shows %q, want %q", shown, text)
		}
	})
}
