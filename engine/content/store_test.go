package content_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/slipway-build/slipway/engine/content"
)

// remote counts how often a blob is asked for.
type remote struct {
	blobs map[digest.Digest]string
	mu    sync.Mutex
	asked int
}

func (r *remote) Fetch(_ context.Context, desc content.Descriptor) (io.ReadCloser, error) {
	r.mu.Lock()
	r.asked++
	r.mu.Unlock()
	data, ok := r.blobs[desc.Digest]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return io.NopCloser(strings.NewReader(data)), nil
}

func describe(s string) content.Descriptor {
	return content.Descriptor{Digest: digest.FromString(s), Size: int64(len(s))}
}

func open(t *testing.T, r content.Fetcher) (*content.Store, string) {
	t.Helper()
	dir := t.TempDir()
	s, err := content.Open(dir, r)
	if err != nil {
		t.Fatal(err)
	}
	return s, dir
}

func read(t *testing.T, s *content.Store, desc content.Descriptor) string {
	t.Helper()
	r, err := s.Fetch(t.Context(), desc)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func mustBeEmpty(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, "ingest"))
	if err != nil || len(entries) > 0 {
		t.Errorf("left in ingest: %v, %v", entries, err)
	}
}

func TestStore_FindsWhatWasAdded(t *testing.T) {
	s, dir := open(t, nil)
	want := describe("hello")
	if _, err := s.Stat(want.Digest); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Stat before: %v, want fs.ErrNotExist", err)
	}
	if _, err := s.Fetch(t.Context(), want); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Fetch before: %v, want fs.ErrNotExist", err)
	}
	for range 2 { // the second time it is there already
		if err := s.Add(t.Context(), want, strings.NewReader("hello")); err != nil {
			t.Fatal(err)
		}
	}
	if got := read(t, s, want); got != "hello" {
		t.Errorf("Fetch: %q", got)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "blobs", "sha256", want.Digest.Encoded())); err != nil || string(b) != "hello" {
		t.Errorf("the file: %q, %v", b, err)
	}
	again, err := content.Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := read(t, again, want); got != "hello" {
		t.Errorf("after opening it again: %q", got)
	}
	mustBeEmpty(t, dir)
}

func TestStore_RefusesWhatDoesNotMatch(t *testing.T) {
	s, dir := open(t, nil)
	broken := errors.New("broken pipe")
	tests := []struct {
		name string
		desc content.Descriptor
		r    io.Reader
		want string
	}{
		{"other bytes", describe("hello"), strings.NewReader("jello"), "content has digest"},
		{"other bytes, size unknown", content.Descriptor{Digest: digest.FromString("hello")}, strings.NewReader("more than that"), "content has digest"},
		{"too short", describe("hello"), strings.NewReader("hell"), "got 4 bytes, want 5"},
		{"too long", describe("hello"), strings.NewReader("hello, world"), "got 6 bytes, want 5"},
		{"fails", describe("hello"), io.MultiReader(strings.NewReader("he"), iotest.ErrReader(broken)), "broken pipe"},
		{"no digest", content.Descriptor{}, strings.NewReader(""), "blob \"\""},
		{"path for a digest", content.Descriptor{Digest: "sha256:../../../x"}, strings.NewReader(""), "invalid checksum digest"},
		{"weak algorithm", content.Descriptor{Digest: "md5:d41d8cd98f00b204e9800998ecf8427e"}, strings.NewReader(""), "unsupported digest algorithm"},
	}
	for _, test := range tests {
		err := s.Add(t.Context(), test.desc, test.r)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want an error with %q", test.name, err, test.want)
		}
		if _, err := s.Stat(test.desc.Digest); err == nil {
			t.Errorf("%s: it is in the store", test.name)
		}
	}
	mustBeEmpty(t, dir)
}

func TestStore_KeepsWhatIsRemote(t *testing.T) {
	desc := describe("far away")
	r := &remote{blobs: map[digest.Digest]string{desc.Digest: "far away"}}
	s, _ := open(t, r)
	if got := read(t, s, desc); got != "far away" {
		t.Errorf("Fetch: %q", got)
	}
	if _, err := s.Stat(desc.Digest); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a blob that was only read is in the store: %v", err)
	}
	for range 3 {
		if b, err := s.Get(t.Context(), desc, 100); err != nil || string(b) != "far away" {
			t.Fatalf("Get: %q, %v", b, err)
		}
	}
	if r.asked != 2 { // Fetch and the first Get
		t.Errorf("asked %d times, want 2", r.asked)
	}
	if err := s.Ensure(t.Context(), describe("nowhere")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Ensure of what is nowhere: %v, want fs.ErrNotExist", err)
	}
}

func TestStore_GetHasALimit(t *testing.T) {
	desc := describe("0123456789")
	s, _ := open(t, &remote{blobs: map[digest.Digest]string{desc.Digest: "0123456789"}})
	if _, err := s.Get(t.Context(), desc, 9); err == nil || !strings.Contains(err.Error(), "more than the 9 allowed") {
		t.Errorf("got %v", err)
	}
	desc.Size = 0 // not known
	if _, err := s.Get(t.Context(), desc, 9); err == nil || !strings.Contains(err.Error(), "more than the 9 bytes allowed") {
		t.Errorf("size unknown: got %v", err)
	}
	if b, err := s.Get(t.Context(), desc, 10); err != nil || string(b) != "0123456789" {
		t.Errorf("got %q, %v", b, err)
	}
}

