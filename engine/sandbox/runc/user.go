//go:build linux && cgo && (amd64 || arm64)

package runc

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/engine/inroot"
)

// maxUserFile is the most that is read of passwd and group, as in BuildKit.
const maxUserFile = 10 << 20

// noID means "leave it as it is" where the kernel takes an id.
const noID = 1<<32 - 1

// identity is who a process runs as.
type identity struct {
	uid, gid int
	groups   []int // supplementary ones; the first is gid
	home     string
}

// lookUp finds out who the spec's user is, by the passwd and group files in
// root. "uid:gid" needs neither and has no further groups; "" is user 0 with
// its groups, whether there is a passwd or not.
func lookUp(root *inroot.Root, name string) (identity, error) {
	passwd, err := userFile(root, "/etc/passwd")
	if err != nil {
		return identity{}, err
	}
	id, err := parseNumeric(name)
	if err != nil {
		group, err := userFile(root, "/etc/group")
		if err != nil {
			return identity{}, err
		}
		if id, err = lookUpName(name, passwd, group); err != nil {
			return identity{}, err
		}
	}
	id.home = homeOf(id.uid, passwd)
	if !slices.Contains(id.groups, id.gid) {
		id.groups = slices.Insert(id.groups, 0, id.gid)
	}
	return id, nil
}

// parseNumeric takes "uid:gid", where root may stand for 0.
func parseNumeric(name string) (identity, error) {
	u, g, ok := strings.Cut(name, ":")
	if !ok {
		return identity{}, errors.New("no group")
	}
	uid, err := parseID(u)
	if err != nil {
		return identity{}, err
	}
	gid, err := parseID(g)
	return identity{uid: uid, gid: gid}, err
}

func parseID(s string) (int, error) {
	if s == "root" {
		return 0, nil
	}
	n, err := strconv.ParseUint(s, 10, 32)
	if err == nil && n == noID {
		err = strconv.ErrRange
	}
	return int(n), err
}

func lookUpName(name string, passwd, group []byte) (identity, error) {
	isDefault := name == ""
	if isDefault {
		name = "0"
	}
	u, err := user.GetExecUser(name, nil, reader(passwd), reader(group))
	if err != nil && isDefault {
		return identity{}, nil
	}
	if err != nil {
		return identity{}, err
	}
	// A passwd may say what it likes, and 2^32-1 would be no change: root.
	for _, n := range append(slices.Clone(u.Sgids), u.Uid, u.Gid) {
		if n < 0 || n >= noID {
			return identity{}, fmt.Errorf("look up user %s: id %d is out of range", name, n)
		}
	}
	return identity{uid: u.Uid, gid: u.Gid, groups: u.Sgids}, nil
}

// reader returns a reader of b; none at all if there is no such file.
func reader(b []byte) io.Reader {
	if b == nil {
		return nil
	}
	return bytes.NewReader(b)
}

// homeOf returns the home directory of uid; "/" if nobody knows.
func homeOf(uid int, passwd []byte) string {
	users, err := user.ParsePasswdFilter(bytes.NewReader(passwd), func(u user.User) bool { return u.Uid == uid })
	if err != nil || len(users) == 0 {
		return "/"
	}
	return users[0].Home
}

// userFile returns the content of name, nil if there is no such file.
func userFile(root *inroot.Root, name string) ([]byte, error) {
	b, err := root.ReadFile(name, maxUserFile)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil, nil
	}
	if err == nil && b == nil {
		b = []byte{}
	}
	return b, err
}

// environ returns env as the process gets it: the last of several values of a
// name counts, and HOME is set, also if it was empty, as runc does it.
func environ(env []string, home string) ([]string, error) {
	seen := make(map[string]bool, len(env))
	out := make([]string, 0, len(env)+1)
	homeless := true
	for _, kv := range slices.Backward(env) {
		name, value, ok := strings.Cut(kv, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("environment variable %q is not NAME=VALUE", name)
		}
		if strings.IndexByte(kv, 0) >= 0 {
			return nil, fmt.Errorf("environment variable %q contains a zero byte", name)
		}
		switch {
		case seen[name]:
		case name != "HOME":
			out = append(out, kv)
		case value != "":
			out = append(out, kv)
			homeless = false
		}
		seen[name] = true
	}
	slices.Reverse(out)
	if homeless {
		out = append(out, "HOME="+home)
	}
	return out, nil
}
