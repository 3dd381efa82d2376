package export

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/slipway-build/slipway/engine/content"
	"github.com/slipway-build/slipway/engine/registry"
	"github.com/slipway-build/slipway/engine/tree"
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

	// Epoch, if not nil, is SOURCE_DATE_EPOCH: the times of what local and tar
	// write.
	Epoch *time.Time

	// Progress, if not nil, is told how much of a blob a registry has. It is
	// called concurrently.
	Progress func(blob content.Descriptor, done int64)
}

// The types of exporters, as in --output type=.
const (
	kindImage     = "image"
	kindRegistry  = "registry" // image with push=true
	kindOCI       = "oci"
	kindDocker    = "docker"
	kindLocal     = "local"
	kindTar       = "tar"
	kindCacheOnly = "cacheonly"
)

// An attribute is what --output type=…,key=value may say. Of one that check
// refuses, the error says what is wrong with the value.
type attribute struct {
	types string // that have it, separated by spaces
	check func(value string) error
}

const (
	anyImage = "image oci docker"
	anyFile  = "oci docker local tar"
	anyTree  = "local tar"
)

// attributes are those of BuildKit and buildx; New refuses all others. Some
// are accepted because what they change does not exist here: store (there is no
// image store), name-canonical (it names the image there), attestation-….
func attributes() map[string]attribute {
	return map[string]attribute{
		"name":                     {anyImage, anything},
		"compression":              {anyImage, checkCompression},
		"compression-level":        {anyImage, checkInt},
		"force-compression":        {anyImage, checkBool},
		"oci-mediatypes":           {anyImage, checkBool},
		"oci-artifact":             {anyImage, checkBool},
		"attestation-inline":       {anyImage, checkBool},
		"prefer-nondist-layers":    {anyImage, notTrue},
		"rewrite-timestamp":        {anyImage, notTrue},
		"source-date-epoch":        {anyImage + " local tar", checkEpoch},
		"push":                     {kindImage, checkBool},
		"push-by-digest":           {kindImage, checkBool},
		"registry.insecure":        {kindImage, checkBool},
		"name-canonical":           {kindImage, checkBool},
		"store":                    {kindImage, checkBool},
		"unpack":                   {kindImage, notTrue},
		"dangling-name-prefix":     {kindImage, notSupported},
		"danging-name-empty-only":  {kindImage, notSupported}, // sic
		"dangling-name-empty-only": {kindImage, notSupported},
		"dest":                     {anyFile, notEmpty},
		"tar":                      {"oci docker", checkBool},
		"context":                  {kindDocker, notSupported},
		"platform-split":           {anyTree, checkBool},
		"attestation-prefix":       {anyTree, anything},
		"src":                      {anyTree, notEmpty},
		"mode":                     {kindLocal, checkMode},
	}
}

// New returns the exporter of the type kind: image, registry, oci, docker,
// local, tar or cacheonly. It checks all attributes, so that a build does not
// fail at its end because of one.
func New(kind string, attrs map[string]string, deps Deps) (Exporter, error) {
	attrs = maps.Clone(attrs)
	if attrs == nil {
		attrs = map[string]string{}
	}
	delete(attrs, "type")
	if kind == kindRegistry {
		kind = kindImage
		if _, ok := attrs["push"]; !ok {
			attrs["push"] = "true"
		}
	}
	if err := checkAttrs(kind, attrs); err != nil {
		return nil, err
	}
	return newExporter(kind, attrs, deps)
}

