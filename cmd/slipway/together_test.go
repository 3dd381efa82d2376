package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestProcessesShareAStateDirectory starts several builds at once in one state
// directory. Each gets what it would have got alone.
func TestProcessesShareAStateDirectory(t *testing.T) {
	needSandbox(t)
	t.Parallel()
	for _, test := range []struct {
		name  string
		files []string // the Dockerfile of each build
	}{
		{"two of one", []string{"Dockerfile", "Dockerfile"}},
		{"two of two", []string{"Dockerfile", "Other"}},
		{"four of one", []string{"Dockerfile", "Dockerfile", "Dockerfile", "Dockerfile"}},
		{"four of two", []string{"Dockerfile", "Other", "Other", "Dockerfile"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t, killedContext)
			other := strings.Replace(killedContext["Dockerfile"], "echo a >/o/a", "echo other >/o/a", 1)
			writeOld(t, filepath.Join(r.dir, "Other"), strings.ReplaceAll(other, "REGISTRY", r.addr))
			want := map[string]string{}
			for _, file := range []string{"Dockerfile", "Other"} {
				r.state = filepath.Join(t.TempDir(), "state")
				r.mustRun("build", "-f", file, "--metadata-file", "meta.json", "-o", "type=oci,dest=out", ".")
				want[file] = r.digest("meta.json")
			}
			if want["Dockerfile"] == want["Other"] {
				t.Fatal("both are the same image")
			}
			r.state = filepath.Join(t.TempDir(), "state")
			var all []*process
			for i, file := range test.files {
				all = append(all, r.start(nil, nil, "build", "-f", file, "--metadata-file", fmt.Sprint("meta", i),
					"-o", fmt.Sprint("type=oci,dest=out", i), "."))
			}
			for i, p := range all {
				if code := p.wait(); code != 0 {
					t.Errorf("build %d: exit code %d\n%s", i, code, p.log)
					continue
				}
				if got := r.digest(fmt.Sprint("meta", i)); got != want[test.files[i]] {
					t.Errorf("build %d of %s is %s, want %s", i, test.files[i], got, want[test.files[i]])
				}
				if _, err := os.Stat(filepath.Join(r.dir, fmt.Sprint("out", i))); err != nil {
					t.Error(err)
				}
			}
			r.tidy()
			r.whole()
			r.notMounted()
		})
	}
}
