package layer_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/engine/layer"
)

func TestTrim(t *testing.T) {
	needRoot(t)
	lower := []ent{
		dir("etc"), file("etc/passwd", "root"), file("etc/group", "root"), dir("etc/empty"),
		dir("usr"), dir("usr/bin"), file("usr/bin/a", "A"), link("usr/bin/b", "usr/bin/a"), symlink("bin", "usr/bin"),
	}
	at := func(e ent, when time.Time) ent { e.ModTime = when; return e }
	mode := func(e ent, mode int64) ent { e.Mode = mode; return e }
	xattr := func(e ent) ent { e.PAXRecords = map[string]string{"SCHILY.xattr.user.x": "y"}; return e }
	tests := []struct {
		name  string
		upper []ent
		want  []string // beginnings of lines
	}{
		{"nothing", nil, nil},
		{"rewritten as it was", []ent{dir("etc"), file("etc/passwd", "root")}, nil},
		{"other content", []ent{dir("etc"), file("etc/passwd", "toor")}, []string{"/etc 40755", "/etc/passwd 100644"}},
		{"touched", []ent{dir("etc"), at(file("etc/passwd", "root"), day.Add(1))}, []string{"/etc 40755", "/etc/passwd 100644"}},
		{"other mode", []ent{dir("etc"), mode(file("etc/passwd", "root"), 0o600)}, []string{"/etc 40755", "/etc/passwd 100600"}},
		{"other xattrs", []ent{dir("etc"), xattr(file("etc/passwd", "root"))}, []string{"/etc 40755", "/etc/passwd 100644"}},
		{"directory copied up", []ent{dir("etc"), dir("etc/empty")}, nil},
		{"directory with another time", []ent{at(dir("etc"), day.Add(time.Hour))}, nil},
		{"directory with another mode", []ent{dir("etc"), mode(dir("etc/empty"), 0o700)}, []string{"/etc 40755", "/etc/empty 40700"}},
		{"new directory", []ent{dir("etc"), dir("etc/new")}, []string{"/etc 40755", "/etc/new 40755"}},
		{"whiteout", []ent{dir("etc"), file("etc/.wh.passwd", "")}, []string{"/etc 40755", "/etc/passwd whiteout"}},
		{"whiteout of nothing", []ent{dir("etc"), file("etc/.wh.none", "")}, nil},
		{"opaque over nothing", []ent{dir("new"), file("new/.wh..wh..opq", ""), file("new/f", "")}, []string{"/new 40755 0:0 1700000000.000000000$", "/new/f 100644"}},
		{"opaque over an empty directory", []ent{dir("etc"), dir("etc/empty"), file("etc/empty/.wh..wh..opq", "")}, nil},
		{"opaque over a link", []ent{dir("bin"), file("bin/.wh..wh..opq", ""), file("bin/a", "A")}, []string{"/bin 40755 0:0 1700000000.000000000$", "/bin/a 100644"}},
		{"opaque stays", []ent{dir("etc"), file("etc/.wh..wh..opq", ""), file("etc/passwd", "root"), file("etc/.wh.group", "")}, []string{"/etc 40755 0:0 1700000000.000000000 trusted", "/etc/passwd 100644"}},
		{"link is the same", []ent{symlink("bin", "usr/bin")}, nil},
		{"link is another", []ent{symlink("bin", "usr/bim")}, []string{"/bin 120777"}},
		{"file over a directory", []ent{file("etc", "")}, []string{"/etc 100644"}},
		{"directory over a file", []ent{dir("etc"), dir("etc/passwd")}, []string{"/etc 40755", "/etc/passwd 40755"}},
		{"linked to something new", []ent{dir("etc"), file("etc/passwd", "root"), link("etc/new", "etc/passwd")}, []string{"/etc 40755", "/etc/new 100644", "/etc/passwd = /etc/new"}},
		{"linked as before", []ent{dir("usr"), dir("usr/bin"), file("usr/bin/a", "A"), link("usr/bin/b", "usr/bin/a")}, nil},
		{"some of many", []ent{dir("etc"), file("etc/passwd", "root"), file("etc/group", "other"), dir("usr"), dir("usr/bin"), file("usr/bin/a", "A")}, []string{"/etc 40755 0:0 1700000000.000000000$", "/etc/group 100644"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			low, up := unpack(t, tarOf(t, lower...)), unpack(t, tarOf(t, tt.upper...))
			before := list(t, low)
			if err := layer.Trim(t.Context(), openRoot(t, up), openRoot(t, low)); err != nil {
				t.Fatal(err)
			}
			got := list(t, up)
			if len(got) != len(tt.want) {
				t.Fatalf("left is %q, want %q", got, tt.want)
			}
			for i := range got {
				if !strings.HasPrefix(got[i]+"$", tt.want[i]) {
					t.Errorf("left is %q, want %q", got[i], tt.want[i])
				}
			}
			if diff := cmp.Diff(before, list(t, low)); diff != "" {
				t.Errorf("lower has changed (-before +after):\n%s", diff)
			}
		})
	}
}

func TestTrim_ReadsOnlyWhatIsInTheLayer(t *testing.T) {
	// A file that is a link below is compared as such, and not followed.
	low, up := t.TempDir(), t.TempDir()
	secret := filepath.Join(t.TempDir(), "secret")
	for _, name := range []string{secret, filepath.Join(up, "f")} {
		if err := os.WriteFile(name, []byte("same"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(name, day, day); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(secret, filepath.Join(low, "f")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Dir(secret), filepath.Join(low, "d")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(up, "d"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Link(filepath.Join(up, "f"), filepath.Join(up, "d/secret")); err != nil {
		t.Fatal(err)
	}
	if err := layer.Trim(t.Context(), openRoot(t, up), openRoot(t, low)); err != nil {
		t.Fatal(err)
	}
	if got := len(list(t, up)); got != 3 {
		t.Errorf("%d files are left, want 3", got)
	}
}