// What a power cut may leave of a file.
func TestStore_FetchesATruncatedBlobAgain(t *testing.T) {
	desc := describe("hello")
	s, _ := open(t, &remote{blobs: map[digest.Digest]string{desc.Digest: "hello"}})
	p, err := s.Path(desc.Digest)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := read(t, s, desc); got != "hello" {
		t.Errorf("Fetch: %q", got)
	}
	if err := s.Ensure(t.Context(), desc); err != nil {
		t.Fatal(err)
	}
	if size, err := s.Stat(desc.Digest); err != nil || size != 5 {
		t.Errorf("after Ensure: %d bytes, %v", size, err)
	}
}

func TestStore_KeepsABlobOfWhichADescriptorLies(t *testing.T) {
	desc := describe("hello")
	s, _ := open(t, &remote{blobs: map[digest.Digest]string{desc.Digest: "hello"}})
	if err := s.Add(t.Context(), desc, strings.NewReader("hello")); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int64{1, 1 << 40} {
		lie := desc
		lie.Size = size
		if err := s.Ensure(t.Context(), lie); err == nil || errors.As(err, new(*content.Damaged)) {
			t.Errorf("Ensure with size %d: %v", size, err)
		}
		if got, err := s.Stat(desc.Digest); err != nil || got != 5 {
			t.Errorf("after a descriptor with size %d: %d bytes, %v", size, got, err)
		}
	}
}

func TestStore_StopsWhenCancelled(t *testing.T) {
	s, dir := open(t, nil)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("the build failed")
	endless := readerFunc(func(p []byte) (int, error) {
		cancel(why)
		return len(p), nil
	})
	err := s.Add(ctx, content.Descriptor{Digest: digest.FromString("x")}, endless)
	if !errors.Is(err, why) {
		t.Errorf("got %v, want the cause", err)
	}
	mustBeEmpty(t, dir)
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestStore_SeveralWritersOfOneBlob(t *testing.T) {
	data := strings.Repeat("x", 1<<20)
	desc := describe(data)
	s, dir := open(t, nil)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			other, err := content.Open(dir, nil)
			if err == nil {
				err = other.Add(t.Context(), desc, strings.NewReader(data))
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := read(t, s, desc); got != data {
		t.Error("the blob is not what was written")
	}
	mustBeEmpty(t, dir)
}

func TestWriter_DiscardLeavesNothing(t *testing.T) {
	s, dir := open(t, nil)
	w, err := s.Create(digest.SHA512)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(w, "half")
	w.Discard()
	mustBeEmpty(t, dir)
	if _, err := s.Create("md5"); err == nil {
		t.Error("md5 was accepted")
	}
	w, err = s.Create(digest.SHA512)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(w, "whole")
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	w.Discard()
	desc := content.Descriptor{Digest: digest.SHA512.FromString("whole"), Size: 5}
	if got := read(t, s, desc); got != "whole" || w.Digest() != desc.Digest || w.Size() != 5 {
		t.Errorf("read %q of %s", got, w.Digest())
	}
}

func TestStore_ReadingIsUse(t *testing.T) {
	s, _ := open(t, nil)
	desc := describe("old")
	if err := s.Add(t.Context(), desc, strings.NewReader("old")); err != nil {
		t.Fatal(err)
	}
	p, err := s.Path(desc.Digest)
	if err != nil {
		t.Fatal(err)
	}
	before := time.Unix(1000, 0)
	if err := os.Chtimes(p, before, before); err != nil {
		t.Fatal(err)
	}
	_ = read(t, s, desc)
	fi, err := os.Stat(p)
	if err != nil {
		t.Fatal(err)
	}
	if time.Since(fi.ModTime()) > time.Hour {
		t.Errorf("last used %v, want now: pruning goes by it", fi.ModTime())
	}
}

func TestPlain(t *testing.T) {
	d := describe("x")
	d.MediaType = ocispec.MediaTypeImageLayer
	want := d
	d.Annotations = map[string]string{content.SourceAnnotation: "docker.io/library/debian"}
	d.URLs, d.Platform, d.Data = []string{"https://x.example"}, &ocispec.Platform{OS: "linux"}, []byte("x")
	if diff := cmp.Diff(want, content.Plain(d)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Only bytes that have the digest enter, and nothing outside the store changes.
func FuzzStore_Add(f *testing.F) {
	f.Add("sha256:"+digest.FromString("x").Encoded(), int64(1), []byte("x"))
	f.Add("sha512:../../x", int64(0), []byte{})
	f.Add("sha256:", int64(-1), []byte("abc"))
	f.Fuzz(func(t *testing.T, d string, size int64, data []byte) {
		s, dir := open(t, nil)
		desc := content.Descriptor{Digest: digest.Digest(d), Size: size}
		err := s.Add(t.Context(), desc, bytes.NewReader(data))
		if err == nil && desc.Digest.Algorithm().FromBytes(data) != desc.Digest {
			t.Fatalf("%q was stored as %s", data, d)
		}
		var files int
		walk := func(_ string, e fs.DirEntry, err error) error {
			if err == nil && !e.IsDir() {
				files++
			}
			return err
		}
		if werr := filepath.WalkDir(filepath.Dir(dir), walk); werr != nil {
			t.Fatal(werr)
		}
		if want := map[bool]int{true: 1}[err == nil]; files != want {
			t.Fatalf("%d files after Add = %v, want %d", files, err, want)
		}
	})
}
