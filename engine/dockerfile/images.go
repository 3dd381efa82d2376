package dockerfile

import (
	"context"
	"regexp"
	"sync"

	"github.com/slipway-build/slipway/platforms"
)

// images asks a Resolver once for each name and platform. It may be used
// concurrently.
type images struct {
	resolver Resolver
	mu       sync.Mutex
	asked    map[string]*answer
}

// answer is complete once done is closed.
type answer struct {
	done  chan struct{}
	image PinnedImage
	err   error
}

func (i *images) resolve(ctx context.Context, ref string, p platforms.Platform) (PinnedImage, error) {
	key := ref + " " + formatPlatform(p)
	i.mu.Lock()
	a, ok := i.asked[key]
	if !ok {
		if i.asked == nil {
			i.asked = make(map[string]*answer)
		}
		a = &answer{done: make(chan struct{})}
		i.asked[key] = a
	}
	i.mu.Unlock()
	if !ok {
		a.image, a.err = i.resolver.Image(ctx, ref, p)
		close(a.done)
	}
	select {
	case <-a.done:
		return a.image, a.err
	case <-ctx.Done():
		return PinnedImage{}, context.Cause(ctx)
	}
}

// What a name of an image is made of, as the distribution project defines it.
const (
	refComponent = `[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*`
	refLabel     = `(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])`
	refHost      = `(?:` + refLabel + `(?:\.` + refLabel + `)*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?`
	refTag       = `[\w][\w.-]{0,127}`
	refDigest    = `[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}`
)

var (
	reference = regexp.MustCompile(`^(?:` + refHost + `/)?` + refComponent + `(?:/` + refComponent + `)*` +
		`(?::` + refTag + `)?(?:@` + refDigest + `)?$`)
	imageID = regexp.MustCompile(`^[a-f0-9]{64}$`)
)

// validReference reports whether s can be the name of an image.
func validReference(s string) bool {
	return len(s) <= 4096 && reference.MatchString(s) && !imageID.MatchString(s)
}
