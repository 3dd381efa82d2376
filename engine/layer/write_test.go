package layer_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-build/slipway/engine/layer"
)

func TestWrite_OrderAndForm(t *testing.T) {
	needRoot(t)
	root := unpack(t, tarOf(t,
		file("z", ""), dir("b"), dir("a"), file("b/2", "x"), link("b/1", "b/2"), file("a-b", ""), file("a/c", ""),
		file("b/.wh.gone", ""), file(".wh.also", ""), dir("o"), file("o/.wh..wh..opq", ""), file("o/!", ""), symlink("s", "t")))
	got := names(t, writeTar(t, root, layer.WriteOptions{}))
	want := []string{"a/", "a/c", "a-b", ".wh.also", "b/", "b/1", "b/2 -> b/1", "b/.wh.gone", "o/", "o/.wh..wh..opq", "o/!", "s -> t", "z"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
}

func TestWrite_HeadersAreAsPlainAsCanBe(t *testing.T) {
	root := unpack(t, tarOf(t, file("plain", "x"), ent{Header: tar.Header{Name: "ns", ModTime: time.Unix(1, 5)}}))
	b := writeTar(t, root, layer.WriteOptions{})
	// A header, content and header for the plain one comes after 3 blocks for
	// the other, which needs a record; then the end.
	if want := 512 * (3 + 2 + 2); len(b) != want {
		t.Errorf("the tar has %d bytes, want %d", len(b), want)
	}
	tr := tar.NewReader(bytes.NewReader(b))
	for {
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if hdr.Uname != "" || hdr.Gname != "" || !hdr.AccessTime.IsZero() || !hdr.ChangeTime.IsZero() {
			t.Errorf("%s has user %q, group %q, times %v and %v", hdr.Name, hdr.Uname, hdr.Gname, hdr.AccessTime, hdr.ChangeTime)
		}
		if hdr.Name == "plain" && len(hdr.PAXRecords) > 0 {
			t.Errorf("plain has records %q", hdr.PAXRecords)
		}
	}
}

func TestWrite_ClampsTimes(t *testing.T) {
	root := unpack(t, tarOf(t, file("new", ""), ent{Header: tar.Header{Name: "old", ModTime: day.Add(-time.Hour)}}, symlink("link", "x")))
	epoch := day.Add(-time.Minute)
	tr := tar.NewReader(bytes.NewReader(writeTar(t, root, layer.WriteOptions{Epoch: &epoch})))
	got := map[string]int64{}
	for {
		hdr, err := tr.Next()
		if err != nil {
			break
		}
		got[hdr.Name] = hdr.ModTime.Unix()
	}
	want := map[string]int64{"new": epoch.Unix(), "link": epoch.Unix(), "old": day.Add(-time.Hour).Unix()}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("times (-want +got):\n%s", diff)
	}
}

func TestInvariant04_NamesOfWhiteoutsAreErrors(t *testing.T) {
	for _, name := range []string{".wh.x", ".wh..wh..opq", ".wh."} {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, "d"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "d", name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		err := layer.Write(t.Context(), io.Discard, dir, layer.WriteOptions{})
		if err == nil || !strings.Contains(err.Error(), "d/"+name+":") {
			t.Errorf("error %v does not name d/%s", err, name)
		}
	}
}

func TestWrite_SkipsSockets(t *testing.T) {
	dir := t.TempDir()
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", filepath.Join(dir, "sock"))
	if err != nil {
		t.Skipf("no socket here: %v", err)
	}
	defer l.Close()
	if got := names(t, writeTar(t, dir, layer.WriteOptions{})); len(got) != 0 {
		t.Errorf("wrote %q", got)
	}
}

func TestWrite_Fails(t *testing.T) {
	if err := layer.Write(t.Context(), io.Discard, filepath.Join(t.TempDir(), "none"), layer.WriteOptions{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v, want not exist", err)
	}
	dir := unpack(t, tarOf(t, file("f", strings.Repeat("x", 1<<20))))
	full := errors.New("disk is full")
	if err := layer.Write(t.Context(), failing{full}, dir, layer.WriteOptions{}); !errors.Is(err, full) {
		t.Errorf("error %v, want %v", err, full)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(full)
	if err := layer.Write(ctx, io.Discard, dir, layer.WriteOptions{}); !errors.Is(err, full) {
		t.Errorf("error %v, want %v", err, full)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }
