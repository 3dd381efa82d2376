package dockerfile_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/slipway-build/slipway/engine/diag"
	"github.com/slipway-build/slipway/engine/dockerfile"
	"github.com/slipway-build/slipway/engine/graph"
	"github.com/slipway-build/slipway/platforms"
)

// slow is a registry that takes an hour for each image, and counts.
type slow struct {
	mu    sync.Mutex
	asked map[string]int
}

func (s *slow) Image(ctx context.Context, ref string, p platforms.Platform) (dockerfile.PinnedImage, error) {
	<-time.After(time.Hour)
	s.mu.Lock()
	s.asked[ref+" "+platforms.Format(p)]++
	s.mu.Unlock()
	return registry{}.Image(ctx, ref, p)
}

// D06: all images of all platforms are resolved side by side, each once.
func TestD06_ResolveOnceAndSideBySide(t *testing.T) {
	const file = `FROM a AS a
FROM b AS b
FROM --platform=$BUILDPLATFORM tool AS tool
FROM a
COPY --from=b /x /x
COPY --from=tool /x /x
COPY --from=c /x /x
COPY --from=c /y /y
RUN --mount=from=d,target=/d true
`
	synctest.Test(t, func(t *testing.T) {
		r := &slow{asked: make(map[string]int)}
		start := time.Now()
		_, err := dockerfile.New(t.Context(), dockerfile.Options{
			File: []byte(file), Resolver: r,
			Host:      platforms.Platform{OS: "linux", Architecture: "amd64"},
			Platforms: []platforms.Platform{{OS: "linux", Architecture: "amd64"}, {OS: "linux", Architecture: "arm64"}},
		})
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took != time.Hour {
			t.Errorf("resolving took %v, want an hour", took)
		}
		// The last stage is a itself, so its name is not asked for.
		if want := 4*2 + 1; len(r.asked) != want {
			t.Errorf("%d images were resolved, want %d: %v", len(r.asked), want, r.asked)
		}
		for name, n := range r.asked {
			if n != 1 {
				t.Errorf("%s was resolved %d times", name, n)
			}
		}
	})
}

// A02: the front end that this package is goes by several names.
func TestA02_BuiltinFrontEnds(t *testing.T) {
	for _, ref := range []string{
		"docker/dockerfile", "docker/dockerfile:1", "docker/dockerfile:1.7-labs", "docker/dockerfile-upstream:master",
		"docker.io/docker/dockerfile:1", "mirror.example.com/docker/dockerfile:1", "host:5000/hub/docker/dockerfile@sha256:00",
		"dockerfile.v0",
	} {
		if _, err := plan(t, "# syntax="+ref+"\nFROM debian"); err != nil {
			t.Errorf("%s: %v", ref, err)
		}
	}
	for _, ref := range []string{"dockerfile:1", "example.com/dockerfile", "notdocker/dockerfile", "docker/dockerfile/x", "x/docker/dockerfiles"} {
		if _, err := plan(t, "# syntax="+ref+"\nFROM debian"); err == nil {
			t.Errorf("%s was accepted", ref)
		}
	}
}

// A08: line ends of DOS, a byte order mark, and lines of any length.
func TestA08_Forms(t *testing.T) {
	want := show(t, "FROM debian:12\nRUN a \\\n  b\n")
	for _, file := range []string{"FROM debian:12\r\nRUN a \\\r\n  b\r\n", "\ufeffFROM debian:12\nRUN a \\\n  b"} {
		if got := show(t, file); got != want {
			t.Errorf("plan of %q is\n%s, want\n%s", file, got, want)
		}
	}
	if _, err := plan(t, "FROM debian:12\nRUN echo "+strings.Repeat("x", 60<<10)); err != nil {
		t.Errorf("long line: %v", err)
	}
}

// E05: a changed ARG changes the first RUN after its declaration, nothing
// before it, and not the COPY that doesn't use it.
func TestE05_ArgChangesWhatFollows(t *testing.T) {
	const file = "FROM debian:12\nRUN before\nARG V\nCOPY a /\nRUN after\n"
	nodes := func(v string) []string {
		p, err := plan(t, file, "--build-arg=V="+v)
		if err != nil {
			t.Fatal(err)
		}
		var digests []string
		for n := range graph.All(p.Images[0].Root) {
			digests = append(digests, n.Label+" "+string(graph.OpDigest(n.Op)))
		}
		return digests
	}
	one, two := nodes("1"), nodes("2")
	for i := range one {
		if same, want := one[i] == two[i], !strings.Contains(one[i], "RUN after"); same != want {
			t.Errorf("%s: the same is %v, want %v", one[i], same, want)
		}
	}
}

// E04: proxies are in no digest, unless declared.
func TestInvariant06_ProxiesAreNoPartOfTheDefinition(t *testing.T) {
	run := func(file string, args ...string) string {
		p, err := plan(t, file, args...)
		if err != nil {
			t.Fatal(err)
		}
		return string(graph.OpDigest(p.Images[0].Root.Op))
	}
	const plain, declared = "FROM debian:12\nRUN a", "FROM debian:12\nARG http_proxy\nRUN a"
	if run(plain) != run(plain, "--build-arg=http_proxy=p") {
		t.Error("an undeclared proxy changes the digest")
	}
	if run(declared) == run(declared, "--build-arg=http_proxy=p") {
		t.Error("a declared proxy does not change the digest")
	}
}

