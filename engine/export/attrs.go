package export

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/slipway-build/slipway/engine/registry"
	"github.com/slipway-build/slipway/platforms"
)

// Packing says how layers are to be made into blobs.
type Packing struct {
	Compression string // gzip, zstd or uncompressed
	Level       int    // -1: the compression's default
	Force       bool   // layers that exist in another form, too
}

// Compression reads the attributes compression, compression-level and
// force-compression.
func Compression(attrs map[string]string) (Packing, error) {
	p := Packing{Compression: attrs["compression"], Level: -1, Force: truth(attrs, "force-compression", false)}
	if p.Compression == "" {
		p.Compression = "gzip"
	}
	if err := checkCompression(p.Compression); err != nil {
		return Packing{}, fmt.Errorf("compression=%s: %w", p.Compression, err)
	}
	level, ok := attrs["compression-level"]
	if !ok {
		return p, nil
	}
	n, err := strconv.Atoi(level)
	highest := map[string]int{"gzip": 9, "zstd": 22}[p.Compression]
	if err != nil || n < 0 || n > highest {
		return Packing{}, fmt.Errorf("compression-level=%s: must be a number from 0 to %d with compression=%s", level, highest, p.Compression)
	}
	p.Level = n
	return p, nil
}

func checkCompression(v string) error {
	switch v {
	case "", "gzip", "zstd", "uncompressed":
		return nil
	case "estargz", "nydus":
		return errNotSupported
	}
	return errors.New("must be gzip, zstd or uncompressed")
}

// Format says how manifests are to be written.
type Format struct {
	DockerTypes bool       // oci-mediatypes=false
	Epoch       *time.Time // source-date-epoch
	Annotations []Annotation
}

// Annotation is one attribute such as
// annotation-manifest-descriptor[linux/amd64].key=value.
type Annotation struct {
	On         string              // one of the constants below
	Platform   *platforms.Platform // nil: all
	Key, Value string
}

// Where annotations go.
const (
	OnManifest           = "manifest"
	OnIndex              = "index"
	OnManifestDescriptor = "manifest-descriptor"
	OnIndexDescriptor    = "index-descriptor"
)

var annotationKey = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^annotation(?:-([a-z-]+))?(?:\[([A-Za-z0-9_/-]+)\])?\.(\S+)$`)
})

func isAnnotation(key string) bool { return strings.HasPrefix(key, "annotation") }

// ParseFormat reads the attributes oci-mediatypes, source-date-epoch and
// annotation….
func ParseFormat(attrs map[string]string) (Format, error) {
	f := Format{DockerTypes: !truth(attrs, "oci-mediatypes", true)}
	if v := attrs["source-date-epoch"]; v != "" {
		t, err := parseEpoch(v)
		if err != nil {
			return Format{}, fmt.Errorf("source-date-epoch=%s: %w", v, err)
		}
		f.Epoch = &t
	}
	for _, key := range slices.Sorted(maps.Keys(attrs)) {
		if !isAnnotation(key) {
			continue
		}
		m := annotationKey().FindStringSubmatch(key)
		if m == nil {
			return Format{}, fmt.Errorf("%s: must be such as annotation.KEY or annotation-index[linux/amd64].KEY", key)
		}
		a := Annotation{On: m[1], Key: m[3], Value: attrs[key]}
		switch a.On {
		case "":
			a.On = OnManifest
		case OnManifest, OnIndex, OnManifestDescriptor, OnIndexDescriptor:
		default:
			return Format{}, fmt.Errorf("%s: there are no annotations on %q", key, a.On)
		}
		if m[2] != "" {
			p, err := platforms.Parse(m[2])
			if err != nil {
				return Format{}, fmt.Errorf("%s: %w", key, err)
			}
			a.Platform = &p
		}
		f.Annotations = append(f.Annotations, a)
	}
	if f.DockerTypes && truth(attrs, "oci-artifact", false) {
		return Format{}, errors.New("oci-artifact=true contradicts oci-mediatypes=false")
	}
	return f, nil
}

func checkEpoch(v string) error {
	_, err := parseEpoch(v)
	return err
}

func parseEpoch(v string) (time.Time, error) {
	if v == "" {
		return time.Time{}, nil
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil || n < 0 || n > 253402300799 { // the end of the year 9999
		return time.Time{}, errors.New("must be seconds since 1970")
	}
	return time.Unix(n, 0).UTC(), nil
}

// Names returns the full names of the image ("docker.io/library/app:1"): those
// of the attribute name, separated by commas, else tags.
func Names(attrs map[string]string, tags []string) ([]string, error) {
	if v := attrs["name"]; v != "" {
		tags = strings.Split(v, ",")
	}
	var names []string
	for _, tag := range tags {
		r, err := registry.ParseRef(strings.TrimSpace(tag))
		if err != nil {
			return nil, err
		}
		if r.Digest != "" {
			return nil, fmt.Errorf("image name %q: must not have a digest", tag)
		}
		if !slices.Contains(names, r.String()) {
			names = append(names, r.String())
		}
	}
	return names, nil
}
