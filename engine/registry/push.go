package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/slipway-build/slipway/engine/content"
)

// PushOptions say how to push.
type PushOptions struct {
	// Layers are the layers of the image with what is known about where they
	// are: one with a [content.SourceAnnotation] in the target's registry is
	// mounted from there, and it is fetched with its annotations.
	Layers []content.Descriptor

	// ByDigest pushes without tags; those of refs are ignored.
	ByDigest bool

	// Insecure allows plain http and any certificate for the hosts of refs.
	Insecure bool

	// Progress, if not nil, is told how many bytes of a blob a registry has by
	// now; of what was there already, all at once. It is called concurrently.
	Progress func(blob content.Descriptor, done int64)
}

// Push makes root, a manifest or an index, and all that it leads to available
// under each of refs. Blobs go first, those of all repositories, then the
// manifests of an index by digest, and last what refs name, so that a name
// never leads to something incomplete. A blob goes to a repository once, and
// only if it is not there already.
func (c *Client) Push(ctx context.Context, refs []string, root content.Descriptor, blobs content.Fetcher, opts PushOptions) error {
	targets, err := c.targets(refs, opts)
	if err != nil {
		return err
	}
	p, err := plan(ctx, root, blobs, opts)
	if err != nil {
		return fmt.Errorf("push %s: %w", root.Digest, err)
	}
	g, gctx := errgroup.WithContext(ctx)
	for _, t := range targets {
		g.Go(func() error {
			if err := p.send(gctx, t); err != nil {
				return fmt.Errorf("push %s: %w", t.ref.Name(), err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, t := range targets {
		for _, name := range t.names {
			if err := t.putManifest(ctx, name, p.root, p.rootRaw); err != nil {
				return fmt.Errorf("push %s: %w", t.full(name), err)
			}
		}
	}
	return nil
}

// A target is one repository to push to.
type target struct {
	client   *Client
	endpoint *endpoint
	ref      Ref
	names    []string // tags, or a digest
}

func (t *target) full(name string) string {
	if strings.Contains(name, ":") {
		return t.ref.Name() + "@" + name
	}
	return t.ref.Name() + ":" + name
}

// targets groups refs by repository, in the order in which they came.
func (c *Client) targets(refs []string, opts PushOptions) ([]*target, error) {
	var list []*target
	for _, s := range refs {
		r, err := ParseRef(s)
		if err != nil {
			return nil, err
		}
		if r.Digest != "" && !opts.ByDigest {
			return nil, fmt.Errorf("push %s: a name to push to must not have a digest", s)
		}
		i := slices.IndexFunc(list, func(t *target) bool { return t.ref.Name() == r.Name() })
		if i < 0 {
			if opts.Insecure {
				c.allowInsecure(r.Host)
			}
			i = len(list)
			list = append(list, &target{client: c, endpoint: c.registry(r.Host), ref: r})
		}
		if !opts.ByDigest && !slices.Contains(list[i].names, r.Tag) {
			list[i].names = append(list[i].names, r.Tag)
		}
	}
	if len(list) == 0 {
		return nil, errors.New("push: no name to push to")
	}
	return list, nil
}

// A delivery is what is to be pushed, the same for all repositories.
type delivery struct {
	blobs    content.Fetcher
	progress func(content.Descriptor, int64)

	root     content.Descriptor
	rootRaw  []byte
	children []child              // manifests of the index, deepest first
	parts    []content.Descriptor // configs and layers, each once
}

type child struct {
	desc content.Descriptor
	raw  []byte
}

// plan reads the manifests.
func plan(ctx context.Context, root content.Descriptor, blobs content.Fetcher, opts PushOptions) (*delivery, error) {
	p := &delivery{blobs: blobs, progress: opts.Progress, root: root}
	if p.progress == nil {
		p.progress = func(content.Descriptor, int64) {}
	}
	known := map[digest.Digest]content.Descriptor{}
	for _, l := range opts.Layers {
		known[l.Digest] = l
	}
	seen := map[digest.Digest]bool{}
	var err error
	p.rootRaw, err = p.add(ctx, root, known, seen, 0)
	return p, err
}

// add reads a manifest and notes what it leads to.
func (p *delivery) add(ctx context.Context, desc content.Descriptor, known map[digest.Digest]content.Descriptor, seen map[digest.Digest]bool, depth int) ([]byte, error) {
	raw, err := readManifest(ctx, p.blobs, desc)
	if err != nil {
		return nil, err
	}
	doc, err := parseDocument(raw, desc.MediaType)
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", desc.Digest, err)
	}
	if depth > 3 {
		return nil, fmt.Errorf("manifest %s: indexes are nested too deeply", desc.Digest)
	}
	for _, m := range doc.Manifests {
		if seen[m.Digest] {
			continue
		}
		seen[m.Digest] = true
		raw, err := p.add(ctx, m, known, seen, depth+1)
		if err != nil {
			return nil, err
		}
		p.children = append(p.children, child{m, raw})
	}
	parts := doc.Layers
	if doc.Config != nil {
		parts = append([]content.Descriptor{*doc.Config}, parts...)
	}
	for _, d := range parts {
		if seen[d.Digest] {
			continue
		}
		seen[d.Digest] = true
		if k, ok := known[d.Digest]; ok {
			d.Annotations = k.Annotations
		} else {
			d.Annotations = nil // of the manifest: not for us
		}
		p.parts = append(p.parts, d)
	}
	return raw, nil
}

func readManifest(ctx context.Context, blobs content.Fetcher, desc content.Descriptor) ([]byte, error) {
	r, err := blobs.Fetch(ctx, desc)
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", desc.Digest, err)
	}
	defer r.Close()
	raw, err := io.ReadAll(io.LimitReader(r, maxManifest+1))
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", desc.Digest, err)
	}
	if got := desc.Digest.Algorithm().FromBytes(raw); got != desc.Digest {
		return nil, fmt.Errorf("manifest %s: its content has the digest %s", desc.Digest, got)
	}
	return raw, nil
}

// send pushes all but what names lead to.
func (p *delivery) send(ctx context.Context, t *target) error {
	if len(t.names) == 0 {
		t.names = []string{p.root.Digest.String()}
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(uploadSlots)
	for _, d := range p.parts {
		g.Go(func() error {
			if gctx.Err() != nil {
				return context.Cause(gctx)
			}
			return p.sendBlob(gctx, t, d)
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, m := range p.children {
		if err := t.putManifest(ctx, m.desc.Digest.String(), m.desc, m.raw); err != nil {
			return err
		}
	}
	return nil
}

func (t *target) putManifest(ctx context.Context, name string, desc content.Descriptor, raw []byte) error {
	resp, err := t.endpoint.do(ctx, request{
		method: http.MethodPut, repo: t.ref.Repo, path: "manifests/" + name,
		header: http.Header{"Content-Type": {desc.MediaType}},
		scopes: t.endpoint.pushScope(t.ref.Repo),
		body:   bytesBody(raw), size: int64(len(raw)),
	})
	if err != nil {
		return err
	}
	if err := t.endpoint.check(resp, t.ref.Repo, http.StatusCreated, http.StatusOK, http.StatusAccepted); err != nil {
		return err
	}
	_ = resp.Body.Close()
	if got := resp.Header.Get("Docker-Content-Digest"); got != "" && got != desc.Digest.String() {
		return fmt.Errorf("%w: registry %s has stored the manifest as %s instead of %s", errContent, t.endpoint.name, printable(got, 100), desc.Digest)
	}
	return nil
}

// counted tells how far a blob has come; never backwards, although an upload
// may start over.
type counted struct {
	mu   sync.Mutex
	most int64
	tell func(int64)
}

func (c *counted) at(n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n > c.most {
		c.most = n
		c.tell(n)
	}
}
