package layer

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/bzip2"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
	"github.com/ulikunitz/xz/lzma"
)

// Compression is a way to compress a tar.
type Compression string

// Layers can be compressed with gzip (which an empty Compression means) and
// zstd. Archives for [Extract] may also be compressed with the last two.
const (
	Gzip         Compression = "gzip"
	Zstd         Compression = "zstd"
	Uncompressed Compression = "uncompressed"
	Bzip2        Compression = "bzip2"
	Xz           Compression = "xz"
)

// magics are what compressed streams begin with.
var magics = []struct {
	kind  Compression
	magic []byte
}{
	{Gzip, []byte{0x1f, 0x8b, 8}},
	{Zstd, []byte{0x28, 0xb5, 0x2f, 0xfd}},
	{Bzip2, []byte("BZh")},
	{Xz, []byte{0xfd, '7', 'z', 'X', 'Z', 0}},
}

// detect returns how a stream that begins with head is compressed.
func detect(head []byte) Compression {
	for _, m := range magics {
		if bytes.HasPrefix(head, m.magic) {
			return m.kind
		}
	}
	// A skippable frame before the first one of zstd: 0x184D2A50 to 0x184D2A5F.
	if len(head) >= 4 && head[0]&0xf0 == 0x50 && head[1] == 0x2a && head[2] == 0x4d && head[3] == 0x18 {
		return Zstd
	}
	return Uncompressed
}

// maxWindow is how far back a stream may refer, and so what a decoder may need
// of memory. It is what "zstd --long" uses; xz -9 uses half of it.
const maxWindow = 128 << 20

// decompress returns what r reads, uncompressed, and what it was compressed
// with. Close of what it returns does not close r.
func decompress(r io.Reader) (io.ReadCloser, Compression, error) {
	br := bufio.NewReaderSize(r, 128<<10)
	head, err := br.Peek(6)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, "", err
	}
	kind := detect(head)
	rc, err := decompressAs(br, kind)
	if err != nil {
		return nil, kind, fmt.Errorf("decompress %s: %w", kind, err)
	}
	return decompressor{rc, kind}, kind, nil
}

// A decompressor says in its errors what it is.
type decompressor struct {
	io.ReadCloser
	kind Compression
}

func (d decompressor) Read(p []byte) (int, error) {
	n, err := d.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) && d.kind != Uncompressed {
		err = fmt.Errorf("decompress %s: %w", d.kind, err)
	}
	return n, err
}

func decompressAs(r *bufio.Reader, kind Compression) (io.ReadCloser, error) {
	switch kind {
	case Gzip:
		return gzip.NewReader(r)
	case Zstd:
		d, err := zstd.NewReader(r, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	case Bzip2:
		return io.NopCloser(bzip2.NewReader(r)), nil
	case Xz:
		if err := checkXz(r); err != nil {
			return nil, err
		}
		x, err := xz.NewReader(r)
		if err != nil {
			return nil, err
		}
		return io.NopCloser(x), nil
	default:
		return io.NopCloser(r), nil
	}
}

// checkXz refuses a stream whose first block asks for more memory than
// maxWindow, which the library would give it.
func checkXz(r *bufio.Reader) error {
	head, err := r.Peek(12 + 2 + 2*binary.MaxVarintLen64 + 3)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if len(head) < 12+2 {
		return nil // the library will say that it is too short
	}
	flags, head := head[13], head[14:]
	for _, size := range []byte{0x40, 0x80} { // compressed, uncompressed
		if flags&size != 0 {
			_, n := binary.Uvarint(head)
			head = head[max(n, 0):]
		}
	}
	const lzma2 = 0x21 // the one filter that the library knows; it has one property
	if len(head) < 3 || head[0] != lzma2 {
		return nil
	}
	window, err := lzma.DecodeDictCap(head[2])
	if err != nil {
		return err
	}
	if window > maxWindow {
		return fmt.Errorf("needs a window of %d bytes, more than the %d allowed", window, maxWindow)
	}
	return nil
}

// DetectSize is how many bytes of a file [DetectArchive] needs to be sure: a
// block of bzip2, the largest that can't be decompressed in part.
const DetectSize = 1 << 20

// DetectArchive says whether a file that begins with head is a tar, which may
// be compressed, and how it is. It judges by content, as ADD does: an archive
// is what decompresses to something that begins with the header of a tar. If
// head is not the whole file it should have [DetectSize] bytes.
func DetectArchive(head []byte) (Compression, bool) {
	r, kind, err := decompress(bytes.NewReader(head))
	if err != nil {
		return kind, false
	}
	defer r.Close()
	// The header may be preceded by others, of which there can be many.
	_, err = tar.NewReader(io.LimitReader(r, 16<<20)).Next()
	return kind, err == nil
}
