package step_test

import (
	stdcmp "cmp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/slipway-build/slipway/ci/plain"
	"github.com/slipway-build/slipway/engine"
	"github.com/slipway-build/slipway/engine/graph"
	"github.com/slipway-build/slipway/platforms"
	"github.com/slipway-build/slipway/step"
)

// environment makes a lookup function of NAME=VALUE strings.
func environment(vars ...string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		for _, v := range vars {
			if n, value, _ := strings.Cut(v, "="); n == name {
				return value, true
			}
		}
		return "", false
	}
}

func TestLoad_Inputs(t *testing.T) {
	tests := []struct {
		name   string
		inputs map[string]string
		env    []string
		want   step.Config
	}{
		{
			name: "defaults",
			want: step.Config{Request: engine.Request{Image: true, Network: "default"}},
		},
		{
			name: "lists by line and by comma",
			inputs: map[string]string{
				"platforms":        "linux/amd64, linux/arm64\nlinux/amd64",
				"tags":             "a:1,b:2\n\nc",
				"no-cache-filters": "one,two",
				"add-hosts":        "a:10.0.0.1,b=::1",
			},
			want: step.Config{Request: engine.Request{
				Platforms:     []platforms.Platform{{OS: "linux", Architecture: "amd64"}, {OS: "linux", Architecture: "arm64"}},
				Tags:          []string{"a:1", "b:2", "c"},
				NoCacheStages: []string{"one", "two"},
				Hosts:         []graph.Host{{Name: "a", IP: "10.0.0.1"}, {Name: "b", IP: "::1"}},
				Image:         true, Network: "default",
			}},
		},
		{
			name: "build args may have commas, equals signs and, in quotes, newlines",
			inputs: map[string]string{
				"build-args": "A=1,2\n\"B=x=y\nz\"\nC=say \"hi\"\n\"D=\"\"q\"\"\"\nFROMENV\nNOTSET",
				"labels":     "a=b=c\nempty",
			},
			env: []string{"FROMENV=from env"},
			want: step.Config{Request: engine.Request{
				Args:   map[string]string{"A": "1,2", "B": "x=y\nz", "C": `say "hi"`, "D": `"q"`, "FROMENV": "from env"},
				Labels: map[string]string{"a": "b=c", "empty": ""},
				Image:  true, Network: "default",
			}},
		},
		{
			name: "everything else",
			inputs: map[string]string{
				"context": "app", "file": "app/Dockerfile.x", "target": "t", "no-cache": "true", "pull": "True", "network": "none",
				"shm-size": "128m", "ulimit": "nofile=10:20\nnproc=-1", "cgroup-parent": "/ci", "registry-mirrors": "docker.io=http://127.0.0.1:5000,https://m.example",
				"insecure-registries": "r.example:5000", "progress": "plain", "metadata-file": "m.json", "iidfile": "iid", "root": "/r", "max-parallelism": "3",
			},
			want: step.Config{
				Context: "app", File: "app/Dockerfile.x", Progress: "plain", MetadataFile: "m.json", ImageIDFile: "iid", Root: "/r", Jobs: 3,
				Insecure: []string{"r.example:5000"},
				Mirrors:  map[string][]string{"docker.io": {"http://127.0.0.1:5000", "https://m.example"}},
				Request: engine.Request{
					Target: "t", NoCache: true, Pull: true, Network: "none", ShmSize: 128 << 20, CgroupParent: "/ci", Image: true,
					Ulimits: []graph.Ulimit{{Name: "nofile", Soft: 10, Hard: 20}, {Name: "nproc", Soft: -1, Hard: -1}},
				},
			},
		},
		{
			name:   "variables stand in for inputs that are not given",
			env:    []string{"BUILDKIT_PROGRESS=rawjson", "DOCKER_DEFAULT_PLATFORM=linux/arm64", "SLIPWAY_ROOT=/state", "SOURCE_DATE_EPOCH=1700000000"},
			inputs: map[string]string{"provenance": "false", "sbom": "false", "load": "false", "call": "build"},
			want: step.Config{Progress: "rawjson", Root: "/state", Request: engine.Request{
				Platforms: []platforms.Platform{{OS: "linux", Architecture: "arm64"}},
				Args:      map[string]string{"SOURCE_DATE_EPOCH": "1700000000"},
				Epoch:     new(time.Unix(1700000000, 0).UTC()),
				Image:     true, Network: "default",
			}},
		},
		{
			name:   "a build arg wins over the variable",
			env:    []string{"SOURCE_DATE_EPOCH=1"},
			inputs: map[string]string{"build-args": "SOURCE_DATE_EPOCH=2"},
			want: step.Config{Request: engine.Request{
				Args: map[string]string{"SOURCE_DATE_EPOCH": "2"}, Epoch: new(time.Unix(2, 0).UTC()), Image: true, Network: "default",
			}},
		},
		{
			name:   "what has no effect is said",
			inputs: map[string]string{"builder": "mine", "github-token": "secret"},
			want: step.Config{Request: engine.Request{Image: true, Network: "default"}, Notices: []string{
				"input builder has no effect: there are no builder instances: the build runs in this process",
				"input github-token has no effect: it is only used for git contexts, and the context is a directory",
			}},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			vars := append([]string{"HOME=/home/u"}, tt.env...)
			for k, v := range tt.inputs {
				vars = append(vars, "INPUT_"+strings.ToUpper(k)+"="+v)
			}
			got, err := step.Load(step.FromDialect(plain.Dialect{Lookup: environment(vars...)}), environment(vars...))
			if err != nil {
				t.Fatal(err)
			}
			want := tt.want
			want.Context = stdcmp.Or(want.Context, ".")
			want.Root = stdcmp.Or(want.Root, "/home/u/.cache/slipway")
			want.Progress = stdcmp.Or(want.Progress, "auto")
			if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("Config (-want +got):\n%s", diff)
			}
		})
	}
}