func newExporter(kind string, attrs map[string]string, deps Deps) (Exporter, error) {
	names, err := Names(attrs, deps.Names)
	if err != nil {
		return nil, err
	}
	format, err := ParseFormat(attrs)
	if err != nil {
		return nil, err
	}
	if format.Epoch == nil {
		format.Epoch = deps.Epoch
	}
	if _, err := Compression(attrs); err != nil {
		return nil, err
	}
	switch kind {
	case kindImage:
		if !truth(attrs, "push", false) {
			return nothing{}, nil
		}
		if len(names) == 0 {
			return nil, errors.New("there is no name to push to: give a tag, or name=")
		}
		return &pusher{
			client: deps.Registry, names: names, progress: deps.Progress,
			byDigest: truth(attrs, "push-by-digest", false),
			insecure: truth(attrs, "registry.insecure", false),
		}, nil
	case kindCacheOnly:
		return nothing{}, nil
	}
	dest := attrs["dest"]
	if kind == kindLocal || ((kind == kindOCI || kind == kindDocker) && !truth(attrs, "tar", true)) {
		if deps.File != nil || dest == "" || dest == "-" {
			return nil, errors.New("needs dest=, a directory")
		}
	} else if deps.File == nil && (dest == "" || dest == "-") {
		if kind == kindDocker && dest == "" {
			return nil, errors.New("needs dest=, a file; loading into a Docker daemon is not supported")
		}
		return nil, errors.New("needs dest=, a file")
	}
	out := output{dest, deps.File}
	switch kind {
	case kindOCI, kindDocker:
		l := layout{names: names, docker: kind == kindDocker, epoch: format.Epoch}
		if !truth(attrs, "tar", true) {
			return &layoutDir{l, dest}, nil
		}
		return &layoutTar{l, out}, nil
	case kindLocal:
		return &localDir{newTrees(attrs, deps, format), dest}, nil
	}
	return &plainTar{newTrees(attrs, deps, format), out}, nil
}

// checkAttrs refuses attributes that kind does not have, and wrong values.
func checkAttrs(kind string, attrs map[string]string) error {
	kinds := []string{kindImage, kindRegistry, kindOCI, kindDocker, kindLocal, kindTar, kindCacheOnly}
	if !slices.Contains(kinds, kind) {
		return fmt.Errorf("there is no type %q; there are %s", kind, strings.Join(kinds, ", "))
	}
	all := attributes()
	for _, key := range slices.Sorted(maps.Keys(attrs)) {
		if isAnnotation(key) && strings.Contains(anyImage, kind) {
			continue // see ParseFormat
		}
		a, ok := all[key]
		if !ok || !slices.Contains(strings.Fields(a.types), kind) {
			var known []string
			for k, a := range all {
				if slices.Contains(strings.Fields(a.types), kind) {
					known = append(known, k)
				}
			}
			slices.Sort(known)
			if len(known) == 0 {
				known = []string{"none"}
			}
			return fmt.Errorf("there is no attribute %q; there are %s", key, strings.Join(known, ", "))
		}
		if err := a.check(attrs[key]); err != nil {
			return fmt.Errorf("%s=%s: %w", key, attrs[key], err)
		}
	}
	return nil
}

func anything(string) error { return nil }

func notEmpty(v string) error {
	if v == "" {
		return errors.New("must not be empty")
	}
	return nil
}

func checkBool(v string) error {
	if _, err := strconv.ParseBool(v); err != nil && v != "" {
		return errors.New("must be true or false")
	}
	return nil
}

func checkInt(v string) error {
	if _, err := strconv.Atoi(v); err != nil {
		return errors.New("must be a number")
	}
	return nil
}

// notTrue is for what exists but is not supported here.
func notTrue(v string) error {
	if err := checkBool(v); err != nil {
		return err
	}
	if truth(map[string]string{"v": v}, "v", false) {
		return errNotSupported
	}
	return nil
}

var errNotSupported = errors.New("not supported")

func notSupported(string) error { return errNotSupported }

func checkMode(v string) error {
	switch v {
	case "", "copy":
		return nil
	case "delete":
		return errNotSupported
	}
	return errors.New("must be copy")
}

// truth reads a boolean attribute that was checked. As with BuildKit, a key
// without a value means true.
func truth(attrs map[string]string, key string, absent bool) bool {
	v, ok := attrs[key]
	if !ok {
		return absent
	}
	b, err := strconv.ParseBool(v)
	return v == "" || (err == nil && b)
}

// nothing delivers nothing: type=cacheonly, and type=image without push, since
// there is no image store.
type nothing struct{}
