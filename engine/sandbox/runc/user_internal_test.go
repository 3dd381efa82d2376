//go:build linux && cgo && (amd64 || arm64)

package runc

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-build/slipway/engine/inroot"
)

func TestLookUp(t *testing.T) {
	const passwd = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n\nbroken\nhomeless:x:3:3:::\n"
	const group = "root:x:0:\nwheel:x:10:root,app\napps:x:1001:\naudio:x:29:app\n"
	both := map[string]string{"etc/passwd": passwd, "etc/group": group}
	tests := []struct {
		name, user string
		files      map[string]string
		want       identity
		wantErr    string
	}{
		{name: "default", files: both, want: identity{0, 0, []int{0, 10}, "/root"}},
		{name: "default without files", want: identity{0, 0, []int{0}, "/"}},
		{name: "name", user: "app", files: both, want: identity{1000, 1001, []int{1001, 10, 29}, "/home/app"}},
		{name: "name without files", user: "app", wantErr: "unable to find user app: no matching entries in passwd file"},
		{name: "uid without files", user: "7", want: identity{7, 0, []int{0}, "/"}},
		{name: "uid and gid without files", user: "7:8", want: identity{7, 8, []int{8}, "/"}},
		{name: "root and a group", user: "root:8", files: both, want: identity{0, 8, []int{8}, "/root"}},
		{name: "name and gid", user: "app:8", files: both, want: identity{1000, 8, []int{8}, "/home/app"}},
		{name: "uid and group", user: "7:audio", files: both, want: identity{7, 29, []int{29}, "/"}},
		{name: "no home", user: "homeless", files: both, want: identity{3, 3, []int{3}, ""}},
		{name: "group only", user: ":audio", files: both, want: identity{0, 29, []int{29}, "/root"}},
		{name: "unknown group", user: "app:nobody", files: both, wantErr: "unable to find group nobody: no matching entries in group file"},
		{
			name: "an entry out of range", user: "bad", files: map[string]string{"etc/passwd": "bad:x:4294967295:0::/:\n"},
			wantErr: "look up user bad: id 4294967295 is out of range",
		},
		{name: "out of range", user: "4294967295:0", files: both, wantErr: "uids and gids must be in range 0-2147483647"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := lookUp(rootWith(t, tt.files), tt.user)
			if tt.wantErr != "" {
				if err == nil || err.Error() != tt.wantErr {
					t.Errorf("error is %v, want %q", err, tt.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(identity{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func rootWith(t testing.TB, files map[string]string) *inroot.Root {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	root, err := inroot.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

// Whatever the files say, there is an identity with its group among the groups
// and ids that the kernel takes, or an error.
func FuzzLookUp(f *testing.F) {
	f.Add("app", "app:x:1000:1001::/home/app:/bin/sh\n", "apps:x:1001:app\n")
	f.Add("1:2", "::::::\n:x:-1:-1:::\n", "\x00:::\n")
	f.Add("a:b", "a:x:99999999999999999999:0:::\n", "b:x:b:a,a,,\n")
	f.Fuzz(func(t *testing.T, name, passwd, group string) {
		id, err := lookUpName(name, []byte(passwd), []byte(group))
		if err != nil {
			return
		}
		for _, n := range append(slices.Clone(id.groups), id.uid, id.gid) {
			if n < 0 || n >= 1<<32-1 {
				t.Errorf("%q is %+v", name, id)
			}
		}
	})
}

func TestEnviron(t *testing.T) {
	tests := []struct {
		name      string
		env, want []string
		wantErr   bool
	}{
		{name: "nothing", want: []string{"HOME=/h"}},
		{name: "order", env: []string{"B=1", "A=2", "HOME=/x"}, want: []string{"B=1", "A=2", "HOME=/x"}},
		{name: "the last wins", env: []string{"A=1", "B=1", "A=2"}, want: []string{"B=1", "A=2", "HOME=/h"}},
		{name: "empty home", env: []string{"HOME=", "A=1"}, want: []string{"A=1", "HOME=/h"}},
		{name: "a home that was set before an empty one", env: []string{"HOME=/x", "HOME="}, want: []string{"HOME=/h"}},
		{name: "no name", env: []string{"=1"}, wantErr: true},
		{name: "no value", env: []string{"A"}, wantErr: true},
		{name: "zero byte", env: []string{"A=\x00"}, wantErr: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := environ(tt.env, "/h")
			if (err != nil) != tt.wantErr {
				t.Fatalf("error is %v", err)
			}
			if diff := cmp.Diff(tt.want, got); err == nil && diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