func TestLoad_WrongInputs(t *testing.T) {
	tests := []struct{ input, value, want string }{
		{"push", "yes", `input push: "yes" is neither true nor false`},
		{"push", "true", "input push: set input tags too: there is no name to push to"},
		{"load", "true", "input load: there is no Docker daemon to load into"},
		{"secrets", "id=TOP", "input secrets is not supported in this version"},
		{"secret-envs", "id=TOP", "input secret-envs is not supported in this version"},
		{"cache-from", "type=gha", "input cache-from is not supported in this version"},
		{"provenance", "mode=max", "input provenance is not supported in this version"},
		{"platforms", "linux/amd64,a/b/c/d", `input platforms: parse platform "a/b/c/d"`},
		{"build-args", "=x", `input build-args: "=x" is not NAME=VALUE`},
		{"build-args", "\"A=1", "input build-args: a quote is not closed"},
		{"build-args", "SOURCE_DATE_EPOCH=soon", `SOURCE_DATE_EPOCH: "soon" is not a number of seconds`},
		{"labels", "=x", `input labels: "=x" is not NAME=VALUE`},
		{"tags", "App:1", `input tags: "App:1": the name of a repository is in lower case`},
		{"tags", "r.example/a@sha256:00", "has no digest yet"},
		{"tags", "a b", `"a b" is not the name of an image`},
		{"outputs", "type=zip,dest=x", `input outputs: "type=zip,dest=x": "zip" is not one of cacheonly, docker, image`},
		{"outputs", "dest=x,a=b", "type is missing"},
		{"outputs", "type=oci", "dest is missing"},
		{"outputs", "type=docker", "there is no Docker daemon"},
		{"outputs", "type=local,dest=-", "a directory cannot go to standard output"},
		{"outputs", "-\ntype=oci,dest=-", "only one output can go to standard output"},
		{"outputs", "type=oci,dest", `"dest" is not NAME=VALUE`},
		{"add-hosts", "a", `"a" is not NAME:IP`},
		{"add-hosts", "a:b", `"b" is not an IP address`},
		{"add-hosts", "a:host-gateway", "host-gateway is not supported in this version"},
		{"network", "bridge", `"bridge" is not a network mode`},
		{"shm-size", "big", `"big" is not a size`},
		{"ulimit", "files=1", "invalid ulimit type: files"},
		{"registry-mirrors", "docker.io=mirror", "is not HOST=URL"},
		{"insecure-registries", "http://r", "is not HOST or HOST:PORT"},
		{"progress", "loud", `"loud" is not one of auto, plain`},
		{"max-parallelism", "-1", `"-1" is not a number of steps`},
		{"file", "https://x/Dockerfile", "a Dockerfile from a URL is not supported"},
	}
	for _, tt := range tests {
		t.Run(tt.input+" "+tt.value, func(t *testing.T) {
			env := environment("HOME=/h", "INPUT_"+strings.ToUpper(tt.input)+"="+tt.value)
			_, err := step.Load(step.FromDialect(plain.Dialect{Lookup: env}), env)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("err = %v\nwant %s", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "TOP") {
				t.Errorf("the error shows a secret: %v", err)
			}
		})
	}
}

