// Command bench builds the same contexts with slipway and with other builders,
// in alternating order in one run, and prints how long each took, with how much
// CPU and memory.
//
//	go run ./cmd/bench                              # slipway, and what is on the PATH
//	go run ./cmd/bench --case run-100,cached-100 --rounds 9 --json out.json
//	go run ./cmd/bench --peer old='./old build --root {root} -t {tag} -f {file} {output} {context}'
//
// Contexts are generated in a temporary directory, base images come from "make
// bases", and a registry runs on loopback for as long as the run lasts.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
)

func main() {
	if len(os.Args) == 4 && os.Args[1] == serveCommand {
		exit(serve(os.Args[2], os.Args[3]))
	}
	var o options
	f := pflag.NewFlagSet("bench", pflag.ContinueOnError)
	f.StringSliceVar(&o.cases, "case", nil, "cases to run, by name (default: all)")
	f.IntVar(&o.rounds, "rounds", 5, "timed builds of each case by each builder")
	f.StringVar(&o.slipway, "slipway", "bin/slipway", "the binary to measure")
	f.StringArrayVar(&o.peers, "peer", nil, "another builder: name[:none|push|oci|reset]='command'; placeholders:\n"+
		"{context} {file} {tag} {registry} {root} {oci}, and {output} for buildx-style flags;\n"+
		"reset clears what is kept elsewhere than in {root}")
	f.StringArrayVar(&o.daemons, "daemon", nil, "name=PID: count the CPU and memory of this daemon for that builder")
	f.BoolVar(&o.docker, "docker", false, "start dockerd for this run, with its own data root, and stop it afterwards")
	f.BoolVar(&o.only, "only-named", false, "leave out buildah and docker buildx even if they are there")
	f.StringVar(&o.json, "json", "", "also write the result to this file")
	f.StringVar(&o.repo, "repo", ".", "this project's checkout, for the Go example")
	f.StringVar(&o.listen, "listen", "127.0.0.1:0", "address of the registry, for peers that must know it before")
	f.StringVar(&o.tmp, "tmp", "", "directory to work in (default: the system's)")
	f.DurationVar(&o.timeout, "timeout", 15*time.Minute, "longest that one build may take")
	list := f.Bool("list", false, "list the cases and exit")
	switch err := f.Parse(os.Args[1:]); {
	case errors.Is(err, pflag.ErrHelp):
		return
	case err != nil:
		exit(err)
	case *list:
		for _, c := range allCases() {
			fmt.Printf("%-12s %s\n", c.name, c.about)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	err := run(ctx, o)
	stop()
	exit(err)
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

type options struct {
	cases, peers, daemons    []string
	rounds                   int
	slipway, json, repo, tmp string
	listen                   string
	docker, only             bool
	timeout                  time.Duration
}

func run(ctx context.Context, o options) (err error) {
	cases, err := pick(allCases(), o.cases)
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp(o.tmp, "slipway-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, removeAll(work)) }()

	bases, err := makeBases(ctx, o.repo)
	if err != nil {
		return err
	}
	reg, err := startRegistry(ctx, o.listen, filepath.Join(work, "registry"), bases)
	if err != nil {
		return err
	}
	defer reg.stop()

	b := bench{opts: o, work: work, bases: bases, registry: reg}
	stop, err := b.findBuilders(ctx)
	if err != nil {
		return err
	}
	defer stop()

	res := newResult(o.rounds)
	failed := false
	for _, c := range cases {
		r, err := b.runCase(ctx, c)
		if err != nil {
			return fmt.Errorf("case %s: %w", c.name, err)
		}
		res.Cases = append(res.Cases, r)
		r.print(os.Stdout)
		failed = failed || r.Builders[0].Error != ""
	}
	if o.json != "" {
		if err := res.write(o.json); err != nil {
			return err
		}
	}
	if failed {
		return errors.New("slipway failed in at least one case")
	}
	return nil
}

// makeBases returns the directory of the base images, making them if need be.
func makeBases(ctx context.Context, repo string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(repo, "testdata/bases/make"))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("make base images: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

func pick(all []benchCase, names []string) ([]benchCase, error) {
	if len(names) == 0 {
		return all, nil
	}
	var picked []benchCase
	for _, name := range names {
		i := slices.IndexFunc(all, func(c benchCase) bool { return c.name == name })
		if i < 0 {
			return nil, fmt.Errorf("no case %q; see --list", name)
		}
		picked = append(picked, all[i])
	}
	return picked, nil
}
