package layer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/pgzip"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/slipway-build/slipway/engine/content"
)

// PackOptions say what a layer's blob is like. The zero options are gzip at a
// level that is fast.
type PackOptions struct {
	Compression Compression // empty means Gzip

	// Level is how hard to try: 1 to 9 with gzip, or NoCompression; 1 to 22
	// with zstd; 0 for the default.
	Level int

	// Epoch is as in [WriteOptions].
	Epoch *time.Time
}

// NoCompression is the level of gzip that only frames: what other programs call
// level 0.
const NoCompression = -1

// Both are part of the format: the blocks are compressed side by side, and how
// many at a time makes no difference to the bytes, but where they end does.
const (
	gzipBlock = 1 << 20
	zstdBlock = 4 << 20
)

// defaultGzipLevel is a compromise. Measured on 150 MB of /usr, in MB per second
// of one CPU and the part that is left: level 1: 129, .413; 3: 134, .388; 5: 93,
// .368; 6: 90, .363; 7: 61, .358; 9: 11, .354. The standard library's level 6, which is what
// BuildKit uses: 29, .355. zstd (level 3, by blocks of 4 MiB): 136, .338.
const defaultGzipLevel = 5

// MediaType returns the OCI media type of the blobs that the options make.
func (o PackOptions) MediaType() string {
	switch o.Compression {
	case Zstd:
		return ocispec.MediaTypeImageLayerZstd
	case Uncompressed:
		return ocispec.MediaTypeImageLayer
	default:
		return ocispec.MediaTypeImageLayerGzip
	}
}

// Matches reports whether a blob of the media type, OCI's or Docker's, is
// compressed as the options say.
func (o PackOptions) Matches(mediaType string) bool {
	switch {
	case strings.HasSuffix(mediaType, "+gzip"), strings.HasSuffix(mediaType, ".gzip"):
		return o.Compression == Gzip || o.Compression == ""
	case strings.HasSuffix(mediaType, "+zstd"), strings.HasSuffix(mediaType, ".zstd"):
		return o.Compression == Zstd
	}
	return strings.HasSuffix(mediaType, ".tar") && o.Compression == Uncompressed
}

// Pack writes the layer whose directory is dir into store, compressed, and
// returns its blob and the digest of its uncompressed tar. The same directory
// and options always give the same bytes, on any number of CPUs.
func Pack(ctx context.Context, store *content.Store, dir string, opts PackOptions) (content.Descriptor, digest.Digest, error) {
	desc, diffID, err := pack(store, opts, func(w io.Writer) error {
		return Write(ctx, w, dir, WriteOptions{Epoch: opts.Epoch})
	})
	if err != nil {
		return desc, "", fmt.Errorf("pack layer: %w", err)
	}
	return desc, diffID, nil
}

// Recompress writes the layer that is the blob src into store, compressed as
// opts say. The tar stays as it is, so opts.Epoch must be nil.
func Recompress(ctx context.Context, store *content.Store, src content.Descriptor, opts PackOptions) (content.Descriptor, error) {
	desc, err := recompress(ctx, store, src, opts)
	if err != nil {
		return desc, fmt.Errorf("recompress layer %s: %w", src.Digest, err)
	}
	return desc, nil
}

func recompress(ctx context.Context, store *content.Store, src content.Descriptor, opts PackOptions) (content.Descriptor, error) {
	if opts.Epoch != nil {
		return content.Descriptor{}, errors.New("times of a blob can't be changed")
	}
	// A blob that streams in is verified only when all of it has arrived.
	if err := store.Ensure(ctx, src); err != nil {
		return content.Descriptor{}, err
	}
	rc, err := store.Fetch(ctx, src)
	if err != nil {
		return content.Descriptor{}, err
	}
	defer rc.Close()
	plain, _, err := decompress(rc)
	if err != nil {
		return content.Descriptor{}, err
	}
	defer plain.Close()
	desc, _, err := pack(store, opts, func(w io.Writer) error { return copyAll(ctx, w, plain) })
	return desc, err
}

func copyAll(ctx context.Context, w io.Writer, r io.Reader) error {
	buf := make([]byte, 128<<10)
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := r.Read(buf)
		if _, werr := w.Write(buf[:n]); werr != nil {
			return werr
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// pack stores what write writes, compressed.
func pack(store *content.Store, opts PackOptions, write func(io.Writer) error) (content.Descriptor, digest.Digest, error) {
	var desc content.Descriptor
	blob, err := store.Create(digest.SHA256)
	if err != nil {
		return desc, "", err
	}
	defer blob.Discard()
	c, err := newCompressor(blob, opts)
	if err != nil {
		return desc, "", err
	}
	diffID := digest.SHA256.Digester()
	err = write(io.MultiWriter(diffID.Hash(), c))
	// Also after a failure: nothing of it runs when Close has returned.
	if cerr := c.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return desc, "", err
	}
	desc = content.Descriptor{MediaType: opts.MediaType(), Digest: blob.Digest(), Size: blob.Size()}
	return desc, diffID.Digest(), blob.Commit()
}

// newCompressor returns a writer that compresses to w. It must be closed.
func newCompressor(w io.Writer, opts PackOptions) (io.WriteCloser, error) {
	switch opts.Compression {
	case Uncompressed:
		return nopCloser{w}, nil
	case Zstd:
		return newZstdWriter(w, opts.Level)
	case Gzip, "":
		return newGzipWriter(w, opts.Level)
	default:
		return nil, fmt.Errorf("compression %q is not supported", opts.Compression)
	}
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

func newGzipWriter(w io.Writer, level int) (io.WriteCloser, error) {
	switch {
	case level == 0:
		level = defaultGzipLevel
	case level == NoCompression:
		level = pgzip.NoCompression
	case level < 0 || level > 9:
		return nil, fmt.Errorf("gzip level %d is not between 0 and 9", level)
	}
	sink := &sink{w: w}
	z, err := pgzip.NewWriterLevel(sink, level)
	if err != nil {
		return nil, err
	}
	z.ModTime = time.Unix(0, 0) // which in the header means none
	return &gzipWriter{z, sink}, z.SetConcurrency(gzipBlock, workers())
}

// A gzipWriter keeps errors of the writer below from pgzip, which after one
// would leave goroutines behind.
type gzipWriter struct {
	z    *pgzip.Writer
	sink *sink
}

func (g *gzipWriter) Write(p []byte) (int, error) {
	if err := g.sink.failed(); err != nil {
		return 0, err
	}
	return g.z.Write(p)
}

func (g *gzipWriter) Close() error { return errors.Join(g.z.Close(), g.sink.failed()) }

// A sink writes to w until that fails, and then nowhere. It can be asked for
// the error while something writes to it.
type sink struct {
	w   io.Writer
	mu  sync.Mutex
	err error
}

func (s *sink) Write(p []byte) (int, error) {
	if s.failed() != nil {
		return len(p), nil
	}
	if _, err := s.w.Write(p); err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.err = err
	}
	return len(p), nil
}

func (s *sink) failed() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}