func TestLoad_ReportsAllErrorsAtOnce(t *testing.T) {
	env := environment("INPUT_PUSH=maybe", "INPUT_SECRETS=a=b", "INPUT_PLATFORMS=a/b/c/d", "INPUT_CONTEXT=-", "INPUT_FILE=-", "BUILDKIT_PROGRESS=x")
	_, err := step.Load(step.FromDialect(plain.Dialect{Lookup: env}), env)
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		"input push: ", "input secrets is not supported", "input platforms: ", "$BUILDKIT_PROGRESS: ",
		"input file: context and Dockerfile cannot both be on standard input", "input root: name a directory",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("err has no line %q:\n%v", want, err)
		}
	}
}

func TestLoad_Flags(t *testing.T) {
	got, err := step.Load(step.FromFlags(map[string][]string{
		"":          {"ctx"},
		"tag":       {"a:1", "b:2"},
		"build-arg": {"A=\"1\",2", "B=\nx"},
		"platform":  {"linux/amd64,linux/arm64"},
		"output":    {"out", "type=oci,\"dest=a,b.tar\",tar=true"},
		"push":      {"true"},
		"quiet":     {"true"},
		"rm":        {"true"},
	}), environment("HOME=/h", "BUILDKIT_PROGRESS=plain", "SLIPWAY_ROOT="))
	if err != nil {
		t.Fatal(err)
	}
	want := step.Config{
		Context: "ctx", Root: "/h/.cache/slipway", Progress: "quiet", Quiet: true,
		Notices: []string{"--rm has no effect: there are no intermediate containers"},
		Request: engine.Request{
			Network: "default", Tags: []string{"a:1", "b:2"}, Args: map[string]string{"A": "\"1\",2", "B": "\nx"},
			Platforms: []platforms.Platform{{OS: "linux", Architecture: "amd64"}, {OS: "linux", Architecture: "arm64"}},
			Outputs: []engine.Output{
				{Type: "local", Attrs: map[string]string{"dest": "out"}},
				{Type: "oci", Attrs: map[string]string{"dest": "a,b.tar", "tar": "true"}},
				{Type: "image", Attrs: map[string]string{"push": "true"}},
			},
		},
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("Config (-want +got):\n%s", diff)
	}
	_, err = step.Load(step.FromFlags(map[string][]string{"secret": {"id=x"}, "progress": {"loud"}}), environment("HOME=/h"))
	if err == nil || !strings.Contains(err.Error(), "--secret is not supported in this version") || !strings.Contains(err.Error(), "--progress: ") {
		t.Errorf("err = %v", err)
	}
}

// Every input has an answer, and no two share a name.
func TestInputs_TableIsSound(t *testing.T) {
	seen := map[string]bool{}
	for _, in := range step.Inputs() {
		for _, key := range []string{"input " + in.Name, "--" + in.Flag, "-" + in.Short} {
			if strings.HasSuffix(key, " ") || strings.TrimLeft(key, "-") == "" {
				continue
			}
			if seen[key] {
				t.Errorf("%s is in the table twice", key)
			}
			seen[key] = true
		}
		if in.Group != "" && (in.Help == "" || !strings.HasSuffix(in.Help, ".")) {
			t.Errorf("input %s%s: help is not a sentence: %q", in.Name, in.Flag, in.Help)
		}
	}
}
