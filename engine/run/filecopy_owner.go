package run

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"strconv"

	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/engine/graph"
	"github.com/slipway-build/slipway/engine/inroot"
)

// maxUserFile is how large a passwd or group file may be.
const maxUserFile = 10 << 20

// ids are the numbers of an owner.
type ids struct{ uid, gid int }

// errNoUser says that a name is not in passwd or group.
var errNoUser = errors.New("no such name")

// resolveOwner returns the numbers of o, whose names are those of root. It
// returns nil if o says nothing.
func resolveOwner(o graph.Owner, root *inroot.Root) (*ids, error) {
	if o.User == "" && o.Group == "" {
		return nil, nil //nolint:nilnil // nil has a meaning
	}
	var own ids
	if o.User != "" {
		n, named, err := parseID(o.User)
		if err != nil {
			return nil, fmt.Errorf("user %q: %w", o.User, err)
		}
		own = ids{n, n}
		if named {
			if own, err = findUser(root, o.User); err != nil {
				return nil, fmt.Errorf("user %q: %w", o.User, err)
			}
		}
	}
	if o.Group == "" {
		return &own, nil
	}
	n, named, err := parseID(o.Group)
	if err == nil && named {
		n, err = findGroup(root, o.Group)
	}
	if err != nil {
		return nil, fmt.Errorf("group %q: %w", o.Group, err)
	}
	own.gid = n
	return &own, nil
}

// parseID returns the number that s is, or says that it is a name. As in
// BuildKit root is 0 whatever the image says.
func parseID(s string) (n int, named bool, err error) {
	if s == "root" {
		return 0, false, nil
	}
	id, err := strconv.ParseInt(s, 10, 64)
	if errors.Is(err, strconv.ErrSyntax) {
		return 0, true, nil
	}
	if err != nil || id < 0 || id > math.MaxInt32 {
		return 0, false, errors.New("not a number between 0 and 2147483647")
	}
	return int(id), false, nil
}

func findUser(root *inroot.Root, name string) (ids, error) {
	b, err := userFile(root, "/etc/passwd")
	if err != nil {
		return ids{}, err
	}
	users, err := user.ParsePasswdFilter(bytes.NewReader(b), func(u user.User) bool { return u.Name == name })
	if err != nil {
		return ids{}, fmt.Errorf("/etc/passwd: %w", err)
	}
	if len(users) == 0 {
		return ids{}, fmt.Errorf("%w in /etc/passwd", errNoUser)
	}
	return ids{users[0].Uid, users[0].Gid}, nil
}

func findGroup(root *inroot.Root, name string) (int, error) {
	b, err := userFile(root, "/etc/group")
	if err != nil {
		return 0, err
	}
	groups, err := user.ParseGroupFilter(bytes.NewReader(b), func(g user.Group) bool { return g.Name == name })
	if err != nil {
		return 0, fmt.Errorf("/etc/group: %w", err)
	}
	if len(groups) == 0 {
		return 0, fmt.Errorf("%w in /etc/group", errNoUser)
	}
	return groups[0].Gid, nil
}

// userFile reads passwd or group. One that isn't there is as good as empty.
func userFile(root *inroot.Root, name string) ([]byte, error) {
	if root == nil {
		return nil, nil
	}
	b, err := root.ReadFile(name, maxUserFile)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil, nil
	}
	return b, err
}
