package registry

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/slipway-build/slipway/engine/content"
	"github.com/slipway-build/slipway/platforms"
)

// Image is an image that a name was resolved to. Its descriptors carry
// [content.SourceAnnotation].
type Image struct {
	// Ref is the full name with the digest that it was pinned to:
	// "docker.io/library/debian:12@sha256:…".
	Ref string

	// Digest is what the name points to: an index, or the manifest.
	Digest digest.Digest

	// Platform is the image's own, as its config says. If the name points to a
	// single image it may be another one than was asked for.
	Platform platforms.Platform

	Manifest  content.Descriptor
	Config    content.Descriptor
	RawConfig []byte  // the config blob
	Layers    []Layer // bottom first
}

// Layer is one layer of an image.
type Layer struct {
	DiffID digest.Digest
	Blob   content.Descriptor
}

// Resolve finds out what ref means for the platform p. Of an index it takes
// the image that serves p best; a single image is returned whatever it is for.
// Manifests and configs are verified by their digests.
//
// The error is a [*NotFoundError] if there is no such image or none for p, an
// [*AuthError] if the registry wants other credentials.
func (c *Client) Resolve(ctx context.Context, ref string, p platforms.Platform) (Image, error) {
	r, err := ParseRef(ref)
	if err != nil {
		return Image{}, err
	}
	img, err := c.resolve(ctx, ref, r, p)
	if notFound, ok := errors.AsType[*NotFoundError](err); ok {
		return Image{}, notFound
	}
	if err != nil {
		return Image{}, fmt.Errorf("resolve image %s: %w", ref, err)
	}
	return img, nil
}

func (c *Client) resolve(ctx context.Context, ref string, r Ref, p platforms.Platform) (Image, error) {
	root, err := c.root(ctx, r)
	if errors.Is(err, fs.ErrNotExist) {
		return Image{}, &NotFoundError{Ref: ref, Detail: "not found in registry " + r.Host}
	}
	if err != nil {
		return Image{}, err
	}
	r.Digest = root.Digest
	res := resolution{client: c, ref: r, written: ref, want: p}
	raw, doc, err := res.document(ctx, root)
	if errors.Is(err, fs.ErrNotExist) {
		return Image{}, &NotFoundError{Ref: ref, Detail: "not found in registry " + r.Host}
	}
	if err != nil {
		return Image{}, err
	}
	if !isIndex(doc.MediaType) {
		root.MediaType, root.Size = doc.MediaType, int64(len(raw))
		return res.image(ctx, root, doc)
	}
	return res.choose(ctx, doc)
}

// root finds the digest that r points to.
func (c *Client) root(ctx context.Context, r Ref) (content.Descriptor, error) {
	if r.Digest != "" {
		return content.Descriptor{Digest: r.Digest}, checkDigest(r.Digest)
	}
	var desc content.Descriptor
	err := c.eachSource(ctx, r.Host, func(e *endpoint) (err error) {
		desc, err = e.head(ctx, r.Repo, r.Tag)
		if err != nil || desc.Digest != "" {
			return err
		}
		// No answer to HEAD, or one without a digest.
		b, mediaType, err := e.get(ctx, r.Repo, "manifests/"+r.Tag, maxManifest)
		if err != nil {
			return err
		}
		desc = content.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
		c.keep(ctx, desc, b)
		return nil
	})
	return desc, err
}

// head asks what a tag points to. The descriptor is empty if the registry does
// not tell in this way.
func (e *endpoint) head(ctx context.Context, repo, tag string) (content.Descriptor, error) {
	resp, err := e.do(ctx, request{
		method: http.MethodHead, repo: repo, path: "manifests/" + tag,
		header: http.Header{"Accept": {accept}}, scopes: e.pullScope(repo),
	})
	if err != nil {
		return content.Descriptor{}, err
	}
	_ = resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusBadRequest, http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return content.Descriptor{}, nil
	}
	if err := e.check(resp, repo, http.StatusOK); err != nil {
		return content.Descriptor{}, err
	}
	d := digest.Digest(resp.Header.Get("Docker-Content-Digest"))
	if d == "" {
		return content.Descriptor{}, nil
	}
	if resp.ContentLength > maxManifest {
		return content.Descriptor{}, fmt.Errorf("%w: the manifest has %d bytes, more than the %d allowed", errContent, resp.ContentLength, maxManifest)
	}
	return content.Descriptor{MediaType: mediaTypeOf(resp), Digest: d}, checkDigest(d)
}

// A resolution is one Resolve that has found where to start.
type resolution struct {
	client  *Client
	ref     Ref    // with the digest
	written string // as the user wrote it
	want    platforms.Platform
	fetched int // documents: an index must not lead us on for ever
}

const maxDocuments = 64

