package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// A benchCase is one thing that people wait for.
type benchCase struct {
	name, about string
	output      outputKind

	// fresh gives each build an empty state directory. Otherwise there is one
	// for each builder, which the warm-up fills.
	fresh bool

	// prepare writes the context, once.
	prepare func(p paths) error

	// warm writes the Dockerfile of an untimed build before the first round;
	// nil: there is none.
	warm func(p paths) error

	// round changes the context or the Dockerfile before each timed build, so
	// that the round's work is new; nil: nothing changes.
	round func(p paths, n int) error

	// marker: the time that counts ends when a RUN prints firstRunMarker and
	// its clock, not with the process.
	marker bool

	// tar adds plain extraction of these layers of a base image as a builder.
	tar string
}

// paths says where a case's files are.
type paths struct {
	context, file string
	repo          string
}

func (p paths) dockerfile(text string) error {
	return os.WriteFile(p.file, []byte(text), 0o644)
}

const firstRunMarker = "first-run="

func allCases() []benchCase {
	return []benchCase{
		{
			name: "first-run", about: "start of the process to the start of the first RUN's process, base unpacked",
			warm:   func(p paths) error { return p.dockerfile(firstRun(-1)) },
			round:  func(p paths, n int) error { return p.dockerfile(firstRun(n)) },
			marker: true,
		},
		{
			name: "run-100", about: "100 RUN of true, one on top of the other",
			warm:  func(p paths) error { return p.dockerfile("FROM busybox\nRUN true\n") },
			round: func(p paths, n int) error { return p.dockerfile(runs(n)) },
		},
		{
			name: "cached-100", about: "the same, fully cached",
			warm: func(p paths) error { return p.dockerfile(runs(-1)) },
		},
		{
			name: "copy-20k", about: "COPY of 20 000 small files, written as an OCI archive",
			output: outputOCI, fresh: true,
			prepare: func(p paths) error {
				if err := smallFiles(p.context, 20_000); err != nil {
					return err
				}
				return p.dockerfile("FROM scratch\nCOPY . /src/\n")
			},
			round: touchRound,
		},
		{
			name: "layer-1g", about: "a layer of 1 GiB, pushed with gzip",
			output: outputPush, fresh: true,
			prepare: func(p paths) error {
				if err := bigFiles(p.context, 16, 64<<20); err != nil {
					return err
				}
				return p.dockerfile("FROM scratch\nCOPY . /data/\n")
			},
			round: touchRound,
		},
		{
			name: "unpack", about: "golang:1.26 pulled and unpacked and one RUN of true, against tar -x of its layers",
			fresh: true, tar: "golang",
			prepare: func(p paths) error { return p.dockerfile("FROM golang:1.26\nRUN true\n") },
		},
		{
			name: "go-cold", about: "the Go example with nothing cached, pushed",
			output: outputPush, fresh: true, prepare: goExample, round: changeGo,
		},
		{
			name: "go-cached", about: "the Go example again, pushed",
			output: outputPush, prepare: goExample, warm: func(paths) error { return nil },
		},
		{
			name: "go-change", about: "the Go example with one file changed, pushed",
			output: outputPush, prepare: goExample, warm: func(paths) error { return nil }, round: changeGo,
		},
		{
			name: "stages-40", about: "40 independent stages, copied one by one into the last",
			warm:  func(p paths) error { return p.dockerfile("FROM busybox\nRUN true\n") },
			round: func(p paths, n int) error { return p.dockerfile(stages(n)) },
		},
	}
}

func firstRun(round int) string {
	return fmt.Sprintf("FROM debian:bookworm-slim\nENV ROUND=%d\nRUN echo %s$(date +%%s%%N)\n", round, firstRunMarker)
}

func runs(round int) string {
	return fmt.Sprintf("FROM busybox\nENV ROUND=%d\n", round) + strings.Repeat("RUN true\n", 100)
}

func stages(round int) string {
	var b, last strings.Builder
	last.WriteString("FROM scratch\n")
	for i := range 40 {
		fmt.Fprintf(&b, "FROM busybox AS s%d\nENV ROUND=%d\nRUN echo %d >/out\n", i, round, i)
		fmt.Fprintf(&last, "COPY --from=s%d /out /out%d\n", i, i)
	}
	return b.String() + last.String()
}

func touchRound(p paths, n int) error {
	return os.WriteFile(filepath.Join(p.context, "round.txt"), fmt.Appendln(nil, n), 0o644)
}

func changeGo(p paths, n int) error {
	text := fmt.Sprintf("package main\n\n// greeting is what a visitor reads.\nconst greeting = \"hello for the %dth time\"\n", n)
	return os.WriteFile(filepath.Join(p.context, "greeting.go"), []byte(text), 0o644)
}

func goExample(p paths) error {
	example := filepath.Join(p.repo, "testdata/examples/go")
	if err := os.CopyFS(p.context, os.DirFS(example)); err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(example, "Dockerfile"))
	if err != nil {
		return err
	}
	return p.dockerfile(string(text))
}
