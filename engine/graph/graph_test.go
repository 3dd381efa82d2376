package graph_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/slipway-build/slipway/engine/diag"
	"github.com/slipway-build/slipway/engine/graph"
	"github.com/slipway-build/slipway/platforms"
)

func source(name string) *graph.Node {
	return &graph.Node{Op: graph.Source{
		Kind: graph.Image, Name: name, Layers: []graph.ImageLayer{{DiffID: digest.FromString(name)}},
	}, Label: "FROM " + name}
}

func selected(path string) *graph.Select {
	return &graph.Select{Requests: []graph.Request{{Path: path}}}
}

func TestBuilder_EqualDefinitionsAreOneNode(t *testing.T) {
	var b graph.Builder
	one, two := b.Add(source("one")), b.Add(source("two"))
	exec := func(inputs ...graph.Input) *graph.Node {
		return &graph.Node{Op: graph.Exec{Args: []string{"x"}}, Inputs: inputs}
	}
	base := b.Add(exec(graph.Input{From: one}, graph.Input{From: two, Select: selected("/a")}))
	tests := []struct {
		name string
		node *graph.Node
		same bool
	}{
		{"the same", exec(graph.Input{From: one}, graph.Input{From: two, Select: selected("/a")}), true},
		{"equal inputs", exec(graph.Input{From: b.Add(source("one"))}, graph.Input{From: two, Select: selected("/a")}), true},
		{"another selection", exec(graph.Input{From: one}, graph.Input{From: two, Select: selected("/b")}), false},
		{"whole", exec(graph.Input{From: one}, graph.Input{From: two}), false},
		{"another order", exec(graph.Input{From: two, Select: selected("/a")}, graph.Input{From: one}), false},
		{"other inputs", exec(graph.Input{From: one}, graph.Input{From: one, Select: selected("/a")}), false},
		{"fewer inputs", exec(graph.Input{From: one}), false},
	}
	for _, tt := range tests {
		tt.node.Label, tt.node.Origin = "another label", diag.Origin{File: "x", Line: 9}
		if same := b.Add(tt.node) == base; same != tt.same {
			t.Errorf("%s: the same node is %v, want %v", tt.name, same, tt.same)
		}
	}
}

func TestBuilder_NoCacheOfEitherCounts(t *testing.T) {
	var b graph.Builder
	first := b.Add(source("x"))
	again := source("x")
	again.NoCache = true
	if b.Add(again) != first || !first.NoCache {
		t.Error("NoCache of the second was lost")
	}
	if b.Add(source("x")); !first.NoCache {
		t.Error("NoCache of the first was lost")
	}
}

func TestAll_InputsFirstEachOnce(t *testing.T) {
	var b graph.Builder
	base := b.Add(source("base"))
	left := b.Add(&graph.Node{Op: graph.Exec{Args: []string{"l"}}, Label: "left", Inputs: []graph.Input{{From: base}}})
	right := b.Add(&graph.Node{Op: graph.Exec{Args: []string{"r"}}, Label: "right", Inputs: []graph.Input{{From: base}}})
	top := b.Add(&graph.Node{Op: graph.Stack{}, Label: "top", Inputs: []graph.Input{{From: left}, {From: right}}})
	got := slices.Collect(graph.All(top, right))
	if len(got) != 4 {
		t.Fatalf("%d nodes, want 4", len(got))
	}
	for i, n := range got {
		for _, from := range n.From() {
			if j := slices.Index(got, from); j < 0 || j > i {
				t.Errorf("%s comes before what it reads", n.Label)
			}
		}
	}
	if got := top.From(); !slices.Equal(got, []*graph.Node{left, right}) {
		t.Errorf("From = %v", got)
	}
}

func TestPrint_SaysEverythingAndIsTheSameEachTime(t *testing.T) {
	plan := func() *graph.Node {
		var b graph.Builder
		base := b.Add(source("base"))
		local := b.Add(&graph.Node{Op: graph.Source{Kind: graph.Local, Name: "context"}})
		n := fullExec()
		run := b.Add(&graph.Node{
			Op: n, Label: "RUN x", NoCache: true, Origin: diag.Origin{File: "Dockerfile", Line: 2, Last: 3},
			Inputs: []graph.Input{{From: base}, {From: local, Select: selected("/mnt")}},
		})
		cp := b.Add(&graph.Node{Op: fullCopy(), Inputs: []graph.Input{{From: run}, {From: local, Select: selected("/sel")}}})
		return b.Add(&graph.Node{Op: graph.Stack{}, Inputs: []graph.Input{{From: cp}, {From: base}}})
	}
	text := func() string {
		var b strings.Builder
		if err := graph.Print(&b, plan()); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	got := text()
	if got != text() {
		t.Error("two prints differ")
	}
	for _, want := range []string{
		"source image", "source local", "exec ", "copy ", "stack ", "no cache", "Dockerfile:2-3", "arg a b", "env K=v",
		"proxy P=q", "dir /dir", "user me", "linux/arm64", "network none", "insecure", "hostname box", "host h 1.2.3.4",
		"shm 7", "ulimit nofile=1:2", "cgroup parent /cg", "cache /t from input 1: /s read-only id id locked size 3 mode 0755 owner 4:5 env E required",
		`file "name" mode 0644: "data"`, "/p wildcard follow contents parents below /pivot exclude", "into /dest", "owner u:g, names from input 2", "mode 755", "unpack", "root 5",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}

func TestOwner_Named(t *testing.T) {
	tests := []struct {
		owner graph.Owner
		want  bool
	}{
		{graph.Owner{}, false},
		{graph.Owner{User: "0"}, false},
		{graph.Owner{User: "1000", Group: "1"}, false},
		{graph.Owner{User: "me"}, true},
		{graph.Owner{User: "1", Group: "us"}, true},
	}
	for _, tt := range tests {
		if got := tt.owner.Named(); got != tt.want {
			t.Errorf("%+v.Named() = %v, want %v", tt.owner, got, tt.want)
		}
	}
}

func fullExec() graph.Exec {
	return graph.Exec{
		Args: []string{"a b"}, Env: []string{"K=v"}, Dir: "/dir", User: "me",
		Platform: platforms.Platform{OS: "linux", Architecture: "arm64", Variant: "v9", OSVersion: "1", OSFeatures: []string{"f"}},
		Mounts: []graph.Mount{{
			Type: graph.MountCache, Target: "/t", Input: 1, Source: "/s", ReadOnly: true, ID: "id", Sharing: graph.SharingLocked,
			Size: 3, Mode: 0o755, UID: 4, GID: 5, Env: "E", Required: true,
		}},
		Network: graph.NetworkNone, Security: graph.SecurityInsecure, Hostname: "box",
		Hosts: []graph.Host{{Name: "h", IP: "1.2.3.4"}}, ShmSize: 7, Ulimits: []graph.Ulimit{{Name: "nofile", Soft: 1, Hard: 2}},
		Proxy: []string{"P=q"}, CgroupParent: "/cg",
	}
}

func fullCopy() graph.Copy {
	return graph.Copy{
		Sources: []graph.CopySource{
			{Input: 1, Request: fullRequest()},
			{Inline: &graph.Inline{Name: "name", Mode: 0o644, Data: []byte("data")}},
		},
		Dest: "/dest", DestDir: true, Owner: graph.Owner{User: "u", Group: "g", Input: 2}, Mode: "755", Unpack: true,
	}
}

func fullRequest() graph.Request {
	return graph.Request{
		Path: "/p", Wildcard: true, Follow: true, Contents: true, Parents: true, Pivot: "/pivot", Exclude: []string{"x"},
	}
}
