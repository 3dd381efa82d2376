package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// bench is one run of the program. builders[0] is slipway.
type bench struct {
	opts     options
	work     string
	bases    string
	registry *registry
	builders []builder
}

// warmUp is the round that does not count.
const warmUp = "warm"

// runCase builds one case with every builder for all rounds. A builder that
// fails is left out of the rest of the case; its error is in the result.
func (b *bench) runCase(ctx context.Context, c benchCase) (caseResult, error) {
	dir := filepath.Join(b.work, "case-"+c.name)
	p := paths{context: filepath.Join(dir, "context"), file: filepath.Join(dir, "Dockerfile"), repo: b.opts.repo}
	if err := os.MkdirAll(p.context, 0o755); err != nil {
		return caseResult{}, err
	}
	if c.prepare != nil {
		if err := c.prepare(p); err != nil {
			return caseResult{}, err
		}
	}
	builders := slices.Clone(b.builders)
	if c.tar != "" {
		peer, err := untar(filepath.Join(b.bases, c.tar))
		if err != nil {
			return caseResult{}, err
		}
		builders = append(builders, peer)
	}
	r := newCaseResult(c, builders)

	if c.warm != nil {
		if err := c.warm(p); err != nil {
			return r, err
		}
		for i, peer := range builders {
			b.add(ctx, &r.Builders[i], c, peer, p, warmUp)
		}
	}
	order := make([]int, len(builders))
	for i := range order {
		order[i] = i
	}
	for n := range b.opts.rounds {
		if c.round != nil {
			if err := c.round(p, n); err != nil {
				return r, err
			}
		}
		for _, i := range order {
			b.add(ctx, &r.Builders[i], c, builders[i], p, strconv.Itoa(n))
		}
		if ctx.Err() != nil {
			return r, context.Cause(ctx)
		}
		// So that nobody is always the first to find the disk busy.
		slices.Reverse(order)
	}
	return r, nil
}

// add does one build and adds what it cost to r, unless it is the warm-up.
func (b *bench) add(ctx context.Context, r *builderResult, c benchCase, peer builder, p paths, round string) {
	if r.Error != "" || ctx.Err() != nil {
		return
	}
	s, err := b.build(ctx, c, peer, p, round)
	if err != nil {
		r.Error = err.Error()
		return
	}
	if round != warmUp {
		r.Samples = append(r.Samples, s)
	}
}

// build does one build and measures it. What takes much room of that which it
// leaves behind is removed, unless the case wants to keep the builder's state.
func (b *bench) build(ctx context.Context, c benchCase, peer builder, p paths, round string) (_ sample, err error) {
	j := job{
		context: p.context, file: p.file, registry: b.registry.addr, output: c.output,
		root: filepath.Join(b.work, "state", peer.name),
		oci:  filepath.Join(b.work, "out.tar"),
	}
	repo := "bench/" + c.name + "-" + peer.name
	j.tag = b.registry.addr + "/" + repo + ":r" + round
	var leave []string
	if c.fresh {
		j.root = filepath.Join(b.work, "fresh", c.name, peer.name+"-"+round)
		// A repository of its own, so that nothing is there to be skipped.
		repo += "-" + round
		j.tag = b.registry.addr + "/" + repo + ":latest"
		leave = append(leave, j.root)
		if c.output == outputPush {
			leave = append(leave, filepath.Join(b.registry.dir, filepath.FromSlash(repo)))
		}
		if peer.reset != "" {
			if _, err := measure(ctx, b.opts.timeout, peer.reset, peer.env, 0); err != nil {
				return sample{}, fmt.Errorf("reset: %w", err)
			}
		}
	}
	if err := os.MkdirAll(j.root, 0o755); err != nil {
		return sample{}, err
	}
	defer func() {
		if rmErr := os.Remove(j.oci); rmErr != nil && !errors.Is(rmErr, fs.ErrNotExist) {
			err = errors.Join(err, rmErr)
		}
		for _, dir := range leave {
			if rmErr := retire(dir); rmErr != nil && !errors.Is(rmErr, fs.ErrNotExist) {
				err = errors.Join(err, rmErr)
			}
		}
	}()
	unix.Sync()
	m, err := measure(ctx, b.opts.timeout, peer.command(j), peer.env, peer.daemon)
	if err != nil {
		return sample{}, err
	}
	if c.marker {
		at, err := markerTime(m.output)
		if err != nil {
			return sample{}, err
		}
		m.Seconds = at.Sub(m.started).Seconds()
	}
	return m.sample, nil
}

var marker = regexp.MustCompile(firstRunMarker + `(\d{19})`)

// markerTime finds the clock that a RUN printed.
func markerTime(output string) (time.Time, error) {
	m := marker.FindStringSubmatch(output)
	if m == nil {
		return time.Time{}, fmt.Errorf("no %q with a time in the output; its end: %s", firstRunMarker, tail(output))
	}
	ns, err := strconv.ParseInt(m[1], 10, 64)
	return time.Unix(0, ns), err
}

// tail returns the end of a command's output in one line.
func tail(output string) string {
	lines := strings.Split(strings.TrimSpace(output), "\n")
	return strings.Join(lines[max(0, len(lines)-3):], " | ")
}
