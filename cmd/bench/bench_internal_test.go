package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestTemplatesAreFilledIn(t *testing.T) {
	b := builder{commands: map[outputKind]string{
		outputNone: "b {context} {file} {tag} {registry} {root} {output}",
		outputOCI:  "b to {oci}",
	}}
	j := job{context: "/c", file: "/f", tag: "r/t:1", registry: "r", root: "/s", oci: "/o.tar"}
	tests := []struct {
		output outputKind
		want   string
	}{
		{outputNone, "b /c /f r/t:1 r /s --output type=cacheonly"},
		{outputPush, "b /c /f r/t:1 r /s --push"},
		{outputOCI, "b to /o.tar"},
	}
	for _, tt := range tests {
		j.output = tt.output
		if got := b.command(j); got != tt.want {
			t.Errorf("command for output %q = %q, want %q", tt.output, got, tt.want)
		}
	}
}

func TestPeersAreNamedOnTheCommandLine(t *testing.T) {
	b := bench{opts: options{
		peers:   []string{"old=old build {context}", "old:push=old push {tag}", "old:reset=old prune"},
		daemons: []string{"old=1"},
	}}
	if err := b.namedPeers(); err != nil {
		t.Fatal(err)
	}
	old := b.builder("old")
	if old == nil || len(b.builders) != 1 || old.commands[outputPush] != "old push {tag}" || old.reset != "old prune" || old.daemon != 1 {
		t.Errorf("builders = %+v, want one with two commands, a reset and a daemon", b.builders)
	}
	for _, bad := range []string{"old", "=x", "old=", "old:tape=x"} {
		b := bench{opts: options{peers: []string{bad}}}
		if err := b.namedPeers(); err == nil || !strings.Contains(err.Error(), bad) {
			t.Errorf("--peer %q: error %v, want one that quotes it", bad, err)
		}
	}
}

func TestTheFirstRunsClockIsFound(t *testing.T) {
	out := "#5 RUN echo first-run=$(date +%s%N)\n#5 0.1 first-run=1700000000123456789\n"
	got, err := markerTime(out)
	if want := time.Unix(1700000000, 123456789); err != nil || !got.Equal(want) {
		t.Errorf("markerTime = %v, %v, want %v", got, err, want)
	}
	if _, err := markerTime("RUN echo first-run=$(date)\nexit 1"); err == nil {
		t.Error("a build without the mark gave a time")
	}
}

func TestMeasureCountsTheWholeProcessTree(t *testing.T) {
	const spin = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"
	m, err := measure(t.Context(), time.Minute, "sh -c '"+spin+"' & wait $!; echo done", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	if m.CPU <= 0 || m.Peak <= 0 || m.output != "done\n" {
		t.Errorf("measured %+v, want CPU and memory of the child", m)
	}
}

func TestMeasureStopsWhatTakesTooLong(t *testing.T) {
	start := time.Now()
	_, err := measure(t.Context(), 100*time.Millisecond, "sleep 60 | cat", nil, 0)
	if err == nil || !strings.Contains(err.Error(), "not done after") {
		t.Errorf("error = %v, want one about the time", err)
	}
	if took := time.Since(start); took > 15*time.Second {
		t.Errorf("stopped after %s", took)
	}
}

func TestAFailedBuildShowsTheEndOfItsOutput(t *testing.T) {
	_, err := measure(t.Context(), time.Minute, "echo disk on fire >&2; exit 3", nil, 0)
	if err == nil || !strings.Contains(err.Error(), "disk on fire") {
		t.Errorf("error = %v, want the output's end", err)
	}
}

func TestADaemonsTreeIsAddedUp(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "sh", "-c", "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; echo ready; read x")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 16)); err != nil {
		t.Fatal(err)
	}
	own := treeUsage(cmd.Process.Pid)
	all := treeUsage(os.Getpid())
	if own.cpu <= 0 || own.peak <= 0 || all.cpu < own.cpu || all.peak < own.peak {
		t.Errorf("child used %+v, its parent's tree %+v", own, all)
	}
	_ = in.Close()
	_ = cmd.Wait() // read fails at the end of its input
}

func TestContextsAreTheSameOnEveryMachine(t *testing.T) {
	read := func() string {
		dir := t.TempDir()
		if err := smallFiles(dir, 300); err != nil {
			t.Fatal(err)
		}
		var all strings.Builder
		files, _ := filepath.Glob(filepath.Join(dir, "*", "*", "*"))
		if len(files) != 300 {
			t.Fatalf("%d files, want 300", len(files))
		}
		for _, f := range files {
			data, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			all.WriteString(strings.TrimPrefix(f, dir))
			all.Write(data)
		}
		return all.String()
	}
	if once, again := read(), read(); once != again {
		t.Error("two generations differ")
	}
}

func TestBigFilesHaveTheirSize(t *testing.T) {
	dir := t.TempDir()
	if err := bigFiles(dir, 2, 1<<20); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"part00.bin", "part01.bin"} {
		if fi, err := os.Stat(filepath.Join(dir, name)); err != nil || fi.Size() != 1<<20 {
			t.Errorf("%s: %v, %v, want 1 MiB", name, fi, err)
		}
	}
}

func TestMediansAndRatios(t *testing.T) {
	r := caseResult{Builders: []builderResult{
		{Name: "slipway", Samples: []sample{{Seconds: 1, Peak: 5}, {Seconds: 4, Peak: 1}, {Seconds: 3, Peak: 3}}},
		{Name: "other", Samples: []sample{{Seconds: 5}, {Seconds: 7}}},
		{Name: "broken", Error: "it broke"},
	}}
	var b strings.Builder
	r.print(&b)
	if got := r.Builders[0].Median; got.Seconds != 3 || got.Peak != 3 {
		t.Errorf("median = %+v, want 3 s and 3 bytes", got)
	}
	if got := r.Builders[1].Ratio; got != 2 {
		t.Errorf("ratio = %v, want 2", got)
	}
	if !strings.Contains(b.String(), "failed: it broke") {
		t.Errorf("table does not show the failure:\n%s", b.String())
	}
}

func TestRetiringKeepsSmallFiles(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "small"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := bigFiles(dir, 1, 1<<20); err != nil {
		t.Fatal(err)
	}
	if err := retire(dir); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 || left[0].Name() != "small" {
		t.Errorf("left %v, %v, want only the small file", left, err)
	}
}
