package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"github.com/slipway-build/slipway/step"
)

// buildxFlags are the flags of docker buildx build 0.36, hidden ones and those
// of the docker build before it too.
const buildxFlags = `add-host allow annotation attest build-arg build-context builder cache-from cache-to call
	cgroup-parent check compress cpu-period cpu-quota cpu-shares cpuset-cpus cpuset-mems debug detach
	disable-content-trust file force-rm iidfile invoke isolation label load memory memory-swap metadata-file network
	no-cache no-cache-filter output platform policy print progress provenance pull push quiet resource rm root sbom
	secret security-opt server-config shm-size squash ssh stream tag target ulimit`

// Every flag of docker buildx build is there: it works, or says that it has no
// effect, or is refused by its name.
func TestBuildFlags_EachOfDockerBuildxHasAnAnswer(t *testing.T) {
	for name := range strings.FieldsSeq(buildxFlags) {
		fs, _ := buildFlags()
		f := fs.Lookup(name)
		if f == nil {
			t.Errorf("there is no --%s", name)
			continue
		}
		if !f.Hidden {
			continue
		}
		if got := answer(t, name); got != "" && !strings.Contains(got, "--"+name) {
			t.Errorf("--%s: %q does not name it", name, got)
		} else if got == "" {
			t.Errorf("--%s is silently ignored", name)
		}
	}
}

// answer returns what is said when a flag is given.
func answer(t *testing.T, name string) string {
	t.Helper()
	cfg, err := step.Load(step.FromFlags(map[string][]string{"": {"."}, name: {"true"}}), func(n string) (string, bool) {
		if n == "HOME" {
			return "/h", true
		}
		return "", false
	})
	if err != nil {
		return strings.TrimPrefix(err.Error(), step.ErrUsage.Error()+": ")
	}
	return strings.Join(cfg.Notices, "\n")
}

func TestSuggest(t *testing.T) {
	known := []string{"--target", "--tag", "--no-cache", "--no-cache-filter", "--metadata-file", "-"}
	tests := []struct{ name, want string }{
		{"--taget", "--target"},
		{"--tga", "--tag"},
		{"--nocache", "--no-cache"},
		{"--no-cache-filters", "--no-cache-filter"},
		{"--meta", "--metadata-file"},
		{"--xyz", ""},
		{"", "--target"},
		{"--täg", ""},
	}
	for _, tt := range tests {
		got := strings.TrimSuffix(strings.TrimPrefix(suggest(tt.name, known), ": did you mean "), "?")
		if tt.name != "" && got != tt.want {
			t.Errorf("suggest(%q) = %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestHelp_FitsItsWidth(t *testing.T) {
	for _, c := range commands() {
		var b bytes.Buffer
		fs, sections := c.flags()
		writeHelp(&b, c, fs, sections)
		for line := range strings.Lines(b.String()) {
			if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > helpWidth {
				t.Errorf("%s: a line of %d characters: %s", c.name, n, line)
			}
		}
		listed := map[string]bool{}
		for _, s := range sections {
			for _, name := range s.flags {
				listed[name] = true
			}
		}
		fs.VisitAll(func(f *pflag.Flag) {
			if listed[f.Name] == f.Hidden {
				t.Errorf("%s --%s: listed in the help: %v, hidden: %v", c.name, f.Name, listed[f.Name], f.Hidden)
			}
		})
	}
}

// docs/cli.md lists exactly the flags and inputs of the table. Run with -update
// to rewrite it.
func TestManual(t *testing.T) {
	file := filepath.Join("..", "..", "docs", "cli.md")
	old, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text := string(old)
	for name, table := range map[string]string{"flags": flagTable(), "inputs": inputTable(), "others": otherTable(t)} {
		from, to := "<!-- "+name+": made by go test ./cmd/slipway -update -->\n", "<!-- end of "+name+" -->\n"
		head, rest, ok1 := strings.Cut(text, from)
		_, tail, ok2 := strings.Cut(rest, to)
		if !ok1 || !ok2 {
			t.Fatalf("%s has no place for %s", file, name)
		}
		text = head + from + table + to + tail
	}
	if *update {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(string(old), text); diff != "" {
		t.Errorf("%s is out of date; run go test ./cmd/slipway -update (-file +table):\n%s", file, diff)
	}
}

var cell = strings.NewReplacer("|", `\|`)

func flagTable() string {
	fs, sections := buildFlags()
	var b strings.Builder
	for _, s := range sections {
		fmt.Fprintf(&b, "\n**%s**\n\n| flag | |\n|---|---|\n", s.title)
		for _, name := range s.flags {
			f := fs.Lookup(name)
			fmt.Fprintf(&b, "| `%s` | %s |\n", cell.Replace(strings.TrimSpace(spelling(f))), cell.Replace(f.Usage))
		}
	}
	b.WriteString("\n")
	return b.String()
}

func inputTable() string {
	var b strings.Builder
	b.WriteString("\n| input | is | flag | default |\n|---|---|---|---|\n")
	kinds := map[step.Kind]string{
		step.Text: "text", step.Bool: "true or false", step.Lines: "list by line", step.Raw: "list by line, quotes untouched",
		step.List: "list by line or comma",
	}
	for _, in := range step.Inputs() {
		if in.Group == "" || in.Name == "" {
			continue
		}
		flag, def := "the argument", ""
		if in.Flag != "" {
			flag = "`--" + in.Flag + "`"
		}
		if in.Default != "" {
			def = "`" + in.Default + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", in.Name, kinds[in.Kind], flag, def)
	}
	b.WriteString("\n")
	return b.String()
}

func otherTable(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("\n| flag | input | answer |\n|---|---|---|\n")
	for _, in := range step.Inputs() {
		if in.Group != "" {
			continue
		}
		flag, input, said := "", "", "is not supported in this version"
		if in.Flag != "" {
			flag, said = "`--"+in.Flag+"`", answer(t, in.Flag)
		}
		if in.Name != "" {
			input = "`" + in.Name + "`"
		}
		if in.Flag == "" && in.Name == "github-token" {
			said = "has no effect: it is only used for git contexts, and the context is a directory"
		}
		said = strings.TrimLeft(strings.TrimPrefix(said, "--"+in.Flag), ": ")
		fmt.Fprintf(&b, "| %s | %s | %s |\n", flag, input, cell.Replace(said))
	}
	b.WriteString("\n")
	return b.String()
}
