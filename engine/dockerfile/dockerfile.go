// Package dockerfile turns a Dockerfile into a graph. It is the only package
// that knows what instructions mean; those that only change the image config
// leave no trace in the graph.
//
// Planning has no effects: the world is reached through [Resolver] only. Names
// are pinned first: when Plan returns, the graph holds digests only.
package dockerfile

import (
	"context"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"

	"github.com/slipway-build/slipway/engine/content"
	"github.com/slipway-build/slipway/engine/graph"
	"github.com/slipway-build/slipway/platforms"
)

// A Resolver pins names to what they mean now. The same name means the same
// thing for the whole build.
type Resolver interface {
	// Image resolves FROM and COPY --from. ref is what the Dockerfile says; the
	// error wraps fs.ErrNotExist if there is no such image, or none for p.
	Image(ctx context.Context, ref string, p platforms.Platform) (PinnedImage, error)
}

// PinnedImage is an image that a name was resolved to.
type PinnedImage struct {
	// Ref is the full name with the digest that it was pinned to, for people
	// and provenance: "docker.io/library/debian:12@sha256:…".
	Ref      string
	Platform platforms.Platform // the image's own
	Manifest content.Descriptor
	Config   Config
	Layers   []graph.ImageLayer
}

// Config is an image's configuration: the OCI one and Docker's extensions
// (HEALTHCHECK, ONBUILD, SHELL).
type Config = dockerspec.DockerOCIImage

// Options say what to plan.
type Options struct {
	File []byte // the Dockerfile
	Name string // its name, for messages

	Target    string // name or index of a stage; empty means the last
	Args      map[string]string
	Labels    map[string]string
	Platforms []platforms.Platform // what to build for; empty means Host
	Host      platforms.Platform   // BUILDPLATFORM

	// NoCache has the names of stages that are built without looking at
	// records; NoCacheAll means every stage.
	NoCache    []string
	NoCacheAll bool

	// Ignored are the patterns of .dockerignore, for the lint rule that warns
	// of COPY of what is ignored; the context itself is filtered by its reader.
	Ignored []string

	// Defaults for every RUN.
	Network      graph.NetworkMode
	Hostname     string
	Hosts        []graph.Host
	ShmSize      int64
	Ulimits      []graph.Ulimit
	CgroupParent string

	Resolver Resolver
}

// Context is the name of the Local source that is the build context.
const Context = "context"

// Plan is what a Dockerfile comes to. Nodes that platforms have in common are
// the same nodes.
type Plan struct {
	Images   []Image
	Warnings []Warning

	// Unused has the names of build args that no stage declares, sorted.
	Unused []string

	// Index says that the result is an index even if there is only one image:
	// several platforms were asked for, or BUILDKIT_MULTI_PLATFORM.
	Index bool

	// Epoch, if not nil, is what SOURCE_DATE_EPOCH says as a build arg or as a
	// global ARG. It is in no node, unless a stage declares the ARG.
	Epoch *time.Time
}

// Image is the plan for one platform.
type Image struct {
	Platform platforms.Platform

	// Root is the node whose tree is the image's filesystem.
	Root *graph.Node

	// Config is complete but for what only running tells: rootfs.diff_ids and
	// the times of those history entries that are not of the base image. Every
	// one of these that is not EmptyLayer stands for one layer: the uppermost
	// layers of Root's tree, in the same order. (A base image may have fewer
	// entries than layers.)
	Config Config

	// BaseHistory is how many of the history entries are the base image's.
	BaseHistory int

	// Bases are the images that were resolved for this platform, for provenance,
	// in the order of the Dockerfile.
	Bases []PinnedImage
}

// Warning is something that a lint rule has to say.
type Warning struct {
	Rule, Message, URL string
	Line               int // first line that it is about; 0 if none
}
