package inroot

import (
	"errors"
	"io/fs"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLinks is how many symbolic links one name may lead through, as in the kernel.
const maxLinks = 40

// A Link is a symbolic link that the way to a file went through.
type Link struct {
	Path   string // where the link is: absolute, without links itself
	Target string // what it says
}

// Resolved says where a name leads to.
type Resolved struct {
	Path   string // absolute and clean, without symbolic links before its last component
	Links  []Link // the links that were followed, in this order
	Exists bool
	Stat   unix.Stat_t // if it exists
}

// Resolve follows name inside the root, one component after the other, and
// says where it leads to; a last component that is a symbolic link is followed
// only if follow is set. What does not exist is taken to be what its name
// says, as if it were made later: a link that dangles leads to what is to be
// made. The error wraps unix.ENOTDIR if something on the way is not a
// directory and unix.ELOOP if there are too many links.
//
// The answer is no more than a name. Whoever opens it has the other methods of
// Root do it, which stay inside whatever changed in the meantime.
func (r *Root) Resolve(name string, follow bool) (Resolved, error) {
	res := Resolved{Path: "/", Exists: true}
	var err error
	if res.Stat, err = r.Lstat("/"); err != nil {
		return res, err
	}
	rest := strings.Split(path.Clean("/"+name), "/")
	for len(rest) > 0 {
		part := rest[0]
		rest = rest[1:]
		if part == "" || part == "." {
			continue
		}
		if part == ".." { // only in links: name was cleaned
			if err := r.up(&res); err != nil {
				return res, err
			}
			continue
		}
		if err := r.down(&res, part); err != nil {
			return res, err
		}
		if !res.Exists || res.Stat.Mode&unix.S_IFMT != unix.S_IFLNK || len(rest) == 0 && !follow {
			continue
		}
		if len(res.Links) == maxLinks {
			return res, &fs.PathError{Op: "resolve", Path: name, Err: unix.ELOOP}
		}
		target, err := r.Readlink(res.Path)
		if err != nil {
			return res, err
		}
		res.Links = append(res.Links, Link{res.Path, target})
		rest = append(strings.Split(target, "/"), rest...)
		if strings.HasPrefix(target, "/") {
			res.Path = "/."
		}
		if err := r.up(&res); err != nil {
			return res, err
		}
	}
	return res, nil
}

// up moves to the directory that contains where res is.
func (r *Root) up(res *Resolved) error {
	res.Path = path.Dir(res.Path)
	return r.look(res)
}

// down moves to what part names in the directory where res is.
func (r *Root) down(res *Resolved, part string) error {
	if res.Exists && res.Stat.Mode&unix.S_IFMT != unix.S_IFDIR {
		return &fs.PathError{Op: "resolve", Path: path.Join(res.Path, part), Err: unix.ENOTDIR}
	}
	missing := !res.Exists
	res.Path = path.Join(res.Path, part)
	if missing {
		return nil
	}
	return r.look(res)
}

func (r *Root) look(res *Resolved) error {
	st, err := r.Lstat(res.Path)
	res.Stat, res.Exists = st, err == nil
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
