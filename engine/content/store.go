package content

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	_ "crypto/sha256" // digest.SHA256
	_ "crypto/sha512" // digest.SHA512, of images that use it

	"github.com/opencontainers/go-digest"
)

// Store keeps blobs in a directory that several processes may share. A blob
// is written under a temporary name, verified and renamed, so that what is found
// under its digest is whole, whenever a process is killed. It is not synced: a
// blob that a power cut has truncated is noticed by its size, and fetched again.
// Methods are safe for concurrent use.
type Store struct {
	dir    string  // has blobs/ and ingest/
	remote Fetcher // may be nil
}

// Open opens the store in dir, which is made if it does not exist. Blobs that
// the store does not have are read from remote, if it is not nil.
func Open(dir string, remote Fetcher) (*Store, error) {
	for _, d := range []string{filepath.Join(dir, "blobs", "sha256"), filepath.Join(dir, "ingest")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("open content store: %w", err)
		}
	}
	return &Store{dir: dir, remote: remote}, nil
}

// Path returns the file that holds the blob d if the store has it. The digest
// is validated, so that it can't lead out of the store.
func (s *Store) Path(d digest.Digest) (string, error) {
	if err := d.Validate(); err != nil {
		return "", fmt.Errorf("blob %q: %w", string(d), err)
	}
	return filepath.Join(s.dir, "blobs", d.Algorithm().String(), d.Encoded()), nil
}

// Stat returns the size of a blob that the store has. The error wraps
// fs.ErrNotExist if it does not have it; the remote place is not asked.
func (s *Store) Stat(d digest.Digest) (int64, error) {
	p, err := s.Path(d)
	if err != nil {
		return 0, err
	}
	fi, err := os.Stat(p)
	if err != nil {
		return 0, err
	}
	return fi.Size(), nil
}

// Fetch opens the blob: the store's own copy, else the remote one as it
// streams in. A remote blob is verified by [Store.Add], not here; reading the
// store's own to its end fails with a [*Damaged] if it is not what its digest
// says.
func (s *Store) Fetch(ctx context.Context, desc Descriptor) (io.ReadCloser, error) {
	p, err := s.Path(desc.Digest)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(p)
	if err == nil && !s.has(desc) {
		_ = f.Close()
		return s.fetchInstead(ctx, desc)
	}
	if err == nil {
		now := time.Now()
		_ = os.Chtimes(p, now, now) // last use, for pruning; a read-only store is fine
		return &verifier{File: f, store: s, desc: desc, hash: desc.Digest.Verifier()}, nil
	}
	if !errors.Is(err, fs.ErrNotExist) || s.remote == nil {
		return nil, fmt.Errorf("open blob %s: %w", desc.Digest, err)
	}
	return s.remote.Fetch(ctx, desc)
}

// fetchInstead opens the remote blob in place of one whose size is not what desc
// says. If that is because desc is wrong, the blob stays: a manifest that lies
// must not take away what other images have.
func (s *Store) fetchInstead(ctx context.Context, desc Descriptor) (io.ReadCloser, error) {
	damaged := s.Verify(ctx, Descriptor{Digest: desc.Digest})
	if damaged == nil {
		return nil, fmt.Errorf("open blob %s: its size is not the %d bytes of its descriptor", desc.Digest, desc.Size)
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if s.remote == nil {
		return nil, damaged
	}
	rc, err := s.remote.Fetch(ctx, desc)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, damaged
	}
	return rc, err
}

// has reports whether the store has the blob, of the size that desc says if it
// says one.
func (s *Store) has(desc Descriptor) bool {
	size, err := s.Stat(desc.Digest)
	return err == nil && (desc.Size <= 0 || size == desc.Size)
}

// Get returns the bytes of a small blob, fetching it into the store if it is
// remote. It refuses blobs larger than limit bytes.
func (s *Store) Get(ctx context.Context, desc Descriptor, limit int64) ([]byte, error) {
	if desc.Size > limit {
		return nil, fmt.Errorf("blob %s has %d bytes, more than the %d allowed", desc.Digest, desc.Size, limit)
	}
	if err := s.Ensure(ctx, desc); err != nil {
		return nil, err
	}
	f, err := s.Fetch(ctx, desc)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("blob %s has more than the %d bytes allowed", desc.Digest, limit)
	}
	if err != nil {
		return nil, err
	}
	return b, nil
}

// Ensure fetches the blob into the store unless it is there.
func (s *Store) Ensure(ctx context.Context, desc Descriptor) error {
	if s.has(desc) {
		return nil
	}
	r, err := s.Fetch(ctx, desc)
	if err != nil {
		return err
	}
	defer r.Close()
	return s.Add(ctx, desc, r)
}

