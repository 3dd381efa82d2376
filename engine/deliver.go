package engine

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/slipway-build/slipway/engine/content"
	"github.com/slipway-build/slipway/engine/dockerfile"
	"github.com/slipway-build/slipway/engine/export"
	"github.com/slipway-build/slipway/engine/image"
	"github.com/slipway-build/slipway/engine/layer"
	"github.com/slipway-build/slipway/engine/progress"
	"github.com/slipway-build/slipway/engine/tree"
)

// output is one checked Output of a request.
type output struct {
	Output
	exporter export.Exporter
	names    []string
	format   export.Format
	packing  *tree.Packing // nil: it needs no blobs
}

// outputs checks what the request asks for, before anything is built.
func (b *build) outputs(req Request) ([]output, error) {
	wanted := req.Outputs
	if len(wanted) == 0 && (req.Image || len(req.Tags) > 0) {
		wanted = []Output{{Type: "image"}}
	}
	var outs []output
	for i, o := range wanted {
		out, err := b.output(req, o, i)
		if err != nil {
			return nil, fmt.Errorf("output type=%s: %w", o.Type, err)
		}
		outs = append(outs, out)
	}
	return outs, nil
}

func (b *build) output(req Request, o Output, i int) (out output, err error) {
	out.Output = o
	if out.exporter, err = export.New(o.Type, o.Attrs, export.Deps{
		Registry: b.reg, Names: req.Tags, File: o.File,
		Viewer:   b.keeper,
		Epoch:    req.Epoch,
		Progress: b.transfers(fmt.Sprintf("export %d ", i)),
	}); err != nil {
		return out, err
	}
	if out.names, err = export.Names(o.Attrs, req.Tags); err != nil {
		return out, err
	}
	if out.format, err = export.ParseFormat(o.Attrs); err != nil {
		return out, err
	}
	p, err := export.Compression(o.Attrs)
	if err != nil {
		return out, err
	}
	switch o.Type {
	case "local", "tar", "cacheonly":
	default:
		out.packing = packing(p)
	}
	return out, nil
}

// packing translates the attributes of an output, where -1 is the default
// level and 0 is gzip's for not compressing.
func packing(p export.Packing) *tree.Packing {
	opts := layer.PackOptions{Compression: layer.Compression(p.Compression), Level: max(p.Level, 0)}
	if p.Level == 0 && opts.Matches(ocispec.MediaTypeImageLayerGzip) {
		opts.Level = layer.NoCompression
	}
	return &tree.Packing{PackOptions: opts, Force: p.Force}
}

// packings are the different forms in which outputs want layers.
func packings(outputs []output) []tree.Packing {
	var all []tree.Packing
	for _, o := range outputs {
		if o.packing != nil && !slices.Contains(all, *o.packing) {
			all = append(all, *o.packing)
		}
	}
	return all
}

// transfers returns a function that turns what was sent of blobs into events.
func (e *Engine) transfers(prefix string) func(content.Descriptor, int64) {
	var mu sync.Mutex
	last := make(map[string]int64)
	return func(d content.Descriptor, done int64) {
		const tick = 4 << 20
		ev := progress.Event{Step: prefix + d.Digest.String(), Name: "push " + shortDigest(d), Kind: progress.Transfer, Done: done, Total: d.Size}
		mu.Lock()
		before, started := last[ev.Step]
		due := !started || done >= d.Size || done-before >= tick
		if due {
			last[ev.Step] = done
		}
		mu.Unlock()
		if !due {
			return
		}
		if !started {
			e.opts.Progress.Emit(progress.Event{Step: ev.Step, Name: ev.Name, Kind: progress.Started})
		}
		if done >= d.Size {
			ev.Kind = progress.Finished
		}
		e.opts.Progress.Emit(ev)
	}
}

// deliver makes images of the trees and hands them to every output.
func (b *build) deliver(ctx context.Context, req Request, plan dockerfile.Plan, trees []tree.Tree, outputs []output, res *Result) error {
	res.Metadata, res.Names = make(map[string]any), nil
	for i, o := range outputs {
		a, err := b.assemble(ctx, req, plan, trees, o)
		if err != nil {
			return err
		}
		ev := progress.Event{Step: fmt.Sprintf("export %d", i), Name: "export to " + o.Type, Kind: progress.Started}
		b.opts.Progress.Emit(ev)
		start := time.Now()
		desc, err := o.exporter.Export(ctx, a)
		ev.Kind, ev.Took, ev.Err = progress.Finished, time.Since(start), err
		if err != nil {
			ev.Kind = progress.Failed
		}
		b.opts.Progress.Emit(ev)
		if err != nil {
			return fmt.Errorf("export to %s: %w", o.Type, err)
		}
		if o.packing == nil {
			continue
		}
		if a.Root.Digest != desc.Digest {
			a.Root = desc // the exporter's own form of it
		}
		maps.Copy(res.Metadata, image.Metadata(a, o.names))
		res.Digest, res.Config = a.Root.Digest, a.Images[0].Config.Digest
		res.Names = append(res.Names, o.names...)
	}
	return nil
}

// assemble makes the artifact that an output wants. Without blobs it has trees
// only.
func (b *build) assemble(ctx context.Context, req Request, plan dockerfile.Plan, trees []tree.Tree, o output) (export.Artifact, error) {
	if o.packing == nil {
		a := export.Artifact{Blobs: b.store}
		for i, img := range plan.Images {
			a.Images = append(a.Images, export.Image{Platform: img.Platform, Tree: trees[i]})
		}
		return a, nil
	}
	packed, err := b.pack(ctx, trees, *o.packing)
	if err != nil {
		return export.Artifact{}, err
	}
	return image.Assemble(ctx, b.store, plan, packed, image.Options{
		Epoch: cmp.Or(req.Epoch, plan.Epoch), Index: plan.Index, Format: o.format,
	})
}
