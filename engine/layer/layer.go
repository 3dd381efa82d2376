// Package layer turns the tar of an image's layer into a directory and back.
//
// A layer's directory is in overlayfs form: a deleted file is a character
// device 0/0, a directory that hides the one below it has the xattr
// trusted.overlay.opaque. In a tar the same are files called .wh.NAME and
// .wh..wh..opq. [Unpack] and [Write] translate. The tar that Write makes is a
// pure function of the directory, so a layer has the same digest everywhere.
//
// [Pack] makes the compressed blob of a directory, [Trim] takes out of a
// directory what the layers below have already, and [Extract] is for archives
// that are no layers. Tars come from strangers: whatever is in one, nothing
// outside the given root is read or written.
package layer

import (
	"errors"
	"fmt"
	"path"
	"strings"
)

// ErrNeedsParents says that a tar can't be unpacked by itself, because it has
// something in a directory, or linked to a file, that is not in the tar but in
// the layers below. It has to be unpacked onto those, see [UnpackOptions].
var ErrNeedsParents = errors.New("layer refers to files of the layers below it")

// How a tar spells what a layer hides, by the OCI image specification.
const (
	whiteoutPrefix = ".wh."
	opaqueMarker   = ".wh..wh..opq"
	// Names that begin so were the union file system's own, a long time ago.
	whiteoutMetaPrefix = ".wh..wh."
)

// And how overlayfs does, besides the character device 0/0.
const (
	opaqueXattr = "trusted.overlay.opaque"
	originXattr = "trusted.overlay.origin"
)

// cleanName returns name, the name of a tar's entry, relative to the root of
// the tar, which is ".". A leading slash makes no difference.
func cleanName(name string) (string, error) {
	clean := path.Clean(strings.TrimLeft(name, "/"))
	if clean == ".." || strings.HasPrefix(clean, "../") {
		return "", fmt.Errorf("name %q leads out of the root", name)
	}
	return clean, nil
}