// Every instruction that makes a layer has one line of history that says so,
// and the other way round.
func TestHistoryPairsWithLayers(t *testing.T) {
	const file = `FROM busybox AS tools
FROM onbuild:1
WORKDIR /a
WORKDIR /
RUN a
COPY --link a b
ADD a b
COPY <<EOF b
EOF
ENV A=b
LABEL a=b
USER u
WORKDIR /a
`
	p, err := plan(t, file)
	if err != nil {
		t.Fatal(err)
	}
	want := 0
	for _, h := range p.Images[0].Config.History {
		if !h.EmptyLayer {
			want++
		}
	}
	if got := layers(p.Images[0].Root); got != want {
		t.Errorf("the tree has %d layers, history %d", got, want)
	}
}

// layers counts the layers of n's tree.
func layers(n *graph.Node) int {
	switch op := n.Op.(type) {
	case graph.Source:
		return len(op.Layers)
	case graph.Stack:
		count := 0
		for _, in := range n.Inputs {
			count += layers(in.From)
		}
		return count
	case graph.Copy:
		if op.Link {
			return 1
		}
	case graph.Exec:
	}
	return layers(n.Inputs[0].From) + 1
}

// Plan never panics, planning twice gives the same plan, and what it gives is
// what the other packages rely on.
func FuzzNew(f *testing.F) {
	for _, seed := range []string{
		"FROM debian:12\nRUN make",
		"# escape=`\n# check=skip=all;error=true\nARG A=1\nFROM x$A AS y\nCOPY --from=0 <<-'A' <<B c /d/.\n\ta\nA\nb\nB\nRUN <<S\n#!/bin/sh\nS",
		"FROM onbuild:1 AS tools\nFROM onbuild:1\nRUN --mount=type=cache,target=a,from=tools --mount=type=secret,id=x,env --mount=type=ssh true",
		"FROM full:1\nWORKDIR a\nADD --link --chown=a:b --chmod=u+x --exclude=** a* b\nCOPY --parents a/./b/../c .\nEXPOSE 1-3/UDP [::1]:2:3\nHEALTHCHECK --interval=1s CMD x",
		"FROM --platform=$BUILDPLATFORM a\nENV A=${B:-${C#*x}} D=${E//a/\\/}\nLABEL a $A\nSTOPSIGNAL ${F:?x}\nVOLUME [\"a\"]\nUSER $A\nSHELL [\"x\"]\nONBUILD COPY --from=a b c\nMAINTAINER x\nCMD x\nENTRYPOINT y",
		"FROM a\nCOPY --link --chown=me <<e /\ne\n",
	} {
		f.Add(seed, "", "")
	}
	f.Add("FROM a AS b\nARG c\nRUN $c", "--target=b", "--build-arg=c=d")
	f.Fuzz(func(t *testing.T, file, one, two string) {
		var args []string
		for _, arg := range []string{one, two} {
			if strings.HasPrefix(arg, "--build-arg=") || strings.HasPrefix(arg, "--target=") || strings.HasPrefix(arg, "--label=") {
				args = append(args, arg)
			}
		}
		args = append(args, "--platform=linux/amd64,linux/arm64")
		p, err := plan(t, file, args...)
		q, again := plan(t, file, args...)
		if err != nil || again != nil {
			// The grammar's messages may differ in what they suggest.
			if at, _ := diag.Explain(err); err == nil || again == nil || at.Line > 0 && at.File != "Dockerfile" {
				t.Errorf("two plans differ: %v and %v", err, again)
			}
			return
		}
		for _, img := range p.Images {
			wellFormed(t, img.Root)
		}
		if a, b := text(t, p), text(t, q); a != b {
			t.Errorf("two plans differ:\n%s\n%s", a, b)
		}
	})
}

// large is a Dockerfile of many stages.
func large() string {
	var b strings.Builder
	b.WriteString("# syntax=docker/dockerfile:1\nARG V=1\n")
	for i := range 100 {
		fmt.Fprintf(&b, "FROM --platform=$BUILDPLATFORM debian:%d AS s%d\nARG V TARGETARCH\nWORKDIR /src/%d\n", i%7, i, i)
		for j := range 8 {
			fmt.Fprintf(&b, "ENV E%d=$V-%d\nRUN --mount=type=cache,target=/c%d echo $E%d \\\n  && make all\n", j, j, j, j)
		}
		if i > 0 {
			fmt.Fprintf(&b, "COPY --from=s%d /src /src\n", i-1)
		}
		b.WriteString("COPY --chown=1:1 a b* c/ /dst/\nLABEL a=b\n")
	}
	return b.String()
}

func BenchmarkNew(b *testing.B) {
	opts := dockerfile.Options{
		File:      []byte(large()),
		Resolver:  registry{},
		Host:      platforms.Platform{OS: "linux", Architecture: "amd64"},
		Platforms: []platforms.Platform{{OS: "linux", Architecture: "amd64"}, {OS: "linux", Architecture: "arm64"}},
	}
	b.ReportAllocs()
	for b.Loop() {
		p, err := dockerfile.New(b.Context(), opts)
		if err != nil {
			b.Fatal(err)
		}
		if len(p.Images) != 2 {
			b.Fatal("images are missing")
		}
	}
}