// Add stores what r reads as the blob desc. It is an error if digest or size
// (unless that is 0) differ, and nothing is stored then.
func (s *Store) Add(ctx context.Context, desc Descriptor, r io.Reader) error {
	if _, err := s.Path(desc.Digest); err != nil {
		return err
	}
	if s.has(desc) {
		return nil
	}
	w, err := s.Create(desc.Digest.Algorithm())
	if err != nil {
		return err
	}
	defer w.Discard()
	if desc.Size > 0 {
		r = io.LimitReader(r, desc.Size+1) // one more, so that too long is noticed
	}
	if _, err := io.Copy(w, contextReader{ctx, r}); err != nil {
		return fmt.Errorf("store blob %s: %w", desc.Digest, err)
	}
	if desc.Size > 0 && w.Size() != desc.Size {
		return fmt.Errorf("store blob %s: got %d bytes, want %d", desc.Digest, w.Size(), desc.Size)
	}
	if got := w.Digest(); got != desc.Digest {
		return fmt.Errorf("store blob %s: content has digest %s", desc.Digest, got)
	}
	return w.Commit()
}

// Create starts a blob whose digest is not known yet.
func (s *Store) Create(alg digest.Algorithm) (*Writer, error) {
	if !alg.Available() {
		return nil, fmt.Errorf("digest algorithm %q is not supported", alg)
	}
	f, err := os.CreateTemp(filepath.Join(s.dir, "ingest"), "blob-")
	if err != nil {
		return nil, fmt.Errorf("create blob: %w", err)
	}
	return &Writer{store: s, f: f, digester: alg.Digester()}, nil
}

// Writer is a blob being written. It ends with Commit or Discard; Discard
// after Commit does nothing, so that it can be deferred.
type Writer struct {
	store    *Store
	f        *os.File
	digester digest.Digester
	size     int64
	done     bool
}

// Write appends p to the blob.
func (w *Writer) Write(p []byte) (int, error) {
	n, err := w.f.Write(p)
	w.digester.Hash().Write(p[:n])
	w.size += int64(n)
	return n, err
}

// Digest returns the digest of what was written so far.
func (w *Writer) Digest() digest.Digest { return w.digester.Digest() }

// Size returns the number of bytes written so far.
func (w *Writer) Size() int64 { return w.size }

// Commit makes what was written visible under its digest.
func (w *Writer) Commit() error {
	p, err := w.store.Path(w.Digest())
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
		return err
	}
	if err := w.f.Close(); err != nil {
		return fmt.Errorf("commit blob: %w", err)
	}
	if err := os.Rename(w.f.Name(), p); err != nil {
		return fmt.Errorf("commit blob: %w", err)
	}
	w.done = true
	return nil
}

// Discard removes what was written, unless it was committed.
func (w *Writer) Discard() {
	if w.done {
		return
	}
	w.done = true
	_ = w.f.Close()
	_ = os.Remove(w.f.Name())
}

// A contextReader stops reading when its context ends.
type contextReader struct {
	ctx context.Context //nolint:containedctx // lives as long as one io.Copy
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}

// Damaged says that a blob that the store had was not what its digest says. It
// has been removed.
type Damaged struct{ Digest digest.Digest }

func (e *Damaged) Error() string {
	return fmt.Sprintf("blob %s in the content store is damaged", e.Digest)
}

// A verifier is a blob of the store that is being read.
type verifier struct {
	*os.File
	store *Store
	desc  Descriptor
	hash  digest.Verifier
}

// Read reads on. The end of a damaged blob is an error.
func (v *verifier) Read(p []byte) (int, error) {
	n, err := v.File.Read(p)
	_, _ = v.hash.Write(p[:n]) // hashes don't fail
	if errors.Is(err, io.EOF) && !v.hash.Verified() {
		return n, v.store.damaged(v.desc)
	}
	return n, err
}

// WriteTo hides that of os.File, which would not see the bytes.
func (v *verifier) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, struct{ io.Reader }{v})
}

func (s *Store) damaged(desc Descriptor) error {
	if p, err := s.Path(desc.Digest); err == nil {
		_ = os.Remove(p) // what matters is said by the error
	}
	return &Damaged{desc.Digest}
}

// Verify reads the store's own copy of a blob. The error is a [*Damaged] if it
// is not what its digest says, and wraps fs.ErrNotExist if there is none.
func (s *Store) Verify(ctx context.Context, desc Descriptor) error {
	if _, err := s.Stat(desc.Digest); err != nil {
		return err
	}
	r, err := s.Fetch(ctx, desc)
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(io.Discard, contextReader{ctx, r})
	return err
}