// document fetches a manifest or an index.
func (r *resolution) document(ctx context.Context, desc content.Descriptor) ([]byte, document, error) {
	if r.fetched++; r.fetched > maxDocuments {
		return nil, document{}, fmt.Errorf("%w: more than %d manifests", errContent, maxDocuments)
	}
	if desc.Size > maxManifest {
		return nil, document{}, fmt.Errorf("%w: manifest %s has %d bytes, more than the %d allowed", errContent, desc.Digest, desc.Size, maxManifest)
	}
	raw, mediaType, err := r.client.fetchSmall(ctx, r.ref, "manifests/", desc, maxManifest)
	if err != nil {
		return nil, document{}, err
	}
	if desc.Size > 0 && desc.Size != int64(len(raw)) {
		return nil, document{}, fmt.Errorf("%w: manifest %s has %d bytes instead of %d", errContent, desc.Digest, len(raw), desc.Size)
	}
	doc, err := parseDocument(raw, mediaType)
	return raw, doc, err
}

// image makes the Image of a manifest.
func (r *resolution) image(ctx context.Context, desc content.Descriptor, doc document) (Image, error) {
	if err := checkManifest(doc); err != nil {
		return Image{}, err
	}
	raw, _, err := r.client.fetchSmall(ctx, r.ref, "blobs/", *doc.Config, maxConfig)
	if err != nil {
		return Image{}, fmt.Errorf("config: %w", err)
	}
	platform, diffIDs, err := parseConfig(raw)
	if err != nil {
		return Image{}, err
	}
	if len(diffIDs) != len(doc.Layers) {
		return Image{}, fmt.Errorf("%w: the config names %d layers, the manifest %d", errContent, len(diffIDs), len(doc.Layers))
	}
	if platform.OS == "" && platform.Architecture == "" && desc.Platform != nil {
		platform = *desc.Platform // as the index has it
	}
	img := Image{
		Ref:       r.ref.String(),
		Digest:    r.ref.Digest,
		Platform:  platforms.Normalize(platform),
		Manifest:  r.located(desc),
		Config:    r.located(*doc.Config),
		RawConfig: raw,
	}
	for i, l := range doc.Layers {
		img.Layers = append(img.Layers, Layer{diffIDs[i], r.located(l)})
	}
	return img, nil
}

// located says where a blob is, and no more than that of what a stranger wrote.
func (r *resolution) located(desc content.Descriptor) content.Descriptor {
	desc = content.Plain(desc)
	desc.Annotations = map[string]string{content.SourceAnnotation: r.ref.Name()}
	return desc
}

// choose takes the image of an index that serves the platform best.
func (r *resolution) choose(ctx context.Context, index document) (Image, error) {
	known, unknown, err := r.candidates(ctx, index, 0)
	if err != nil {
		return Image{}, err
	}
	var have []platforms.Platform
	for _, d := range known {
		have = append(have, *d.Platform)
	}
	if i := platforms.Best(r.want, have); i >= 0 {
		_, doc, err := r.document(ctx, known[i])
		if err != nil {
			return Image{}, err
		}
		return r.image(ctx, known[i], doc)
	}
	// Entries without a platform: their configs know.
	for _, d := range unknown {
		_, doc, err := r.document(ctx, d)
		if err != nil {
			return Image{}, err
		}
		img, err := r.image(ctx, d, doc)
		if err != nil {
			return Image{}, err
		}
		if platforms.Match(r.want, img.Platform) {
			return img, nil
		}
		have = append(have, img.Platform)
	}
	names := make([]string, len(have))
	for i, p := range have {
		names[i] = printable(platforms.Format(p), 60)
	}
	detail := fmt.Sprintf("no image for %s; it has %s", platforms.Format(r.want), strings.Join(names, ", "))
	if len(names) == 0 {
		detail = fmt.Sprintf("no image for %s; its index is empty", platforms.Format(r.want))
	}
	return Image{}, &NotFoundError{Ref: r.written, Detail: detail}
}

// candidates lists the manifests of an index and those inside it: with a known
// platform and without. What is not an image (attestations) is left out.
func (r *resolution) candidates(ctx context.Context, index document, depth int) (known, unknown []content.Descriptor, err error) {
	for _, d := range index.Manifests {
		switch {
		case d.Annotations["vnd.docker.reference.type"] != "" || d.ArtifactType != "":
		case d.Platform != nil && d.Platform.OS == "unknown":
		case isIndex(d.MediaType):
			if d.Platform != nil && !platforms.Match(r.want, *d.Platform) {
				continue
			}
			if depth == 3 {
				return nil, nil, fmt.Errorf("%w: indexes are nested too deeply", errContent)
			}
			_, doc, err := r.document(ctx, d)
			if err != nil {
				return nil, nil, err
			}
			k, u, err := r.candidates(ctx, document{Manifests: doc.Manifests}, depth+1)
			if err != nil {
				return nil, nil, err
			}
			known, unknown = append(known, k...), append(unknown, u...)
		case !isManifest(d.MediaType):
		case d.Platform == nil || d.Platform.OS == "" || d.Platform.Architecture == "":
			unknown = append(unknown, d)
		default:
			known = append(known, d)
		}
	}
	return known, unknown, nil
}
