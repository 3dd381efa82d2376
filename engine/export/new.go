package export

import (
	"errors"
	"io"
	"time"

	"github.com/slipway-build/slipway/engine/content"
	"github.com/slipway-build/slipway/engine/registry"
	"github.com/slipway-build/slipway/engine/tree"
	"github.com/slipway-build/slipway/platforms"
)

// Deps is what exporters need of their surroundings.
type Deps struct {
	Registry *registry.Client // for image and registry
	Viewer   tree.Viewer      // for local and tar

	// Names are the image's names (--tag), used where the attribute "name" is
	// not given.
	Names []string

	// File, if not nil, is written and closed instead of dest.
	File io.WriteCloser

	// Progress, if not nil, is told how much of a blob was sent. It is called
	// concurrently.
	Progress func(blob content.Descriptor, done int64)
}

// New returns the exporter of a type: image, registry, oci, docker, local, tar
// or cacheonly. It checks all attributes.
func New(_ string, _ map[string]string, _ Deps) (Exporter, error) {
	return nil, errors.ErrUnsupported
}

// Packing says how layers are to be made into blobs.
type Packing struct {
	Compression string // gzip, zstd or uncompressed
	Level       int    // -1: the default
	Force       bool   // base layers too
}

// Compression reads the attributes compression, compression-level and
// force-compression.
func Compression(_ map[string]string) (Packing, error) { return Packing{}, errors.ErrUnsupported }

// Format says how manifests are to be written.
type Format struct {
	DockerTypes bool       // oci-mediatypes=false
	Epoch       *time.Time // source-date-epoch
	Annotations []Annotation
}

// Annotation is one annotation-… attribute.
type Annotation struct {
	On         string              // manifest, index, manifest-descriptor, index-descriptor
	Platform   *platforms.Platform // nil: all
	Key, Value string
}

// ParseFormat reads the attributes oci-mediatypes, source-date-epoch and
// annotation….
func ParseFormat(_ map[string]string) (Format, error) { return Format{}, errors.ErrUnsupported }

// Names returns the full names of the image ("docker.io/library/app:1"): those
// of the attribute name, else tags.
func Names(_ map[string]string, _ []string) ([]string, error) { return nil, errors.ErrUnsupported }
