package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// outputKind is what becomes of the image.
type outputKind string

const (
	outputNone outputKind = ""
	outputPush outputKind = "push"
	outputOCI  outputKind = "oci"
)

// A builder is a program that builds images, as shell commands with
// placeholders.
type builder struct {
	name     string
	commands map[outputKind]string // outputNone's serves where there is no other
	env      []string
	reset    string // clears the state that is not under {root}
	daemon   int    // its CPU and memory count too; 0: there is none
	note     string // what the figures leave out
}

// job is one build to be done.
type job struct {
	context, file, tag, registry, root, oci string
	output                                  outputKind
}

// command returns the shell command with placeholders filled in.
func (b builder) command(j job) string {
	return j.expand(cmp.Or(b.commands[j.output], b.commands[outputNone]))
}

func (j job) expand(s string) string {
	return strings.NewReplacer("{output}", j.outputFlags(), "{context}", j.context, "{file}", j.file,
		"{tag}", j.tag, "{registry}", j.registry, "{root}", j.root, "{oci}", j.oci).Replace(s)
}

func (j job) outputFlags() string {
	switch j.output {
	case outputPush:
		return "--push"
	case outputOCI:
		return "--output type=oci,dest=" + j.oci
	default:
		return "--output type=cacheonly"
	}
}

// findBuilders fills b.builders; slipway is the first. The returned function
// stops what was started for them.
func (b *bench) findBuilders(ctx context.Context) (stop func(), err error) {
	stop = func() {}
	slipway, err := filepath.Abs(b.opts.slipway)
	if err != nil {
		return stop, err
	}
	if _, err := os.Stat(slipway); err != nil {
		return stop, fmt.Errorf("no binary to measure (make build): %w", err)
	}
	b.builders = []builder{{name: "slipway", commands: map[outputKind]string{
		outputNone: slipway + " build --progress=plain --root {root} --registry-mirror docker.io=http://{registry} -t {tag} -f {file} {output} {context}",
	}}}
	if _, err := exec.LookPath("buildah"); err == nil && !b.opts.only {
		peer, err := b.buildah()
		if err != nil {
			return stop, err
		}
		b.builders = append(b.builders, peer)
	}
	if b.opts.docker {
		d, err := startDocker(ctx, filepath.Join(b.work, "docker"), b.registry.addr)
		if err != nil {
			return stop, err
		}
		stop = d.stop
		b.builders = append(b.builders, buildx(d.env, d.pid))
	} else if !b.opts.only && usable(ctx, "docker", "buildx", "version") && usable(ctx, "docker", "info") {
		b.builders = append(b.builders, buildx(nil, 0))
	}
	if err := b.namedPeers(); err != nil {
		stop()
		return func() {}, err
	}
	return stop, nil
}

func usable(ctx context.Context, argv ...string) bool {
	return exec.CommandContext(ctx, argv[0], argv[1:]...).Run() == nil
}

// buildah keeps everything under {root}: storage, run directory and, by TMPDIR,
// its cache mounts. It asks for more open files than this process may have,
// unless its configuration says otherwise.
func (b *bench) buildah() (builder, error) {
	dir := filepath.Join(b.work, "buildah")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return builder{}, err
	}
	files := map[string]string{
		"registries.conf": "unqualified-search-registries = [\"docker.io\"]\n[[registry]]\nprefix = \"docker.io\"\nlocation = \"docker.io\"\n" +
			"[[registry.mirror]]\nlocation = \"" + b.registry.addr + "\"\ninsecure = true\n",
		"containers.conf": "[containers]\ndefault_ulimits = [\"nofile=" + strconv.Itoa(openFiles()) + "\"]\nnetns = \"host\"\n",
		"policy.json":     `{"default": [{"type": "insecureAcceptAnything"}]}`,
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return builder{}, err
		}
	}
	tool := "buildah --root {root}/storage --runroot {root}/run --storage-driver overlay"
	policy := " --signature-policy " + filepath.Join(dir, "policy.json")
	bud := "mkdir -p {root}/tmp && export TMPDIR={root}/tmp && " + tool + " bud" + policy +
		" --isolation chroot --layers --tls-verify=false --jobs " + strconv.Itoa(runtime.NumCPU()) + " -t {tag} -f {file} {context}"
	push := " && " + tool + " push" + policy + " --tls-verify=false {tag} "
	return builder{
		name: "buildah",
		commands: map[outputKind]string{
			outputNone: bud,
			outputPush: bud + push + "docker://{tag}",
			outputOCI:  bud + push + "oci-archive:{oci}",
		},
		env: []string{
			"CONTAINERS_REGISTRIES_CONF=" + filepath.Join(dir, "registries.conf"),
			"CONTAINERS_CONF=" + filepath.Join(dir, "containers.conf"),
		},
		note: "isolation chroot",
	}, nil
}

func buildx(env []string, daemon int) builder {
	p := builder{
		name:     "buildx",
		commands: map[outputKind]string{outputNone: "docker buildx build --progress=plain --network=host -t {tag} -f {file} {output} {context}"},
		env:      env,
		reset:    "docker buildx prune --all --force",
		daemon:   daemon,
	}
	if daemon == 0 {
		p.note = "CPU and memory of the client only, not of the daemon"
	}
	return p
}

// namedPeers adds the builders of --peer, and --daemon's numbers.
func (b *bench) namedPeers() error {
	for _, arg := range b.opts.peers {
		name, command, ok := strings.Cut(arg, "=")
		name, kind, _ := strings.Cut(name, ":")
		if !ok || name == "" || command == "" || !slices.Contains([]string{"", "none", "push", "oci", "reset"}, kind) {
			return fmt.Errorf("--peer %q: want name[:none|push|oci|reset]=command", arg)
		}
		p := b.builder(name)
		if p == nil {
			b.builders = append(b.builders, builder{name: name, commands: map[outputKind]string{}})
			p = &b.builders[len(b.builders)-1]
		}
		switch kind {
		case "reset":
			p.reset = command
		case "none":
			p.commands[outputNone] = command
		default:
			p.commands[outputKind(kind)] = command
		}
	}
	for _, arg := range b.opts.daemons {
		name, pid, _ := strings.Cut(arg, "=")
		p := b.builder(name)
		n, err := strconv.Atoi(pid)
		if err != nil || p == nil {
			return fmt.Errorf("--daemon %q: want name=PID with the name of a builder", arg)
		}
		p.daemon, p.note = n, ""
	}
	return nil
}

func (b *bench) builder(name string) *builder {
	for i := range b.builders {
		if b.builders[i].name == name {
			return &b.builders[i]
		}
	}
	return nil
}
