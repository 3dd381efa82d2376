package engine_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	digest "github.com/opencontainers/go-digest"

	"github.com/slipway-build/slipway/engine"
	"github.com/slipway-build/slipway/engine/content"
)

// Whatever disappears from the state directory, the next build is right.
func TestInvariant02_WhatIsLostIsMadeAgain(t *testing.T) {
	removals := map[string][]string{
		"layers":            {"snapshots/layers"},
		"blobs":             {"content/blobs"},
		"layers and blobs":  {"snapshots/layers", "content/blobs"},
		"records":           {"records"},
		"records of layers": {"records/layers"},
		"everything":        {"snapshots", "content", "records", "mounts"},
	}
	for name, paths := range removals {
		t.Run(name, func(t *testing.T) {
			b := newBuilder(t)
			dir := contextDir(t, map[string]string{"Dockerfile": base + "RUN echo one > /one\nRUN cat /one > /two\n"})
			req := engine.Request{Context: dir, Outputs: image()}
			b.must(req)
			for _, p := range paths {
				if err := os.RemoveAll(filepath.Join(b.state, p)); err != nil {
					t.Fatal(err)
				}
			}
			write(t, filepath.Join(dir, "Dockerfile"), base+"RUN echo one > /one\nRUN cat /one > /two\nRUN cat /one /two > /three\n")
			b.must(req)
			if got := b.files(engine.Request{Context: dir})["/three"]; got != "one\none\n" {
				t.Errorf("/three = %q", got)
			}
		})
	}
}

// A blob goes bad between the look-up and its use, by a later step or at the
// very end.
func TestInvariant02_DamagedBlobIsFoundLate(t *testing.T) {
	for _, damage := range []struct {
		name string
		do   func(p string) error
	}{
		{"cut short", func(p string) error { return os.Truncate(p, 30) }},
		{"other bytes", func(p string) error {
			fi, err := os.Stat(p)
			return errors.Join(err, os.WriteFile(p, bytes.Repeat([]byte("x"), int(fi.Size())), 0o600))
		}},
	} {
		for _, unpacked := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, unpacked %v", damage.name, unpacked), func(t *testing.T) {
				b := newBuilder(t)
				dockerfile := base + "RUN echo one > /one\n"
				dir := contextDir(t, map[string]string{"Dockerfile": dockerfile})
				out := filepath.Join(t.TempDir(), "image.tar")
				req := engine.Request{Context: dir, Outputs: []engine.Output{{Type: "oci", Attrs: map[string]string{"dest": out}}}}
				b.must(req)
				if !unpacked {
					if err := os.RemoveAll(filepath.Join(b.state, "snapshots", "layers")); err != nil {
						t.Fatal(err)
					}
				}
				eachBlob(t, b.state, damage.do)
				if unpacked {
					res := b.must(req) // the export reads them
					checkLayout(t, out, res.Digest.String())
					return
				}
				write(t, filepath.Join(dir, "Dockerfile"), dockerfile+"RUN cat /one > /two\n")
				if got := b.files(engine.Request{Context: dir})["/two"]; got != "one\n" {
					t.Errorf("/two = %q", got)
				}
			})
		}
	}
}

func eachBlob(t *testing.T, state string, do func(p string) error) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(state, "content", "blobs"), func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			err = do(p)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// checkLayout checks every blob of an OCI layout in a tar against its name.
func checkLayout(t *testing.T, name, want string) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	store, err := content.Open(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var index struct {
		Manifests []content.Descriptor `json:"manifests"`
	}
	for tr := tar.NewReader(f); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Name == "index.json" {
			if err := json.NewDecoder(tr).Decode(&index); err != nil {
				t.Fatal(err)
			}
		}
		if hex, ok := strings.CutPrefix(h.Name, "blobs/sha256/"); ok && hex != "" {
			if err := store.Add(t.Context(), content.Descriptor{Digest: digest.NewDigestFromEncoded(digest.SHA256, hex)}, tr); err != nil {
				t.Error(err)
			}
		}
	}
	if len(index.Manifests) != 1 || index.Manifests[0].Digest.String() != want {
		t.Errorf("the layout's index is %+v, want one of %s", index.Manifests, want)
	}
}
